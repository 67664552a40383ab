//! Lowering where ranks write into each other's memory with messages: the owner of a value pushes it, contributions
//! into staging slots of the reducing rank (given back as credits by its progress), results straight into results. What
//! a rank only passes on goes from its slots as it came.
//!
//! Nobody's memory is written before it has begun: a rank's first task says so to those who push to it. In an
//! all-reduce the pusher of a final value knows it already, since that value holds the receiver's contribution.

use super::{
    BEGIN, Blocks, Consumers, ahead, chunk, input, others, ranks_of, result, staged, staging, step_task,
    whole,
};
use crate::plan::dataflow::{Collective, Consumer, Own, Plan, Step, Value};
use crate::plan::lowered::{Action, Buffer, Place, Rank, Task, Wait, places};
use crate::plan::run::Run;

/// The tasks of `rank` and how many staging slots they use.
pub(super) fn tasks(plan: &Plan, rank: Rank, slots: u32) -> (Vec<Task>, u32) {
    let steps = plan.rule().steps(rank);
    let landing = |step: &Step| match step.lands() {
        true => {
            step.sources()
                .iter()
                .filter(|source| source.rank() != rank)
                .count() as u32
                * step.run().landings()
        }
        false => 0,
    };
    let landings = steps.iter().map(landing).sum();
    let lowering = Lowering {
        plan,
        rank,
        slots,
        steps,
        landings,
    };
    lowering.tasks()
}

struct Lowering<'a> {
    plan: &'a Plan,
    rank: Rank,
    slots: u32,
    steps: Vec<Step>,
    /// How many values are sent to this rank's staging.
    landings: u32,
}

