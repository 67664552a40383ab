//! Rank 0 at the rendezvous: receives whoever connects, refuses strangers, and goes on until all ranks have come.
//!
//! One poll loop serves all connections, each with a deadline of its own for the handshake, so that a silent or
//! hostile client holds nobody up.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags};

use super::channel::Channel;
use super::control::{self, Control};
use super::liveness::{self, Liveness, Processes};
use super::message::{self, Hello, Kind, Peer, Table};
use super::noise::HANDSHAKE_BYTES;
use super::progress::JoinProgress;
use super::roll::{Presence, Roll};
use super::socket::{self, Credentials, Listener};
use super::visitor::{Progress, Stage, Visitor, refuse};
use super::{BootstrapError, HostIdentity, Job, Rank, progress};

/// How long a connection may take to introduce itself.
const PATIENCE: Duration = Duration::from_secs(5);
/// The same while others wait for its place: a rank says its part at once.
const PATIENCE_WHEN_CROWDED: Duration = Duration::from_millis(250);
/// Connections that may be in the handshake at once, beyond the number of ranks; others wait in the kernel's line.
const SPARE_CONNECTIONS: usize = 64;

/// A rank that has come.
struct Member {
    channel: Channel,
    peer: Peer,
}

/// Rank 0's end of the rendezvous while the ranks come in.
pub(super) struct Reception<'job> {
    job: &'job Job,
    started: Instant,
    deadline: Instant,
    listener: Option<Listener>,
    roll: Roll,
    roll_descriptor: Arc<Vec<OwnedFd>>,
    host: HostIdentity,
    visitors: Vec<Visitor>,
    /// By rank less one.
    members: Vec<Option<Member>>,
    pids: Vec<i32>,
    pidfds: Vec<OwnedFd>,
    /// Members whose connections have something to say, by place in `members`.
    stirring: Vec<usize>,
    /// There is no descriptor left to accept with until a visitor goes.
    exhausted: bool,
    progress: progress::Listener<'job>,
}

impl<'job> Reception<'job> {
    pub(super) fn open(
        job: &'job Job,
        deadline: Instant,
        progress: progress::Listener<'job>,
    ) -> Result<Self, BootstrapError> {
        let roll = Roll::create(job.size)?;
        roll.mark(0, Presence::Joined);
        let duplicate = roll
            .descriptor()
            .try_clone_to_owned()
            .map_err(|error| BootstrapError::System {
                doing: "duplicating the roll's descriptor".into(),
                source: Errno::from_io_error(&error).unwrap_or(Errno::MFILE),
            })?;
        let listener = if job.size > 1 {
            Some(Listener::open(&job.rendezvous)?)
        } else {
            None
        };
        let mut members = Vec::new();
        members.resize_with(job.size as usize - 1, || None);
        let mut reception = Self {
            job,
            started: Instant::now(),
            deadline,
            listener,
            roll,
            roll_descriptor: Arc::new(vec![duplicate]),
            host: HostIdentity::of(job),
            visitors: Vec::new(),
            members,
            pids: Vec::new(),
            pidfds: Vec::new(),
            stirring: Vec::new(),
            exhausted: false,
            progress,
        };
        reception.watch_process(std::process::id() as i32)?;
        Ok(reception)
    }

    /// Receives until all have come, then hands the table to each.
    pub(super) fn receive_all(mut self) -> Result<(Liveness, Control), BootstrapError> {
        if let Err(error) = self.gather().and_then(|()| self.hand_out_table()) {
            self.roll.mark(0, Presence::GaveUp);
            control::tell_all(
                self.members
                    .iter_mut()
                    .flatten()
                    .map(|member| &mut member.channel),
                &error,
            );
            return Err(error);
        }
        let own = self.own_peer();
        let (channels, peers): (Vec<_>, Vec<_>) = self
            .members
            .into_iter()
            .flatten()
            .map(|member| (member.channel, member.peer))
            .unzip();
        let connections = (1..)
            .zip(&channels)
            .map(|(rank, channel)| (rank, Arc::clone(channel.socket())))
            .collect();
        let liveness = Liveness {
            rank: 0,
            roll: self.roll,
            peers: std::iter::once(own).chain(peers).collect(),
            processes: Processes {
                pids: self.pids,
                descriptors: Arc::new(self.pidfds),
            },
            connections,
        };
        Ok((liveness, Control::Root(channels)))
    }

