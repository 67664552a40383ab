//! How a rank other than 0 comes in at the rendezvous: connects, proves that it knows the secret, says who it is, and
//! waits until all have come.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags};

use super::channel::Channel;
use super::control;
use super::inquiry::Inquiry;
use super::liveness::{self, DepartureKind};
use super::message::{self, Hello, Kind, Leaving, Message, Table};
use super::noise::{HANDSHAKE_BYTES, Handshake};
use super::progress::{JoinProgress, Watch};
use super::roll::Roll;
use super::verdict::Verdict;
use super::{BootstrapError, HostIdentity, Job, socket};

/// How often a rendezvous that is not open yet is tried: first, and at last on one host and over the network.
const RETRY: Duration = Duration::from_micros(500);
const RETRY_ON_ONE_HOST: Duration = Duration::from_millis(20);
const RETRY_OVER_NETWORK: Duration = Duration::from_millis(200);

/// How long after its connections have been closed a process that dies takes to count as ended, at most.
const LAST_BREATH: Duration = Duration::from_millis(200);

/// The process at the other end, where the kernel knows it.
type Other = Option<Result<OwnedFd, Errno>>;

fn protocol(problem: String) -> BootstrapError {
    BootstrapError::Protocol { rank: 0, problem }
}

fn rank_0_is_gone(how: DepartureKind) -> BootstrapError {
    BootstrapError::Departed {
        rank: 0,
        how,
        step: String::new(),
    }
}

/// Whether it is worth another try: rank 0 has not opened the rendezvous yet, or there are more connections than it can
/// line up; over the network, its host is not there yet, nor the way to it.
pub(super) fn may_pass(error: Errno, network: bool) -> bool {
    match error {
        Errno::CONNREFUSED | Errno::NOENT | Errno::AGAIN | Errno::INTR => true,
        Errno::TIMEDOUT
        | Errno::HOSTUNREACH
        | Errno::NETUNREACH
        | Errno::HOSTDOWN
        | Errno::NETDOWN
        | Errno::CONNRESET
        | Errno::CONNABORTED
        | Errno::ADDRNOTAVAIL => network,
        _ => false,
    }
}

/// One rank's way in.
pub(super) struct Attempt<'job, 'watch> {
    job: &'job Job,
    started: Instant,
    deadline: Instant,
    watch: &'job mut Watch<'watch>,
    /// What came with the news that this rank is in.
    came_along: Vec<OwnedFd>,
}

impl<'job, 'watch> Attempt<'job, 'watch> {
    pub(super) fn new(job: &'job Job, deadline: Instant, watch: &'job mut Watch<'watch>) -> Self {
        Self {
            job,
            started: Instant::now(),
            deadline,
            watch,
            came_along: Vec::new(),
        }
    }

    /// Until rank 0 has taken this rank in.
    pub(super) fn enter(&mut self) -> Result<Channel, BootstrapError> {
        let socket = self.connect()?;
        let mut channel = self.introduce(socket)?;
        // It may have been taken in all the same: that it then goes is no death.
        self.be_accepted(&mut channel)
            .inspect_err(|_| give_up(&mut channel))?;
        self.watch.tell(JoinProgress::Accepted);
        Ok(channel)
    }

    /// Proves itself to who is at the other end, and says who this is.
    pub(super) fn introduce(&mut self, socket: OwnedFd) -> Result<Channel, BootstrapError> {
        let other = self.look_at_other(&socket)?;
        let mut channel = self.shake_hands(socket, &other)?;
        let hello = Hello {
            magic: message::MAGIC.into(),
            version: message::PROTOCOL_VERSION,
            rank: self.job.rank,
            size: self.job.size,
            local_rank: self.job.local_rank,
            host: HostIdentity::of(self.job),
            pid: std::process::id() as i32,
        };
        channel.queue_body(Kind::Hello, message::encode(&hello));
        channel.flush().map_err(protocol)?;
        Ok(channel)
    }

