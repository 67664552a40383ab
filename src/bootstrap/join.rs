//! How a rank other than 0 comes to the rendezvous, and how both sides end up with the same table.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags};

use super::channel::Channel;
use super::control::{self, Control};
use super::liveness::{self, DepartureKind, Liveness, Processes};
use super::message::{self, Hello, Kind, Message, Table, Verdict};
use super::noise::{HANDSHAKE_BYTES, Handshake};
use super::progress::{JoinProgress, Listener};
use super::roll::{Presence, Roll};
use super::{BootstrapError, HostIdentity, Job, listen, socket};

/// How often a rendezvous that is not open yet is tried.
const RETRY: (Duration, Duration) = (Duration::from_micros(500), Duration::from_millis(20));

/// How long after its connections have been closed a process that dies takes to count as ended, at most.
const LAST_BREATH: Duration = Duration::from_millis(200);

/// Rank 0's part.
pub(super) fn as_root(
    job: &Job,
    deadline: Instant,
    progress: Listener<'_>,
) -> Result<(Liveness, Control), BootstrapError> {
    listen::Reception::open(job, deadline, progress)?.receive_all()
}

/// Every other rank's part.
pub(super) fn as_leaf(
    job: &Job,
    deadline: Instant,
    progress: Listener<'_>,
) -> Result<(Liveness, Control), BootstrapError> {
    let mut attempt = Attempt {
        job,
        started: Instant::now(),
        deadline,
    };
    let socket = attempt.connect(progress)?;
    let credentials =
        socket::peer_credentials(&socket).map_err(BootstrapError::system("asking who rank 0 is"))?;
    let own_user = socket::own_user();
    if credentials.uid != own_user {
        return Err(BootstrapError::ForeignUser {
            rendezvous: job.rendezvous.to_string(),
            expected: own_user,
            found: credentials.uid,
        });
    }
    let root = Pid::from_raw(credentials.pid).ok_or(Errno::NOSYS);
    let root = root.and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()));
    let mut channel = attempt.shake_hands(socket, &root)?;
    let hello = Hello {
        magic: message::MAGIC.into(),
        version: message::PROTOCOL_VERSION,
        rank: job.rank,
        size: job.size,
        local_rank: job.local_rank,
        host: HostIdentity::of(job),
    };
    channel.queue_body(Kind::Hello, message::encode(&hello));
    channel.flush().map_err(protocol)?;
    let roll = attempt.be_accepted(&mut channel)?;
    progress(JoinProgress::Accepted);
    match attempt.take_table(&mut channel, &roll) {
        Ok((table, descriptors)) => {
            let liveness = Liveness {
                rank: job.rank,
                roll,
                peers: table.peers,
                processes: Processes {
                    pids: table.watched,
                    descriptors: Arc::new(descriptors),
                },
                connections: vec![(0, Arc::clone(channel.socket()))],
            };
            Ok((liveness, Control::Leaf(Box::new(channel))))
        }
        Err(error) => {
            roll.mark(job.rank, Presence::GaveUp);
            Err(error)
        }
    }
}

fn protocol(problem: String) -> BootstrapError {
    BootstrapError::Protocol { rank: 0, problem }
}

fn rank_0_died() -> BootstrapError {
    BootstrapError::Departed {
        rank: 0,
        how: DepartureKind::Died,
        step: String::new(),
    }
}

/// One rank's way in.
struct Attempt<'job> {
    job: &'job Job,
    started: Instant,
    deadline: Instant,
}

