//! Every kernel on every path against a scalar reference that shares no code with it.

use half::{bf16, f16};
use proptest::prelude::*;

use super::{Kernel, Level, Operation, copy, kernel, select, select_scaled};
use crate::memory::{DataType, Element};

/// Elements around `into` that no kernel may touch.
const GUARD: usize = 40;

/// The plain definition of every operation, one element at a time.
trait Reference: Element {
    /// From random bits; often one of the values where arithmetic has edges.
    fn arbitrary(bits: u64) -> Self;
    /// Same bits, or both NaN.
    fn same(self, other: Self) -> bool;
    fn fold(values: &[Self], operation: Operation, divisor: u32) -> Self;
}

macro_rules! float_reference {
    ($type:ty, $wide:ty, $bits:ty, $widen:expr, $narrow:expr) => {
        impl Reference for $type {
            fn arbitrary(bits: u64) -> Self {
                let largest = <$type>::MAX;
                let specials = [
                    <$type>::INFINITY,
                    <$type>::NEG_INFINITY,
                    <$type>::NAN,
                    $narrow(-0.0),
                    $narrow(0.0),
                    <$type>::MIN_POSITIVE,
                    largest,
                    <$type>::MIN,
                    <$type>::from_bits(1),
                    <$type>::from_bits(<$type>::MIN_POSITIVE.to_bits() - 1),
                    // A signalling NaN: the lowest bit of the mantissa alone.
                    <$type>::from_bits(<$type>::INFINITY.to_bits() | 1),
                    $narrow(1.0),
                ];
                match bits >> 60 {
                    // Any bits at all.
                    0..4 => <$type>::from_bits(bits as $bits),
                    4..6 => specials[(bits % specials.len() as u64) as usize],
                    // Magnitudes like those of gradients, where rounding is what matters.
                    _ => $narrow((bits as i32) as $wide / (1u32 << 31) as $wide),
                }
            }

            fn same(self, other: Self) -> bool {
                self.to_bits() == other.to_bits() || self.is_nan() && other.is_nan()
            }

            fn fold(values: &[Self], operation: Operation, divisor: u32) -> Self {
                let mut sum: $wide = $widen(values[0]);
                for value in &values[1..] {
                    let next: $wide = $widen(*value);
                    sum = match operation {
                        Operation::Sum | Operation::Average | Operation::PreMultipliedSum(_) => sum + next,
                        Operation::Product => sum * next,
                        Operation::Min | Operation::Max if sum.is_nan() || next.is_nan() => <$wide>::NAN,
                        Operation::Min | Operation::Max if sum == 0.0 && next == 0.0 => {
                            let negative = match operation {
                                Operation::Min => sum.is_sign_negative() || next.is_sign_negative(),
                                _ => sum.is_sign_negative() && next.is_sign_negative(),
                            };
                            if negative { -0.0 } else { 0.0 }
                        }
                        Operation::Min if next < sum => next,
                        Operation::Max if next > sum => next,
                        Operation::Min | Operation::Max => sum,
                    };
                }
                if operation == Operation::Average && divisor > 1 {
                    sum /= divisor as $wide;
                }
                $narrow(sum)
            }
        }
    };
}
float_reference!(f32, f32, u32, |value| value, |value| value);
float_reference!(f64, f64, u64, |value| value, |value| value);
float_reference!(f16, f32, u16, f16::to_f32, f16::from_f32);
float_reference!(bf16, f32, u16, bf16::to_f32, bf16::from_f32);

