//! This rank's staging slots, into which neighbours push what is to be reduced here: several sets of them, one for
//! each operation under way that needs one.
//!
//! Ranks may start operations in different orders, so a set that one rank has given to a later operation must not be
//! what an earlier one waits for, in a circle through several ranks. Set 0 is therefore kept for the operation with
//! the lowest number that has not ended here: the lowest of all ranks can always go on, and so, in turn, can each.

use std::ptr::NonNull;
use std::sync::Arc;

use crate::fabric::{FabricError, Parcel, Registration, Slice};

/// Bytes of one slot: the largest chunk of an operation that reduces.
pub const SLOT_BYTES: usize = 32 << 10;

/// See the module.
#[derive(Default)]
pub(super) struct Staging {
    own: Option<Own>,
    /// Which sets are in use, a bit for each.
    taken: u64,
}

struct Own {
    registration: Arc<dyn Registration>,
    base: NonNull<u8>,
    /// Slots of one set.
    set: u32,
    sets: u32,
}

// SAFETY: `base` points into the registered region, which the registration keeps; accesses to it are ordered by the
// plan that runs.
unsafe impl Send for Own {}

impl Staging {
    /// Takes these slots instead of the earlier ones, in sets of `set`.
    pub fn replace(&mut self, registration: Arc<dyn Registration>, set: u32) {
        debug_assert_eq!(self.taken, 0, "nothing is under way when ranks connect");
        let region = registration.region();
        let slots = region.len() / SLOT_BYTES;
        let base = region.base();
        self.own = Some(Own {
            registration,
            base,
            set,
            sets: (slots as u32 / set).min(u64::BITS),
        });
    }

    /// Slots of one set.
    pub fn set(&self) -> u32 {
        self.own.as_ref().map_or(0, |own| own.set)
    }

    /// What a peer imports to push into them.
    pub fn export(&self) -> Result<Parcel, FabricError> {
        let own = self.own.as_ref().expect("exported once there are any");
        own.registration.export()
    }

    /// A set for an operation, which is or is not the one with the lowest number; answers its first slot.
    pub fn take(&mut self, lowest: bool) -> Option<u32> {
        let own = self.own.as_ref()?;
        let set = (!self.taken & if lowest { !0 } else { !1 }).trailing_zeros();
        if set >= own.sets {
            return None;
        }
        self.taken |= 1 << set;
        Some(set * own.set)
    }

    /// The set with this first slot is free again.
    pub fn give_back(&mut self, first: u32) {
        let set = first / self.set();
        self.taken &= !(1 << set);
    }

    /// Where a slot is.
    #[inline]
    pub fn pointer(&self, slot: u32) -> *mut u8 {
        let own = self.own.as_ref().expect("staged programs come with slots");
        assert!(slot < own.set * own.sets);
        // SAFETY: there are that many slots.
        unsafe { own.base.add(slot as usize * SLOT_BYTES).as_ptr() }
    }

    /// `len` bytes of a slot, for a request.
    pub fn slice(&self, slot: u32, len: usize) -> Slice {
        let own = self.own.as_ref().expect("staged programs come with slots");
        Slice {
            registration: own.registration.clone(),
            offset: slot as usize * SLOT_BYTES,
            len,
        }
    }
}