    fn own_peer(&self) -> Peer {
        Peer {
            pid: std::process::id() as i32,
            uid: socket::own_user(),
            local_rank: self.job.local_rank,
            host: self.host.clone(),
        }
    }

    fn gather(&mut self) -> Result<(), BootstrapError> {
        if self.listener.is_some() {
            (self.progress)(JoinProgress::Open {
                rendezvous: &self.job.rendezvous,
            });
        }
        let mut told = Vec::new();
        loop {
            self.accept()?;
            self.look_at_visitors()?;
            self.look_at_members()?;
            let ranks = self.absent();
            if ranks.is_empty() {
                return Ok(());
            }
            if told != ranks {
                (self.progress)(JoinProgress::WaitingFor { absent: &ranks });
                told.clone_from(&ranks);
            }
            if Instant::now() >= self.deadline {
                return Err(self.missing(ranks));
            }
            self.wait()?;
        }
    }

    fn absent(&self) -> Vec<Rank> {
        (1..)
            .zip(&self.members)
            .filter(|(_, member)| member.is_none())
            .map(|(rank, _)| rank)
            .collect()
    }

    fn missing(&self, ranks: Vec<Rank>) -> BootstrapError {
        BootstrapError::Missing {
            ranks,
            size: self.job.size,
            step: String::new(),
            waited: self.started.elapsed(),
        }
    }

    fn has_room(&self) -> bool {
        !self.exhausted && self.visitors.len() < self.job.size as usize + SPARE_CONNECTIONS
    }

    fn patience(&self) -> Duration {
        if self.has_room() {
            PATIENCE
        } else {
            PATIENCE_WHEN_CROWDED
        }
    }

    /// Takes in the connections that wait, as many as there is room for.
    fn accept(&mut self) -> Result<(), BootstrapError> {
        while self.has_room() {
            let Some(listener) = &self.listener else {
                return Ok(());
            };
            let socket = match listener.accept() {
                Ok(Some(socket)) => socket,
                Ok(None) => break,
                Err(Errno::MFILE | Errno::NFILE) if !self.visitors.is_empty() => {
                    self.exhausted = true;
                    break;
                }
                Err(error) => {
                    return Err(BootstrapError::System {
                        doing: "accepting ranks".into(),
                        source: error,
                    });
                }
            };
            let Ok(credentials) = socket::peer_credentials(&socket) else {
                continue;
            };
            if credentials.uid != socket::own_user() {
                refuse(&credentials, "it runs as another user");
                continue;
            }
            let stage = Stage::Unproved {
                socket,
                frame: [0; 4 + HANDSHAKE_BYTES],
                length: 0,
            };
            self.visitors.push(Visitor {
                credentials,
                since: Instant::now(),
                stage,
            });
        }
        Ok(())
    }

