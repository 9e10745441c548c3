//! Matrices of bf16: the upper half of an f32, two of a row in one word.
//!
//! Widened panel by panel they take part in products of f32, exactly. With instructions for bf16,
//! both sides are pairs along the depth, and the left matrix is rounded to bf16 first.

use super::matrix::{Right, View};

/// A matrix of bf16 with rows of an even width: two neighbours in a word, the first one low.
#[derive(Clone, Copy)]
pub(in crate::engine) struct Brain<'a> {
    pairs: &'a [u32],
    half: usize, // words of a row
    turned: bool,
}

impl<'a> Brain<'a> {
    /// Rows of `width`, one after the other.
    pub(in crate::engine) fn new(pairs: &'a [u32], width: usize) -> Self {
        Self { pairs, half: width / 2, turned: false }
    }

    /// Rows as columns.
    pub(in crate::engine) fn turned(self) -> Self {
        Self { turned: !self.turned, ..self }
    }

    fn rows(&self) -> usize {
        self.pairs.len().checked_div(self.half).unwrap_or(0)
    }

    /// Words of a row.
    pub(in crate::engine) fn row(&self, row: usize) -> &'a [u32] {
        self.run(row, 0, self.half)
    }

    fn run(&self, row: usize, first: usize, count: usize) -> &'a [u32] {
        let start = row * self.half + first;
        let most = (row < self.rows()).then_some(count.min(self.half.saturating_sub(first)));
        self.pairs.get(start..start + most.unwrap_or(0)).unwrap_or_default()
    }
}

/// Two bf16 as f32, exactly.
#[inline(always)]
pub(in crate::engine) fn widen(pair: u32) -> [f32; 2] {
    [f32::from_bits(pair << 16), f32::from_bits(pair & 0xffff_0000)]
}

/// Two f32 rounded to nearest bf16, ties to even; NaN stays NaN.
#[inline(always)]
fn round(low: f32, high: f32) -> u32 {
    let bits = |value: f32| {
        let bits = value.to_bits();
        let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
        if value.is_nan() { bits | 0x0040_0000 } else { rounded }
    };
    bits(low) >> 16 | bits(high) & 0xffff_0000
}

/// Rows of a matrix rounded to pairs; an odd last column is paired with 0.
#[inline(always)]
pub(super) fn plain_rounded(into: &mut [u32], row: &[f32]) {
    let (pairs, rest) = row.as_chunks::<2>();
    for (out, [low, high]) in into.iter_mut().zip(pairs) {
        *out = round(*low, *high);
    }
    if let ([last], Some(out)) = (rest, into.last_mut()) {
        *out = round(*last, 0.0);
    }
}

/// Widened: depth and columns as they are.
impl Right<f32> for Brain<'_> {
    fn shape(&self) -> (usize, usize) {
        let (rows, width) = (self.rows(), 2 * self.half);
        if self.turned { (width, rows) } else { (rows, width) }
    }

    #[inline(always)]
    fn pack<const LANES: usize>(
        &self,
        interleave: &impl Fn(&[&[f32]], &mut [f32]),
        first: usize,
        from: usize,
        into: &mut [f32],
    ) {
        let depth = into.len() / LANES;
        if !self.turned {
            into.fill(0.0);
            for (step, out) in into.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
                let run = self.run(from + step, first / 2, LANES / 2);
                for (out, pair) in out.as_chunks_mut::<2>().0.iter_mut().zip(run) {
                    *out = widen(*pair);
                }
            }
            return;
        }
        let mut wide = vec![0.0; LANES * depth];
        for (lane, wide) in wide.chunks_exact_mut(depth.max(1)).enumerate() {
            let run = self.run(first + lane, from / 2, depth / 2);
            for (out, pair) in wide.as_chunks_mut::<2>().0.iter_mut().zip(run) {
                *out = widen(*pair);
            }
        }
        View::new(&wide, depth).turned().pack::<LANES>(interleave, 0, 0, into);
    }
}

