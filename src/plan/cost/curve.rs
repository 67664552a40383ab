//! What a byte costs, by the size of the memory that it is part of.

use serde::{Deserialize, Serialize};

use super::parameters::Amount;

/// One entry of a [`Curve`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Knot {
    /// Bytes that a rank goes through in a call.
    pub footprint: u64,
    /// Nanoseconds for a byte (LogGP's `G`).
    gap: Amount,
}

impl Knot {
    /// An entry; the gap is in nanoseconds a byte, and not below 0.
    pub fn new(footprint: u64, gap: f64) -> Self {
        Self {
            footprint,
            gap: Amount::new(gap),
        }
    }

    /// Nanoseconds for a byte.
    pub fn gap(&self) -> f64 {
        self.gap.get()
    }
}

/// Gap per byte by footprint: at each knot as it says, in between on a straight line, beyond the ends as at them. It never
/// falls, so that more bytes never cost less.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Knot>", into = "Vec<Knot>")]
pub struct Curve(Vec<Knot>);

/// The most knots.
const MOST: usize = 64;

impl TryFrom<Vec<Knot>> for Curve {
    type Error = String;

    fn try_from(knots: Vec<Knot>) -> Result<Self, String> {
        if knots.is_empty() || knots.len() > MOST {
            return Err(format!(
                "1 to {MOST} entries {{ footprint = BYTES, gap = NS }} are needed"
            ));
        }
        for pair in knots.windows(2) {
            let (before, after) = (&pair[0], &pair[1]);
            if after.footprint <= before.footprint || after.gap() < before.gap() {
                return Err(format!(
                    "footprints must grow and gaps not fall from one entry to the next: {} ns at {} bytes comes after \
                     {} ns at {}",
                    after.gap(),
                    after.footprint,
                    before.gap(),
                    before.footprint
                ));
            }
        }
        Ok(Self(knots))
    }
}

impl From<Curve> for Vec<Knot> {
    fn from(curve: Curve) -> Self {
        curve.0
    }
}

impl Curve {
    /// The same for every footprint.
    pub fn flat(gap: f64) -> Self {
        Self(vec![Knot::new(0, gap)])
    }

    /// Its entries, footprints ascending.
    pub fn knots(&self) -> &[Knot] {
        &self.0
    }

    /// Nanoseconds for a byte.
    pub fn at(&self, footprint: u64) -> f64 {
        let above = self.0.partition_point(|knot| knot.footprint <= footprint);
        match (
            above.checked_sub(1).map(|below| &self.0[below]),
            self.0.get(above),
        ) {
            (Some(low), Some(high)) => {
                let part = (footprint - low.footprint) as f64 / (high.footprint - low.footprint) as f64;
                low.gap() + part * (high.gap() - low.gap())
            }
            (Some(only), None) | (None, Some(only)) => only.gap(),
            (None, None) => unreachable!("a curve has a knot"),
        }
    }
}