    fn connect(&mut self) -> Result<OwnedFd, BootstrapError> {
        let rendezvous = &self.job.rendezvous;
        let network = rendezvous.is_network();
        let longest = if network {
            RETRY_OVER_NETWORK
        } else {
            RETRY_ON_ONE_HOST
        };
        let mut pause = RETRY;
        let mut told = None;
        loop {
            let last = match socket::connect_once(rendezvous, self.job.subnet.as_ref(), self.deadline) {
                Ok(socket) => return Ok(socket),
                Err(last) if may_pass(last.error, network) => last,
                Err(last) => {
                    return Err(BootstrapError::System {
                        doing: format!("connecting to the rendezvous {rendezvous}"),
                        source: last.error,
                    });
                }
            };
            if told.as_ref() != Some(&last) {
                // A wrong name and one that is not known yet look the same.
                if let Some(why) = &last.why {
                    tracing::warn!(%rendezvous, why, "rank 0 is not found, and looked for until the deadline");
                }
                self.watch.tell(JoinProgress::NobodyThere {
                    rendezvous,
                    why: last.error,
                });
                told = Some(last.clone());
            }
            let now = Instant::now();
            if now >= self.deadline {
                return Err(BootstrapError::NoRendezvous {
                    rendezvous: rendezvous.to_string(),
                    waited: self.started.elapsed(),
                    last: last.to_string(),
                });
            }
            self.watch.still()?;
            std::thread::sleep(pause.min(self.deadline - now));
            pause = (pause * 2).min(longest);
        }
    }

