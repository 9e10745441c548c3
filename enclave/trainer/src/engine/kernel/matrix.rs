//! Products of matrices, from any strides into any columns.
//!
//! `c += alpha * left * right` goes panel by panel: a few columns of the right matrix are packed
//! so that one step of depth lies together, then every stripe of rows of the left matrix, packed
//! alike, meets them in a tile of registers. Both orientations of a frozen weight are packed from
//! the one copy that is held; with the couple of hundred rows of an example, packing costs a few
//! percent and saves the second copy. The depth is added in order, in blocks of [`DEPTH`].

use super::tile::{Kernel, Word};

/// A matrix lent by strides; its elements are values, or pairs of bf16 along the depth.
#[derive(Clone, Copy)]
pub(in crate::engine) struct View<'a, W = f32> {
    values: &'a [W],
    start: usize,
    rows: usize,
    columns: usize,
    width: usize, // of a row in memory
    turned: bool, // rows and columns have changed places
}

impl<'a, W: Word> View<'a, W> {
    /// Rows of `width`, one after the other.
    pub(in crate::engine) fn new(values: &'a [W], width: usize) -> Self {
        let rows = values.len().checked_div(width).unwrap_or(0);
        Self { values, start: 0, rows, columns: width, width, turned: false }
    }

    /// Some of the columns of a matrix that is not turned.
    pub(in crate::engine) fn columns(self, first: usize, count: usize) -> Self {
        Self { start: self.start + first, columns: count, ..self }
    }

    /// Some of the rows of a matrix that is not turned.
    pub(in crate::engine) fn rows(self, first: usize, count: usize) -> Self {
        Self { start: self.start + first * self.width, rows: count, ..self }
    }

    /// Rows as columns.
    pub(in crate::engine) fn turned(self) -> Self {
        Self { rows: self.columns, columns: self.rows, turned: !self.turned, ..self }
    }

    /// One row of a matrix that is not turned.
    pub(super) fn row(&self, row: usize) -> &'a [W] {
        self.run(row, 0, self.columns)
    }

    /// How many rows there are.
    pub(in crate::engine) fn height(&self) -> usize {
        self.rows
    }

    /// What lies together from a place on: part of a row, or of a column where turned.
    fn run(&self, line: usize, first: usize, count: usize) -> &'a [W] {
        let start = self.start + line * self.width + first;
        self.values.get(start..start + count).unwrap_or_default()
    }
}

/// Columns of a matrix that is added to.
pub(in crate::engine) struct Target<'a> {
    values: &'a mut [f32],
    start: usize,
    rows: usize,
    columns: usize,
    width: usize,
}

impl<'a> Target<'a> {
    /// Rows of `width`, one after the other.
    pub(in crate::engine) fn new(values: &'a mut [f32], width: usize) -> Self {
        let rows = values.len().checked_div(width).unwrap_or(0);
        Self { values, start: 0, rows, columns: width, width }
    }

    /// Some of the columns.
    pub(in crate::engine) fn columns(self, first: usize, count: usize) -> Self {
        Self { start: self.start + first, columns: count, ..self }
    }

    /// Some of the rows.
    pub(in crate::engine) fn rows(self, first: usize, count: usize) -> Self {
        Self { start: self.start + first * self.width, rows: count, ..self }
    }

    #[inline(always)]
    fn row(&mut self, row: usize, first: usize, count: usize) -> &mut [f32] {
        let start = self.start + row * self.width + first;
        self.values.get_mut(start..start + count).unwrap_or_default()
    }
}

/// Steps of depth that are multiplied at a time: a panel of them stays in the second cache.
const DEPTH: usize = 1024;

/// The right matrix of a product, as it is packed.
pub(in crate::engine) trait Right<W> {
    /// Depth and columns.
    fn shape(&self) -> (usize, usize);

    /// Lays columns from `first` on, side by side, from step `from` on: `(depth, lanes)`, with
    /// zeros for columns there are not.
    fn pack<const LANES: usize>(
        &self,
        interleave: &impl Fn(&[&[W]], &mut [W]),
        first: usize,
        from: usize,
        into: &mut [W],
    );
}

/// The left matrix of products, packed once for all of them.
pub(in crate::engine) struct Left<W = f32> {
    kernel: Kernel,
    packed: Vec<W>, // (stripes, depth, rows of a tile)
    rows: usize,
    depth: usize,
}

impl<W: Word> Left<W> {
    pub(in crate::engine) fn new(kernel: Kernel, view: View<'_, W>) -> Self {
        let (rows, depth) = (view.rows, view.columns);
        let tall = kernel.tile().0;
        let mut packed = vec![W::default(); rows.div_ceil(tall) * tall * depth];
        for (stripe, into) in packed.chunks_exact_mut(tall * depth.max(1)).enumerate() {
            kernel.pack_left(view.turned(), stripe * tall, into);
        }
        Self { kernel, packed, rows, depth }
    }

    /// `c += alpha * self * right`
    pub(in crate::engine) fn times(&self, alpha: f32, right: impl Right<W>, c: Target<'_>) {
        debug_assert_eq!((self.depth, c.columns), right.shape());
        debug_assert_eq!(self.rows, c.rows);
        W::panels(self.kernel, self, alpha, &right, c);
    }

