//! The all-reduces that were called last, worked out: mostly the next one is like one of them, and then it is looked neither for
//! a plan nor for what is wrong with it, but for whether it is like it. Whatever is not goes the long way.
//!
//! Each has one place where it is kept, by what it is like: of two that have the same one the last is.

use std::sync::{Arc, Weak};

use super::request::Fitted;
use super::window::Shared;
use super::{Communicator, Window};
use crate::engine::reduce::Operation;
use crate::engine::{Engine, EngineError, Small, Straight, WindowMap};
use crate::memory::{DataType, Element};
use crate::plan::Collective;

/// How many are kept of each kind: powers of two.
const SMALL: usize = 8;
const STRAIGHT: usize = 32;

/// Some that went the way of small ones, and some that went straight.
pub(super) struct Recent {
    small: [Option<Known<Small>>; SMALL],
    straight: Box<[Option<KnownStraight>]>,
}

/// With where the input is, and the result.
type KnownStraight = (Known<Straight>, [Lies; 2]);

impl Default for Recent {
    fn default() -> Self {
        Self {
            small: [const { None }; SMALL],
            straight: (0..STRAIGHT).map(|_| None).collect(),
        }
    }
}

/// In which of so many places: the upper bits of a product, to which all bits of the key come.
#[inline]
fn place<const PLACES: usize>(key: usize) -> usize {
    ((key as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - PLACES.ilog2())) as usize
}

struct Known<C> {
    operation: Operation,
    data_type: DataType,
    /// In elements.
    count: usize,
    call: C,
}

impl<C> Known<C> {
    #[inline]
    fn is(&self, operation: Operation, data_type: DataType, count: usize) -> bool {
        count == self.count && data_type == self.data_type && operation == self.operation
    }
}

/// Where in which window a vector was. Does not keep the window; but no other has its address as long as this is there.
struct Lies {
    map: Weak<WindowMap>,
    /// In bytes.
    at: usize,
}

/// A vector to be reduced, or where its reduction goes: elements of a window that is borrowed for as long as this is used,
/// mutably where they are written.
#[derive(Clone, Copy)]
pub(super) struct Part<'a> {
    shared: &'a Shared,
    at: usize,
    pointer: *mut u8,
}

impl<'a> Part<'a> {
    /// From this element on.
    #[inline]
    pub(super) fn new<T: Element>(window: &'a Window<T>, first: usize) -> Self {
        Self {
            shared: window.shared(),
            at: window.place() + first * size_of::<T>(),
            pointer: window.elements().wrapping_add(first).cast(),
        }
    }

    #[inline]
    fn lies(&self, there: &Lies) -> bool {
        std::ptr::eq(Arc::as_ptr(&self.shared.map), there.map.as_ptr()) && self.at == there.at
    }
}

/// Where one is kept whose result goes there.
#[inline]
fn place_of(map: *const WindowMap, at: usize) -> usize {
    place::<STRAIGHT>(map.addr().wrapping_add(at))
}

impl Communicator {
    /// Runs an all-reduce that comes to the same as one of the last. `None` if it does not, or if it is to be refused.
    ///
    /// # Safety
    /// From where both parts begin there are `count` elements of the type; their windows are borrowed until this returns, that
    /// of the result mutably.
    #[inline]
    pub(super) unsafe fn again(
        &self,
        operation: Operation,
        data_type: DataType,
        count: usize,
        input: Part<'_>,
        result: Part<'_>,
    ) -> Option<Result<(), EngineError>> {
        let recent = self.recent.borrow();
        let Engine::Boards(core) = &*self.engine else {
            return None;
        };
        let free = |part: Part<'_>| part.shared.owner == self.id && !part.shared.is_held();
        let may = || free(input) && free(result) && self.usable().is_ok();
        if let Some(known) = &recent.small[place::<SMALL>(count)]
            && known.is(operation, data_type, count)
            && may()
        {
            // SAFETY: the caller's contract; the same has gone this way before.
            return Some(unsafe { self.exchange(core, &known.call, input.pointer, result.pointer) });
        }
        if let Some((known, [from, to])) = &recent.straight[place_of(Arc::as_ptr(&result.shared.map), result.at)]
            && known.is(operation, data_type, count)
            && input.lies(from)
            && result.lies(to)
            && may()
            // Else all wait for all first.
            && self.has_room(1)
        {
            let (sequence, windows) = (self.reserve(1), [Some(input.shared), Some(result.shared)]);
            // SAFETY: the caller's contract; the pointers were worked out for the same windows, which are there.
            return Some(unsafe { self.go_straight(core, &known.call, sequence, windows) });
        }
        None
    }

    /// Keeps an all-reduce that has gone the way of small ones. (Not while another that is kept is under way: who waits may be
    /// called back.)
    #[inline]
    pub(super) fn remember_small(
        &self,
        collective: Collective,
        operation: Operation,
        data_type: DataType,
        call: &Small,
    ) {
        if collective == Collective::AllReduce
            && let Ok(mut recent) = self.recent.try_borrow_mut()
        {
            recent.small[place::<SMALL>(call.count)] = Some(Known {
                operation,
                data_type,
                count: call.count,
                call: *call,
            });
        }
    }

    /// The same for one that has gone straight.
    pub(super) fn remember_straight(&self, fitted: &Fitted<'_>, call: Straight) {
        if fitted.collective == Collective::AllReduce
            && let Some(input) = &fitted.input
            && let Ok(mut recent) = self.recent.try_borrow_mut()
        {
            let lies = [input, fitted.result.as_ref().unwrap_or(input)].map(|piece| Lies {
                map: Arc::downgrade(&piece.shared.map),
                at: piece.at,
            });
            let known = Known {
                operation: fitted.operation,
                data_type: fitted.data_type,
                count: fitted.total,
                call,
            };
            let [_, result] = &lies;
            let place = place_of(result.map.as_ptr(), result.at);
            recent.straight[place] = Some((known, lies));
        }
    }
}