impl Lowering<'_> {
    fn tasks(&self) -> (Vec<Task>, u32) {
        let consumers = Consumers::of(self.plan, self.rank, self.steps.len());
        let mut tasks = vec![self.begin()];
        for (index, step) in (0..).zip(&self.steps) {
            tasks.push(match step {
                Step::Reduce { .. } => self.reduce(index, step),
                Step::Copy { .. } | Step::Signal { .. } => {
                    self.receive(index, step, &consumers.steps[index as usize])
                }
            });
        }
        for entry in self.plan.rule().uses(self.rank) {
            if !self.relays(entry.value) {
                tasks.push(self.push((entry.block, entry.run), entry.value, &entry.by));
            }
        }
        // Nobody sends to a slot of this rank that no task of its own reads.
        let own = |task: &Task| {
            let places = places(&task.action).filter(|place| place.rank == self.rank);
            places.map(slots_end).max().unwrap_or(0)
        };
        let staging_slots = tasks.iter().map(own).max().unwrap_or(0);
        (tasks, staging_slots)
    }

    /// A copy step hands its value on itself.
    fn relays(&self, value: Own) -> bool {
        matches!(value, Own::Step(step) if matches!(self.steps[step as usize], Step::Copy { .. }))
    }

    /// Whether whoever pushes a final value must be told that this rank has begun.
    fn results_need_begin(&self) -> bool {
        self.plan.collective() != Collective::AllReduce
    }

    fn begin(&self) -> Task {
        let pushers = self.steps.iter().flat_map(|step| {
            let told = step.lands() || self.results_need_begin();
            step.sources()
                .iter()
                .filter(move |_| told)
                .map(|source| source.rank())
        });
        Task {
            block: 0,
            run: Run::ONE,
            waits: Vec::new(),
            action: Action::Signal,
            notify: others(self.rank, pushers),
        }
    }

    /// The task of the owner that pushes `value` to this rank.
    fn arrival(&self, value: Value, block: u32) -> (Rank, u32) {
        let (owner, own) = match value {
            Value::Input(owner) => (owner, Own::Input),
            Value::Step { rank, step } => (rank, Own::Step(step)),
        };
        (owner, step_task(self.plan.rule().sender(owner, own, block)))
    }

    /// The task of this rank that pushes the value of its step.
    fn own_push(&self, step: u32) -> u32 {
        let block = self.steps[step as usize].block();
        step_task(self.plan.rule().sender(self.rank, Own::Step(step), block))
    }

    fn place(&self, value: Own) -> Place {
        match value {
            Own::Input => input(self.rank),
            Own::Step(step) if staged(self.plan, self.rank, &self.steps[step as usize]) => {
                // Behind the slots of all contributions.
                staging(self.rank, self.landings + step, self.slots)
            }
            Own::Step(_) => result(self.rank),
        }
    }

    fn reduce(&self, index: u32, step: &Step) -> Task {
        let Step::Reduce {
            block,
            run,
            sources,
            complete,
            ..
        } = step
        else {
            unreachable!("only for reductions")
        };
        let mut waits = Vec::with_capacity(sources.len());
        let mut places = Vec::with_capacity(sources.len());
        for &source in sources {
            match source {
                Value::Input(rank) if rank == self.rank => places.push(input(rank)),
                Value::Step { rank, step } if rank == self.rank => {
                    waits.push(chunk(rank, step_task(step), 0));
                    places.push(self.place(Own::Step(step)));
                }
                _ => {
                    let (owner, task) = self.arrival(source, *block);
                    waits.push(chunk(owner, task, 0));
                    let landing = self.plan.rule().landing(self.rank, index, owner);
                    places.push(self.landing(self.rank, landing, *run));
                }
            }
        }
        if staged(self.plan, self.rank, step) {
            waits.push(chunk(self.rank, self.own_push(index), self.slots));
        }
        let action = Action::Reduce {
            sources: places,
            into: vec![self.place(Own::Step(index))],
            complete: *complete,
        };
        // Those who contribute wait for the slots.
        let notify = others(self.rank, sources.iter().map(|source| source.rank()));
        Task {
            block: *block,
            run: *run,
            waits,
            action,
            notify,
        }
    }

    /// A value comes into the result, or into slots if it stays only for a while; it is passed on chunk by chunk, or
    /// just waited for.
    fn receive(&self, index: u32, step: &Step, consumers: &[Consumer]) -> Task {
        let (block, run) = (step.block(), step.run());
        let sources = step.sources();
        let task = |waits, action| Task {
            block,
            run,
            waits,
            action,
            notify: Vec::new(),
        };
        if sources[0].rank() == self.rank {
            let action = Action::Copy {
                source: input(self.rank),
                into: vec![result(self.rank)],
            };
            return task(Vec::new(), action);
        }
        if consumers.is_empty() {
            let arrivals = sources.iter().map(|source| self.arrival(*source, block));
            let waits = arrivals.map(|(owner, task)| whole(owner, task));
            return Task {
                run: Run::ONE,
                ..task(waits.collect(), Action::Signal)
            };
        }
        let arrived = sources.iter().map(|source| {
            let (owner, task) = self.arrival(*source, block);
            Wait {
                ahead: self.ahead((block, run), *source),
                ..chunk(owner, task, 0)
            }
        });
        let arrived = arrived.collect();
        if !step.lands() {
            return self.send((block, run), arrived, result(self.rank), consumers);
        }
        let owner = sources[0].rank();
        let landing = self.plan.rule().landing(self.rank, index, owner);
        let mut task = self.send(
            (block, run),
            arrived,
            self.landing(self.rank, landing, run),
            consumers,
        );
        // The sender waits for the slots.
        task.notify = others(self.rank, task.notify.iter().copied().chain([owner]));
        task
    }

    fn ahead(&self, blocks: Blocks, source: Value) -> i32 {
        match source {
            // What is pushed of an input is just what is needed of it.
            Value::Input(_) => 0,
            Value::Step { rank, step } => ahead(self.plan, self.rank, &self.steps, blocks, (rank, step)),
        }
    }

    /// Slots for what is sent to a rank's staging: for a long run more, since so much would come at a time if each block
    /// came by itself.
    fn landing(&self, rank: Rank, number: u32, run: Run) -> Place {
        let buffer = Buffer::Staging {
            first: number * self.slots,
            slots: self.lag(run),
        };
        Place { rank, buffer }
    }

    fn lag(&self, run: Run) -> u32 {
        self.slots * run.landings()
    }

    fn push(&self, blocks: Blocks, value: Own, consumers: &[Consumer]) -> Task {
        let made = match value {
            Own::Input => Vec::new(),
            Own::Step(step) => vec![Wait {
                ahead: self.ahead(blocks, value.of(self.rank)),
                ..chunk(self.rank, step_task(step), 0)
            }],
        };
        self.send(blocks, made, self.place(value), consumers)
    }

    fn send(
        &self,
        (block, run): Blocks,
        mut waits: Vec<Wait>,
        source: Place,
        consumers: &[Consumer],
    ) -> Task {
        let mut into = Vec::with_capacity(consumers.len());
        for consumer in consumers {
            match consumer.landing {
                Some(landing) => {
                    waits.push(whole(consumer.rank, BEGIN));
                    waits.push(chunk(consumer.rank, step_task(consumer.step), self.lag(run)));
                    into.push(self.landing(consumer.rank, landing, run));
                }
                // Several steps of a rank may each need some blocks of a long run.
                None if into.contains(&result(consumer.rank)) => {}
                None => {
                    if self.results_need_begin() {
                        waits.push(whole(consumer.rank, BEGIN));
                    }
                    into.push(result(consumer.rank));
                }
            }
            let before = self.plan.rule().after(consumer.rank, consumer.step);
            waits.extend(before.map(|before| whole(self.rank, step_task(before))));
        }
        let notify = others(self.rank, ranks_of(consumers));
        Task {
            block,
            run,
            waits,
            action: Action::Copy { source, into },
            notify,
        }
    }
}

/// The end of the staging slots that a place is, if it is any.
fn slots_end(place: &Place) -> u32 {
    match place.buffer {
        Buffer::Staging { first, slots } => first + slots,
        Buffer::Input | Buffer::Result => 0,
    }
}
