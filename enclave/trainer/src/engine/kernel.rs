//! Dense kernels on row-major f32 slices.
//!
//! No fused multiply-add, and one order of summation: matrices add four products at a time, row
//! after row; a single sum of products is kept in eight lanes, which are added in one fixed tree.
//! Each kernel is compiled twice, for the architecture's baseline and for AVX2, from the same source. That changes no bit,
//! as Rust never contracts or reassociates floating point; a test compares the two.
//!
//! # Unsafe
//! A function compiled for AVX2 may only be called where the processor has it, which the compiler
//! cannot know. There is one such call, right behind the question; the kernels themselves are
//! safe code on slices.

#![expect(
    unsafe_code,
    reason = "the call of a function compiled for AVX2, once it is known to be there"
)]

const LANES: usize = 8;

/// Makes `$name` call `$plain`, compiled for AVX2 where the processor has it.
macro_rules! widest {
    ($(#[$doc:meta])* $name:ident = $plain:ident($($arg:ident: $type:ty),*) $(-> $result:ty)?) => {
        $(#[$doc])*
        pub(super) fn $name($($arg: $type),*) $(-> $result)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2")]
                fn wide($($arg: $type),*) $(-> $result)? {
                    $plain($($arg),*)
                }
                if std::arch::is_x86_feature_detected!("avx2") {
                    // SAFETY: the processor has just said that it has AVX2.
                    return unsafe { wide($($arg),*) };
                }
            }
            $plain($($arg),*)
        }
    };
}

widest! {
    /// `y += alpha * x wᵀ`: x is `(rows, inputs)`, w `(outputs, inputs)`, y `(rows, outputs)`.
    multiply_transposed =
        plain_multiply_transposed(y: &mut [f32], alpha: f32, x: &[f32], w: &[f32], inputs: usize)
}

widest! {
    /// `dx += alpha * dy w`: dy is `(rows, outputs)`, w `(outputs, inputs)`, dx `(rows, inputs)`.
    multiply = plain_multiply(dx: &mut [f32], alpha: f32, dy: &[f32], w: &[f32], inputs: usize)
}

widest! {
    /// `g += alpha * leftᵀ right`: left is `(rows, outer)`, right `(rows, inner)`, g
    /// `(outer, inner)`.
    outer = plain_outer(g: &mut [f32], alpha: f32, left: &[f32], right: &[f32], inner: usize)
}

widest! {
    /// `exp(x - top)` of each x, in place, where `top` is the largest; returns `top`.
    exponentials = plain_exponentials(row: &mut [f32]) -> f32
}

widest! {
    /// `silu(gate) * up`.
    gated = plain_gated(gate: &[f32], up: &[f32]) -> Vec<f32>
}

widest! {
    /// Gradients of gate and up in [`gated`].
    ungated = plain_ungated(gate: &[f32], up: &[f32], g: &[f32]) -> (Vec<f32>, Vec<f32>)
}

/// Adds the lanes in a fixed tree.
#[inline(always)]
fn total(lanes: [f32; LANES]) -> f32 {
    let [a, b, c, d, e, f, g, h] = lanes;
    ((a + e) + (b + f)) + ((c + g) + (d + h))
}

/// `x · w`.
#[inline(always)]
pub(super) fn dot(x: &[f32], w: &[f32]) -> f32 {
    let mut sum = [0.0_f32; LANES];
    for (x, w) in x.chunks(LANES).zip(w.chunks(LANES)) {
        for ((sum, x), w) in sum.iter_mut().zip(x).zip(w) {
            *sum += x * w;
        }
    }
    total(sum)
}

/// `out += factor * row`.
#[inline(always)]
pub(super) fn axpy(out: &mut [f32], factor: f32, row: &[f32]) {
    for (out, value) in out.iter_mut().zip(row) {
        *out += factor * value;
    }
}

/// `out += sum of factor * row` over four rows.
#[inline(always)]
fn axpy4(out: &mut [f32], factors: [f32; 4], rows: [&[f32]; 4]) {
    let [fa, fb, fc, fd] = factors;
    let [a, b, c, d] = rows;
    for ((((out, a), b), c), d) in out.iter_mut().zip(a).zip(b).zip(c).zip(d) {
        *out += (fa * a + fb * b) + (fc * c + fd * d);
    }
}

