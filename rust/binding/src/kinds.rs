//! The dtypes of diffraction patterns.
//!
//! A pattern is copied as words of 1, 2, 4 or 8 bytes, whatever they mean. Their
//! dtype only matters where they are scaled or squared.
#![expect(
    clippy::cast_lossless,
    reason = "one macro makes the casts that round and those that do not"
)]

use numpy::Element;
use pyo3::PyErr;
use pyo3::exceptions::PyValueError;

/// A dtype: how words are read as numbers.
pub trait Kind {
    /// The unsigned word of the same size, as which values are copied.
    type Word: Element + Copy + Default + Send + Sync;
    /// The value, rounded to float32.
    fn single(word: Self::Word) -> f32;
    /// The value, rounded to float64.
    fn double(word: Self::Word) -> f64;
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident: $word:ty, $read:expr;)*) => {$(
        $(#[$doc])*
        pub struct $name;

        impl Kind for $name {
            type Word = $word;

            #[inline(always)]
            fn single(word: $word) -> f32 {
                $read(word) as f32
            }

            #[inline(always)]
            fn double(word: $word) -> f64 {
                $read(word) as f64
            }
        }
    )*};
}

kinds! {
    /// A byte; every value but 0 is true.
    Bool: u8, |word| u8::from(word != 0);
    U8: u8, |word| word;
    U16: u16, |word| word;
    U32: u32, |word| word;
    U64: u64, |word| word;
    I8: u8, u8::cast_signed;
    I16: u16, u16::cast_signed;
    I32: u32, u32::cast_signed;
    I64: u64, u64::cast_signed;
    F16: u16, half;
    F32: u32, f32::from_bits;
    F64: u64, f64::from_bits;
}

/// The value of a float16, which float32 holds exactly.
#[inline(always)]
fn half(word: u16) -> f32 {
    let (sign, magnitude) = (u32::from(word & 0x8000) << 16, u32::from(word & 0x7fff));
    let bits = if magnitude < 0x7c00 {
        // The biases of the exponents differ by 112. The product is right for
        // subnormal numbers, too.
        (f32::from_bits(magnitude << 13) * f32::from_bits((112 + 127) << 23)).to_bits()
    } else {
        0x7f80_0000 | (magnitude & 0x3ff) << 13 // infinity or NaN
    };
    f32::from_bits(sign | bits)
}

/// The error for a dtype that is not supported.
pub fn unknown_kind(kind: &str) -> PyErr {
    PyValueError::new_err(format!(
        "Diffraction patterns cannot have the dtype {kind:?}. Convert them to float32."
    ))
}

/// Calls a function for the dtype with a `NumPy` name such as "f4".
macro_rules! of_kind {
    ($kind:expr, $function:ident($($argument:expr),* $(,)?)) => {
        match $kind {
            "b1" => $function::<$crate::kinds::Bool>($($argument),*),
            "u1" => $function::<$crate::kinds::U8>($($argument),*),
            "u2" => $function::<$crate::kinds::U16>($($argument),*),
            "u4" => $function::<$crate::kinds::U32>($($argument),*),
            "u8" => $function::<$crate::kinds::U64>($($argument),*),
            "i1" => $function::<$crate::kinds::I8>($($argument),*),
            "i2" => $function::<$crate::kinds::I16>($($argument),*),
            "i4" => $function::<$crate::kinds::I32>($($argument),*),
            "i8" => $function::<$crate::kinds::I64>($($argument),*),
            "f2" => $function::<$crate::kinds::F16>($($argument),*),
            "f4" => $function::<$crate::kinds::F32>($($argument),*),
            "f8" => $function::<$crate::kinds::F64>($($argument),*),
            _ => Err($crate::kinds::unknown_kind($kind)),
        }
    };
}
pub(crate) use of_kind;
