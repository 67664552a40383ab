//! A rank's output on its way to the launcher's own, with the rank before each line.

use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::outlet::Outlet;

/// A line longer than this is passed on in pieces.
const LONGEST_LINE: usize = 64 * 1024;

/// One of a rank's two outputs.
pub(super) struct Tagged {
    source: std::fs::File,
    pub(super) to_stderr: bool,
    tag: String,
    line: Vec<u8>,
    pub(super) ended: bool,
}

impl Tagged {
    pub(super) fn new(rank: usize, source: OwnedFd, to_stderr: bool) -> std::io::Result<Self> {
        let flags = rustix::fs::fcntl_getfl(&source)?;
        rustix::fs::fcntl_setfl(&source, flags | rustix::fs::OFlags::NONBLOCK)?;
        let tag = format!("[{rank}] ");
        Ok(Self {
            source: source.into(),
            to_stderr,
            tag,
            line: Vec::new(),
            ended: false,
        })
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.source.as_fd()
    }

    /// Passes on what has arrived, as long as there is room for it.
    pub(super) fn pass_on(&mut self, outlet: &mut Outlet) {
        let mut bytes = [0; 16 * 1024];
        // Others get their turn even if this rank never stops printing.
        for _ in 0..4 {
            if self.ended || outlet.is_full() {
                break;
            }
            match self.source.read(&mut bytes) {
                Ok(0) => self.ended = true,
                Ok(length) => self.line.extend_from_slice(&bytes[..length]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.ended = true,
            }
            outlet.put(&tag_lines(&self.tag, &mut self.line, self.ended));
        }
    }

    /// Nothing more is waited for: what is there of a line is one.
    pub(super) fn end(&mut self, outlet: &mut Outlet) {
        self.ended = true;
        outlet.put(&tag_lines(&self.tag, &mut self.line, true));
    }
}

/// Takes the whole lines out of `line`, each with the tag before it; at the end the last one too.
fn tag_lines(tag: &str, line: &mut Vec<u8>, ended: bool) -> Vec<u8> {
    let mut tagged = Vec::new();
    let mut at = 0;
    while at < line.len() {
        let rest = &line[at..];
        let length = match rest.iter().position(|byte| *byte == b'\n') {
            Some(end) => end + 1,
            None if ended || rest.len() >= LONGEST_LINE => rest.len(),
            None => break,
        };
        tagged.extend_from_slice(tag.as_bytes());
        tagged.extend_from_slice(&rest[..length]);
        if rest[length - 1] != b'\n' {
            tagged.push(b'\n');
        }
        at += length;
    }
    line.drain(..at);
    tagged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_has_its_tag_and_half_lines_wait() {
        let mut line = b"one\ntwo\nthr".to_vec();
        assert_eq!(tag_lines("[3] ", &mut line, false), b"[3] one\n[3] two\n");
        line.extend_from_slice(b"ee");
        assert_eq!(tag_lines("[3] ", &mut line, false), b"");
        assert_eq!(tag_lines("[3] ", &mut line, true), b"[3] three\n");
        assert!(line.is_empty());
    }

    #[test]
    fn a_line_without_end_is_passed_on_in_pieces() {
        let mut line = vec![b'x'; LONGEST_LINE];
        assert_eq!(tag_lines("[0] ", &mut line, false).len(), 4 + LONGEST_LINE + 1);
    }
}
