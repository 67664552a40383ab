//! How a rank comes back after a death: it knocks at the others' doors, one after the other, until one lets it in. Who
//! does not answer holds it up for a moment only. Where nobody's door is open the job may not have come together yet:
//! then it joins as it would have the first time.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use super::attempt::Attempt;
use super::door::{self, Lock};
use super::join::{self, Joined};
use super::liveness::{Liveness, Processes};
use super::lives::Lives;
use super::meanwhile::Meanwhile;
use super::membership::Meeting;
use super::message::{self, Kind, Knock, Welcome};
use super::one_host::OneHost;
use super::progress::Watch;
use super::roll::Roll;
use super::{BootstrapError, Job, Rank, socket};

/// How long one door may take to answer.
const PATIENCE: Duration = Duration::from_millis(500);
/// From one round of knocking to the next.
const PAUSE: Duration = Duration::from_millis(20);
/// How often it is looked whether a door was opened, while the rank waits elsewhere.
const LOOK: Duration = Duration::from_millis(100);

/// Whether ranks of this job can come back: on one host, where others outlive them.
pub(super) fn is_allowed(job: &Job) -> bool {
    job.returns && job.size > 1 && !job.rendezvous.is_network()
}

/// What came of knocking at one door.
enum Knocked {
    Closed,
    In(Welcome, Vec<OwnedFd>),
    Nothing(String),
}

fn knock(job: &Job, rank: Rank, what: Knock) -> Result<Knocked, BootstrapError> {
    let mut there = job.clone();
    there.rendezvous = door::place(job, rank)?;
    let socket = match socket::connect_to_socket(&there.rendezvous) {
        Ok(socket) => socket,
        Err(rustix::io::Errno::CONNREFUSED) => return Ok(Knocked::Closed),
        Err(error) => return Ok(Knocked::Nothing(error.to_string())),
    };
    let mut watch = Watch {
        tell: &mut |_| {},
        still: None,
    };
    let mut attempt = Attempt::new(&there, Instant::now() + PATIENCE, &mut watch);
    let hung_up = |_: &_| BootstrapError::Protocol {
        rank,
        problem: "closed its door".into(),
    };
    let ask = || -> Result<Option<_>, BootstrapError> {
        let mut channel = attempt.introduce(socket)?;
        channel.queue_body(Kind::Knock, message::encode(&what));
        let problem = |problem| BootstrapError::Protocol { rank, problem };
        channel.flush().map_err(problem)?;
        attempt.next(&mut channel, None, hung_up)
    };
    Ok(match ask() {
        Ok(Some(answer)) if answer.kind == Kind::Welcome => match message::decode(&answer.body) {
            // Another may have it.
            Ok(Welcome::Later { why }) => Knocked::Nothing(why),
            Ok(welcome) => Knocked::In(welcome, answer.descriptors),
            Err(problem) => Knocked::Nothing(problem),
        },
        Ok(Some(answer)) if answer.kind == Kind::Refused => {
            Knocked::Nothing(message::decode(&answer.body).unwrap_or_else(|problem| problem))
        }
        Ok(Some(answer)) => Knocked::Nothing(format!("answered with a {:?}", answer.kind)),
        Ok(None) => Knocked::Nothing("does not answer: is it stopped?".into()),
        Err(error) => Knocked::Nothing(error.to_string()),
    })
}

/// One round at all doors, and what became of it, for people.
struct Round {
    found: Option<(Welcome, Vec<OwnedFd>)>,
    open: bool,
    said: String,
}

fn go_round(job: &Job, what: Knock, deadline: Instant) -> Result<Round, BootstrapError> {
    let (mut said, mut open) = (Vec::new(), false);
    for rank in (0..job.size).filter(|rank| *rank != job.rank) {
        // One that is open is always asked, so that it can be said why it did not help.
        if open && Instant::now() >= deadline {
            break;
        }
        match knock(job, rank, what)? {
            Knocked::Closed => {}
            Knocked::In(welcome, descriptors) => {
                return Ok(Round {
                    found: Some((welcome, descriptors)),
                    open: true,
                    said: String::new(),
                });
            }
            Knocked::Nothing(why) => {
                open = true;
                said.push(format!("rank {rank}: {why}"));
            }
        }
    }
    let said = match open {
        true => said.join("; "),
        false => "no other rank's door is open".into(),
    };
    Ok(Round {
        found: None,
        open,
        said,
    })
}

fn is_any_open(job: &Job) -> bool {
    let others = (0..job.size).filter(|rank| *rank != job.rank);
    let mut doors = others.filter_map(|rank| door::place(job, rank).ok());
    doors.any(|door| socket::connect_to_socket(&door).is_ok())
}

