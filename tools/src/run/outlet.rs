//! One of the launcher's own two outputs. Whoever reads it may be slow, stopped, or gone: that stops neither the launcher
//! nor, once it is told to end, the job.

use std::io::{Error, ErrorKind, IsTerminal, Stderr, Stdout};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::SendFlags;

/// With so much waiting nothing more is taken from the ranks.
const FULL: usize = 256 * 1024;
/// A pipe takes so many bytes whole or not at all: whole lines stay whole beside what others write into it.
const WHOLE: usize = 4096;
/// As much as is written at once where the kernel might make it wait.
const LITTLE: usize = 512;
/// How long what the launcher itself has to say at its end may wait for a reader.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How it is written to without waiting.
enum Way {
    /// A file, or a device that is no terminal: it never makes anybody wait for a reader.
    Plain,
    /// A pipe or a terminal: opened once more, since a flag on the one that was given would hold for everybody who has
    /// it, the person's shell for one.
    Own(OwnedFd),
    Socket,
    /// It cannot be opened once more. Where it says that it is ready, it takes a little.
    Careful,
}

/// The one that the launcher was started with. Its buffer and its lock are not used: who waits with the lock would stop
/// everybody else.
enum Given {
    Output(Stdout),
    Errors(Stderr),
}

/// See the module.
pub(super) struct Outlet {
    given: Given,
    way: Way,
    waiting: Vec<u8>,
    /// Nobody will read it any more.
    gone: bool,
}

impl Outlet {
    pub(super) fn new(to_stderr: bool) -> Self {
        let mut outlet = Self {
            given: if to_stderr {
                Given::Errors(std::io::stderr())
            } else {
                Given::Output(std::io::stdout())
            },
            way: Way::Plain,
            waiting: Vec::new(),
            gone: false,
        };
        outlet.way = outlet.find_way();
        outlet
    }

    fn find_way(&self) -> Way {
        let given = self.given();
        let kind = rustix::fs::fstat(given).map(|stat| FileType::from_raw_mode(stat.st_mode));
        match kind {
            Ok(FileType::Socket) => return Way::Socket,
            Ok(FileType::Fifo) => {}
            Ok(FileType::CharacterDevice) if given.is_terminal() => {}
            _ => return Way::Plain,
        }
        let number = given.as_raw_fd();
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        match rustix::fs::open(format!("/proc/self/fd/{number}"), flags, Mode::empty()) {
            Ok(own) => Way::Own(own),
            Err(_) => Way::Careful,
        }
    }

    fn given(&self) -> BorrowedFd<'_> {
        match &self.given {
            Given::Output(stdout) => stdout.as_fd(),
            Given::Errors(stderr) => stderr.as_fd(),
        }
    }

    /// What is polled for room.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        match &self.way {
            Way::Own(own) => own.as_fd(),
            _ => self.given(),
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= FULL
    }

    /// How many bytes nobody has taken yet.
    pub(super) fn left(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn put(&mut self, bytes: &[u8]) {
        if !self.gone {
            self.waiting.extend_from_slice(bytes);
        }
    }

    /// Forgets what nobody has taken.
    pub(super) fn forget(&mut self) {
        self.waiting.clear();
    }

    /// Writes as much as is taken at once, and says whether that was anything.
    pub(super) fn pass_on(&mut self) -> bool {
        let mut written = 0;
        while written < self.waiting.len() {
            match self.write(piece(&self.waiting[written..], self.most())) {
                Ok(length) => written += length,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // Whoever read it has gone.
                Err(_) => {
                    self.gone = true;
                    written = self.waiting.len();
                }
            }
            if matches!(self.way, Way::Careful) {
                break;
            }
        }
        self.waiting.drain(..written);
        written > 0
    }

    fn most(&self) -> usize {
        match self.way {
            Way::Careful => LITTLE,
            _ => WHOLE,
        }
    }

    fn write(&self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = match &self.way {
            Way::Own(own) => rustix::io::write(own, bytes),
            Way::Socket => rustix::net::send(self.given(), bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL),
            Way::Careful if !self.is_ready(Duration::ZERO) => Err(Errno::AGAIN),
            Way::Plain | Way::Careful => rustix::io::write(self.given(), bytes),
        };
        written.map_err(Error::from)
    }

    fn is_ready(&self, patience: Duration) -> bool {
        let timeout = Timespec {
            tv_sec: patience.as_secs() as i64,
            tv_nsec: i64::from(patience.subsec_nanos()),
        };
        let mut entries = [PollFd::from_borrowed_fd(self.descriptor(), PollFlags::OUT)];
        rustix::event::poll(&mut entries, Some(&timeout)).is_ok_and(|ready| ready > 0)
    }
}

/// As many whole lines as fit, or as much of one as does.
fn piece(bytes: &[u8], most: usize) -> &[u8] {
    let Some(first) = bytes.get(..most) else {
        return bytes;
    };
    let lines = first.iter().rposition(|byte| *byte == b'\n');
    lines.map_or(first, |end| &first[..=end])
}

/// Says the launcher's own last words on standard error; to nobody, if nobody reads them for a while.
pub(super) fn say_at_last(words: &str) {
    let mut outlet = Outlet::new(true);
    outlet.put(format!("{words}\n").as_bytes());
    let until = Instant::now() + LAST_WORDS;
    while !outlet.pass_on() || outlet.left() > 0 {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || outlet.left() == 0 {
            break;
        }
        outlet.is_ready(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_stay_whole_where_they_fit() {
        assert_eq!(piece(b"one\ntwo\nthree", 9), b"one\ntwo\n");
        assert_eq!(piece(b"one\ntwo", 9), b"one\ntwo");
        assert_eq!(piece(b"a line that is long\n", 6), b"a line");
    }
}
