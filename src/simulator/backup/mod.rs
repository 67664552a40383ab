//! Synchronous steps with backup workers (Chen et al., Revisiting Distributed Synchronous SGD, arXiv 1604.00981): of
//! M = N + b workers the first N gradients seal a step. How long until then, for each b, and which b converges soonest?
//!
//! A step is nothing here but its M arrival times, and it is sealed at the N-th smallest of them. Where the times come
//! from is the caller's choice: [`exponential`], [`LongTail`], or [`MeasuredTimes`]. Bytes, trees and the barrier's own
//! time are left out.
//!
//! ```
//! use sapwood::simulator::{Random, backup};
//!
//! let mut random = Random::new(1);
//! let times = backup::seal_times(100, 4, 10_000, |_, arrivals| backup::exponential::draw(&mut random, arrivals));
//! assert!((times[0].mean() - 5.19).abs() < 0.1 && (times[4].mean() - 3.10).abs() < 0.05);
//! ```

mod convergence;
pub mod exponential;
mod long_tail;
mod measured;
pub mod paper;
mod sealing;
mod straggler_rates;

pub use convergence::{best, iterations};
pub use long_tail::LongTail;
pub use measured::{HEADER, MeasuredError, MeasuredTimes};
pub use sealing::{SealTimes, seal_times};
pub use straggler_rates::StragglerRates;
