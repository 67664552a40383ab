//! The two sides of `sapwood perf`, as processes.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU16, Ordering};

use super::sapwood;

/// A port that no other test uses at this time; only its number matters, as the two sides meet by user and port.
pub fn port() -> String {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let process = std::process::id() as u16 % 500;
    (20_000 + process * 80 + NEXT.fetch_add(1, Ordering::Relaxed)).to_string()
}

/// One side, over shared memory.
pub fn side(arguments: &[&str]) -> Command {
    sapwood(&[&["perf"], arguments, &["--fabric", "shm"]].concat())
}

/// Waits until a side has printed the heads of its table: then it is about to measure.
pub fn measures(child: &mut Child) {
    let output = BufReader::new(child.stdout.take().expect("piped"));
    let heads = output
        .lines()
        .map_while(Result::ok)
        .any(|line| line.starts_with(" #bytes"));
    assert!(heads, "it ended before it measured anything");
}
