//! Who was not let in at the rendezvous, in the log.

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
#[derive(Debug, Default)]
pub(super) struct Refusals(Repeats<(Source, String)>);

impl Refusals {
    pub(super) fn refuse(&mut self, origin: &Origin, reason: &str) {
        let source = match origin {
            Origin::Process(Credentials { uid, .. }) => Source::User(*uid),
            Origin::Address(address) => Source::Address(address.ip().to_canonical()),
        };
        if self.0.count((source, reason.to_owned())) {
            tracing::warn!(from = %origin, reason, "refused a connection to the rendezvous");
        }
    }
}

impl Drop for Refusals {
    fn drop(&mut self) {
        for (kind, more) in self.0.unsaid() {
            let (from, reason) = match kind {
                Some((Source::User(user), reason)) => (format!("processes of user {user}"), reason),
                Some((Source::Address(address), reason)) => (address.to_string(), reason),
                None => ("many".into(), "for many reasons".into()),
            };
            tracing::warn!(from, reason, more, "refused more connections to the rendezvous");
        }
    }
}
