//! Mutants of every builder's lowered plans: each transfer and each wait dropped, duplicated, redirected, reordered.
//!
//! Whether a mutant matters is found out by [`oracle`], which knows nothing of the verifier: it runs the programs in
//! random schedules on memory that callers overwrite when they may. What it catches the verifier must refuse.

#[path = "plan_support/collectives.rs"]
mod collectives;
#[path = "plan_support/oracle.rs"]
mod oracle;

use sapwood::plan::dataflow::Symmetry;
use sapwood::plan::lowered::{Action, Buffer, Place, Program, Progress, Rank, Wait};
use sapwood::plan::verify::{Claim, verify_programs};
use sapwood::plan::{Collective, Reach, builders};

/// Runs of the oracle for a mutant that the verifier accepts, and for one that it refuses.
const RUNS_IF_ACCEPTED: u64 = 24;
const RUNS_IF_REFUSED: u64 = 8;

#[derive(Default)]
struct Count {
    mutants: u32,
    refused: u32,
    seen_harmful: u32,
    accepted: u32,
}

struct Hunt {
    claim: Claim,
    programs: Vec<Program>,
    name: String,
    count: Count,
}

impl Hunt {
    fn try_mutant(&mut self, what: &str, mutant: Vec<Program>) {
        if mutant == self.programs {
            return;
        }
        self.count.mutants += 1;
        let verdict = verify_programs(&self.claim, |rank| Ok(mutant[rank as usize].clone()));
        let runs = if verdict.is_ok() {
            RUNS_IF_ACCEPTED
        } else {
            RUNS_IF_REFUSED
        };
        let harm = (0..runs).find_map(|seed| oracle::run(&self.claim, &mutant, seed).err());
        self.count.seen_harmful += u32::from(harm.is_some());
        match (verdict, harm) {
            (Ok(_), Some(harm)) => {
                panic!(
                    "{}: {what} is accepted, but {harm}\n{}",
                    self.name,
                    oracle::show(&mutant)
                )
            }
            (Ok(_), None) => self.count.accepted += 1,
            (Err(_), _) => self.count.refused += 1,
        }
    }

    /// Makes one change; then lists who is to be notified anew, so that it is not the list that gives it away.
    fn change(&mut self, what: &str, rank: usize, task: usize, change: impl FnOnce(&mut Program, usize)) {
        let mut mutant = self.programs.clone();
        change(&mut mutant[rank], task);
        notify_waiters(&mut mutant);
        self.try_mutant(&format!("{what} (rank {rank}, task {task})"), mutant);
    }

    /// Changes the programs of the first ranks, in every so manieth task.
    fn hunt(&mut self, ranks: usize, step: usize) {
        for rank in 0..ranks.min(self.programs.len()) {
            for task in (0..self.programs[rank].tasks.len()).step_by(step) {
                self.change_waits(rank, task);
                self.change_transfer(rank, task);
                self.change_task(rank, task);
            }
        }
    }

    fn change_waits(&mut self, rank: usize, task: usize) {
        let ranks = self.programs.len() as u32;
        let waits = self.programs[rank].tasks[task].waits.clone();
        for (index, wait) in waits.iter().enumerate() {
            let at =
                |change: fn(&mut Wait)| move |p: &mut Program, t: usize| change(&mut p.tasks[t].waits[index]);
            self.change("dropping a wait", rank, task, |p, t| {
                p.tasks[t].waits.remove(index);
            });
            self.change("doubling a wait", rank, task, |p, t| p.tasks[t].waits.push(*wait));
            self.change("a wait for the next task", rank, task, at(|wait| wait.task += 1));
            self.change(
                "a wait for the task before",
                rank,
                task,
                at(|w| w.task = w.task.saturating_sub(1)),
            );
            self.change("a wait for another rank", rank, task, |p, t| {
                p.tasks[t].waits[index].rank = (wait.rank + 1) % ranks;
            });
            self.change(
                "a wait for the whole",
                rank,
                task,
                at(|wait| wait.progress = Progress::Whole),
            );
            if let Progress::Chunk { lag } = wait.progress {
                for by in [1, -1] {
                    self.change("a wait for another place in a run", rank, task, |p, t| {
                        p.tasks[t].waits[index].ahead += by;
                    });
                }
                for other in [lag + 1, lag.saturating_sub(1), 0] {
                    self.change("a wait with another lag", rank, task, |p, t| {
                        p.tasks[t].waits[index].progress = Progress::Chunk { lag: other };
                    });
                }
            } else {
                let early = Progress::Chunk { lag: 0 };
                self.change("a wait for a chunk", rank, task, |p, t| {
                    p.tasks[t].waits[index].progress = early
                });
            }
        }
        for peer in self.programs[rank].tasks[task].notify.clone() {
            let mut mutant = self.programs.clone();
            mutant[rank].tasks[task].notify.retain(|&other| other != peer);
            self.try_mutant(
                &format!("not notifying rank {peer} (rank {rank}, task {task})"),
                mutant,
            );
        }
    }

