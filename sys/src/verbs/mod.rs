//! libibverbs: its types, its functions, and in Rust those that its header defines inline.
//!
//! # What has been exercised
//! Layouts were taken from the system's header and are asserted at compile time on x86-64 with glibc. On soft-RoCE:
//! listing, opening and querying devices, ports, GIDs and partition keys; registration; completion queues; queue pairs
//! through all their states; posting and polling; asynchronous events; the refusal of dma-bufs. Nothing has been run on
//! an adapter of hardware yet, nor the functions behind `query_ece`, `set_ece` and `is_fork_initialized`.

#[allow(missing_docs, non_camel_case_types, non_snake_case, clippy::all)] // As the C header has it.
pub mod bindings;
mod inline;
mod loader;

pub use inline::{poll_cq, post_recv, post_send, req_notify_cq};
pub use loader::{LIBRARY, LoadError, Verbs};