/// Four rows of a matrix, where there are four more.
#[inline(always)]
fn quads(matrix: &[f32], width: usize) -> (impl Iterator<Item = [&[f32]; 4]>, &[f32]) {
    let whole = matrix.chunks_exact(4 * width);
    let rest = whole.remainder();
    let rows = whole.map(move |quad| {
        [0, 1, 2, 3].map(|at| quad.get(at * width..(at + 1) * width).unwrap_or_default())
    });
    (rows, rest)
}

/// Turning w over costs one part in `rows`; adding rows of it up is what vectorises well.
#[inline(always)]
fn plain_multiply_transposed(y: &mut [f32], alpha: f32, x: &[f32], w: &[f32], inputs: usize) {
    let turned = transpose(w, inputs);
    plain_multiply(y, alpha, x, &turned, w.len() / inputs);
}

/// A matrix of rows of `width`, columns first; in blocks that stay in the nearest cache.
#[inline(always)]
fn transpose(matrix: &[f32], width: usize) -> Vec<f32> {
    const BLOCK: usize = 16;
    let height = matrix.len() / width;
    let mut turned = vec![0.0; matrix.len()]; // (width, height)
    for (block, rows) in matrix.chunks(BLOCK * width).enumerate() {
        for (column, out) in turned.chunks_exact_mut(height).enumerate() {
            let out = out.iter_mut().skip(block * BLOCK);
            for (out, row) in out.zip(rows.chunks_exact(width)) {
                *out = row.get(column).copied().unwrap_or_default();
            }
        }
    }
    turned
}

#[inline(always)]
fn plain_multiply(dx: &mut [f32], alpha: f32, dy: &[f32], w: &[f32], inputs: usize) {
    let outputs = w.len() / inputs;
    for (dx, dy) in dx.chunks_exact_mut(inputs).zip(dy.chunks_exact(outputs)) {
        let (fours, rest) = quads(w, inputs);
        let (heads, tail) = dy.as_chunks::<4>();
        for (factors, rows) in heads.iter().zip(fours) {
            axpy4(dx, factors.map(|factor| alpha * factor), rows);
        }
        for (factor, row) in tail.iter().zip(rest.chunks_exact(inputs)) {
            axpy(dx, alpha * factor, row);
        }
    }
}

#[inline(always)]
fn plain_outer(g: &mut [f32], alpha: f32, left: &[f32], right: &[f32], inner: usize) {
    let outer = g.len() / inner;
    let (fours, rest) = quads(right, inner);
    let lefts = left.chunks_exact(4 * outer);
    for (row, left) in rest.chunks_exact(inner).zip(lefts.remainder().chunks_exact(outer)) {
        for (g, factor) in g.chunks_exact_mut(inner).zip(left) {
            axpy(g, alpha * factor, row);
        }
    }
    for (rows, left) in fours.zip(lefts) {
        let factor = |row: usize, column: usize| {
            left.get(row * outer + column).map_or(0.0, |factor| alpha * factor)
        };
        for (column, g) in g.chunks_exact_mut(inner).enumerate() {
            axpy4(g, [0, 1, 2, 3].map(|row| factor(row, column)), rows);
        }
    }
}

/// The exponential, to about one unit in the last place; 0 below -87.
///
/// `2^n p(r)` with `x = n ln 2 + r`, `|r| <= ln 2 / 2` and Cephes' polynomial, written so that
/// it vectorises and is the same on every machine.
#[inline(always)]
fn exp(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to an integer
    let clamped = x.clamp(-87.0, 88.0);
    let shifted = clamped * core::f32::consts::LOG2_E + MAGIC;
    let n = shifted - MAGIC;
    let r = clamped - n * 0.693_359_4 - n * -2.121_944_4e-4;
    let p = 1.987_569_1e-4_f32;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let p = p * r * r + r + 1.0;
    // The low bits of `shifted` are n in two's complement; shifting moves n into the exponent.
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    if x < -87.0 { 0.0 } else { p * power } // NaN stays NaN through the clamp and p
}

#[inline(always)]
fn plain_exponentials(row: &mut [f32]) -> f32 {
    let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    row.iter_mut().for_each(|value| *value = exp(*value - top));
    top
}

#[inline(always)]
fn plain_gated(gate: &[f32], up: &[f32]) -> Vec<f32> {
    gate.iter().zip(up).map(|(gate, up)| gate * sigmoid(*gate) * up).collect()
}