    /// Panel by panel, with the tile and the packing of a kernel. Inlined where that kernel's
    /// instructions may be used.
    #[inline(always)]
    pub(super) fn panels<const M: usize, const N: usize>(
        &self,
        multiply: impl Fn(&[W], &[W], &mut [[f32; N]; M]),
        interleave: impl Fn(&[&[W]], &mut [W]),
        alpha: f32,
        right: &impl Right<W>,
        mut c: Target<'_>,
    ) {
        let mut panel = vec![W::default(); DEPTH.min(self.depth) * N];
        for first in (0..c.columns).step_by(N) {
            let count = N.min(c.columns - first);
            for from in (0..self.depth).step_by(DEPTH) {
                let depth = DEPTH.min(self.depth - from);
                let panel = panel.get_mut(..depth * N).unwrap_or_default();
                right.pack::<N>(&interleave, first, from, panel);
                let stripes = self.packed.chunks_exact(M * self.depth);
                for (stripe, left) in stripes.enumerate() {
                    let left = left.get(from * M..(from + depth) * M).unwrap_or_default();
                    let mut sum = [[0.0; N]; M];
                    multiply(left, panel, &mut sum);
                    for (row, sum) in (stripe * M..self.rows).zip(&sum) {
                        add(c.row(row, first, count), alpha, sum);
                    }
                }
            }
        }
    }
}

/// `c += alpha * sum`, as far as c reaches.
#[inline(always)]
fn add<const N: usize>(c: &mut [f32], alpha: f32, sum: &[f32; N]) {
    let (c, rest) = c.as_chunks_mut::<16>();
    let (sum, last) = sum.as_chunks::<16>();
    for (c, sum) in c.iter_mut().zip(sum) {
        let mut out = *c; // all is read before any is written: vector registers
        out.iter_mut().zip(sum).for_each(|(out, sum)| *out += alpha * sum);
        *c = out;
    }
    let last = sum.get(c.len()).map_or(last, |sum| sum);
    rest.iter_mut().zip(last).for_each(|(c, sum)| *c += alpha * sum);
}

/// `c += alpha * left * right`
pub(in crate::engine) fn product(
    kernel: Kernel,
    alpha: f32,
    left: View<'_>,
    right: View<'_>,
    c: Target<'_>,
) {
    Left::new(kernel, left).times(alpha, right, c);
}

impl<W: Word> Right<W> for View<'_, W> {
    fn shape(&self) -> (usize, usize) {
        (self.rows, self.columns)
    }

    #[inline(always)]
    fn pack<const LANES: usize>(
        &self,
        interleave: &impl Fn(&[&[W]], &mut [W]),
        first: usize,
        from: usize,
        into: &mut [W],
    ) {
        let count = LANES.min(self.columns.saturating_sub(first));
        let depth = into.len() / LANES;
        if count < LANES {
            into.fill(W::default());
        }
        if !self.turned {
            for (step, out) in into.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
                let run = self.run(from + step, first, count);
                match <&[W; LANES]>::try_from(run) {
                    Ok(run) => *out = *run,
                    Err(_) => out.iter_mut().zip(run).for_each(|(out, value)| *out = *value),
                }
            }
            return;
        }
        let runs: [&[W]; LANES] = core::array::from_fn(|lane| {
            if lane < count { self.run(first + lane, from, depth) } else { &[] }
        });
        interleave(runs.get(..count).unwrap_or_default(), into);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::as_conversions)]
    use super::*;
    use crate::golden::noise;
    use proptest::prelude::*;

    fn defined(left: &[f32], right: &[f32], [m, k, n]: [usize; 3]) -> Vec<f64> {
        let cell = |i: usize, j: usize| -> f64 {
            (0..k).map(|l| f64::from(left[i * k + l]) * f64::from(right[l * n + j])).sum()
        };
        (0..m).flat_map(|i| (0..n).map(move |j| (i, j))).map(|(i, j)| cell(i, j)).collect()
    }

    fn turn(x: &[f32], rows: usize, columns: usize) -> Vec<f32> {
        let places = (0..columns).flat_map(|c| (0..rows).map(move |r| (r, c)));
        places.map(|(r, c)| x[r * columns + c]).collect()
    }

    /// All four orientations, on every kernel this machine has, into some columns of a wider
    /// matrix.
    fn agrees(shape: [usize; 3], alpha: f32) {
        let [m, k, n] = shape;
        let (left, right) = (noise(1, m * k, 1.0), noise(2, k * n, 1.0));
        let (left_t, right_t) = (turn(&left, m, k), turn(&right, k, n));
        let expected = defined(&left, &right, shape);
        for kernel in Kernel::all() {
            for left in [View::new(&left, k), View::new(&left_t, m).turned()] {
                for right in [View::new(&right, n), View::new(&right_t, k).turned()] {
                    let mut c = vec![0.5; m * (n + 3)];
                    product(kernel, alpha, left, right, Target::new(&mut c, n + 3).columns(2, n));
                    for (row, expected) in c.chunks(n + 3).zip(expected.chunks(n)) {
                        assert_eq!((row[0], row[1], row[n + 2]), (0.5, 0.5, 0.5));
                        for (found, expected) in row[2..].iter().zip(expected) {
                            let expected = 0.5 + f64::from(alpha) * expected;
                            let error = (f64::from(*found) - expected).abs();
                            assert!(error < 1e-4, "{kernel:?} {shape:?} {found} {expected}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn agrees_with_the_definition_at_the_edges_of_tiles() {
        for m in [1, 5, 6, 7, 12, 13, 25] {
            for n in [1, 15, 16, 17, 31, 32, 33] {
                agrees([m, 1 + m * n % 19, n], 0.7);
            }
        }
        agrees([3, DEPTH - 1, 2], 1.0);
        agrees([3, DEPTH + 9, 2], 1.0);
        agrees([13, 2 * DEPTH, 33], 1.0);
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(m in 1_usize..40, k in 1_usize..70, n in 1_usize..70) {
            agrees([m, k, n], -1.5);
        }
    }
}
