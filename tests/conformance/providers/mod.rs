//! The fabrics that the suite runs on. To add one: open it here.

pub mod defective;

use std::sync::Arc;
use std::time::Duration;

use sapwood::fabric::Fabric;
use sapwood::fabric::shm::Shm;

use crate::cases::Case;

/// How one provider is opened; every rank opens its own.
#[derive(Clone, Copy)]
pub struct Provider {
    pub name: &'static str,
    /// How long a request waits for a receive, if the case needs that to be short.
    open: fn(Option<Duration>) -> Arc<dyn Fabric>,
}

impl Provider {
    pub fn open(&self) -> Arc<dyn Fabric> {
        (self.open)(None)
    }

    pub fn open_for(&self, case: &Case) -> Arc<dyn Fabric> {
        (self.open)(case.receiver_patience)
    }
}

fn shm(options: sapwood::fabric::shm::Options, patience: Option<Duration>) -> Arc<dyn Fabric> {
    let options = match patience {
        Some(patience) => options.receiver_patience(patience),
        None => options,
    };
    Arc::new(options.open().expect("the shared-memory fabric opens anywhere"))
}

/// Those that must pass.
pub fn all() -> Vec<Provider> {
    vec![
        Provider {
            name: "shm",
            open: |patience| shm(Shm::options(), patience),
        },
        Provider {
            name: "shm-without-reach",
            open: |patience| shm(Shm::options().without_reach(), patience),
        },
    ]
}

pub fn find(name: &str) -> Provider {
    all()
        .into_iter()
        .chain(defective::all())
        .find(|provider| provider.name == name)
        .unwrap_or_else(|| panic!("there is no provider {name:?}"))
}