    fn change_transfer(&mut self, rank: usize, task: usize) {
        let ranks = self.programs.len() as u32;
        let (sources, into) = ends(&self.programs[rank].tasks[task].action);
        let others = |place: Place| {
            let rank = (place.rank + 1) % ranks;
            let buffer = match place.buffer {
                Buffer::Input => Buffer::Result,
                Buffer::Result => Buffer::Input,
                Buffer::Staging { first, slots } => Buffer::Staging {
                    first: first + slots,
                    slots,
                },
            };
            [
                Place { rank, ..place },
                Place { buffer, ..place },
                Place {
                    buffer: Buffer::Result,
                    ..place
                },
            ]
        };
        for index in 0..sources.len() {
            self.change("dropping a source", rank, task, |p, t| {
                with_sources(&mut p.tasks[t].action, |list| {
                    list.remove(index);
                });
            });
            self.change("doubling a source", rank, task, |p, t| {
                with_sources(&mut p.tasks[t].action, |list| list.push(list[index]));
            });
            for other in others(sources[index]) {
                self.change("another source", rank, task, |p, t| {
                    with_sources(&mut p.tasks[t].action, |list| list[index] = other);
                });
            }
        }
        for index in 0..into.len() {
            self.change("dropping a destination", rank, task, |p, t| {
                with_into(&mut p.tasks[t].action, |list| {
                    list.remove(index);
                });
            });
            for other in others(into[index]) {
                self.change("another destination", rank, task, |p, t| {
                    with_into(&mut p.tasks[t].action, |list| list[index] = other);
                });
                self.change("one more destination", rank, task, |p, t| {
                    with_into(&mut p.tasks[t].action, |list| list.push(other));
                });
            }
        }
        self.change("a wrong mark of completeness", rank, task, |p, t| {
            if let Action::Reduce { complete, .. } = &mut p.tasks[t].action {
                *complete = !*complete;
            }
        });
    }

    fn change_task(&mut self, rank: usize, task: usize) {
        let blocks = self.claim.blocks;
        self.change("another block", rank, task, |p, t| {
            p.tasks[t].block = (p.tasks[t].block + 1) % blocks
        });
        if self.programs[rank].tasks[task].run.is_long() {
            self.change("one block more", rank, task, |p, t| p.tasks[t].run.blocks += 1);
            self.change("one block less", rank, task, |p, t| p.tasks[t].run.blocks -= 1);
            self.change("blocks in the other order", rank, task, |p, t| {
                p.tasks[t].run.backwards = !p.tasks[t].run.backwards
            });
        }
        self.change("a task without its action", rank, task, |p, t| {
            p.tasks[t].action = Action::Signal
        });
        self.change("a task done twice", rank, task, |p, t| {
            let mut copy = p.tasks[t].clone();
            copy.notify.clear();
            p.tasks.push(copy);
        });
        self.change("a task left out", rank, task, |p, t| {
            p.tasks[t].action = Action::Signal;
            p.tasks[t].waits.clear();
        });
        // The order of two transfers turned round: what they do changes places, waits and numbers stay.
        for other in task + 1..self.programs[rank].tasks.len() {
            self.change("two tasks in each other's place", rank, task, |p, t| {
                p.tasks.swap(t, other)
            });
            self.change("two actions in each other's place", rank, task, |p, t| {
                let action = p.tasks[t].action.clone();
                p.tasks[t].action = std::mem::replace(&mut p.tasks[other].action, action);
            });
            self.change("two lists of waits in each other's place", rank, task, |p, t| {
                let waits = p.tasks[t].waits.clone();
                p.tasks[t].waits = std::mem::replace(&mut p.tasks[other].waits, waits);
            });
        }
    }
}

fn ends(action: &Action) -> (Vec<Place>, Vec<Place>) {
    match action {
        Action::Signal => (Vec::new(), Vec::new()),
        Action::Reduce { sources, into, .. } => (sources.clone(), into.clone()),
        Action::Copy { source, into } => (vec![*source], into.clone()),
    }
}

fn with_sources(action: &mut Action, change: impl FnOnce(&mut Vec<Place>)) {
    match action {
        Action::Signal => {}
        Action::Reduce { sources, .. } => change(sources),
        Action::Copy { source, .. } => {
            let mut list = vec![*source];
            change(&mut list);
            // A copy has exactly one source.
            if let [only] = list[..] {
                *source = only;
            }
        }
    }
}

