//! All cases. A case is a function that every rank runs; it fails by panicking.

mod atomics;
mod back_pressure;
mod capabilities;
mod completions;
mod data;
mod fencing;
mod loss;
mod many;
mod ownership;
mod parcels;
mod protection;
mod sends;
mod waiting;

use std::time::Duration;

use sapwood::fabric::{AtomicDomain, Fabric, Rank};

use crate::member::Member;
use crate::runner::Mode;

/// See the module.
#[derive(Clone, Copy)]
pub struct Case {
    pub name: &'static str,
    pub ranks: usize,
    pub modes: &'static [Mode],
    /// Ranks that may be killed in its course.
    pub victims: &'static [Rank],
    /// How long requests of this case wait for a receive, where the provider's usual time is too long to be waited for.
    pub receiver_patience: Option<Duration>,
    /// Why a fabric with its capabilities cannot be asked to do it.
    pub needs: fn(&dyn Fabric) -> Result<(), &'static str>,
    pub run: fn(&mut Member),
}

const BOTH: &[Mode] = &[Mode::Threads, Mode::Processes];
const PROCESSES: &[Mode] = &[Mode::Processes];
const THREADS: &[Mode] = &[Mode::Threads];

impl Case {
    /// Two ranks, as threads and as processes.
    const fn new(name: &'static str, run: fn(&mut Member)) -> Self {
        Self {
            name,
            ranks: 2,
            modes: BOTH,
            victims: &[],
            receiver_patience: None,
            needs: |_| Ok(()),
            run,
        }
    }
}

fn atomics(fabric: &dyn Fabric) -> Result<(), &'static str> {
    match fabric.capabilities().atomic_domain {
        AtomicDomain::None => Err("no atomics"),
        _ => Ok(()),
    }
}

fn reach(fabric: &dyn Fabric) -> Result<(), &'static str> {
    if fabric.capabilities().load_store {
        Ok(())
    } else {
        Err("no load/store reach")
    }
}

pub fn all() -> Vec<Case> {
    [
        data::CASES,
        sends::CASES,
        atomics::CASES,
        protection::CASES,
        parcels::CASES,
        completions::CASES,
        back_pressure::CASES,
        fencing::CASES,
        loss::CASES,
        waiting::CASES,
        ownership::CASES,
        many::CASES,
        capabilities::CASES,
    ]
    .concat()
}
