//! The eight tests: what is posted, and what is measured of it. Names and defaults only.

use std::fmt;
use std::str::FromStr;

/// What is posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Write,
    Read,
    Send,
    Atomic,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Latency,
    Bandwidth,
}

/// One of the eight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Test {
    pub(super) verb: Verb,
    pub(super) kind: Kind,
}

/// Which operation an atomic test posts; the names are perftest's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AtomicKind {
    FetchAdd,
    CompareSwap,
}

const NAMES: [(&str, Verb, Kind); 8] = [
    ("write-lat", Verb::Write, Kind::Latency),
    ("write-bw", Verb::Write, Kind::Bandwidth),
    ("read-lat", Verb::Read, Kind::Latency),
    ("read-bw", Verb::Read, Kind::Bandwidth),
    ("send-lat", Verb::Send, Kind::Latency),
    ("send-bw", Verb::Send, Kind::Bandwidth),
    ("atomic-lat", Verb::Atomic, Kind::Latency),
    ("atomic-bw", Verb::Atomic, Kind::Bandwidth),
];

impl Test {
    pub(super) fn name(self) -> &'static str {
        NAMES
            .iter()
            .find(|(_, verb, kind)| (*verb, *kind) == (self.verb, self.kind))
            .map_or("", |(name, ..)| name)
    }

    pub(super) fn is_latency(self) -> bool {
        self.kind == Kind::Latency
    }

    /// Bytes of a message where nobody gives a size.
    pub(super) fn usual_size(self) -> usize {
        match (self.verb, self.kind) {
            (Verb::Atomic, _) => 8,
            (_, Kind::Latency) => 2,
            (_, Kind::Bandwidth) => 65536,
        }
    }

    /// Iterations where nobody gives a number.
    pub(super) fn usual_iterations(self) -> u64 {
        if (self.verb, self.kind) == (Verb::Write, Kind::Bandwidth) {
            5000
        } else {
            1000
        }
    }
}

impl FromStr for Test {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        // perftest's own programs are named ib_write_lat, ib_write_bw, ...
        let plain = word.strip_prefix("ib_").unwrap_or(word).replace('_', "-");
        let found = NAMES.iter().find(|(name, ..)| *name == plain);
        found
            .map(|(_, verb, kind)| Self {
                verb: *verb,
                kind: *kind,
            })
            .ok_or_else(|| {
                let names = NAMES.map(|(name, ..)| name).join(", ");
                format!("no such test; it is one of {names}")
            })
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl AtomicKind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::FetchAdd => "FETCH_AND_ADD",
            Self::CompareSwap => "CMP_AND_SWAP",
        }
    }
}

impl FromStr for AtomicKind {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        [Self::FetchAdd, Self::CompareSwap]
            .into_iter()
            .find(|kind| kind.name() == word)
            .ok_or_else(|| "it is FETCH_AND_ADD or CMP_AND_SWAP".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_as_it_is_written() {
        for (name, ..) in NAMES {
            assert_eq!(name.parse::<Test>().unwrap().to_string(), name);
        }
        assert_eq!("ib_write_bw".parse::<Test>().unwrap().name(), "write-bw");
        let error = "write-latency".parse::<Test>().unwrap_err();
        assert!(error.contains("write-lat, write-bw"), "{error}");
    }

    #[test]
    fn defaults_are_perftest_s() {
        let of = |name: &str| {
            let test: Test = name.parse().unwrap();
            (test.usual_size(), test.usual_iterations())
        };
        assert_eq!(of("write-lat"), (2, 1000));
        assert_eq!(of("write-bw"), (65536, 5000));
        assert_eq!(of("send-bw"), (65536, 1000));
        assert_eq!(of("atomic-bw"), (8, 1000));
    }
}
