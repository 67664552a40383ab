//! The one right to read and write a range of a region, as elements. Never cloned, so never aliased.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

use super::{Element, HugePages, MemoryError, Region};

/// `len` elements of a region that nobody else in this process may touch.
#[derive(Debug)]
pub struct Buffer<T: Element> {
    region: Region,
    /// In bytes, a multiple of the element's alignment.
    offset: usize,
    len: usize,
    element: PhantomData<T>,
}

impl<T: Element> Buffer<T> {
    /// `len` zeroed elements in a host region of their own.
    ///
    /// # Errors
    /// 0 elements, an overflow, or a memory limit, before anything is allocated.
    pub fn allocate(len: usize) -> Result<Self, MemoryError> {
        let size = size_of::<T>();
        let bytes = len
            .checked_mul(size)
            .filter(|bytes| *bytes <= isize::MAX as usize);
        let bytes = bytes.ok_or(MemoryError::Overflow { count: len, size })?;
        let region = Region::host(bytes, HugePages::WhereAvailable)?;
        Ok(Self {
            region,
            offset: 0,
            len,
            element: PhantomData,
        })
    }

    /// Takes over a vector's memory where it lies. Peers cannot map it: it is moved by cross-memory attach or by
    /// counted copies.
    ///
    /// # Errors
    /// An empty vector.
    pub fn from_vec(mut vector: Vec<T>) -> Result<Self, MemoryError> {
        let len = vector.len();
        let base = NonNull::from(vector.as_mut_slice()).cast::<u8>();
        let bytes = len * size_of::<T>();
        // SAFETY: the vector's heap memory stays where it is until the vector, moved into the owner, is dropped,
        // and nobody can reach it through the owner.
        let region = unsafe { Region::foreign(base, bytes, Arc::new(vector)) }?;
        Ok(Self {
            region,
            offset: 0,
            len,
            element: PhantomData,
        })
    }

    /// A range of an existing region.
    ///
    /// # Errors
    /// The range leaves the region, is not aligned for the type, or the memory is not the CPU's to access.
    ///
    /// # Safety
    /// No other buffer over these bytes may exist, nor anything else that accesses them.
    pub unsafe fn over(region: Region, offset: usize, len: usize) -> Result<Self, MemoryError> {
        let end = len
            .checked_mul(size_of::<T>())
            .and_then(|bytes| bytes.checked_add(offset));
        let why = if end.is_none_or(|end| end > region.len()) {
            Some("it leaves the region")
        } else if !(region.base().as_ptr() as usize + offset).is_multiple_of(align_of::<T>()) {
            Some("it is not aligned")
        } else if !region.kind().host_accessible() {
            Some("the memory is not the CPU's")
        } else {
            None
        };
        if let Some(why) = why {
            let (end, element) = (end.unwrap_or(usize::MAX), T::TYPE.name());
            return Err(MemoryError::Range {
                offset,
                end,
                len: region.len(),
                element,
                why,
            });
        }
        Ok(Self {
            region,
            offset,
            len,
            element: PhantomData,
        })
    }

    /// Cuts the buffer in two: elements `..at` and `at..`.
    ///
    /// # Panics
    /// If `at` is beyond the end.
    pub fn split_at(self, at: usize) -> (Self, Self) {
        assert!(
            at <= self.len,
            "a buffer of {} elements cannot be cut at {at}",
            self.len
        );
        let rest = self.offset + at * size_of::<T>();
        let second = Self {
            region: self.region.clone(),
            offset: rest,
            len: self.len - at,
            element: PhantomData,
        };
        (Self { len: at, ..self }, second)
    }

    /// The region behind it.
    pub fn region(&self) -> &Region {
        &self.region
    }

    /// Where in the region it starts, in bytes.
    pub fn offset(&self) -> usize {
        self.offset
    }

    fn base(&self) -> NonNull<T> {
        // SAFETY: `offset` was checked against the region's length when the buffer was made.
        unsafe { self.region.base().add(self.offset) }.cast()
    }
}

impl<T: Element> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: in bounds, aligned and initialised (regions start as zeroes, elements have no invalid values);
        // this value is the only right to access the range, and it is borrowed.
        unsafe { std::slice::from_raw_parts(self.base().as_ptr(), self.len) }
    }
}

impl<T: Element> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, and borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.base().as_ptr(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_do_not_overlap_and_outlive_their_siblings() {
        let mut whole = Buffer::<f32>::allocate(10).unwrap();
        whole.iter_mut().enumerate().for_each(|(i, x)| *x = i as f32);
        let (head, mut tail) = whole.split_at(4);
        tail[0] = -1.0;
        assert_eq!(&head[..], [0.0, 1.0, 2.0, 3.0]);
        drop(head);
        assert_eq!(&tail[..], [-1.0, 5.0, 6.0, 7.0, 8.0, 9.0]);
    }

    #[test]
    fn a_vector_is_not_copied() {
        let vector = vec![1i64, 2, 3];
        let address = vector.as_ptr();
        let buffer = Buffer::from_vec(vector).unwrap();
        assert_eq!((buffer.as_ptr(), &buffer[..]), (address, &[1, 2, 3][..]));
        assert!(buffer.region().kind().share().is_none());
    }

    #[test]
    fn sizes_that_overflow_are_refused() {
        assert!(matches!(
            Buffer::<f64>::allocate(usize::MAX / 4),
            Err(MemoryError::Overflow { .. })
        ));
    }

    #[test]
    fn misaligned_or_outside_ranges_are_refused() {
        let region = Region::host(64, HugePages::Never).unwrap();
        // SAFETY: no other buffer over this region exists while one of these does.
        unsafe {
            assert!(Buffer::<f32>::over(region.clone(), 2, 1).is_err());
            assert!(Buffer::<f32>::over(region.clone(), 60, 2).is_err());
            assert!(Buffer::<f32>::over(region.clone(), 4, usize::MAX / 2).is_err());
            assert!(Buffer::<f32>::over(region, 60, 1).is_ok());
        }
    }
}