/// As pairs along the depth, of which there is half.
impl Right<u32> for Brain<'_> {
    fn shape(&self) -> (usize, usize) {
        let (rows, width) = (self.rows(), 2 * self.half);
        if self.turned { (self.half, rows) } else { (rows.div_ceil(2), width) }
    }

    #[inline(always)]
    fn pack<const LANES: usize>(
        &self,
        interleave: &impl Fn(&[&[u32]], &mut [u32]),
        first: usize,
        from: usize,
        into: &mut [u32],
    ) {
        if self.turned {
            View::new(self.pairs, self.half).turned().pack::<LANES>(interleave, first, from, into);
            return;
        }
        into.fill(0);
        for (step, out) in into.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            let row = 2 * (from + step);
            let upper = self.run(row, first / 2, LANES / 2);
            let lower = self.run(row + 1, first / 2, LANES / 2);
            let pairs = out.as_chunks_mut::<2>().0.iter_mut();
            if lower.is_empty() {
                pairs.zip(upper).for_each(|(out, a)| *out = [a & 0xffff, a >> 16]);
                continue;
            }
            for ((out, a), b) in pairs.zip(upper).zip(lower) {
                *out = [a & 0xffff | b << 16, a >> 16 | b & 0xffff_0000];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::as_conversions)]
    use super::super::{Kernel, Left, Target, rounded};
    use super::*;
    use crate::golden::noise;

    fn bf16(values: &[f32], width: usize) -> Vec<u32> {
        rounded(View::new(values, width))
    }

    fn value(pairs: &[u32], width: usize, row: usize, column: usize) -> f64 {
        f64::from(widen(pairs[row * (width / 2) + column / 2])[column % 2])
    }

    #[test]
    fn rounds_to_nearest_even() {
        assert_eq!(round(1.0, -2.0), 0xc000_3f80);
        let tie = f32::from_bits(0x3f80_8000);
        assert_eq!(round(tie, f32::from_bits(0x3f81_8000)), 0x3f82_3f80);
        assert!(widen(round(f32::NAN, 1.0))[0].is_nan());
        assert_eq!(widen(round(f32::INFINITY, 0.0))[0], f32::INFINITY);
    }

    #[test]
    fn widened_products_are_exact_products_of_the_weights() {
        for [m, k, n] in [[7, 6, 34], [13, 40, 16], [2, 2, 2]] {
            let (x, g) = (noise(1, m * k, 1.0), noise(2, m * n, 1.0));
            let w = bf16(&noise(3, n * k, 1.0), k); // (n, k)
            for kernel in Kernel::all() {
                let mut y = vec![0.0; m * n];
                let left = Left::new(kernel, View::new(&x, k));
                left.times(1.0, Brain::new(&w, k).turned(), Target::new(&mut y, n));
                let mut g_x = vec![0.0; m * k];
                let left = Left::new(kernel, View::new(&g, n));
                left.times(1.0, Brain::new(&w, k), Target::new(&mut g_x, k));
                for i in 0..m {
                    for j in 0..n {
                        let sum: f64 =
                            (0..k).map(|l| f64::from(x[i * k + l]) * value(&w, k, j, l)).sum();
                        assert!((f64::from(y[i * n + j]) - sum).abs() < 1e-5);
                    }
                    for l in 0..k {
                        let sum: f64 =
                            (0..n).map(|j| f64::from(g[i * n + j]) * value(&w, k, j, l)).sum();
                        assert!((f64::from(g_x[i * k + l]) - sum).abs() < 1e-5);
                    }
                }
            }
        }
    }

    /// Says nothing on a machine without instructions for bf16.
    #[test]
    fn rounded_products_are_products_of_what_was_rounded() {
        let Some(kernel) = Kernel::rounding() else { return };
        for [m, k, n] in [[7, 6, 33], [13, 40, 16], [25, 2, 1], [12, 2500, 64]] {
            let x = bf16(&noise(1, m * k, 1.0), k);
            let w = bf16(&noise(3, n * k, 1.0), k); // (n, k)
            let mut y = vec![0.0; m * n];
            let left = Left::new(kernel, View::new(&x, k / 2));
            left.times(1.0, Brain::new(&w, k).turned(), Target::new(&mut y, n));
            let g = noise(2, m * n, 1.0);
            let half = n.div_ceil(2);
            let pairs = bf16(&g, n); // (m, half)
            let mut g_x = vec![0.0; m * k];
            let left = Left::new(kernel, View::new(&pairs, half));
            left.times(1.0, Brain::new(&w, k), Target::new(&mut g_x, k));
            let of_g = |i: usize, j: usize| f64::from(widen(pairs[i * half + j / 2])[j % 2]);
            for i in 0..m {
                for j in 0..n {
                    let sum: f64 = (0..k).map(|l| value(&x, k, i, l) * value(&w, k, j, l)).sum();
                    assert!((f64::from(y[i * n + j]) - sum).abs() < 1e-4, "{m} {k} {n}");
                }
                for l in 0..k {
                    let sum: f64 = (0..n).map(|j| of_g(i, j) * value(&w, k, j, l)).sum();
                    assert!((f64::from(g_x[i * k + l]) - sum).abs() < 1e-4, "{m} {k} {n}");
                }
            }
        }
    }
}