#[inline(always)]
fn plain_ungated(gate: &[f32], up: &[f32], g: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let of_gate = |((gate, up), g): ((&f32, &f32), &f32)| {
        let sigmoid = sigmoid(*gate);
        g * up * sigmoid * (1.0 + gate * (1.0 - sigmoid))
    };
    let g_gate = gate.iter().zip(up).zip(g).map(of_gate).collect();
    let g_up = gate.iter().zip(g).map(|(gate, g)| g * gate * sigmoid(*gate)).collect();
    (g_gate, g_up)
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::as_conversions)]
    use super::*;
    use crate::golden::noise;

    fn naive(x: &[f32], w: &[f32], rows: usize, inputs: usize, outputs: usize) -> Vec<f32> {
        let cell = |t: usize, n: usize| -> f32 {
            (0..inputs)
                .map(|k| f64::from(x[t * inputs + k]) * f64::from(w[n * inputs + k]))
                .sum::<f64>() as f32
        };
        (0..rows).flat_map(|t| (0..outputs).map(move |n| (t, n))).map(|(t, n)| cell(t, n)).collect()
    }

    fn transpose(x: &[f32], rows: usize, columns: usize) -> Vec<f32> {
        (0..columns)
            .flat_map(|c| (0..rows).map(move |r| (r, c)))
            .map(|(r, c)| x[r * columns + c])
            .collect()
    }

    fn close(a: &[f32], b: &[f32]) {
        assert_eq!(a.len(), b.len());
        for (a, b) in a.iter().zip(b) {
            assert!((a - b).abs() < 1e-5 * (1.0 + b.abs()), "{a} {b}");
        }
    }

    #[test]
    fn products_agree_with_the_definition_for_odd_shapes() {
        for (rows, inputs, outputs) in [(1, 1, 1), (5, 7, 3), (4, 8, 4), (9, 19, 13)] {
            let (x, w) = (noise(1, rows * inputs, 1.0), noise(2, outputs * inputs, 1.0));
            let mut y = vec![0.0; rows * outputs];
            multiply_transposed(&mut y, 1.0, &x, &w, inputs);
            close(&y, &naive(&x, &w, rows, inputs, outputs));

            let mut dx = vec![0.0; rows * inputs];
            multiply(&mut dx, 1.0, &y, &w, inputs);
            close(&dx, &naive(&y, &transpose(&w, outputs, inputs), rows, outputs, inputs));

            let mut g = vec![0.0; outputs * inputs];
            outer(&mut g, 1.0, &y, &x, inputs);
            let (yt, xt) = (transpose(&y, rows, outputs), transpose(&x, rows, inputs));
            close(&g, &naive(&yt, &xt, outputs, rows, inputs));
        }
    }

    /// On a machine without AVX2 both sides are the same code, and this says nothing.
    #[test]
    fn wider_registers_change_no_bit() {
        let (rows, inputs, outputs) = (13, 37, 29);
        let (x, w) = (noise(1, rows * inputs, 3.0), noise(2, outputs * inputs, 3.0));
        let y = noise(3, rows * outputs, 3.0);
        type Kernel = fn(&mut [f32], f32, &[f32], &[f32], usize);
        let same = |wide: Kernel, plain: Kernel, size, left: &[f32], right: &[f32], n| {
            let (mut a, mut b) = (vec![0.5; size], vec![0.5; size]);
            wide(&mut a, 0.7, left, right, n);
            plain(&mut b, 0.7, left, right, n);
            assert_eq!(a, b);
        };
        same(multiply_transposed, plain_multiply_transposed, rows * outputs, &x, &w, inputs);
        same(multiply, plain_multiply, rows * inputs, &y, &w, inputs);
        same(outer, plain_outer, outputs * inputs, &y, &x, inputs);
        let (mut a, mut b) = (x.clone(), x.clone());
        assert_eq!(exponentials(&mut a), plain_exponentials(&mut b));
        assert_eq!(a, b);
        let (gate, up, g) = (noise(4, 99, 9.0), noise(5, 99, 9.0), noise(6, 99, 9.0));
        assert_eq!(gated(&gate, &up), plain_gated(&gate, &up));
        assert_eq!(ungated(&gate, &up, &g), plain_ungated(&gate, &up, &g));
    }

    #[test]
    fn exponential_is_accurate() {
        for i in -8_600..8_700_i16 {
            let x = f32::from(i) / 100.0;
            let exact = f64::from(x).exp();
            assert!((f64::from(exp(x)) - exact).abs() <= 3e-7 * exact, "{x}");
        }
        assert_eq!(exp(-100.0), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert!(exp(f32::NAN).is_nan());
    }
}
