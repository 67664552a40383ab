//! Sapwood: an RDMA-native communication runtime for training codes.
//!
//! Modules stand on each other in one direction; each may use what is named after it:
//! `exchange` → `backup` → `communicator` → `engine` → `bootstrap` → `fabric` → `memory`, with `plan` (collectives as
//! data, used by `communicator` and `engine`, using nothing), `simulator` (experiments in virtual time, using at most
//! `plan`) and `observe` (used by all, using none) beside them.

pub mod backup;
pub mod bootstrap;
pub mod communicator;
pub mod engine;
pub mod exchange;
pub mod fabric;
pub mod memory;
pub mod observe;
pub mod plan;
pub mod simulator;

/// The example in the README, as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