macro_rules! integer_reference {
    ($($type:ty),*) => {$(
        impl Reference for $type {
            fn arbitrary(bits: u64) -> Self {
                match bits >> 61 {
                    0 => <$type>::MAX,
                    1 => <$type>::MIN,
                    2 => (bits % 7) as $type,
                    _ => bits as $type,
                }
            }

            fn same(self, other: Self) -> bool {
                self == other
            }

            fn fold(values: &[Self], operation: Operation, divisor: u32) -> Self {
                let wrap = |wide: i128| wide as $type;
                let sum = values.iter().copied().map(i128::from).reduce(|sum, next| match operation {
                    Operation::Sum | Operation::Average | Operation::PreMultipliedSum(_) => wrap(sum + next).into(),
                    Operation::Product => wrap(sum.wrapping_mul(next)).into(),
                    Operation::Min => sum.min(next),
                    Operation::Max => sum.max(next),
                });
                let divisor = if operation == Operation::Average { divisor.max(1) } else { 1 };
                wrap(sum.unwrap() / i128::from(divisor))
            }
        }
    )*};
}
integer_reference!(i8, u8, i32, u32, i64, u64);

/// Bits that are as good as random and the same in every run.
fn scramble(seed: u64) -> u64 {
    let mut bits = seed
        .wrapping_mul(0x9E37_79B9_7F4A_7C15)
        .wrapping_add(0x1234_5678_9ABC_DEF1);
    for _ in 0..3 {
        bits ^= bits >> 29;
        bits = bits.wrapping_mul(0xBF58_476D_1CE4_E5B9);
    }
    bits ^ bits >> 32
}

#[derive(Clone, Debug)]
struct Case {
    sources: usize,
    count: usize,
    divisor: u32,
    /// Elements by which source `i` starts off a vector's alignment: `(misalignment + i) % 8`.
    misalignment: usize,
    /// `into` is this source.
    in_place: Option<usize>,
    seed: u64,
}

fn case() -> impl Strategy<Value = Case> {
    (
        1usize..=9,
        prop_oneof![0usize..100, 480usize..560, 1000usize..1100],
        0u32..9,
        0usize..8,
        0usize..18,
        any::<u64>(),
    )
        .prop_map(|(sources, count, divisor, misalignment, in_place, seed)| Case {
            sources,
            count,
            divisor,
            misalignment,
            in_place: (in_place < sources).then_some(in_place),
            seed,
        })
}

fn levels() -> Vec<Level> {
    let levels = Level::here();
    #[cfg(target_arch = "x86_64")]
    for level in [Level::Avx2, Level::Avx512] {
        if !levels.contains(&level) {
            eprintln!("SKIPPED: the {level:?} kernels, which this processor cannot run");
        }
    }
    levels
}

/// Runs a kernel over memory with guards on both sides of everything, and compares.
fn check<T: Reference>(case: &Case, operation: Operation, kernel: Kernel) {
    let mut memory: Vec<Vec<T>> = (0..=case.sources)
        .map(|source| {
            let length = 2 * GUARD + 8 + case.count;
            (0..length)
                .map(|i| T::arbitrary(scramble(case.seed ^ (source as u64) << 40 ^ i as u64)))
                .collect()
        })
        .collect();
    let before = memory.clone();
    let start = |source: usize| GUARD + (case.misalignment + source) % 8;
    let target = case.in_place.unwrap_or(case.sources);
    let pointers: Vec<*mut T> = memory
        .iter_mut()
        .enumerate()
        .map(|(i, m)| m[start(i)..].as_mut_ptr())
        .collect();
    let sources: Vec<*const u8> = pointers[..case.sources]
        .iter()
        .map(|p| p.cast_const().cast())
        .collect();
    // SAFETY: every vector holds `count` elements from its start on; `into` is one of the sources or a vector of
    // its own; nobody else knows the memory.
    unsafe { kernel(pointers[target].cast(), &sources, case.count, case.divisor) };

    for (source, (now, then)) in memory.iter().zip(&before).enumerate() {
        for i in 0..now.len() {
            let inside = i.wrapping_sub(start(target)) < case.count;
            let expected = if source == target && inside {
                let values: Vec<T> = (0..case.sources)
                    .map(|s| before[s][start(s) + i - start(target)])
                    .collect();
                T::fold(&values, operation, case.divisor)
            } else {
                then[i]
            };
            assert!(
                now[i].same(expected),
                "{:?} {operation}: memory {source} element {i} is {:?}, expected {expected:?}; {case:?}",
                T::TYPE,
                now[i],
            );
        }
    }
}

