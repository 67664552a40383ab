//! What the two processes tell each other beside the queue pairs: lines of words.

use std::fmt::Display;
use std::io::{BufRead, Write};
use std::str::FromStr;

use crate::Outcome;

/// The byte at `at` of what a seed stands for.
pub fn byte(seed: u64, at: usize) -> u8 {
    let mixed = (seed ^ at as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed ^ mixed >> 29) as u8
}

/// One line, at once.
pub fn say(to: &mut impl Write, line: impl Display) -> Outcome<()> {
    writeln!(to, "{line}")
        .and_then(|()| to.flush())
        .map_err(|error| format!("telling the other process: {error}"))
}

/// The next line; `None` when the other process has closed its end.
pub fn hear(from: &mut impl BufRead) -> Outcome<Option<String>> {
    let mut line = String::new();
    match from.read_line(&mut line) {
        Ok(0) => Ok(None),
        Ok(_) => Ok(Some(line.trim().to_owned())),
        Err(error) => Err(format!("hearing the other process: {error}")),
    }
}

/// A word as a number.
pub fn number<T: FromStr>(word: &str) -> Outcome<T> {
    word.parse()
        .map_err(|_| format!("'{word}' is not the number that was expected"))
}

/// All words as numbers.
pub fn numbers<const N: usize>(words: &[&str]) -> Outcome<[u64; N]> {
    let numbers: Vec<u64> = words.iter().map(|word| number(word)).collect::<Outcome<_>>()?;
    numbers
        .try_into()
        .map_err(|_| format!("{words:?} are not {N} numbers"))
}

/// 16 bytes in hexadecimal.
pub fn gid_text(bytes: [u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(bytes))
}

/// As [`gid_text`] wrote it.
pub fn gid(text: &str) -> Outcome<[u8; 16]> {
    u128::from_str_radix(text, 16)
        .map(u128::to_be_bytes)
        .map_err(|_| format!("'{text}' is no GID"))
}
