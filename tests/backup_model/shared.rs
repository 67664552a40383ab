//! A part of a state that the states before and after have in common until it changes: most of what happens changes one
//! worker. Its hash is kept beside it.

use std::hash::{Hash, Hasher};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use ahash::RandomState;

#[derive(Clone, Debug)]
pub struct Shared<T> {
    value: Arc<T>,
    /// 0 as long as it is not known.
    hash: u64,
}

impl<T: Hash> Shared<T> {
    pub fn new(value: T) -> Self {
        Self {
            value: Arc::new(value),
            hash: 0,
        }
    }

    /// To be called when it changes no more, and before the state is hashed.
    pub fn settle(&mut self) {
        if self.hash == 0 {
            self.hash = hash(&*self.value).max(1);
        }
    }
}

/// The same in each run.
pub fn hash<T: Hash + ?Sized>(value: &T) -> u64 {
    RandomState::with_seeds(3, 5, 7, 11).hash_one(value)
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: Clone> DerefMut for Shared<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.hash = 0;
        Arc::make_mut(&mut self.value)
    }
}

impl<T: Eq> PartialEq for Shared<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T: Eq> Eq for Shared<T> {}

impl<T> Hash for Shared<T> {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        assert_ne!(self.hash, 0, "a state is settled before it is hashed");
        hasher.write_u64(self.hash);
    }
}
