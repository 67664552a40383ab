//! Sockets, on any machine. What peers ask of a rank is done by its own endpoint, so that is driven for it.

use std::sync::Arc;

use sapwood::fabric::Fabric;
use sapwood::fabric::tcp::{Settings, Tcp};

use super::driven::Driven;
use super::{Opening, Provider};

pub fn all() -> [Provider; 1] {
    [Provider::new("tcp", |opening| Arc::new(Driven(open(opening))))]
}

/// One whose endpoints are not driven yet.
pub fn open(opening: Opening) -> Arc<dyn Fabric> {
    let mut settings = Settings::from_environment().unwrap_or_else(|error| panic!("{error}"));
    if let Some(patience) = opening.receiver_patience {
        settings.receiver_patience = patience;
    }
    Arc::new(Tcp::open(settings).unwrap_or_else(|error| panic!("{error}")))
}
