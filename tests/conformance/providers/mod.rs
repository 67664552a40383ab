//! The fabrics that the suite runs on. To add one: open it here.

pub mod defective;
mod driven;
mod mixed;
mod tcp;
mod verbs;

use std::sync::Arc;
use std::time::Duration;

use sapwood::fabric::delayed::Delayed;
use sapwood::fabric::shm::Shm;
use sapwood::fabric::{Fabric, Rank, Status};

use crate::cases::Case;

/// What a rank asks of its fabric.
#[derive(Clone, Copy, Default)]
pub struct Opening {
    /// Ranks of one host spread over its devices.
    pub rank: Rank,
    /// How long a request waits for a receive, if the case needs that to be short.
    pub receiver_patience: Option<Duration>,
}

/// How one provider is opened; every rank opens its own.
#[derive(Clone, Copy)]
pub struct Provider {
    pub name: &'static str,
    open: fn(Opening) -> Arc<dyn Fabric>,
    /// Why it cannot be opened on this machine, if it cannot.
    pub missing: fn() -> Option<String>,
    /// How a request to a process that is being killed may end.
    pub last_words: &'static [Status],
}

impl Provider {
    /// One that opens on any machine.
    pub const fn new(name: &'static str, open: fn(Opening) -> Arc<dyn Fabric>) -> Self {
        Self {
            name,
            open,
            missing: || None,
            last_words: &[Status::PeerUnreachable],
        }
    }

    pub fn open(&self) -> Arc<dyn Fabric> {
        (self.open)(Opening::default())
    }

    pub fn open_for(&self, rank: Rank, case: &Case) -> Arc<dyn Fabric> {
        (self.open)(Opening {
            rank,
            receiver_patience: case.receiver_patience,
        })
    }
}

fn shm(options: sapwood::fabric::shm::Options, opening: Opening) -> Arc<dyn Fabric> {
    let options = match opening.receiver_patience {
        Some(patience) => options.receiver_patience(patience),
        None => options,
    };
    Arc::new(options.open().expect("the shared-memory fabric opens anywhere"))
}

/// Those that must pass.
pub fn all() -> Vec<Provider> {
    let mut all = vec![
        Provider::new("shm", |opening| shm(Shm::options(), opening)),
        Provider::new("shm-without-reach", |opening| {
            shm(Shm::options().without_reach(), opening)
        }),
    ];
    all.push(Provider::new("delayed", |opening| {
        let fabric = shm(Shm::options().without_reach(), opening);
        Arc::new(Delayed::new(fabric, Duration::from_millis(1)))
    }));
    all.extend(tcp::all());
    all.extend(mixed::all());
    all.extend(verbs::all());
    all
}

pub fn find(name: &str) -> Provider {
    all()
        .into_iter()
        .chain(defective::all())
        .find(|provider| provider.name == name)
        .unwrap_or_else(|| panic!("there is no provider {name:?}"))
}
