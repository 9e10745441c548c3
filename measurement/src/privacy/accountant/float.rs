//! Conversions between integers and doubles, each with its range.

/// `n` as a double, rounded to nearest.
pub(super) fn real(n: u64) -> f64 {
    #[expect(clippy::as_conversions, reason = "rounds to nearest; no lossless conversion exists")]
    let value = n as f64;
    value
}

/// `n` as a double; exact for the indices of a grid, which stay below 2^53.
pub(super) fn signed(n: i64) -> f64 {
    #[expect(clippy::as_conversions, reason = "rounds to nearest; no lossless conversion exists")]
    let value = n as f64;
    value
}

/// The integer below `x`; saturates.
pub(super) fn floor(x: f64) -> i64 {
    #[expect(clippy::as_conversions, reason = "saturates, and gives 0 for what is no number")]
    let value = libm::floor(x) as i64;
    value
}