fn with_into(action: &mut Action, change: impl FnOnce(&mut Vec<Place>)) {
    match action {
        Action::Signal => {}
        Action::Reduce { into, .. } | Action::Copy { into, .. } => change(into),
    }
}

fn notify_waiters(programs: &mut [Program]) {
    let waits: Vec<(Rank, Wait)> = programs
        .iter()
        .flat_map(|program| {
            program
                .tasks
                .iter()
                .flat_map(|task| &task.waits)
                .map(|wait| (program.rank, *wait))
        })
        .collect();
    for task in programs.iter_mut().flat_map(|program| &mut program.tasks) {
        task.notify.clear();
    }
    for (waiter, wait) in waits {
        let target = programs
            .get_mut(wait.rank as usize)
            .and_then(|p| p.tasks.get_mut(wait.task as usize));
        if let Some(target) = target.filter(|_| wait.rank != waiter) {
            target.notify.push(waiter);
        }
    }
    for task in programs.iter_mut().flat_map(|program| &mut program.tasks) {
        task.notify.sort_unstable();
        task.notify.dedup();
    }
}

/// Hunts among the collectives that the builder has. With parts there are so many tasks that few ranks must do.
fn hunt(name: &str, sizes: &[u32]) {
    for reach in [Reach::Load, Reach::LoadStore, Reach::Message { slots: 2 }] {
        let mut total = Count::default();
        for &ranks in sizes {
            for collective in collectives::all(1 % ranks) {
                let found = builders::find(name).unwrap();
                let most = if name.starts_with("ring") || name == "direct" {
                    3
                } else {
                    4
                };
                let too_many = collective.has_parts() && ranks > most;
                if too_many || !(found.builder().supports)(collective) {
                    continue;
                }
                let plan = found.build(collective, ranks).unwrap();
                // A mutant has no symmetry left.
                let claim = Claim {
                    symmetry: Symmetry::None,
                    ..Claim::of(&plan, reach)
                };
                let programs: Vec<Program> = (0..ranks).map(|r| plan.lower(r, reach).unwrap()).collect();
                let what = format!("{name}, {collective:?}, {ranks} ranks, {reach:?}");
                for seed in 0..40 {
                    oracle::run(&claim, &programs, seed)
                        .unwrap_or_else(|harm| panic!("{what}: unchanged, but {harm}"));
                }
                let mut hunt = Hunt {
                    claim,
                    programs,
                    name: what,
                    count: Count::default(),
                };
                // From eight ranks on runs of blocks go through slots; there all ranks are alike.
                match name == "halving-doubling" && ranks > 4 {
                    true => hunt.hunt(1, 3),
                    false => hunt.hunt(usize::MAX, 1),
                }
                total.mutants += hunt.count.mutants;
                total.refused += hunt.count.refused;
                total.seen_harmful += hunt.count.seen_harmful;
                total.accepted += hunt.count.accepted;
            }
        }
        let Count {
            mutants,
            refused,
            seen_harmful,
            accepted,
        } = total;
        println!(
            "{name:20} {:10} {mutants:6} mutants: {refused:6} refused ({seen_harmful:6} seen to do harm), \
             {accepted:5} accepted, none of them seen to do harm",
            reach.name()
        );
        // In a barrier many a wait is implied by others.
        let share = if name == "dissemination" { 5 } else { 2 };
        assert!(
            seen_harmful * share > mutants,
            "the oracle sees too little harm to be believed"
        );
        assert!(refused >= seen_harmful);
    }
}

#[test]
fn binomial_tree() {
    hunt("binomial-tree", &[1, 2, 3, 4, 6]);
}

#[test]
fn k_ary_tree() {
    hunt("k-ary-tree:2", &[1, 2, 3, 5]);
    hunt("k-ary-tree:3", &[5]);
}

#[test]
fn double_binary_tree() {
    hunt("double-binary-tree", &[2, 3, 4, 5]);
}

#[test]
fn ring() {
    hunt("ring", &[2, 3, 4]);
}

#[test]
fn direct() {
    hunt("direct", &[2, 3, 4]);
}

#[test]
fn rings() {
    hunt("ring:2", &[3]);
}

#[test]
fn halving_doubling() {
    hunt("halving-doubling", &[3, 4]);
}

#[test]
fn halving_doubling_in_runs() {
    hunt("halving-doubling", &[8]);
}

#[test]
fn k_nomial() {
    hunt("k-nomial:3", &[2, 4, 5]);
}

#[test]
fn pairwise() {
    hunt("pairwise", &[1, 2, 4]);
}

#[test]
fn dissemination() {
    hunt("dissemination", &[2, 3, 5, 6]);
}

