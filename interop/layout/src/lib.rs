//! Reads `sys/src/verbs/bindings.rs` and `loader.rs` as data, for build scripts that generate comparisons with another
//! description of the same C types. It knows how bindgen writes things, and nothing about what is right.

mod bindings;
mod functions;

pub use bindings::{Aggregate, Alias, Bindings, Constant, Field, Flavour};
pub use functions::{Function, Functions};