fn check_type(data_type: DataType, case: &Case, operation: Operation, kernel: Kernel) {
    match data_type {
        DataType::F32 => check::<f32>(case, operation, kernel),
        DataType::F64 => check::<f64>(case, operation, kernel),
        DataType::F16 => check::<f16>(case, operation, kernel),
        DataType::Bf16 => check::<bf16>(case, operation, kernel),
        DataType::I8 => check::<i8>(case, operation, kernel),
        DataType::U8 => check::<u8>(case, operation, kernel),
        DataType::I32 => check::<i32>(case, operation, kernel),
        DataType::U32 => check::<u32>(case, operation, kernel),
        DataType::I64 => check::<i64>(case, operation, kernel),
        DataType::U64 => check::<u64>(case, operation, kernel),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]
    #[test]
    fn every_kernel_on_every_path_is_the_scalar_fold(case in case()) {
        for level in levels() {
            for data_type in DataType::ALL {
                for operation in Operation::ALL {
                    check_type(data_type, &case, operation, select(data_type, operation, level));
                }
            }
        }
    }
}

/// A pre-multiplied sum, one element at a time: `$widen` to what is accumulated in, each product and sum rounded.
macro_rules! scaled_reference {
    ($case:expr, $type:ty, $wide:ty, $widen:expr, $narrow:expr) => {{
        let case: &Case = $case;
        let factors = (0..case.sources)
            .map(|source| match source % 3 {
                0 => 1.0 / 3.0 + source as f64,
                1 => -1.0,
                _ => 1.0,
            })
            .collect::<Vec<f64>>();
        let sources = (0..case.sources)
            .map(|source| {
                let bits = |i| scramble(case.seed ^ (source as u64) << 40 ^ i as u64);
                (0..case.count).map(|i| <$type as Reference>::arbitrary(bits(i))).collect::<Vec<_>>()
            })
            .collect::<Vec<_>>();
        let expected = (0..case.count).map(|i| {
            let product = |source: usize| $widen(sources[source][i]) * factors[source] as $wide;
            $narrow((1..case.sources).fold(product(0), |sum, source| sum + product(source)))
        });
        let expected = expected.collect::<Vec<$type>>();
        for level in levels() {
            let mut memory = sources.clone();
            let mut fresh = vec![<$type>::default(); case.count];
            let pointers = memory.iter_mut().map(|m| m.as_mut_ptr()).collect::<Vec<_>>();
            let into = case.in_place.map_or(fresh.as_mut_ptr(), |source| pointers[source]);
            let from = pointers.iter().map(|p| p.cast_const().cast()).collect::<Vec<*const u8>>();
            let kernel = select_scaled(<$type>::TYPE, level).expect("a float");
            // SAFETY: every vector holds `count` elements; `into` is one of the sources or a vector of its own.
            unsafe { kernel(into.cast(), &from, &factors, case.count) };
            // SAFETY: as above, and the kernel is done.
            let result = unsafe { std::slice::from_raw_parts(into, case.count) };
            for (result, expected) in result.iter().zip(&expected) {
                assert!(result.same(*expected), "{result:?} is not {expected:?}: {level:?} {case:?}");
            }
        }
    }};
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn every_scaled_kernel_multiplies_then_adds(case in case()) {
        scaled_reference!(&case, f32, f32, |x: f32| x, |x: f32| x);
        scaled_reference!(&case, f64, f64, |x: f64| x, |x: f64| x);
        scaled_reference!(&case, f16, f32, f16::to_f32, f16::from_f32);
        scaled_reference!(&case, bf16, f32, bf16::to_f32, bf16::from_f32);
    }
}

