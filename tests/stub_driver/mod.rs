//! A verbs library with one device that exists only here, so that the verbs fabric runs on a machine that has none: for
//! counting what the fabric itself does. Its driver does the least that the interface asks for. Writes and reads
//! move their bytes, within this process and without looking at keys; sends and atomics complete and do nothing;
//! receives lie there until the queue pair fails. Posting and polling allocate nothing, lock nothing and make no
//! system call, so that whatever a test finds is the fabric's.
#![allow(dead_code, reason = "each test uses a part of it")]

mod device;
mod library;
pub mod pair;
mod queues;

pub use library::library;
pub use pair::Pair;

/// Marks the driver's functions on the path that is measured, for tools that leave them out by name.
pub const MEASURED: [&str; 3] = ["stub_post_send", "stub_post_recv", "stub_poll_cq"];
