//! Experiments in virtual time: when things would happen, by laws and topologies, without waiting for them. Uses at
//! most `plan` and the topology; reads no clock, starts no thread, opens no file. The same seed gives the same random
//! numbers on every machine.

pub mod backup;
mod bisection;
mod random;

pub use random::Random;
