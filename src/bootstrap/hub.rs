//! The middle of the star, for ranks that meet over the network: a thread in rank 0's process that passes on what the
//! ranks bring to a step, who has gone, and who has not come yet.
//!
//! It is a thread because a rank's end must be known everywhere within a second, while rank 0 may compute for minutes:
//! nobody else sees that connection close. It is the only one that this module keeps, sleeps in the kernel until
//! somebody says something, and ends when all have gone. Every rank is its client, rank 0 over a pair of sockets. It
//! never decides how long anybody waits: each rank has its own deadlines, and asks.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use super::channel::Channel;
use super::message::{
    self, Answer, ContributionHeader, Kind, Leaving, Message, News, Question, STAGES, Survive,
};
use super::parts::{self, Parts};
use super::verdict::Verdict;
use super::{BootstrapError, DepartureKind, Rank, socket, tcp};

/// How long the thread sleeps where nothing is on its way. Any length would do.
const NOTHING_ON_ITS_WAY: Duration = Duration::from_secs(3600);
/// As much as it needs: what is received at once lies on the stack.
const STACK_BYTES: usize = 512 << 10;

/// Starts the thread with the channels to all ranks, by rank.
pub(super) fn start(channels: Vec<Channel>) -> Result<(), BootstrapError> {
    let hub = Hub {
        lines: channels.into_iter().map(Line::new).collect(),
        news: Vec::new(),
        over: false,
        looked: Instant::now(),
    };
    let thread = std::thread::Builder::new()
        .name("sapwood-hub".into())
        .stack_size(STACK_BYTES)
        .spawn(move || {
            take_no_signals();
            hub.run();
        });
    thread.map(drop).map_err(|error| BootstrapError::System {
        doing: "starting the thread that passes on what the ranks say".into(),
        source: rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::AGAIN),
    })
}

/// The program's signals are for the program's threads.
pub(super) fn take_no_signals() {
    // SAFETY: the set is a plain structure, filled before it is read; the call changes this thread's mask alone.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_BLOCK, &all, std::ptr::null_mut());
    }
}

struct Contribution {
    header: ContributionHeader,
    payload: Vec<u8>,
}

/// One rank's.
struct Line {
    /// None when it is closed.
    channel: Option<Channel>,
    gone: bool,
    /// Nothing more comes from it, and the others have been told so.
    ended: bool,
    /// It says nothing more, and is let go when all others have been told.
    let_go: bool,
    contribution: Option<Contribution>,
    /// What it says after a death.
    survives: Option<Survive>,
    /// The number of the latest step that it has come to.
    come_to: u64,
    /// Something may be on its way to it that has not been acknowledged.
    pending: bool,
}

impl Line {
    fn new(channel: Channel) -> Self {
        Self {
            channel: Some(channel),
            gone: false,
            ended: false,
            let_go: false,
            contribution: None,
            survives: None,
            come_to: 0,
            pending: false,
        }
    }

    fn queue(&mut self, kind: Kind, body: &Arc<Vec<u8>>) {
        if let Some(channel) = &mut self.channel {
            channel.queue(kind, Arc::clone(body), Arc::default());
        }
    }

    fn is_flushed(&self) -> bool {
        self.channel.as_ref().is_none_or(Channel::is_flushed)
    }

    /// Something may still come from it: also from one that has given up on a step.
    fn lives(&self) -> bool {
        self.channel.is_some() && !self.let_go
    }

    /// Whether it is waited for in a step, or in a stage of what the survivors agree on.
    fn is_behind(&self, sequence: u64) -> bool {
        if sequence & STAGES == 0 {
            return self.come_to < sequence;
        }
        let stage = self.survives.as_ref().map(|one| one.stage);
        self.lives() && stage != Some(sequence & !STAGES)
    }
}

struct Hub {
    lines: Vec<Line>,
    /// Who has gone since the others were last told.
    news: Vec<(Rank, Leaving)>,
    /// No step can be finished any more, and everybody has been told why.
    over: bool,
    /// When connections were last looked at for silence.
    looked: Instant,
}

impl Hub {
    fn run(mut self) {
        while self.lines.iter().any(|line| line.channel.is_some()) {
            for rank in 0..self.lines.len() {
                self.hear(rank);
            }
            self.finish_step();
            self.finish_stage();
            self.tell_news();
            self.flush();
            self.let_go();
            self.wait();
        }
    }

