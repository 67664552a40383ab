//! Runs a lowered plan, chunk by chunk.

pub mod reduce;
