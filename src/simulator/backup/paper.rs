//! What the paper reports of 100 workers that train an Inception model, each step waiting for all of them. Facts only;
//! the laws that are fitted to them are elsewhere.

/// Workers of the run.
pub const WORKERS: usize = 100;

/// A gradient that arrives within so many seconds is on time.
pub const ON_TIME: f64 = 2.0;

/// The share of steps whose 98th gradient is on time.
pub const NEXT_TO_LAST: f64 = 0.80;

/// Which gradient [`NEXT_TO_LAST`] speaks of, as a number of backup workers: the 98th of 100 seals a step with two.
pub const NEXT_TO_LAST_BACKUPS: usize = 2;

/// The share of steps whose last gradient is on time.
pub const LAST: f64 = 0.30;

/// The longest time that was observed, in seconds.
pub const LONGEST: f64 = 310.0;

/// Iterations until convergence with the gradients of 100 workers in each.
pub const ITERATIONS: f64 = 76_000.0;

/// The fewest gradients of which the iterations are known: 137,500 with 50.
pub const FEWEST_GRADIENTS: usize = 50;

/// How iterations fall with the gradients in each: a power law between the two that are known.
pub const ITERATIONS_EXPONENT: f64 = 0.855;

/// The backup workers that the paper chose for 100 machines: 96 + 4.
pub const BACKUPS: usize = 4;
