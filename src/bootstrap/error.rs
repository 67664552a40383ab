//! What can go wrong before and between the ranks' work, said so that a person can mend it.

use std::time::Duration;

use rustix::io::Errno;

use super::{DepartureKind, Rank};

/// A failure to read the job's description, to join it, or to exchange something with its ranks.
///
/// After an error from [`super::Membership::all_gather`] the membership is broken for good and repeats that error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BootstrapError {
    /// An environment variable holds something that cannot be used.
    #[error("{variable}={value:?}: {expected}")]
    Environment {
        /// The variable's name.
        variable: &'static str,
        /// What it holds.
        value: String,
        /// What is wrong with it and what would be right.
        expected: String,
    },
    /// Some of the job's environment variables are set and one that they need is not.
    #[error("{present} is set but {missing} is not: a job needs both ({hint})")]
    EnvironmentIncomplete {
        /// A variable that is set.
        present: &'static str,
        /// The variable that is missing.
        missing: &'static str,
        /// What the missing variable should hold.
        hint: &'static str,
    },
    /// The environment says two things that cannot both be true.
    #[error("{0}")]
    EnvironmentContradiction(String),
    /// The launcher's process manager, through which the ranks tell each other where to meet, refuses or is gone.
    #[error("the process manager ({manager}): {problem}")]
    ProcessManager {
        /// How it is reached: `PMI_FD=6`.
        manager: String,
        /// What it was asked for, what it said, and what mends it.
        problem: String,
    },
    /// A job that cannot exist.
    #[error("{0}")]
    InvalidJob(String),
    /// The job's secret cannot be read or is too weak.
    #[error("job secret {place}: {problem}")]
    Secret {
        /// Where the secret was looked for.
        place: String,
        /// What is wrong with it and what mends it.
        problem: String,
    },
    /// Ranks had not come when the deadline passed.
    #[error("{} of {size} did not {} within {} s{}", ranks_phrase(.ranks), arrival(.step), seconds(.waited), advice(.step))]
    Missing {
        /// The ranks that were waited for, ascending.
        ranks: Vec<Rank>,
        /// Ranks in the job.
        size: u32,
        /// What they were waited for in; empty for the join.
        step: String,
        /// How long was waited.
        waited: Duration,
    },
    /// Every rank came, but rank 0 had not passed everything on when the deadline passed.
    #[error("all {size} ranks came to {step:?}, but rank 0 had not finished it within {} s", seconds(.waited))]
    Unfinished {
        /// Ranks in the job.
        size: u32,
        /// What was being exchanged.
        step: String,
        /// How long was waited.
        waited: Duration,
    },
    /// Over the network rank 0 answers who is missing; here it did not answer either.
    #[error(
        "{step:?} was not finished within {} s, and rank 0 does not answer who is missing: is its process stopped, or \
         its host out of reach?", seconds(.waited)
    )]
    Unanswered {
        /// What was being exchanged.
        step: String,
        /// How long was waited.
        waited: Duration,
    },
    /// A rank that is needed is gone.
    #[error("rank {rank} {how} {}", during(.step))]
    Departed {
        /// The rank that is gone.
        rank: Rank,
        /// How it went.
        how: DepartureKind,
        /// What it was needed for; empty for the join.
        step: String,
    },
    /// A rank cannot go on, for a reason of its own that it has told.
    #[error("rank {rank} cannot go on with {step:?}: {why}")]
    GaveUp {
        /// Who cannot.
        rank: Rank,
        /// With what.
        step: String,
        /// Why.
        why: String,
    },
    /// Two ranks are not at the same collective step: the program issues them in different orders.
    #[error(
        "rank {rank} is at {step:?} (step {sequence}) while rank {other_rank} is at {other_step:?} (step \
         {other_sequence}): every rank must issue the same collective steps in the same order"
    )]
    Mismatch {
        /// A rank.
        rank: Rank,
        /// The step it is at.
        step: String,
        /// That step's number, from 1.
        sequence: u64,
        /// Another rank.
        other_rank: Rank,
        /// The step that the other is at.
        other_step: String,
        /// That step's number.
        other_sequence: u64,
    },
    /// A rank that was started anew found nobody who lets it in.
    #[error(
        "rank {rank} was started anew (attempt {attempt}) and let in by nobody within {} s: {said}. A rank can come back \
         to backup workers of one host that have training state to catch up with (`Exchange::builder(..).backups(..)\
         .state(..)`), while some of them are at work, in a job whose ranks all have SAPWOOD_RETURNS=1, as \
         `sapwood run --on-death restart` sets it", seconds(.waited)
    )]
    NotLetIn {
        /// This rank.
        rank: Rank,
        /// How often it was started anew.
        attempt: u32,
        /// How long it tried.
        waited: Duration,
        /// What became of it at the others' doors.
        said: String,
    },
    /// This rank came back after a death: the others are past what needs all ranks from the first.
    #[error(
        "{step:?}: rank {rank} has come back after a death, and the others are past what needs all ranks: only backup \
         workers can be taken up again (the program can ask `has_returned`, and leave this out)"
    )]
    Returned {
        /// This rank.
        rank: Rank,
        /// What was asked for.
        step: String,
    },
    /// Rank 0 knows the secret but does not take this rank in.
    #[error("rank 0 refuses rank {rank}: {reason}")]
    Refused {
        /// This rank.
        rank: Rank,
        /// Rank 0's reason.
        reason: String,
    },
    /// The other side did not prove that it knows the job's secret.
    #[error(
        "rendezvous {rendezvous}: {problem}; either its job secret differs from this rank's, or it is not the \
         rendezvous of a Sapwood job (check that SAPWOOD_SECRET_FILE and SAPWOOD_RENDEZVOUS are the same for all ranks)"
    )]
    NotAuthenticated {
        /// Where the connection went.
        rendezvous: String,
        /// What was seen.
        problem: String,
    },
    /// Somebody else's process holds the rendezvous.
    #[error(
        "rendezvous {rendezvous} is held by user {found}, not by user {expected} who runs this job: choose another name"
    )]
    ForeignUser {
        /// Where the connection went.
        rendezvous: String,
        /// The user who runs this rank.
        expected: u32,
        /// The user at the other end.
        found: u32,
    },
    /// Rank 0 did not open the rendezvous before the deadline.
    #[error("rank 0 did not open the rendezvous {rendezvous} within {} s: {last}", seconds(.waited))]
    NoRendezvous {
        /// Where it was looked for.
        rendezvous: String,
        /// How long was waited.
        waited: Duration,
        /// What the last attempt said: the system, or whoever looks up names.
        last: String,
    },
    /// The rendezvous took the connection and then said nothing until the deadline.
    #[error(
        "rendezvous {rendezvous} took the connection but rank 0 had not answered the handshake within {} s: is it \
         stopped, or busy before its join?", seconds(.waited)
    )]
    Silent {
        /// Where the connection went.
        rendezvous: String,
        /// How long was waited.
        waited: Duration,
    },
    /// Another process already listens on the rendezvous.
    #[error(
        "rendezvous {rendezvous} is already in use: another job has this name, or two ranks say that they are rank 0"
    )]
    RendezvousTaken {
        /// The rendezvous.
        rendezvous: String,
    },
    /// A rank said something that the protocol does not know.
    #[error("rank {rank}: {problem}")]
    Protocol {
        /// The rank that was being read from or written to.
        rank: Rank,
        /// What happened.
        problem: String,
    },
    /// A payload is larger than the control path carries.
    #[error("{step:?}: a payload of {bytes} bytes is more than the {limit} that a control exchange carries")]
    TooLarge {
        /// What was to be exchanged.
        step: String,
        /// The payload's size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Another thread of this rank has ended its waits ([`super::Membership::interrupt`]).
    #[error("{step:?} was given up: this rank was interrupted (its communicator was aborted)")]
    Interrupted {
        /// What was being exchanged.
        step: String,
    },
    /// This process was forked from the one that joined.
    #[error(
        "this process was forked from the one that joined the job and cannot act for it: a forked child (a data \
         loader, for example) must leave communication to its parent"
    )]
    Forked,
    /// The operating system refused something.
    #[error("{doing}: {source}{}", remedy(*.source))]
    System {
        /// What was being done.
        doing: String,
        /// What the system said.
        source: Errno,
    },
}

