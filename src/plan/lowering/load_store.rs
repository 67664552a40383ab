//! Lowering where ranks read each other's memory: every value is pulled from where it was made.
//!
//! Nobody may end while others read its memory. In an all-reduce a rank whose contribution was pulled knows so from the
//! final value; readers of final values, of a broadcast and of partial sums that only a root completes are waited for
//! by a signal at the end.
//!
//! Where ranks may also write each other's memory and a plan has one round
//! ([`in_one_round`](crate::plan::dataflow::Rule::in_one_round)), who combines a block stores it into all results. Every
//! element is then read once and written once for each rank, and what was a copy is a wait.

use super::{
    BEGIN, Blocks, Consumers, ahead, chunk, input, others, partial_in_result, pulled_slots, ranks_of, result,
    staged, staging, step_task, whole,
};
use crate::plan::dataflow::{Collective, Consumer, Plan, Step, Value};
use crate::plan::lowered::{Action, Place, Rank, Task, Wait};
use crate::plan::run::Run;

/// The tasks of `rank` and how many staging slots they use. With `stored`, who combines a value stores it everywhere.
pub(super) fn tasks(plan: &Plan, rank: Rank, stored: bool) -> (Vec<Task>, u32) {
    let steps = plan.rule().steps(rank);
    let slots = pulled_slots(plan);
    let consumers = Consumers::of(plan, rank, steps.len());
    let mut tasks = Vec::with_capacity(steps.len() + 2);
    let signal = |block, waits, notify| Task {
        block,
        run: Run::ONE,
        waits,
        action: Action::Signal,
        notify,
    };
    tasks.push(signal(0, Vec::new(), others(rank, ranks_of(&consumers.input))));

    let mut staging_slots = 0;
    for (index, step) in steps.iter().enumerate() {
        let mine = &consumers.steps[index];
        if let (true, Step::Copy { block, sources, .. }) = (stored, step)
            && let [Value::Step { rank: by, step }] = sources[..]
        {
            tasks.push(signal(*block, vec![whole(by, step_task(step))], Vec::new()));
            continue;
        }
        let mut waits = Vec::with_capacity(step.sources().len());
        for source in step.sources() {
            waits.extend(ready(plan, rank, &steps, (step.block(), step.run()), *source));
        }
        let mut into = vec![result(rank)];
        if stored {
            into.extend(mine.iter().map(|reader| result(reader.rank)));
        }
        if let Some(before) = plan.rule().after(rank, index as u32) {
            waits.push(whole(rank, step_task(before)));
        }
        if staged(plan, rank, step) {
            into = vec![staging(rank, index as u32, slots)];
            staging_slots = (index as u32 + 1) * slots;
            let readers = mine.iter();
            waits.extend(readers.map(|reader| chunk(reader.rank, step_task(reader.step), slots)));
        }
        let places = step
            .sources()
            .iter()
            .map(|source| place(plan, slots, step.block(), *source));
        let action = match step {
            Step::Reduce { complete, .. } => Action::Reduce {
                sources: places.collect(),
                into,
                complete: *complete,
            },
            Step::Copy { sources, .. } => Action::Copy {
                source: place(plan, slots, step.block(), sources[0]),
                into,
            },
            Step::Signal { .. } => Action::Signal,
        };
        // Those whose memory this task reads wait for it, if they wait for their readers; so do those who reuse a slot.
        let reads_partials = matches!(step, Step::Reduce { .. });
        let owners = step.sources().iter().map(|source| source.rank());
        let owners = owners.filter(|_| waits_for_reader(plan, reads_partials));
        let notify = others(rank, ranks_of(mine).chain(owners));
        tasks.push(Task {
            block: step.block(),
            run: step.run(),
            waits,
            action,
            notify,
        });
    }

    let readers: Vec<Wait> = (consumers.steps.iter().flatten().chain(&consumers.input))
        .filter(|reader| !stored && waits_for_reader(plan, reduces(reader)))
        .map(|reader| whole(reader.rank, step_task(reader.step)))
        .collect();
    if !readers.is_empty() {
        tasks.push(signal(0, readers, Vec::new()));
    }
    (tasks, staging_slots)
}

/// Reductions number their contributions, copies do not.
fn reduces(reader: &Consumer) -> bool {
    reader.landing.is_some()
}

fn waits_for_reader(plan: &Plan, reduces: bool) -> bool {
    !(reduces && plan.collective() == Collective::AllReduce)
}

/// What to wait for before a value can be read.
fn ready(plan: &Plan, rank: Rank, steps: &[Step], blocks: Blocks, value: Value) -> Option<Wait> {
    match value {
        Value::Input(peer) => (peer != rank).then(|| whole(peer, BEGIN)),
        Value::Step { rank: peer, step } => Some(Wait {
            ahead: ahead(plan, rank, steps, blocks, (peer, step)),
            ..chunk(peer, step_task(step), 0)
        }),
    }
}

/// Where a value lies. A step's value is in the result of its rank unless the collective leaves that result alone.
fn place(plan: &Plan, slots: u32, block: u32, value: Value) -> Place {
    match value {
        Value::Input(peer) => input(peer),
        Value::Step { rank, .. } if partial_in_result(plan, rank, block) => result(rank),
        Value::Step { rank, step } => staging(rank, step, slots),
    }
}
