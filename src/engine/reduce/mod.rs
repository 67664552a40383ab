//! Reduction kernels: combine elements of several sources in one pass, or copy them. They never allocate, lock,
//! wait or look at anything but the bytes that they are given.
//!
//! # What the result is
//! `into[i] = sources[0][i] ∘ sources[1][i] ∘ …`, folded from the left in exactly this order, on every processor
//! and for every count, alignment and number of sources: the bits are those of the plain scalar loop. (Only which
//! NaN a NaN is may differ.) In particular:
//!
//! * 16-bit floats are accumulated in 32 bits through the whole fold and rounded once, to nearest, ties to even.
//! * Integers wrap around. The average of integers is the wrapped sum, divided and truncated towards zero: it is a
//!   mean only where the sum fits the type.
//! * The minimum and maximum of floats are NaN if any source is NaN; −0 is smaller than +0. They do not depend on
//!   the order of the sources.
//! * No multiplication and addition are ever fused.

mod arithmetic;
mod operation;
mod portable;
mod spread;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(test)]
mod tests;

use half::{bf16, f16};

use crate::memory::DataType;
use arithmetic::{Max, Min, Product, Sum};
pub use operation::{Factor, Operation, UnknownOperation};
pub(super) use spread::spread;
#[cfg(target_arch = "x86_64")]
use x86::wide;

/// Combines `count` elements of each of `sources` into `into`, and for an average divides by `divisor` at the end.
///
/// All sources are read in one pass, however many there are. A `divisor` of 1 (or 0) leaves a partial sum undivided; other
/// operations than the average ignore it. With no source `into` stays as it is.
///
/// # Safety
/// * `into` is valid for writes and each source for reads of `count` elements of the kernel's type, all aligned to
///   the element (not necessarily to a vector).
/// * `into` may be exactly one or several of the sources, but must not overlap any of them partially. Sources may
///   overlap each other in any way.
/// * During the call nobody else writes the sources, and nobody else reads or writes `into`. Other processes may
///   have these pages mapped and write them at other times, ordered by acquire and release: the memory is accessed
///   through raw pointers only, and no reference to it is formed.
pub type Kernel = unsafe fn(into: *mut u8, sources: &[*const u8], count: usize, divisor: u32);

/// The kernel for elements of a type, the fastest that this processor can run. Look it up once per operation.
pub fn kernel(data_type: DataType, operation: Operation) -> Kernel {
    select(data_type, operation, Level::best())
}

/// All kernels for elements of a type that this processor can run, with a word for each, to be compared: the one that
/// [`kernel`] gives is the last.
pub fn kernels(data_type: DataType, operation: Operation) -> Vec<(&'static str, Kernel)> {
    let named = |level: Level| (level.name(), select(data_type, operation, level));
    Level::here().into_iter().map(named).collect()
}

/// As [`Kernel`], for a sum of which each source is first multiplied by its factor (rounded to what is accumulated in:
/// binary64 for `double`, binary32 else), as one pass: `into[i] = sources[0][i] · factors[0] + …`, each product and each
/// sum rounded. There are as many factors as sources; one of 1 leaves its source as it is.
///
/// # Safety
/// As [`Kernel`].
pub type ScaledKernel = unsafe fn(into: *mut u8, sources: &[*const u8], factors: &[f64], count: usize);

/// The kernel of [`Operation::PreMultipliedSum`], which integers do not have.
pub fn scaled_kernel(data_type: DataType) -> Option<ScaledKernel> {
    select_scaled(data_type, Level::best())
}

/// Copies `bytes` bytes, unless they are already there.
///
/// # Safety
/// `from` is valid for reads and `into` for writes of `bytes` bytes; they are the same or do not overlap. During the
/// call nobody else writes `from`, and nobody else reads or writes `into`.
pub unsafe fn copy(into: *mut u8, from: *const u8, bytes: usize) {
    if !std::ptr::eq(into, from) {
        // SAFETY: the caller's contract; not the same, hence not overlapping.
        unsafe { std::ptr::copy_nonoverlapping(from, into, bytes) }
    }
}

/// For which processors a kernel is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// For 16-bit floats; the others as [`Level::Avx2`].
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Level {
    /// The best one that runs here. The processor is asked once; the answer is remembered by the standard library.
    fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        if wide::available() {
            return Self::Avx512;
        } else if x86::available() {
            return Self::Avx2;
        }
        Self::Portable
    }

    fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "avx512",
        }
    }

    /// All that run here, the best one last.
    fn here() -> Vec<Self> {
        #[allow(unused_mut, reason = "on other processors there is one")]
        let mut levels = vec![Self::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            levels.extend(x86::available().then_some(Self::Avx2));
            levels.extend(wide::available().then_some(Self::Avx512));
        }
        levels
    }
}

macro_rules! of_operation {
    ($processor:ident, $element:ty, $operation:expr) => {
        match $operation {
            // Of partial sums; factors are for contributions.
            Operation::Sum | Operation::PreMultipliedSum(_) => $processor::undivided::<$element, Sum>,
            Operation::Product => $processor::undivided::<$element, Product>,
            Operation::Min => $processor::undivided::<$element, Min>,
            Operation::Max => $processor::undivided::<$element, Max>,
            Operation::Average => $processor::divided::<$element, Sum>,
        }
    };
}

macro_rules! instance {
    ($processor:ident, $data_type:expr, $operation:expr; $($name:ident => $element:ty),*) => {
        match $data_type {
            $(DataType::$name => of_operation!($processor, $element, $operation)),*
        }
    };
    ($processor:ident, $data_type:expr, $operation:expr) => {
        instance!($processor, $data_type, $operation;
            F32 => f32, F64 => f64, F16 => f16, Bf16 => bf16,
            I8 => i8, U8 => u8, I32 => i32, U32 => u32, I64 => i64, U64 => u64)
    };
}

fn select(data_type: DataType, operation: Operation, level: Level) -> Kernel {
    match level {
        Level::Portable => instance!(portable, data_type, operation),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => instance!(x86, data_type, operation),
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => match data_type {
            DataType::F16 => of_operation!(wide, f16, operation),
            DataType::Bf16 => of_operation!(wide, bf16, operation),
            _ => select(data_type, operation, Level::Avx2),
        },
    }
}

fn select_scaled(data_type: DataType, level: Level) -> Option<ScaledKernel> {
    macro_rules! instance {
        ($processor:ident) => {
            match data_type {
                DataType::F32 => Some($processor::scaled::<f32>),
                DataType::F64 => Some($processor::scaled::<f64>),
                DataType::F16 => Some($processor::scaled::<f16>),
                DataType::Bf16 => Some($processor::scaled::<bf16>),
                _ => None,
            }
        };
    }
    match level {
        Level::Portable => instance!(portable),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 | Level::Avx512 => instance!(x86),
    }
}