impl BootstrapError {
    pub(super) fn system(doing: impl Into<String>) -> impl FnOnce(Errno) -> Self {
        move |source| Self::System {
            doing: doing.into(),
            source,
        }
    }
}

fn seconds(duration: &Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds >= 10.0 {
        format!("{seconds:.0}")
    } else {
        format!("{seconds:.1}")
    }
}

fn arrival(step: &str) -> String {
    if step.is_empty() {
        "join".into()
    } else {
        format!("come to {step:?}")
    }
}

fn during(step: &str) -> String {
    if step.is_empty() {
        "while the ranks were joining".into()
    } else {
        format!("during {step:?}")
    }
}

fn advice(step: &str) -> &'static str {
    if step.is_empty() {
        "; see whether they were started, with this job's SAPWOOD_RENDEZVOUS and SAPWOOD_SECRET_FILE"
    } else {
        ""
    }
}

fn remedy(errno: Errno) -> &'static str {
    match errno {
        Errno::NFILE => " (raise the system's limit on open files: sysctl fs.file-max)",
        Errno::MFILE => " (raise the limit on open files: ulimit -n)",
        Errno::TOOMANYREFS => " (too many descriptors in flight: raise the limit on open files: ulimit -n)",
        _ => "",
    }
}

/// "rank 3", "ranks 3 and 5", "ranks 1 to 4, 7 and 9".
fn ranks_phrase(ranks: &[Rank]) -> String {
    let mut runs: Vec<(Rank, Rank)> = Vec::new();
    for &rank in ranks {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == rank => *last = rank,
            _ => runs.push((rank, rank)),
        }
    }
    let mut words = Vec::new();
    for (first, last) in runs {
        match last - first {
            0 => words.push(first.to_string()),
            1 => words.extend([first.to_string(), last.to_string()]),
            _ => words.push(format!("{first} to {last}")),
        }
    }
    let noun = if ranks.len() == 1 { "rank" } else { "ranks" };
    match words.split_last() {
        None => "no rank".into(),
        Some((only, [])) => format!("{noun} {only}"),
        Some((last, rest)) => format!("{noun} {} and {last}", rest.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_read_as_a_person_would_say_them() {
        assert_eq!(ranks_phrase(&[3]), "rank 3");
        assert_eq!(ranks_phrase(&[3, 5]), "ranks 3 and 5");
        assert_eq!(ranks_phrase(&[3, 4]), "ranks 3 and 4");
        assert_eq!(ranks_phrase(&[1, 2, 3, 4]), "ranks 1 to 4");
        assert_eq!(ranks_phrase(&[1, 2, 3, 4, 7, 9]), "ranks 1 to 4, 7 and 9");
    }

    #[test]
    fn a_missing_rank_is_named_with_the_time() {
        let error = BootstrapError::Missing {
            ranks: vec![3, 5],
            size: 8,
            step: String::new(),
            waited: Duration::from_secs(60),
        };
        assert!(
            error
                .to_string()
                .starts_with("ranks 3 and 5 of 8 did not join within 60 s"),
            "{error}"
        );
    }
}
