//! Who is let in at the rendezvous: takes in connections, gives each a while to prove that it knows the secret and to
//! say who it is, and refuses whoever does not or cannot be.

use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags};

use super::BootstrapError;
use super::channel::Channel;
use super::message::{self, Hello, Kind, Peer};
use super::reception::{Member, Reception};
use super::roll::Presence;
use super::socket::{self, Credentials, Origin};
use super::visitor::{Progress, Stage, Visitor};

/// How long a connection may take to introduce itself.
const PATIENCE: Duration = Duration::from_secs(5);
/// The same while others wait for its place: a rank says its part at once.
const PATIENCE_WHEN_CROWDED: Duration = Duration::from_millis(250);
/// Connections that may be in the handshake at once, beyond the number of ranks; others wait in the kernel's line.
const SPARE_CONNECTIONS: usize = 64;
/// Connections that are taken in before anything else gets its turn, the deadline above all: who is refused at once
/// leaves room for the next, however many there are.
const AT_A_TIME: usize = 64;

/// Whether it may pass when somebody gives something back.
fn is_shortage(error: Errno) -> bool {
    matches!(error, Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)
}

impl Reception<'_> {
    pub(super) fn has_room(&self) -> bool {
        !self.exhausted && self.visitors.len() < self.job.size as usize + SPARE_CONNECTIONS
    }

    pub(super) fn patience(&self) -> Duration {
        if self.has_room() {
            PATIENCE
        } else {
            PATIENCE_WHEN_CROWDED
        }
    }

    /// Takes in connections that wait, as many as there is room for.
    pub(super) fn accept(&mut self) -> Result<(), BootstrapError> {
        for _ in 0..AT_A_TIME {
            if !self.has_room() {
                break;
            }
            let Some(listener) = &self.listener else {
                return Ok(());
            };
            let (socket, origin) = match listener.accept() {
                Ok(Some(accepted)) => accepted,
                Ok(None) => break,
                Err(error) if is_shortage(error) && !self.visitors.is_empty() => {
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
            if let Origin::Process(credentials) = &origin
                && credentials.uid != socket::own_user()
            {
                self.refusals.refuse(&origin, "it runs as another user");
                continue;
            }
            self.visitors.push(Visitor::new(socket, origin));
        }
        Ok(())
    }

    pub(super) fn look_at_visitors(&mut self) -> Result<(), BootstrapError> {
        let patience = self.patience();
        let mut index = 0;
        while index < self.visitors.len() {
            let visitor = &mut self.visitors[index];
            match visitor.advance(self.job) {
                Progress::Waiting if visitor.since.elapsed() < patience => index += 1,
                Progress::Waiting => {
                    self.refusals
                        .refuse(&visitor.origin, "it did not finish the handshake in time");
                    self.dismiss(index);
                }
                Progress::Refused(reason) => {
                    self.refusals.refuse(&visitor.origin, &reason);
                    self.dismiss(index);
                }
                Progress::Introduced(hello) => {
                    let visitor = self.dismiss(index);
                    if let Stage::Proved(channel) = visitor.stage {
                        self.consider(*channel, visitor.origin, hello)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Refuses the one who has been longest in the handshake without proving anything, if there is one.
    fn dismiss_stranger(&mut self) -> bool {
        let strangers = self.visitors.iter().enumerate();
        let strangers = strangers.filter(|(_, visitor)| matches!(visitor.stage, Stage::Unproved { .. }));
        let Some((index, _)) = strangers.min_by_key(|(_, visitor)| visitor.since) else {
            return false;
        };
        let visitor = self.dismiss(index);
        let reason =
            "a rank needs its descriptor, and there are no more (raise the limit on open files: ulimit -n)";
        self.refusals.refuse(&visitor.origin, reason);
        true
    }

    fn dismiss(&mut self, index: usize) -> Visitor {
        self.exhausted = false;
        self.visitors.swap_remove(index)
    }

    /// Takes a visitor in who knows the secret, or tells it why not.
    fn consider(&mut self, mut channel: Channel, origin: Origin, hello: Hello) -> Result<(), BootstrapError> {
        let size = self.job.size;
        let taken = hello
            .rank
            .checked_sub(1)
            .and_then(|place| self.members.get(place as usize));
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
        } else if let Some(Some(member)) = taken {
            Some(format!(
                "rank {} has already joined, as process {}",
                hello.rank, member.peer.pid
            ))
        } else {
            match &origin {
                Origin::Process(Credentials { pid: 0, .. }) => {
                    Some("its process is in a PID name space that rank 0 cannot see".into())
                }
                Origin::Process(_) if !hello.host.shares_kernel(&self.host) => {
                    Some("it is on another host than this Unix socket".into())
                }
                _ => None,
            }
        };
        if let Some(reason) = reason {
            self.refusals.refuse(&origin, &reason);
            channel.queue_body(Kind::Refused, message::encode(&reason));
            // It fits a fresh socket; a client that does not read it is not waited for.
            let _ = channel.flush();
            return Ok(());
        }
        self.roll.mark(hello.rank, Presence::Joined);
        channel.set_limit(message::MESSAGE_LIMIT);
        // The roll and the process are one kernel's: over the network neither means anything.
        let (pid, roll) = match &origin {
            Origin::Process(credentials) => {
                self.watch_process(credentials.pid)?;
                (credentials.pid, Arc::clone(&self.roll_descriptor))
            }
            Origin::Address(_) => (hello.pid, Arc::default()),
        };
        channel.queue(Kind::Accepted, Arc::default(), roll);
        let peer = Peer {
            pid,
            host: hello.host,
        };
        tracing::debug!(rank = hello.rank, pid, from = %origin, "a rank has joined");
        // What does not fit now, and what is wrong with the connection, shows when it is polled.
        let _ = channel.flush();
        self.members[hello.rank as usize - 1] = Some(Member { channel, peer });
        Ok(())
    }

    /// Opens a descriptor of a process while it is connected. Where the system has none, hang-ups must do.
    pub(super) fn watch_process(&mut self, pid: i32) -> Result<(), BootstrapError> {
        if self.job.size == 1 || self.pids.contains(&pid) {
            return Ok(());
        }
        let Some(process) = Pid::from_raw(pid) else {
            return Ok(());
        };
        let mut opened = rustix::process::pidfd_open(process, PidfdFlags::empty());
        // A rank goes before those who have proved nothing, however many they are.
        while opened.as_ref().is_err_and(|error| is_shortage(*error)) && self.dismiss_stranger() {
            opened = rustix::process::pidfd_open(process, PidfdFlags::empty());
        }
        match opened {
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
}