#[test]
fn parameter_server() {
    hunt("parameter-server", &[2, 4]);
}

#[test]
fn hierarchical() {
    hunt("hierarchical:2", &[3, 4, 5]);
    hunt("hierarchical:0,1,0,1,1", &[5]);
    hunt("hierarchical:8", &[3]);
}

/// `program` is rank 0's; the same for rank `by`.
fn turned(program: &Program, by: Rank) -> Program {
    let mut program = program.clone();
    let (ranks, cut) = (program.ranks, program.cut().unwrap());
    program.rank = by;
    for task in &mut program.tasks {
        task.block = cut.turned(task.block, by).unwrap();
        let places: Vec<&mut Place> = match &mut task.action {
            Action::Signal => Vec::new(),
            Action::Reduce { sources, into, .. } => sources.iter_mut().chain(into).collect(),
            Action::Copy { source, into } => std::iter::once(source).chain(into).collect(),
        };
        places
            .into_iter()
            .for_each(|place| place.rank = (place.rank + by) % ranks);
        task.waits
            .iter_mut()
            .for_each(|wait| wait.rank = (wait.rank + by) % ranks);
        task.notify.clear();
    }
    program
}

/// A change made at all ranks alike keeps the symmetry: the proof of one block refuses what the proof in full refuses.
#[test]
fn symmetric_mutants_get_the_same_verdict_either_way() {
    let (mut mutants, mut refused) = (0, 0);
    let mut judge = |what: String, claim: Claim, first: &Program| {
        let mut programs: Vec<Program> = (0..claim.ranks).map(|rank| turned(first, rank)).collect();
        notify_waiters(&mut programs);
        let verdict = |symmetry| {
            verify_programs(&Claim { symmetry, ..claim }, |rank| {
                Ok(programs[rank as usize].clone())
            })
        };
        let (one, full) = (verdict(Symmetry::Rotation), verdict(Symmetry::None));
        mutants += 1;
        refused += u32::from(full.is_err());
        assert_eq!(
            one.is_ok(),
            full.is_ok(),
            "{what}: {one:?} by symmetry, {full:?} in full"
        );
    };
    for (name, collective) in [
        ("ring", Collective::AllReduce),
        ("ring:2", Collective::ReduceScatter),
        ("direct", Collective::AllReduce),
        ("direct", Collective::AllGather),
        ("direct", Collective::AllToAll),
        ("direct", Collective::Barrier),
        ("halving-doubling", Collective::AllReduce),
        ("halving-doubling", Collective::ReduceScatter),
        ("pairwise", Collective::AllToAll),
        ("dissemination", Collective::Barrier),
    ] {
        for reach in [Reach::Load, Reach::LoadStore, Reach::Message { slots: 2 }] {
            for ranks in 2..=5 {
                let plan = builders::build(name, collective, ranks).unwrap();
                let claim = Claim {
                    symmetry: Symmetry::None,
                    ..Claim::of(&plan, reach)
                };
                let first = plan.lower(0, reach).unwrap();
                judge(format!("{name} as it is"), claim, &first);
                for task in 0..first.tasks.len() {
                    for wait in 0..first.tasks[task].waits.len() {
                        let what = format!("{name}, {ranks} ranks, {reach:?}, task {task}, wait {wait}");
                        let mut mutant = first.clone();
                        mutant.tasks[task].waits.remove(wait);
                        judge(format!("{what} dropped"), claim, &mutant);
                        let mut mutant = first.clone();
                        mutant.tasks[task].waits[wait].rank =
                            (first.tasks[task].waits[wait].rank + 1) % ranks;
                        judge(format!("{what} redirected"), claim, &mutant);
                        let mut mutant = first.clone();
                        mutant.tasks[task].waits[wait].progress = Progress::Whole;
                        judge(format!("{what} for the whole"), claim, &mutant);
                    }
                    let (sources, _) = ends(&first.tasks[task].action);
                    for source in 0..sources.len() {
                        let what = format!("{name}, {ranks} ranks, {reach:?}, task {task}, source {source}");
                        let mut mutant = first.clone();
                        with_sources(&mut mutant.tasks[task].action, |list| {
                            list[source].rank = (list[source].rank + 1) % ranks;
                        });
                        judge(format!("{what} redirected"), claim, &mutant);
                        let mut mutant = first.clone();
                        with_sources(&mut mutant.tasks[task].action, |list| list.push(list[source]));
                        judge(format!("{what} doubled"), claim, &mutant);
                    }
                }
            }
        }
    }
    println!("{mutants} symmetric mutants, {refused} refused, the same ones either way");
    assert!(refused * 3 > mutants);
}
