//! Who was not let in, in the log.

use std::net::IpAddr;

use super::socket::{Credentials, Origin};
use crate::observe::Repeats;

/// Who it is to whoever counts: a flood comes from ever other processes or ports.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Source {
    User(u32),
    Address(IpAddr),
}

/// Says each of the first few of one origin and reason, and how many more there were when it is dropped.
#[derive(Debug)]
pub(super) struct Refusals {
    at: &'static str,
    counts: Repeats<(Source, String)>,
}

impl Refusals {
    /// For those who come to what is called so.
    pub(super) fn at(at: &'static str) -> Self {
        let counts = Repeats::default();
        Self { at, counts }
    }

    pub(super) fn refuse(&mut self, origin: &Origin, reason: &str) {
        let source = match origin {
            Origin::Process(Credentials { uid, .. }) => Source::User(*uid),
            Origin::Address(address) => Source::Address(address.ip().to_canonical()),
        };
        if self.counts.count((source, reason.to_owned())) {
            tracing::warn!(from = %origin, reason, "refused a connection to {}", self.at);
        }
    }
}

impl Drop for Refusals {
    fn drop(&mut self) {
        for (kind, more) in self.counts.unsaid() {
            let (from, reason) = match kind {
                Some((Source::User(user), reason)) => (format!("processes of user {user}"), reason),
                Some((Source::Address(address), reason)) => (address.to_string(), reason),
                None => ("many".into(), "for many reasons".into()),
            };
            tracing::warn!(from, reason, more, "refused more connections to {}", self.at);
        }
    }
}