#[test]
fn integers_have_no_scaled_kernel() {
    for data_type in DataType::ALL {
        assert_eq!(super::scaled_kernel(data_type).is_some(), data_type.is_float());
    }
}

/// All 65,536 values of both 16-bit types against the same and against several others, so that every conversion in
/// both directions is seen, and conversions of sums that fall between two values.
#[test]
fn every_16_bit_value_is_converted_as_by_the_half_crate() {
    fn all<T: Reference>(from_bits: fn(u16) -> T, level: Level) {
        let values: Vec<T> = (0..=u16::MAX).map(from_bits).collect();
        for shift in [0usize, 1, 255, 1024, 32_768, 40_001] {
            let mut others = values.clone();
            others.rotate_left(shift);
            let mut sums = vec![T::default(); values.len()];
            let sources = [values.as_ptr().cast(), others.as_ptr().cast()];
            let kernel = select(T::TYPE, Operation::Average, level);
            // SAFETY: three vectors of the same length, of which only the last is written.
            unsafe { kernel(sums.as_mut_ptr().cast(), &sources, sums.len(), 3) };
            for i in 0..sums.len() {
                let expected = T::fold(&[values[i], others[i]], Operation::Average, 3);
                assert!(
                    sums[i].same(expected),
                    "{:?} + {:?}: {:?}",
                    values[i],
                    others[i],
                    sums[i]
                );
            }
        }
    }
    for level in levels() {
        all::<f16>(f16::from_bits, level);
        all::<bf16>(bf16::from_bits, level);
    }
}

/// One rounding per node: 1 + 2⁻⁹ + 2⁻⁹ in bfloat16 is above 1 only if the sum is kept in 32 bits in between.
#[test]
fn sixteen_bit_sums_are_rounded_once() {
    for terms in 3..=9 {
        let small = bf16::from_f32(0.015_625 / 4.0);
        let mut values = vec![small; terms];
        values[0] = bf16::ONE;
        let mut sum = bf16::ZERO;
        let sources: Vec<*const u8> = values
            .iter()
            .map(|value| std::ptr::from_ref(value).cast())
            .collect();
        // SAFETY: one element each.
        unsafe { kernel(DataType::Bf16, Operation::Sum)((&raw mut sum).cast(), &sources, 1, 1) };
        assert_eq!(
            sum,
            bf16::from_f32(1.0 + (terms - 1) as f32 * small.to_f32()),
            "{terms} terms"
        );
        assert!(sum > bf16::ONE, "{terms} terms");
    }
}

#[test]
fn minimum_and_maximum_do_not_depend_on_the_order() {
    let specials = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        f32::NAN,
        -f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        1e-45,
    ];
    for operation in [Operation::Min, Operation::Max] {
        let combine = kernel(DataType::F32, operation);
        for a in specials {
            for b in specials {
                let (mut one, mut two) = (0f32, 0f32);
                let (a, b): (*const u8, *const u8) = ((&raw const a).cast(), (&raw const b).cast());
                // SAFETY: one element each.
                unsafe {
                    combine((&raw mut one).cast(), &[a, b], 1, 1);
                    combine((&raw mut two).cast(), &[b, a], 1, 1);
                }
                assert!(one.same(two), "{operation}: {one} and {two}");
            }
        }
    }
}

#[test]
fn copy_copies_and_accepts_its_own_place() {
    let from: Vec<u8> = (0..=255).collect();
    let mut into = vec![0u8; 258];
    // SAFETY: 256 bytes lie behind both pointers, in different vectors.
    unsafe { copy(into[1..].as_mut_ptr(), from.as_ptr(), 256) };
    assert_eq!((into[0], &into[1..257], into[257]), (0, &from[..], 0));
    let place = into.as_mut_ptr();
    // SAFETY: the same place, 258 bytes.
    unsafe { copy(place, place, 258) };
    assert_eq!(&into[1..257], &from[..]);
}