    /// Takes what a rank has said, and its end.
    fn hear(&mut self, rank: usize) {
        while let Some(channel) = &mut self.lines[rank].channel {
            let Some(message) = channel.next_message() else {
                break;
            };
            if let Err(problem) = self.take(rank, message) {
                self.lose(rank, problem);
            }
        }
        let Some(channel) = &self.lines[rank].channel else {
            return;
        };
        if channel.is_closed() {
            let how = if channel.is_out_of_reach() {
                DepartureKind::OutOfReach
            } else {
                DepartureKind::Died
            };
            self.lines[rank].channel = None;
            self.depart(
                rank,
                Leaving {
                    how,
                    verdict: None,
                    last: true,
                },
            );
        }
    }

    fn take(&mut self, rank: usize, message: Message) -> Result<(), String> {
        match message.kind {
            Kind::Contribution => {
                let (header, payload) = message::decode_with_payload(message.body)?;
                self.contribute(rank, Contribution { header, payload })
            }
            Kind::Question => {
                let Question { sequence } = message::decode(&message.body)?;
                let behind = (0..)
                    .zip(&self.lines)
                    .filter(|(_, line)| line.is_behind(sequence))
                    .map(|(rank, _)| rank)
                    .collect();
                let answer = Arc::new(message::encode(&Answer { sequence, behind }));
                self.lines[rank].queue(Kind::Answer, &answer);
                Ok(())
            }
            Kind::Survive => {
                self.lines[rank].survives = Some(message::decode(&message.body)?);
                Ok(())
            }
            Kind::Leaving => {
                let leaving: Leaving = message::decode(&message.body)?;
                // Who has given up goes on listening until it leaves.
                self.lines[rank].let_go |= leaving.last;
                self.depart(rank, leaving);
                Ok(())
            }
            kind => Err(format!("sent a {kind:?}, which only rank 0 does")),
        }
    }

    fn contribute(&mut self, rank: usize, contribution: Contribution) -> Result<(), String> {
        let line = &mut self.lines[rank];
        if line.contribution.is_some() {
            return Err(format!(
                "came to {:?} before the step that it was in had ended",
                contribution.header.step
            ));
        }
        line.come_to = contribution.header.sequence;
        let others = self.lines.iter().zip(0..);
        let other = others
            .filter_map(|(line, rank)| Some((&line.contribution.as_ref()?.header, rank)))
            .next();
        let own = &contribution.header;
        if let Some((header, other_rank)) = other
            && (&header.step, header.sequence) != (&own.step, own.sequence)
        {
            let verdict = Verdict::Mismatch {
                rank: rank as Rank,
                step: own.step.clone(),
                sequence: own.sequence,
                other_rank,
                other_step: header.step.clone(),
                other_sequence: header.sequence,
            };
            self.end_with(&verdict);
        }
        self.lines[rank].contribution = Some(contribution);
        Ok(())
    }

    /// Passes everything on once everybody has brought something.
    fn finish_step(&mut self) {
        let complete = self
            .lines
            .iter()
            .all(|line| line.contribution.is_some() && !line.gone);
        if self.over || !complete {
            return;
        }
        let taken = self.lines.iter_mut().filter_map(|line| line.contribution.take());
        let brought: Vec<Contribution> = taken.collect();
        let sequence = brought.first().map_or(0, |one| one.header.sequence);
        let brought = brought.into_iter().map(|one| (one.payload, one.header.apart));
        for Parts { body, ranks } in parts::join(sequence, brought) {
            for (line, rank) in self.lines.iter_mut().zip(0..) {
                // Nobody is given what he alone has brought.
                if ranks != (rank..rank + 1) {
                    line.queue(Kind::Parts, &body);
                }
            }
        }
    }

    /// Tells the living of each other once all of them have come to the same stage. They all get the same answer, or
    /// none: who dies from here on is the next stage's affair.
    fn finish_stage(&mut self) {
        let mut living = self.lines.iter().filter(|line| line.lives());
        let stage = |line: &Line| line.survives.as_ref().map(|one| one.stage);
        let Some(first) = living.next().and_then(stage) else {
            return;
        };
        if !living.all(|line| stage(line) == Some(first)) {
            return;
        }
        let living = self.lines.iter_mut().zip(0..).filter(|(line, _)| line.lives());
        let said = living.filter_map(|(line, rank)| Some((rank, line.survives.take()?.said)));
        let answer = message::Survivors {
            stage: first,
            said: said.collect(),
        };
        let body = Arc::new(message::encode(&answer));
        for line in self.lines.iter_mut().filter(|line| line.lives()) {
            line.queue(Kind::Survivors, &body);
        }
    }

