//! Two fabrics as one. Over shared memory on both sides, the far side without load/store reach, they are there on any
//! machine; once with ranks 0 and 1 near each other (and 2 and 3, and so on), once with them far from each other (and
//! near to every second rank), so that every case runs on both kinds of pairs. The same with verbs on the far side, and the second with tcp.

use std::sync::Arc;

use sapwood::fabric::mixed::Mixed;
use sapwood::fabric::shm::Shm;
use sapwood::fabric::{Fabric, Rank};

use super::driven::Driven;
use super::{Opening, Provider, shm, tcp, verbs};

/// More than any case has.
const RANKS: Rank = 64;

pub fn all() -> [Provider; 5] {
    [
        Provider::new("mixed", |opening| {
            mixed(opening, over_shm(opening), |rank| rank / 2)
        }),
        Provider::new("mixed-across", |opening| {
            mixed(opening, over_shm(opening), |rank| rank % 2)
        }),
        Provider::new("mixed-tcp-across", |opening| {
            Arc::new(Driven(mixed(opening, tcp::open(opening), |rank| rank % 2)))
        }),
        Provider {
            name: "mixed-verbs",
            open: |opening| mixed(opening, over_verbs(opening), |rank| rank / 2),
            missing: verbs::missing,
            last_words: verbs::LAST_WORDS,
        },
        Provider {
            name: "mixed-verbs-across",
            open: |opening| mixed(opening, over_verbs(opening), |rank| rank % 2),
            missing: verbs::missing,
            last_words: verbs::LAST_WORDS,
        },
    ]
}

fn over_shm(opening: Opening) -> Arc<dyn Fabric> {
    shm(Shm::options().without_reach().pollable(), opening)
}

fn over_verbs(opening: Opening) -> Arc<dyn Fabric> {
    let depth = Shm::new().map_or(256, |shm| shm.capabilities().queue_depth);
    // As `select` does it: no more than every pair holds.
    verbs::open_with(opening, |settings| settings.queue_depth = depth)
        .unwrap_or_else(|error| panic!("{error}"))
}

/// Shared memory for ranks that `host` puts on one host, and `far` for all others.
pub fn mixed(opening: Opening, far: Arc<dyn Fabric>, host: fn(Rank) -> u32) -> Arc<dyn Fabric> {
    let near = shm(Shm::options().pollable(), opening);
    let mates = (0..RANKS).filter(|rank| host(*rank) == host(opening.rank));
    Arc::new(Mixed::new(near, far, mates))
}
