//! What the ranks print, on its way through the launcher, and what the launcher itself says meanwhile.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use super::RunError;
use super::outlet::Outlet;
use super::tagging::Tagged;

/// How long an output is listened to that does not end, though whoever could print there has: somebody outside of the
/// job holds it.
const SILENCE: Duration = Duration::from_millis(500);

/// All outputs of a job.
pub(super) struct Outputs {
    sources: Vec<Tagged>,
    /// Standard output and standard error.
    outlets: [Outlet; 2],
    /// When anything was last read or written.
    moved: Instant,
}

impl Outputs {
    pub(super) fn new() -> Self {
        Self {
            sources: Vec::new(),
            outlets: [Outlet::new(false), Outlet::new(true)],
            moved: Instant::now(),
        }
    }

    /// Passes on what a rank prints there, with its number before each line.
    pub(super) fn add(&mut self, rank: usize, source: OwnedFd, to_stderr: bool) -> Result<(), RunError> {
        self.sources.retain(|source| !source.ended);
        let source = Tagged::new(rank, source, to_stderr).map_err(|problem| RunError::System {
            doing: "listening to a rank",
            problem,
        })?;
        self.sources.push(source);
        Ok(())
    }

    /// Says something of the launcher's own on standard error.
    pub(super) fn say(&mut self, words: &str) {
        let [_, outlet] = &mut self.outlets;
        outlet.put(format!("sapwood run: {words}\n").as_bytes());
        outlet.pass_on();
    }

    /// What is to be polled for them: ranks that print, while there is room for it, and outputs that have something to
    /// write.
    pub(super) fn entries(&self) -> impl Iterator<Item = PollFd<'_>> {
        let sources = self.sources.iter().filter(|source| self.is_heard(source));
        let outlets = self.outlets.iter().filter(|outlet| outlet.left() > 0);
        sources
            .map(|source| PollFd::from_borrowed_fd(source.descriptor(), PollFlags::IN))
            .chain(outlets.map(|outlet| PollFd::from_borrowed_fd(outlet.descriptor(), PollFlags::OUT)))
    }

    fn is_heard(&self, source: &Tagged) -> bool {
        !source.ended && !self.outlets[usize::from(source.to_stderr)].is_full()
    }

    /// Passes on whatever has come.
    pub(super) fn pass_on(&mut self) {
        let mut moved = false;
        for source in &mut self.sources {
            let outlet = &mut self.outlets[usize::from(source.to_stderr)];
            let before = outlet.left();
            source.pass_on(outlet);
            moved |= outlet.left() != before;
        }
        for outlet in &mut self.outlets {
            moved |= outlet.pass_on();
        }
        if moved {
            self.moved = Instant::now();
        }
    }

    /// Whether there is nothing more to pass on, when all ranks have ended. `patience` is how long a reader may take who
    /// takes nothing; what it has not taken then is forgotten, and said to be.
    pub(super) fn is_over(&mut self, patience: Option<Duration>) -> bool {
        let quiet = self.moved.elapsed();
        if self.outlets.iter().any(|outlet| outlet.left() > 0) {
            if patience.is_none_or(|patience| quiet < patience) {
                return false;
            }
            let left: usize = self.outlets.iter().map(Outlet::left).sum();
            self.outlets.iter_mut().for_each(Outlet::forget);
            self.sources.clear();
            self.say(&format!(
                "{left} bytes of output were not read and are lost, as is what ranks had not been able to print"
            ));
            return true;
        }
        if self.sources.iter().any(|source| !source.ended) && quiet < SILENCE {
            return false;
        }
        for source in &mut self.sources {
            source.end(&mut self.outlets[usize::from(source.to_stderr)]);
        }
        self.outlets.iter_mut().for_each(|outlet| {
            outlet.pass_on();
        });
        self.sources.clear();
        self.outlets.iter().all(|outlet| outlet.left() == 0)
    }

    /// From now on what is quiet is: counts patience anew.
    pub(super) fn begin_to_end(&mut self) {
        self.moved = Instant::now();
    }
}