    fn end_with(&mut self, verdict: &Verdict) {
        if !std::mem::replace(&mut self.over, true) {
            let body = Arc::new(message::encode(verdict));
            for line in &mut self.lines {
                line.queue(Kind::Verdict, &body);
            }
        }
    }

    /// A rank whose connection cannot be used any more.
    fn lose(&mut self, rank: usize, problem: String) {
        self.lines[rank].channel = None;
        let verdict = Some(Verdict::Failed {
            rank: rank as Rank,
            problem,
        });
        self.depart(
            rank,
            Leaving {
                how: DepartureKind::Died,
                verdict,
                last: true,
            },
        );
    }

    /// Notes that a rank is gone, or that it has given up: only the first is said, and that it has ended after it had
    /// given up, which the survivors need to know.
    fn depart(&mut self, rank: usize, leaving: Leaving) {
        let line = &mut self.lines[rank];
        line.contribution = None;
        let first = !std::mem::replace(&mut line.gone, true);
        let ends = leaving.last && !std::mem::replace(&mut line.ended, true);
        if first || ends {
            self.news.push((rank as Rank, leaving));
        }
    }

    fn tell_news(&mut self) {
        if !self.news.is_empty() {
            let gone = std::mem::take(&mut self.news);
            let body = Arc::new(message::encode(&News { gone }));
            for line in &mut self.lines {
                line.queue(Kind::News, &body);
            }
        }
    }

    fn flush(&mut self) {
        for rank in 0..self.lines.len() {
            let line = &mut self.lines[rank];
            let Some(channel) = &mut line.channel else {
                continue;
            };
            line.pending |= !channel.is_flushed();
            if let Err(problem) = channel.flush() {
                self.lose(rank, problem);
            }
        }
    }

    /// Closes the connections of those who have left. Rank 0 takes the thread with it when its process ends, so the
    /// others are told before it is let go.
    fn let_go(&mut self) {
        let told = self.news.is_empty() && self.lines[1..].iter().all(Line::is_flushed);
        for (line, rank) in self.lines.iter_mut().zip(0..) {
            if line.let_go && (rank > 0 || told) {
                line.channel = None;
            }
        }
    }

    /// Sleeps until somebody says something or can be told more, and moves what can be moved.
    fn wait(&mut self) {
        if self.looked.elapsed() >= tcp::CHECK {
            self.looked = Instant::now();
            for line in self.lines.iter_mut().filter(|line| line.pending) {
                line.pending = line.channel.as_mut().is_some_and(Channel::look_after_delivery);
            }
        }
        let open: Vec<usize> = (0..self.lines.len())
            .filter(|&rank| self.lines[rank].channel.is_some())
            .collect();
        let channels = |rank: &usize| self.lines[*rank].channel.as_ref();
        // Something that nobody is going to say any more, or that is to be said still, is not waited for.
        let at_once = !self.news.is_empty() || open.iter().filter_map(channels).any(Channel::is_closed);
        let until = Instant::now()
            + match (at_once, self.lines.iter().any(|line| line.pending)) {
                (true, _) => Duration::ZERO,
                (false, true) => tcp::CHECK,
                (false, false) => NOTHING_ON_ITS_WAY,
            };
        let sockets: Vec<_> = open
            .iter()
            .filter_map(channels)
            .map(|channel| (Arc::clone(channel.socket()), channel.interest()))
            .collect();
        let mut entries: Vec<PollFd<'_>> = sockets
            .iter()
            .map(|(socket, interest)| PollFd::from_borrowed_fd(socket.as_fd(), *interest))
            .collect();
        if socket::poll_until(&mut entries, until).is_err() {
            // The kernel has no memory to wait with at the moment.
            std::thread::sleep(tcp::CHECK);
        }
        let ready: Vec<usize> = entries
            .iter()
            .zip(&open)
            .filter(|(entry, _)| {
                entry
                    .revents()
                    .intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR)
            })
            .map(|(_, rank)| *rank)
            .collect();
        drop(entries);
        drop(sockets);
        for rank in ready {
            if let Some(Err(problem)) = self.lines[rank].channel.as_mut().map(Channel::receive) {
                self.lose(rank, problem);
            }
        }
    }
}

#[cfg(test)]
mod tests;