fn not_let_in(job: &Job, began: Instant, said: String) -> BootstrapError {
    BootstrapError::NotLetIn {
        rank: job.rank,
        attempt: job.attempt,
        waited: began.elapsed(),
        said,
    }
}

/// Takes the own door, which an earlier life of this rank may have until it has quite ended.
pub(super) fn take_lock(job: &Job, deadline: Instant) -> Result<Option<Lock>, BootstrapError> {
    let began = Instant::now();
    loop {
        match Lock::take(job)? {
            None if job.attempt == 0 => return Ok(None),
            None if Instant::now() >= deadline => {
                let said =
                    "an earlier process of this rank still runs, or another one says that it is this rank";
                return Err(not_let_in(job, began, said.into()));
            }
            None => std::thread::sleep(PAUSE.min(deadline.saturating_duration_since(Instant::now()))),
            taken => return Ok(taken),
        }
    }
}

/// Comes back, or joins as for the first time where the job has not come together.
pub(super) fn join(job: &Job, deadline: Instant, watch: &mut Watch<'_>) -> Result<Joined, BootstrapError> {
    let began = Instant::now();
    loop {
        let round = go_round(job, Knock::Job, deadline)?;
        if let Some((Welcome::Job { peers, salt }, descriptors)) = round.found {
            let said = "the roll did not come along";
            let roll = descriptors.into_iter().next();
            let roll = roll.ok_or_else(|| not_let_in(job, began, said.into()))?;
            return take_place(job, Roll::attach(roll, job.size)?, (peers, salt), began);
        }
        if !round.open {
            let (mut looked, tell) = (Instant::now(), &mut *watch.tell);
            let mut others = watch.still.as_mut();
            let mut still = || {
                if looked.elapsed() >= LOOK {
                    looked = Instant::now();
                    if is_any_open(job) {
                        return Err(not_let_in(job, began, "a door was opened".into()));
                    }
                }
                others.as_mut().map_or(Ok(()), |still| still())
            };
            let mut both = Watch {
                tell,
                still: Some(&mut still),
            };
            match join::join(job, deadline, &mut both) {
                Ok(joined) => return Ok(joined),
                Err(_) if is_any_open(job) && Instant::now() < deadline => continue,
                Err(error) => {
                    let said = format!("no other rank's door is open, and at the rendezvous: {error}");
                    return Err(not_let_in(job, began, said));
                }
            }
        }
        if Instant::now() >= deadline {
            return Err(not_let_in(job, began, round.said));
        }
        watch.still()?;
        std::thread::sleep(PAUSE);
    }
}

/// The job is known: this rank lives again.
fn take_place(
    job: &Job,
    roll: Roll,
    (peers, salt): (Vec<message::Peer>, u128),
    began: Instant,
) -> Result<Joined, BootstrapError> {
    if peers.len() != job.size as usize {
        return Err(not_let_in(job, began, "the job has another size".into()));
    }
    if !roll.may_return(job.rank) {
        let said =
            "this rank had no door of its own in its first life: was it in two communicators of the job?";
        return Err(not_let_in(job, began, said.into()));
    }
    let life = roll.live_again(job.rank);
    let mut peers = peers;
    peers[job.rank as usize].pid = std::process::id() as i32;
    let liveness = Liveness {
        rank: job.rank,
        roll,
        peers: peers.clone(),
        processes: Processes {
            pids: Vec::new(),
            descriptors: Default::default(),
        },
        connections: Vec::new(),
        lives: Lives::new(job, life),
        meanwhile: Meanwhile::default(),
    };
    tracing::info!(rank = job.rank, life, "this rank has come back");
    let one_host = OneHost::returned(liveness);
    Ok((peers, Meeting::OneHost(Box::new(one_host)), salt))
}

/// How long all doors may be closed to a rank that was let into the job: another that has come back may open one soon.
const CLOSED: Duration = Duration::from_secs(2);

/// What the others keep under a number.
pub(super) fn fetch(
    job: &Job,
    salt: u128,
    number: u32,
    deadline: Instant,
) -> Result<(String, Vec<OwnedFd>), BootstrapError> {
    let began = Instant::now();
    let mut open = began;
    loop {
        let round = go_round(job, Knock::Kept { salt, number }, deadline)?;
        if round.open {
            open = Instant::now();
        }
        let said = match round.found {
            Some((Welcome::Kept { payload }, descriptors)) => return Ok((payload, descriptors)),
            Some((Welcome::Never { why }, _)) => return Err(not_let_in(job, began, why)),
            Some((Welcome::Later { why }, _)) => why,
            Some((Welcome::Job { .. }, _)) => "the door answered another question".into(),
            None => round.said,
        };
        if Instant::now() >= deadline || open.elapsed() >= CLOSED {
            return Err(not_let_in(job, began, said));
        }
        std::thread::sleep(PAUSE);
    }
}