impl Attempt<'_> {
    fn connect(&mut self, progress: Listener<'_>) -> Result<OwnedFd, BootstrapError> {
        let mut pause = RETRY.0;
        let mut told = None;
        loop {
            let last = match socket::connect_once(&self.job.rendezvous) {
                Ok(socket) => return Ok(socket),
                // Not open yet, or more connections than it can line up.
                Err(last @ (Errno::CONNREFUSED | Errno::NOENT | Errno::AGAIN | Errno::INTR)) => last,
                Err(error) => {
                    let doing = format!("connecting to the rendezvous {}", self.job.rendezvous);
                    return Err(BootstrapError::System { doing, source: error });
                }
            };
            if told.replace(last) != Some(last) {
                progress(JoinProgress::NobodyThere {
                    rendezvous: &self.job.rendezvous,
                    why: last,
                });
            }
            let now = Instant::now();
            if now >= self.deadline {
                let (rendezvous, waited) = (self.job.rendezvous.to_string(), self.started.elapsed());
                return Err(BootstrapError::NoRendezvous {
                    rendezvous,
                    waited,
                    last,
                });
            }
            std::thread::sleep(pause.min(self.deadline - now));
            pause = (pause * 2).min(RETRY.1);
        }
    }

    fn silent(&self) -> BootstrapError {
        BootstrapError::Silent {
            rendezvous: self.job.rendezvous.to_string(),
            waited: self.started.elapsed(),
        }
    }

    fn not_authenticated(&self, problem: &str) -> BootstrapError {
        BootstrapError::NotAuthenticated {
            rendezvous: self.job.rendezvous.to_string(),
            problem: problem.into(),
        }
    }

    /// What a hang-up in the handshake means. Nothing was proved by then, but the kernel has said whose process holds
    /// the rendezvous: one that died is not one with another secret.
    fn hung_up_on(&self, process: &Result<OwnedFd, Errno>) -> BootstrapError {
        // A dying process's connections are closed some time before it counts as ended.
        let soon = self.deadline.min(Instant::now() + LAST_BREATH);
        let died = match process {
            Ok(process) => socket::wait_for(process, PollFlags::IN, soon) == Ok(true),
            Err(error) => *error == Errno::SRCH,
        };
        if died {
            rank_0_died()
        } else {
            self.not_authenticated("the other side closed the connection in the handshake")
        }
    }

    /// Proves to rank 0, and has it prove, that both know the secret. `process` is the one at the other end.
    fn shake_hands(
        &self,
        socket: OwnedFd,
        process: &Result<OwnedFd, Errno>,
    ) -> Result<Channel, BootstrapError> {
        let mut handshake = Handshake::initiator(&self.job.secret)?;
        let first = handshake
            .write()
            .map_err(|_| self.not_authenticated("the handshake could not be begun"))?;
        let mut frame = Vec::with_capacity(4 + HANDSHAKE_BYTES);
        frame.extend_from_slice(&(HANDSHAKE_BYTES as u32).to_le_bytes());
        frame.extend_from_slice(&first);
        let closed = || self.hung_up_on(process);
        // A fresh socket has room for these few bytes; less than all of them means that nobody is there.
        let sent = rustix::net::send(&socket, &frame, rustix::net::SendFlags::NOSIGNAL);
        if sent != Ok(frame.len()) {
            return Err(closed());
        }
        let mut answer = [0; 4 + HANDSHAKE_BYTES];
        let mut length = 0;
        while length < answer.len() {
            match rustix::net::recv(&socket, &mut answer[length..], rustix::net::RecvFlags::DONTWAIT) {
                Ok((_, 0)) | Err(Errno::CONNRESET | Errno::PIPE) => return Err(closed()),
                Ok((_, received)) => length += received,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    if !socket::wait_for(&socket, PollFlags::IN, self.deadline)? {
                        return Err(self.silent());
                    }
                }
                Err(error) => {
                    return Err(BootstrapError::System {
                        doing: "reading the handshake".into(),
                        source: error,
                    });
                }
            }
        }
        let (prefix, body) = answer.split_at(4);
        if prefix != (HANDSHAKE_BYTES as u32).to_le_bytes() || handshake.read(body).is_err() {
            return Err(self.not_authenticated("the other side did not prove that it knows the secret"));
        }
        let noise = handshake
            .finish()
            .map_err(|_| self.not_authenticated("the handshake did not finish"))?;
        Ok(Channel::new(socket, noise, message::MESSAGE_LIMIT))
    }

    /// Rank 0's next message; none at the deadline. `whose_end` is what a hang-up means.
    fn next(
        &self,
        channel: &mut Channel,
        hung_up: impl Fn() -> BootstrapError,
    ) -> Result<Option<Message>, BootstrapError> {
        loop {
            if let Some(message) = channel.next_message() {
                return Ok(Some(message));
            }
            if channel.is_closed() {
                return Err(hung_up());
            }
            if Instant::now() >= self.deadline {
                return Ok(None);
            }
            control::turn(&mut [&mut *channel], |_| 0, self.deadline)?;
        }
    }

    fn be_accepted(&self, channel: &mut Channel) -> Result<Roll, BootstrapError> {
        let mut message = self.next(channel, rank_0_died)?.ok_or_else(|| self.silent())?;
        match message.kind {
            Kind::Accepted => match (message.descriptors.pop(), message.descriptors.len()) {
                (Some(roll), 0) => Roll::attach(roll, self.job.size),
                _ => Err(protocol("did not send the roll of ranks".into())),
            },
            Kind::Refused => {
                let reason = message::decode(&message.body).map_err(protocol)?;
                Err(BootstrapError::Refused {
                    rank: self.job.rank,
                    reason,
                })
            }
            Kind::Verdict => Err(message::decode::<Verdict>(&message.body)
                .map_err(protocol)?
                .into_error()),
            kind => Err(protocol(format!("answered the hello with a {kind:?}"))),
        }
    }

    fn take_table(
        &self,
        channel: &mut Channel,
        roll: &Roll,
    ) -> Result<(Table, Vec<OwnedFd>), BootstrapError> {
        let hung_up = || {
            let how = liveness::how_it_went(roll.presence(0));
            BootstrapError::Departed {
                rank: 0,
                how,
                step: String::new(),
            }
        };
        let Some(message) = self.next(channel, hung_up)? else {
            let (ranks, size, waited) = (roll.absent(), self.job.size, self.started.elapsed());
            return Err(if ranks.is_empty() {
                BootstrapError::Unfinished {
                    size,
                    step: "join".into(),
                    waited,
                }
            } else {
                BootstrapError::Missing {
                    ranks,
                    size,
                    step: String::new(),
                    waited,
                }
            });
        };
        match message.kind {
            Kind::Table => {
                let table: Table = message::decode(&message.body).map_err(protocol)?;
                let known = table.watched.len() == message.descriptors.len();
                if table.peers.len() != self.job.size as usize || !known {
                    return Err(protocol("sent a table of ranks that does not fit the job".into()));
                }
                Ok((table, message.descriptors))
            }
            Kind::Verdict => Err(message::decode::<Verdict>(&message.body)
                .map_err(protocol)?
                .into_error()),
            kind => Err(protocol(format!("sent a {kind:?} instead of the table of ranks"))),
        }
    }
}
