//! Conversions between counts and reals, each exact or rounded by the rule its name states.

#![expect(clippy::as_conversions, reason = "the one place where numbers change their kind")]

/// A count as a real. Exact below 2^53, which no count here reaches.
pub(crate) fn real(count: usize) -> f64 {
    count as f64
}

/// A count as a single-precision real, to nearest.
pub(crate) fn single(count: usize) -> f32 {
    count as f32
}

/// To the nearest single-precision real.
pub(crate) fn narrow(value: f64) -> f32 {
    value as f32
}

/// To the nearest integer, ties away from zero; saturates, and NaN is 0.
pub(crate) fn nearest(value: f64) -> i64 {
    libm::round(value) as i64
}

/// An integer as a real, to nearest.
pub(crate) fn widen(value: i64) -> f64 {
    value as f64
}

/// A token id as an index. Exact on every platform this crate is built for.
pub(crate) fn index(id: u32) -> usize {
    id as usize
}

/// A 32-bit count as an index.
pub(crate) fn index_of(count: u32) -> usize {
    count as usize
}

/// A positive finite normal number as `mantissa * 2^exponent`, exactly, with 2^52 <= mantissa.
pub(crate) fn parts(value: f64) -> Option<(u64, i32)> {
    let bits = value.to_bits();
    let exponent = (bits >> 52) as i32; // the sign bit would make it 2048 or more
    let normal = (1..2047).contains(&exponent);
    normal.then(|| (bits & ((1 << 52) - 1) | (1 << 52), exponent - 1075))
}
