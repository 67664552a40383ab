//! The figures that the model needs: what they are and which are refused. Times in microseconds, gaps per byte in
//! nanoseconds.

use serde::{Deserialize, Serialize};

use super::curve::Curve;

/// A time or a gap: a number that is finite, not negative, and less than a day.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub(super) struct Amount(f64);

/// A day, in microseconds.
const MOST: f64 = 24.0 * 3600.0 * 1e6;

impl TryFrom<f64> for Amount {
    type Error = String;

    fn try_from(value: f64) -> Result<Self, String> {
        match value {
            value if (0.0..=MOST).contains(&value) => Ok(Self(value)),
            value => Err(format!("a number from 0 to {MOST:e} is needed, not {value}")),
        }
    }
}

impl From<Amount> for f64 {
    fn from(amount: Amount) -> Self {
        amount.0
    }
}

impl Amount {
    /// The nearest value that can be one; 0 for what is no number.
    pub fn new(value: f64) -> Self {
        Self(if value.is_nan() {
            0.0
        } else {
            value.clamp(0.0, MOST)
        })
    }

    pub fn get(self) -> f64 {
        self.0
    }
}

/// How two ranks reach each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// They load and store each other's memory.
    Memory,
    /// They are on one host and send messages.
    Host,
    /// They are on different hosts.
    Network,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Memory, Self::Host, Self::Network];

    /// Its name in a file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Host => "host",
            Self::Network => "network",
        }
    }
}

/// What it costs to reach a rank of a class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    latency: Amount,
    overhead: Amount,
    gap: Amount,
    /// LogGP's `G`: of a message's bytes; of bytes that another core's cache has, where memory is shared.
    pub bytes: Curve,
}

impl Link {
    /// From latency `L`, overhead `o` and gap `g`, in microseconds, and the gap per byte `G`.
    pub fn new(latency: f64, overhead: f64, gap: f64, bytes: Curve) -> Self {
        Self {
            latency: Amount::new(latency),
            overhead: Amount::new(overhead),
            gap: Amount::new(gap),
            bytes,
        }
    }

    /// `L`: from what a rank has sent, or stored, until another one can see it, in microseconds.
    pub fn latency(&self) -> f64 {
        self.latency.get()
    }

    /// `o`: how long a rank is busy with one message, or one chunk where memory is shared, in microseconds.
    pub fn overhead(&self) -> f64 {
        self.overhead.get()
    }

    /// `g`: how long a message keeps the way out and the way in occupied, whatever its length; where memory is shared, what
    /// it costs to look whether another rank has come far enough. In microseconds.
    pub fn gap(&self) -> f64 {
        self.gap.get()
    }
}

/// What a rank's own work costs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Own {
    combine: Amount,
    /// Of bytes read or written that nobody else writes.
    pub bytes: Curve,
}

impl Own {
    /// `combine` is in nanoseconds a byte.
    pub fn new(combine: f64, bytes: Curve) -> Self {
        Self {
            combine: Amount::new(combine),
            bytes,
        }
    }

    /// To combine one more contribution, in nanoseconds a byte.
    pub fn combine(&self) -> f64 {
        self.combine.get()
    }
}

/// All figures of a machine. A class that was not measured is absent.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameters {
    /// Cores of a host that its ranks share, at least 1.
    pub cores: u32,
    /// Of a rank's own work.
    pub own: Own,
    /// By [`Class`], in the order of [`Class::ALL`].
    pub links: [Option<Link>; 3],
}

impl Parameters {
    /// What it costs to reach a rank of this class, if that is known.
    pub fn link(&self, class: Class) -> Option<&Link> {
        self.links[class as usize].as_ref()
    }
}
