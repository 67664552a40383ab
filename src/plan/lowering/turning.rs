//! Plans that are the same for all ranks: rank 0's part is lowered, and every other rank's is that one turned. So such a
//! plan has its symmetry by construction, and what is proved of rank 0's part is proved of all.

use crate::plan::dataflow::{Plan, Step};
use crate::plan::lowered::{Action, Place, Program, Rank, Task, Wait};

/// The part of `rank`, from rank 0's.
pub(super) fn turned(plan: &Plan, mut program: Program, rank: Rank) -> Program {
    if rank == 0 {
        return program;
    }
    program.rank = rank;
    let steps = plan.rule().steps(0);
    for (number, task) in program.tasks.iter_mut().enumerate() {
        let step = number.checked_sub(super::step_task(0) as usize);
        let step = step.and_then(|step| steps.get(step));
        turn(plan, step, task, rank);
    }
    program
}

/// Turns a task, which may be a step's.
fn turn(plan: &Plan, step: Option<&Step>, task: &mut Task, by: Rank) {
    let (cut, ranks) = (plan.cut(), plan.ranks());
    // A step's task belongs to the step's block even where it only waits; other signals belong to none.
    let in_block = match step {
        Some(step) => !matches!(step, Step::Signal { .. }),
        None => !matches!(task.action, Action::Signal),
    };
    if in_block {
        // A plan that can be turned has a cut that can.
        task.block = cut.turned(task.block, by).unwrap_or(task.block);
    }
    for Wait { rank, .. } in &mut task.waits {
        *rank = moved(*rank, by, ranks);
    }
    turn_action(&mut task.action, by, ranks);
    if let (Some(step), true) = (step, plan.rule().in_rank_order()) {
        put_in_rank_order(step, task, by, ranks);
    }
    for rank in &mut task.notify {
        *rank = moved(*rank, by, ranks);
    }
    // It was ascending, and still is up to where it passes the last rank.
    let wrapped = task.notify.partition_point(|rank| *rank >= by);
    task.notify.rotate_left(wrapped);
}

/// The rank that is `by` further.
pub(in crate::plan) fn moved(rank: Rank, by: Rank, ranks: u32) -> Rank {
    (rank + by) % ranks
}

/// Every place of an action, `by` ranks further.
pub(in crate::plan) fn turn_action(action: &mut Action, by: Rank, ranks: u32) {
    let turn = |places: &mut [Place]| {
        for Place { rank, .. } in places {
            *rank = moved(*rank, by, ranks);
        }
    };
    match action {
        Action::Signal => {}
        Action::Reduce { sources, into, .. } => {
            turn(sources);
            turn(into);
        }
        Action::Copy { source, into } => {
            turn(std::slice::from_mut(source));
            turn(into);
        }
    }
}

/// Sums are in the order of the ranks that contribute, which turning has changed. A reduction has one place for each source
/// of its step.
fn put_in_rank_order(step: &Step, task: &mut Task, by: Rank, ranks: u32) {
    if let Action::Reduce { sources, .. } = &mut task.action {
        let contributor = |index: usize| moved(step.sources()[index].rank(), by, ranks);
        let mut order: Vec<usize> = (0..sources.len()).collect();
        order.sort_by_key(|index| contributor(*index));
        *sources = order.into_iter().map(|index| sources[index]).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::dataflow::Symmetry;
    use crate::plan::verify::tests::{REACHES, collectives};
    use crate::plan::{MAX_RANKS, builders};

    fn ordered(mut program: Program) -> Program {
        for task in &mut program.tasks {
            task.waits
                .sort_by_key(|wait| (wait.rank, wait.task, format!("{:?}", wait.progress)));
        }
        program
    }

    /// What turning gives is what the rule says of that rank, the order of sums included.
    #[test]
    fn a_turned_part_is_what_the_rule_says() {
        let mut compared = 0;
        for builder in builders::ALL {
            for ranks in (2..=17).chain([31, 32, 33]) {
                for collective in collectives(ranks) {
                    let Ok(plan) = builders::build(builder.name, collective, ranks) else {
                        continue;
                    };
                    if plan.symmetry() != Symmetry::Rotation {
                        continue;
                    }
                    for reach in REACHES {
                        for rank in 0..ranks {
                            let turned = plan.lower(rank, reach).unwrap();
                            let said = plan.listed(rank, reach);
                            assert_eq!(
                                ordered(turned),
                                ordered(said),
                                "{} {collective:?} {ranks} {reach:?}",
                                builder.name
                            );
                            compared += 1;
                        }
                    }
                }
            }
        }
        assert!(compared > 10_000, "{compared}");
    }

    #[test]
    fn a_part_among_the_most_ranks_is_turned_without_overflow() {
        let plan = builders::build("dissemination", crate::plan::Collective::Barrier, MAX_RANKS).unwrap();
        let last = plan.lower(MAX_RANKS - 1, crate::plan::Reach::LoadStore).unwrap();
        let ranks = last.tasks.iter().flat_map(|task| &task.notify);
        assert!(ranks.into_iter().all(|rank| *rank < MAX_RANKS));
    }
}