    fn look_at_visitors(&mut self) -> Result<(), BootstrapError> {
        let patience = self.patience();
        let mut index = 0;
        while index < self.visitors.len() {
            let visitor = &mut self.visitors[index];
            match visitor.advance(self.job) {
                Progress::Waiting if visitor.since.elapsed() < patience => index += 1,
                Progress::Waiting => {
                    refuse(&visitor.credentials, "it did not finish the handshake in time");
                    self.dismiss(index);
                }
                Progress::Refused(reason) => {
                    refuse(&visitor.credentials, &reason);
                    self.dismiss(index);
                }
                Progress::Introduced(hello) => {
                    let visitor = self.dismiss(index);
                    if let Stage::Proved(channel) = visitor.stage {
                        self.consider(*channel, visitor.credentials, hello)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn dismiss(&mut self, index: usize) -> Visitor {
        self.exhausted = false;
        self.visitors.swap_remove(index)
    }

    /// Takes a visitor in who knows the secret, or tells it why not.
    fn consider(
        &mut self,
        mut channel: Channel,
        credentials: Credentials,
        hello: Hello,
    ) -> Result<(), BootstrapError> {
        let size = self.job.size;
        let reason = if hello.size != size {
            Some(format!(
                "it was started for a job of {} ranks and this one has {size}",
                hello.size
            ))
        } else if hello.rank == 0 || hello.rank >= size {
            Some(format!(
                "it says that it is rank {} of {size}, which cannot come here",
                hello.rank
            ))
        } else if let Some(member) = &self.members[hello.rank as usize - 1] {
            Some(format!(
                "rank {} has already joined, as process {}",
                hello.rank, member.peer.pid
            ))
        } else if credentials.pid == 0 {
            Some("its process is in a PID name space that rank 0 cannot see".into())
        } else if !hello.host.shares_kernel(&self.host) {
            Some("it is on another host than this Unix socket".into())
        } else {
            None
        };
        if let Some(reason) = reason {
            refuse(&credentials, &reason);
            channel.queue_body(Kind::Refused, message::encode(&reason));
            // It fits a fresh socket; a client that does not read it is not waited for.
            let _ = channel.flush();
            return Ok(());
        }
        self.watch_process(credentials.pid)?;
        self.roll.mark(hello.rank, Presence::Joined);
        channel.set_limit(message::MESSAGE_LIMIT);
        channel.queue(Kind::Accepted, Arc::default(), Arc::clone(&self.roll_descriptor));
        let peer = Peer {
            pid: credentials.pid,
            uid: credentials.uid,
            local_rank: hello.local_rank,
            host: hello.host,
        };
        tracing::debug!(rank = hello.rank, pid = peer.pid, "a rank has joined");
        // What does not fit now, and what is wrong with the connection, shows when it is polled.
        let _ = channel.flush();
        self.members[hello.rank as usize - 1] = Some(Member { channel, peer });
        Ok(())
    }

    /// Opens a descriptor of a process while it is connected. Where the system has none, hang-ups must do.
    fn watch_process(&mut self, pid: i32) -> Result<(), BootstrapError> {
        if self.job.size == 1 || self.pids.contains(&pid) {
            return Ok(());
        }
        let Some(process) = Pid::from_raw(pid) else {
            return Ok(());
        };
        match rustix::process::pidfd_open(process, PidfdFlags::empty()) {
            Ok(descriptor) => {
                self.pids.push(pid);
                self.pidfds.push(descriptor);
                Ok(())
            }
            // It died in this moment: its connection hangs up, which is looked at next.
            Err(Errno::SRCH) => Ok(()),
            Err(error @ (Errno::NOSYS | Errno::PERM)) => {
                tracing::warn!(pid, %error, "this system gives no process descriptors: deaths are seen late");
                Ok(())
            }
            Err(error) => Err(BootstrapError::System {
                doing: format!("watching process {pid}"),
                source: error,
            }),
        }
    }

    /// A rank that has come and goes again ends the join: it would never be complete.
    fn look_at_members(&mut self) -> Result<(), BootstrapError> {
        let mut gone = None;
        for (member, rank) in self.members.iter_mut().zip(1..) {
            let Some(Member { channel, .. }) = member else {
                continue;
            };
            let problem = |problem: String| BootstrapError::Protocol { rank, problem };
            channel.flush().map_err(problem)?;
            channel.receive().map_err(problem)?;
            if channel.is_closed() {
                gone.get_or_insert(rank);
            } else if let Some(message) = channel.next_message() {
                return Err(problem(format!(
                    "sent a {:?} before all ranks had joined",
                    message.kind
                )));
            }
        }
        let Some(rank) = gone else { return Ok(()) };
        let ranks = self.absent();
        // It gave up waiting for those who are absent: it is they who are named.
        if self.roll.presence(rank) == Presence::GaveUp && !ranks.is_empty() {
            return Err(self.missing(ranks));
        }
        let how = liveness::how_it_went(self.roll.presence(rank));
        Err(BootstrapError::Departed {
            rank,
            how,
            step: String::new(),
        })
    }

    /// Sleeps until somebody comes, says something or has taken too long.
    fn wait(&mut self) -> Result<(), BootstrapError> {
        let patience = self.patience();
        let mut until = self
            .visitors
            .iter()
            .map(|visitor| visitor.since + patience)
            .fold(self.deadline, Instant::min);
        let mut entries = Vec::with_capacity(1 + self.visitors.len() + self.members.len());
        if let (Some(listener), true) = (&self.listener, self.has_room()) {
            entries.push(PollFd::new(&listener.socket, PollFlags::IN));
        }
        for visitor in &self.visitors {
            entries.push(PollFd::from_borrowed_fd(visitor.descriptor(), PollFlags::IN));
        }
        let first_member = entries.len();
        let mut places = Vec::with_capacity(self.members.len());
        for (place, member) in self.members.iter().enumerate() {
            let Some(Member { channel, .. }) = member else {
                continue;
            };
            places.push((place, channel.is_starved()));
            if channel.is_starved() {
                until = until.min(Instant::now() + Duration::from_millis(1));
            }
            entries.push(PollFd::from_borrowed_fd(
                channel.socket().as_fd(),
                channel.interest(),
            ));
        }
        socket::poll_until(&mut entries, until)?;
        let stirs = |(entry, (place, starved)): (&PollFd<'_>, &(usize, bool))| {
            (*starved || !entry.revents().is_empty()).then_some(*place)
        };
        self.stirring = entries[first_member..]
            .iter()
            .zip(&places)
            .filter_map(stirs)
            .collect();
        Ok(())
    }

    fn hand_out_table(&mut self) -> Result<Arc<Vec<OwnedFd>>, BootstrapError> {
        // From here on nobody can come any more.
        self.listener = None;
        self.visitors.clear();
        let mut peers = vec![self.own_peer()];
        peers.extend(self.members.iter().flatten().map(|member| member.peer.clone()));
        let body = Arc::new(message::encode(&Table {
            peers,
            watched: self.pids.clone(),
        }));
        let pidfds = Arc::new(std::mem::take(&mut self.pidfds));
        for member in self.members.iter_mut().flatten() {
            member
                .channel
                .queue(Kind::Table, Arc::clone(&body), Arc::clone(&pidfds));
        }
        self.flush_all()?;
        Ok(pidfds)
    }

    fn flush_all(&mut self) -> Result<(), BootstrapError> {
        loop {
            for (member, rank) in self.members.iter_mut().zip(1..) {
                let Some(Member { channel, .. }) = member else {
                    continue;
                };
                channel
                    .flush()
                    .map_err(|problem| BootstrapError::Protocol { rank, problem })?;
            }
            let slow = (1..)
                .zip(self.members.iter().flatten())
                .find(|(_, member)| !member.channel.is_flushed());
            let Some((rank, _)) = slow else { return Ok(()) };
            if Instant::now() >= self.deadline {
                let problem = "did not take the table of ranks before the deadline: is it stopped?".into();
                return Err(BootstrapError::Protocol { rank, problem });
            }
            let mut channels: Vec<&mut Channel> = self
                .members
                .iter_mut()
                .flatten()
                .map(|member| &mut member.channel)
                .collect();
            control::turn(&mut channels, |index| index as Rank + 1, self.deadline)?;
        }
    }
}
