//! libibverbs: its types, its functions, and in Rust those that its header defines inline.
//!
//! # What has been exercised
//! Layouts were taken from the system's header and are asserted at compile time on x86-64 with glibc. Loading,
//! listing devices and the dispatch of the inline functions are tested on machines without a device. Nothing else
//! has been run on a device yet: registration, queue pairs, data transfer, `query_port` of a real provider and
//! everything behind an optional symbol.

#[allow(missing_docs, non_camel_case_types, non_snake_case, clippy::all)] // As the C header has it.
pub mod bindings;
mod inline;
mod loader;

pub use inline::{poll_cq, post_recv, post_send, req_notify_cq};
pub use loader::{LIBRARY, LoadError, Verbs};