    /// On one host the kernel says whose process holds the rendezvous: it must be this user's.
    fn look_at_other(&self, socket: &OwnedFd) -> Result<Other, BootstrapError> {
        if self.job.rendezvous.is_network() {
            return Ok(None);
        }
        let credentials =
            socket::peer_credentials(socket).map_err(BootstrapError::system("asking who rank 0 is"))?;
        let own_user = socket::own_user();
        if credentials.uid != own_user {
            return Err(BootstrapError::ForeignUser {
                rendezvous: self.job.rendezvous.to_string(),
                expected: own_user,
                found: credentials.uid,
            });
        }
        let process = Pid::from_raw(credentials.pid).ok_or(Errno::NOSYS);
        Ok(Some(process.and_then(|pid| {
            rustix::process::pidfd_open(pid, PidfdFlags::empty())
        })))
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

    /// What a hang-up in the handshake means. Nothing was proved by then, but on one host the kernel has said whose
    /// process holds the rendezvous: one that died is not one with another secret.
    fn hung_up_on(&self, other: &Other) -> BootstrapError {
        // A dying process's connections are closed some time before it counts as ended.
        let soon = self.deadline.min(Instant::now() + LAST_BREATH);
        let died = match other {
            Some(Ok(process)) => socket::wait_for(process, PollFlags::IN, soon) == Ok(true),
            Some(Err(error)) => *error == Errno::SRCH,
            None => false,
        };
        if died {
            rank_0_is_gone(DepartureKind::Died)
        } else {
            self.not_authenticated("the other side closed the connection in the handshake")
        }
    }

    /// Proves to rank 0, and has it prove, that both know the secret.
    fn shake_hands(&mut self, socket: OwnedFd, other: &Other) -> Result<Channel, BootstrapError> {
        let mut handshake = Handshake::initiator(&self.job.secret)?;
        let first = handshake
            .write()
            .map_err(|_| self.not_authenticated("the handshake could not be begun"))?;
        let mut frame = Vec::with_capacity(4 + HANDSHAKE_BYTES);
        frame.extend_from_slice(&(HANDSHAKE_BYTES as u32).to_le_bytes());
        frame.extend_from_slice(&first);
        // A fresh socket has room for these few bytes; less than all of them means that nobody is there.
        let sent = rustix::net::send(&socket, &frame, rustix::net::SendFlags::NOSIGNAL);
        if sent != Ok(frame.len()) {
            return Err(self.hung_up_on(other));
        }
        let mut answer = [0; 4 + HANDSHAKE_BYTES];
        let mut length = 0;
        while length < answer.len() {
            match rustix::net::recv(&socket, &mut answer[length..], rustix::net::RecvFlags::DONTWAIT) {
                Ok((_, 0)) | Err(Errno::CONNRESET | Errno::PIPE) => return Err(self.hung_up_on(other)),
                Ok((_, received)) => length += received,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.watch.still()?;
                    let slice = Instant::now() + control::SLICE;
                    if !socket::wait_for(&socket, PollFlags::IN, self.deadline.min(slice))?
                        && Instant::now() >= self.deadline
                    {
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
        let channel = Channel::new(socket, noise, message::MESSAGE_LIMIT);
        Ok(if self.job.rendezvous.is_network() {
            channel.over_network()
        } else {
            channel
        })
    }

    /// The other end's next message; none at the deadline. `hung_up` is what a hang-up means.
    pub(super) fn next(
        &mut self,
        channel: &mut Channel,
        mut inquiry: Option<&mut Inquiry>,
        hung_up: impl Fn(&Channel) -> BootstrapError,
    ) -> Result<Option<Message>, BootstrapError> {
        loop {
            while let Some(message) = channel.next_message() {
                match (&mut inquiry, message.kind) {
                    (Some(inquiry), Kind::Answer) => inquiry.take(&message.body).map_err(protocol)?,
                    _ => return Ok(Some(message)),
                }
            }
            if channel.is_closed() {
                return Err(hung_up(channel));
            }
            if Instant::now() >= self.deadline {
                return Ok(None);
            }
            self.watch.still()?;
            if let Some(inquiry) = &mut inquiry {
                inquiry.ask(channel);
                channel.flush().map_err(protocol)?;
            }
            control::turn(&mut [&mut *channel], |_| 0, self.deadline)?;
        }
    }

    fn be_accepted(&mut self, channel: &mut Channel) -> Result<(), BootstrapError> {
        let hung_up = |channel: &Channel| rank_0_is_gone(how_it_closed(channel));
        let message = self.next(channel, None, hung_up)?.ok_or_else(|| self.silent())?;
        match message.kind {
            Kind::Accepted => {
                self.came_along = message.descriptors;
                Ok(())
            }
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

    /// The roll that came with the news that this rank is in; on one host alone.
    pub(super) fn take_roll(&mut self) -> Result<Roll, BootstrapError> {
        match (self.came_along.pop(), self.came_along.len()) {
            (Some(roll), 0) => Roll::attach(roll, self.job.size),
            _ => Err(protocol("did not send the roll of ranks".into())),
        }
    }

    /// Until all have come. Without a roll it is rank 0 who says who has not.
    pub(super) fn take_table(
        &mut self,
        channel: &mut Channel,
        roll: Option<&Roll>,
    ) -> Result<(Table, Vec<OwnedFd>), BootstrapError> {
        let hung_up = |channel: &Channel| {
            let said = roll.map(|roll| liveness::how_it_went(roll.presence(0)));
            rank_0_is_gone(said.unwrap_or_else(|| how_it_closed(channel)))
        };
        let mut inquiry = Inquiry::new(0, self.started, self.deadline);
        let asks = roll.is_none().then_some(&mut inquiry);
        let Some(message) = self.next(channel, asks, hung_up)? else {
            let error = self.nobody_more_came(roll, &inquiry);
            if roll.is_none() {
                give_up(channel);
            }
            return Err(error);
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

    /// The deadline has passed.
    fn nobody_more_came(&self, roll: Option<&Roll>, inquiry: &Inquiry) -> BootstrapError {
        let absent = match roll {
            Some(roll) => roll.absent(),
            None => match inquiry.behind() {
                Some(absent) => absent.to_vec(),
                None => return self.silent(),
            },
        };
        let (size, waited) = (self.job.size, self.started.elapsed());
        if absent.is_empty() {
            return BootstrapError::Unfinished {
                size,
                step: "join".into(),
                waited,
            };
        }
        BootstrapError::Missing {
            ranks: absent,
            size,
            step: String::new(),
            waited,
        }
    }
}

fn how_it_closed(channel: &Channel) -> DepartureKind {
    if channel.is_out_of_reach() {
        DepartureKind::OutOfReach
    } else {
        DepartureKind::Died
    }
}

/// Tells rank 0 that this is no death; it sees the connection's end next.
fn give_up(channel: &mut Channel) {
    let leaving = Leaving {
        how: DepartureKind::GaveUp,
        verdict: None,
        last: true,
    };
    channel.queue_body(Kind::Leaving, message::encode(&leaving));
    let _ = channel.flush();
}
