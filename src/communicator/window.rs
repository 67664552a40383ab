//! Memory at which every rank's peers can look: a buffer, registered by all ranks together.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::engine::WindowMap;
use crate::memory::{Buffer, Element, Region};

/// What the pieces of one window share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) map: Arc<WindowMap>,
    /// Which communicator it belongs to.
    pub(super) owner: u64,
    /// Peers may still reach it although the operation on it has failed.
    custody: AtomicBool,
}

/// `len` elements on every rank of a communicator, at the same place in the window on each.
///
/// It is used as a slice while no operation has it. After an operation on it has failed, peers may still reach it
/// until they have heard of the failure: it is then in custody, and using it panics, until
/// [`Communicator::abort`](super::Communicator::abort) has made sure that they do not any more.
#[derive(Debug)]
pub struct Window<T: Element> {
    buffer: Buffer<T>,
    shared: Arc<Shared>,
    /// Where in the window the buffer starts, in bytes.
    offset: usize,
}

impl<T: Element> Window<T> {
    pub(super) fn new(buffer: Buffer<T>, map: WindowMap, owner: u64) -> Self {
        let shared = Arc::new(Shared {
            map: Arc::new(map),
            owner,
            custody: AtomicBool::new(false),
        });
        Self {
            buffer,
            shared,
            offset: 0,
        }
    }

    /// Cuts the window in two: elements `..at` and `at..`. Every rank must cut alike before using the pieces.
    ///
    /// # Panics
    /// If `at` is beyond the end.
    pub fn split_at(self, at: usize) -> (Self, Self) {
        let Self {
            buffer,
            shared,
            offset,
        } = self;
        let (head, tail) = buffer.split_at(at);
        let rest = Self {
            buffer: tail,
            shared: shared.clone(),
            offset: offset + at * size_of::<T>(),
        };
        (
            Self {
                buffer: head,
                shared,
                offset,
            },
            rest,
        )
    }

    /// Elements on each rank.
    #[allow(clippy::len_without_is_empty, reason = "as for slices, by `Deref`")]
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Whether peers may still reach it although the operation on it has failed.
    pub fn in_custody(&self) -> bool {
        self.shared.is_held()
    }

    /// Takes the window into custody: an operation on it has failed.
    pub(crate) fn hold(&self) {
        self.shared.set_custody(true);
    }

    /// Where its elements are, held or not.
    #[inline]
    pub(super) fn elements(&self) -> *mut T {
        let base = self.buffer.region().base().as_ptr();
        base.wrapping_add(self.buffer.offset()).cast()
    }

    #[inline]
    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Where every rank's part of the registered window is.
    pub(crate) fn map(&self) -> &Arc<WindowMap> {
        &self.shared.map
    }

    /// Where in the registered window it starts, in bytes.
    #[inline]
    pub(super) fn place(&self) -> usize {
        self.offset
    }

    /// The memory that it is a part of.
    pub(crate) fn region(&self) -> &Region {
        self.buffer.region()
    }

    fn check_custody(&self) {
        assert!(
            !self.in_custody(),
            "this window is in custody: an operation on it failed and peers may still reach it. \
             Communicator::abort gives it back"
        );
    }
}

impl Shared {
    #[inline]
    pub(super) fn is_held(&self) -> bool {
        self.custody.load(Ordering::Acquire)
    }

    pub(super) fn set_custody(&self, held: bool) {
        self.custody.store(held, Ordering::Release);
    }
}

impl<T: Element> Deref for Window<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        self.check_custody();
        &self.buffer
    }
}

impl<T: Element> DerefMut for Window<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        self.check_custody();
        &mut self.buffer
    }
}
