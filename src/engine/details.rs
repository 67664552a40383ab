//! What the ranks of an operation compare beyond its signature.

/// What ranks must agree on beyond the signature: the plan (a hash of its name), then where input and result are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Details(pub [u64; 3]);

impl Details {
    const NOWHERE: u64 = u64::MAX;

    /// Of a plan's name, and the input and result if there are any.
    pub fn new(plan: u64, memory: Option<(u64, u64)>) -> Self {
        let (input, result) = memory.unwrap_or((Self::NOWHERE, Self::NOWHERE));
        Self([plan, input, result])
    }
}

impl std::fmt::Display for Details {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [_, input, result] = self.0;
        if input == Self::NOWHERE {
            return Ok(());
        }
        let place = |place: u64| (place >> 48, place & ((1 << 48) - 1));
        let (window, at) = place(input);
        write!(f, ", window {window} from byte {at}")?;
        if result != input {
            let (window, at) = place(result);
            write!(f, " into window {window} from byte {at}")?;
        }
        Ok(())
    }
}
