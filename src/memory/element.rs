//! The types that collectives move and reduce. Nothing here knows how a sum is made; that is `engine::reduce`.

use half::{bf16, f16};
use serde::{Deserialize, Serialize};

/// An element type as it travels in signatures, on command lines and in reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DataType {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary64.
    F64,
    /// IEEE 754 binary16.
    F16,
    /// bfloat16: the upper half of a binary32.
    Bf16,
    /// Signed 32-bit integer.
    I32,
    /// Signed 64-bit integer.
    I64,
    /// Unsigned byte.
    U8,
    /// Signed byte.
    I8,
    /// Unsigned 32-bit integer.
    U32,
    /// Unsigned 64-bit integer.
    U64,
}

impl DataType {
    /// Every type, in the order in which help texts list them.
    pub const ALL: [DataType; 10] = [
        Self::F32,
        Self::F64,
        Self::F16,
        Self::Bf16,
        Self::I8,
        Self::U8,
        Self::I32,
        Self::U32,
        Self::I64,
        Self::U64,
    ];

    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F64 | Self::I64 | Self::U64 => 8,
            Self::F16 | Self::Bf16 => 2,
            Self::U8 | Self::I8 => 1,
        }
    }

    /// Whether it is a floating-point type.
    pub const fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F64 | Self::F16 | Self::Bf16)
    }

    /// The name that nccl-tests gives the type: `float`, `double`, `half`, `bfloat16`, `int8`, `uint8`, `int32`,
    /// `uint32`, `int64`, `uint64`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "float",
            Self::F64 => "double",
            Self::F16 => "half",
            Self::Bf16 => "bfloat16",
            Self::I32 => "int32",
            Self::I64 => "int64",
            Self::U8 => "uint8",
            Self::I8 => "int8",
            Self::U32 => "uint32",
            Self::U64 => "uint64",
        }
    }
}

impl std::fmt::Display for DataType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A plain number that can be reduced across ranks.
///
/// # Safety
/// Every bit pattern must be a valid value, the type must have no padding, and `TYPE` must describe its layout:
/// windows reinterpret shared bytes as `[Self]`.
pub unsafe trait Element:
    Copy + Default + PartialEq + std::fmt::Debug + Send + Sync + 'static
{
    /// The type's name on the wire.
    const TYPE: DataType;
}

macro_rules! elements {
    ($($type:ty => $name:ident),*) => {$(
        // SAFETY: a primitive number (or a transparent wrapper of u16): no padding, every bit pattern valid.
        unsafe impl Element for $type { const TYPE: DataType = DataType::$name; }
    )*};
}
elements!(
    f32 => F32, f64 => F64, f16 => F16, bf16 => Bf16,
    i8 => I8, u8 => U8, i32 => I32, u32 => U32, i64 => I64, u64 => U64
);
