//! Words that several sub-commands read in the same way. An error says what would be right.

use std::time::Duration;

const SIZE: &str = "a size is a number of bytes, or one with K, M, G or T (powers of two): 8, 4K, 64M, 1G";
const LONGEST_TIMEOUT: f64 = 365.0 * 24.0 * 3600.0;

/// A number of bytes.
pub fn parse_size(word: &str) -> Result<usize, String> {
    let digits = word.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let shift = match &word[digits.len()..] {
        "" => 0,
        "K" | "k" => 10,
        "M" | "m" => 20,
        "G" | "g" => 30,
        "T" | "t" => 40,
        _ => return Err(SIZE.into()),
    };
    let number: usize = digits.parse().map_err(|_| SIZE)?;
    number
        .checked_mul(1 << shift)
        .filter(|bytes| isize::try_from(*bytes).is_ok())
        .ok_or_else(|| format!("an address space holds at most {} bytes", isize::MAX))
}

/// How long to wait for others, in seconds.
pub fn parse_timeout(word: &str) -> Result<Duration, String> {
    word.parse()
        .ok()
        .filter(|seconds| *seconds <= LONGEST_TIMEOUT)
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|timeout| !timeout.is_zero())
        .ok_or_else(|| "a number of seconds above 0 is needed, 60 for example, and at most a year".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_seconds() {
        assert_eq!(parse_timeout("2.5"), Ok(Duration::from_millis(2500)));
        for bad in ["", "0", "-1", "nan", "inf", "1e9", "soon"] {
            assert!(parse_timeout(bad).unwrap_err().contains("above 0"), "{bad}");
        }
    }

    #[test]
    fn sizes_are_powers_of_two() {
        assert_eq!(parse_size("8"), Ok(8));
        assert_eq!(parse_size("4K"), Ok(4096));
        assert_eq!(parse_size("64m"), Ok(64 << 20));
        assert_eq!(parse_size("1G"), Ok(1 << 30));
        for bad in [
            "",
            "K",
            "8KB",
            "-1",
            "1.5M",
            "8 K",
            "+8x",
            "99999999999999999999",
            "99999999T",
            "16777216T",
            "µ",
        ] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }
}
