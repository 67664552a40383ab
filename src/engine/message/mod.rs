//! Runs lowered plans where ranks reach each other by messages: data is pushed with an immediate that says whose it
//! is and how far it goes, straight from where it lies to where it is needed. Works over any endpoint; must never ask
//! which.
//!
//! Nobody writes into a rank before that has said that it has begun; what it says then, of itself, is also what finds
//! ranks that call different things. Arrivals are known to their receiver alone. Messages of operations that have not
//! begun here are counted and hold nobody up.

mod core;
mod execution;
mod immediate;
mod inner;
mod letters;
mod link;
mod note;
mod odd;
mod route;
mod staging;
mod token;
mod trouble;

pub use core::MessageCore;
pub use route::Route;
pub use staging::SLOT_BYTES;
