//! Dense kernels on f32 slices: products in [`matrix`], on tiles of registers in [`tile`], and
//! what is done element by element here.
//!
//! Element by element there is no fused multiply-add, and one order of summation: a single sum of
//! products is kept in eight lanes, which are added in one fixed tree. Each such kernel is compiled
//! twice, for the architecture's baseline and for AVX2, from the same source. That changes no bit,
//! as Rust never contracts or reassociates floating point; a test compares the two.
//!
//! # Unsafe
//! A function compiled for AVX2 may only be called where the processor has it, which the compiler
//! cannot know. There is one such call here, right behind the question; these kernels themselves
//! are safe code on slices. [`tile`] has the vector registers, and its own paragraph.

#![expect(
    unsafe_code,
    reason = "the call of a function compiled for AVX2, once it is known to be there"
)]

mod brain;
mod matrix;
mod tile;

pub use tile::Kernel;

pub(super) use brain::{Brain, widen};
pub(super) use matrix::{Left, Target, View, product};

use crate::model::config::Activation;
use brain::plain_rounded;

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
    /// `exp(x - top)` of each x, in place, where `top` is the largest; returns `top`.
    exponentials = plain_exponentials(row: &mut [f32]) -> f32
}

widest! {
    /// A row rounded to pairs of bf16.
    round_row = plain_rounded(into: &mut [u32], row: &[f32])
}

/// A matrix rounded to pairs of bf16 along its rows; an odd last column is paired with 0.
pub(super) fn rounded(view: View<'_>) -> Vec<u32> {
    let half = view.row(0).len().div_ceil(2).max(1);
    let mut pairs = vec![0; view.height() * half];
    for (row, into) in pairs.chunks_exact_mut(half).enumerate() {
        round_row(into, view.row(row));
    }
    pairs
}

widest! {
    /// `f(gate) * up`, or `f(gate)` where `up` is empty.
    activate = plain_activate(f: Activation, gate: &[f32], up: &[f32], out: &mut [f32])
}

widest! {
    /// Gradients of gate and up in [`activate`].
    slope = plain_slope(
        f: Activation, gate: &[f32], up: &[f32], g: &[f32], g_gate: &mut [f32], g_up: &mut [f32]
    )
}

widest! {
    /// `cap * tanh(x / cap)` in place; writes the slopes.
    soften = plain_soften(cap: f32, x: &mut [f32], slopes: &mut [f32])
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
fn plain_activate(f: Activation, gate: &[f32], up: &[f32], out: &mut [f32]) {
    match f {
        Activation::Gelu => activate_by(gelu, gate, up, out),
        Activation::GeluTanh => activate_by(gelu_tanh, gate, up, out),
        Activation::Silu => activate_by(silu, gate, up, out),
    }
}

#[inline(always)]
fn activate_by(f: impl Fn(f32) -> [f32; 2], gate: &[f32], up: &[f32], out: &mut [f32]) {
    out.iter_mut().zip(gate).for_each(|(out, gate)| *out = f(*gate)[0]);
    out.iter_mut().zip(up).for_each(|(out, up)| *out *= up);
}

#[inline(always)]
fn plain_slope(
    f: Activation,
    gate: &[f32],
    up: &[f32],
    g: &[f32],
    g_gate: &mut [f32],
    g_up: &mut [f32],
) {
    match f {
        Activation::Gelu => slope_by(gelu, gate, up, g, g_gate, g_up),
        Activation::GeluTanh => slope_by(gelu_tanh, gate, up, g, g_gate, g_up),
        Activation::Silu => slope_by(silu, gate, up, g, g_gate, g_up),
    }
}

#[inline(always)]
fn slope_by(
    f: impl Fn(f32) -> [f32; 2],
    gate: &[f32],
    up: &[f32],
    g: &[f32],
    g_gate: &mut [f32],
    g_up: &mut [f32],
) {
    if up.is_empty() {
        for ((g_gate, gate), g) in g_gate.iter_mut().zip(gate).zip(g) {
            *g_gate = g * f(*gate)[1];
        }
        return;
    }
    let given = gate.iter().zip(up).zip(g);
    for ((g_gate, g_up), ((gate, up), g)) in g_gate.iter_mut().zip(g_up).zip(given) {
        let [value, slope] = f(*gate);
        *g_gate = g * slope * up;
        *g_up = g * value;
    }
}

#[inline(always)]
fn plain_soften(cap: f32, x: &mut [f32], slopes: &mut [f32]) {
    let inverse = 1.0 / cap;
    for (x, slope) in x.iter_mut().zip(slopes) {
        let soft = tanh(*x * inverse);
        *x = cap * soft;
        *slope = 1.0 - soft * soft;
    }
}

/// `x sigmoid(x)` and its slope.
#[inline(always)]
fn silu(x: f32) -> [f32; 2] {
    let share = sigmoid(x);
    [x * share, share * (1.0 + x * (1.0 - share))]
}

/// `x Φ(x)` and its slope.
#[inline(always)]
fn gelu(x: f32) -> [f32; 2] {
    const DENSITY: f32 = 0.398_942_3; // 1 / sqrt(2 pi)
    let share = 0.5 * (1.0 + erf(x * core::f32::consts::FRAC_1_SQRT_2));
    [x * share, share + x * DENSITY * exp(-0.5 * x * x)]
}

/// GELU by tanh, and its slope.
#[inline(always)]
fn gelu_tanh(x: f32) -> [f32; 2] {
    const FACTOR: f32 = 0.797_884_6; // sqrt(2 / pi)
    const CUBE: f32 = 0.044_715;
    let soft = tanh(FACTOR * (x + CUBE * x * x * x));
    let share = 0.5 * (1.0 + soft);
    let slope = FACTOR * (1.0 + 3.0 * CUBE * x * x);
    [x * share, share + 0.5 * x * (1.0 - soft * soft) * slope]
}

/// The hyperbolic tangent, by Cephes' polynomial near 0.
#[inline(always)]
fn tanh(x: f32) -> f32 {
    let (size, z) = (x.abs(), x * x);
    let p = -5.704_988_7e-3_f32;
    let p = p * z + 2.063_909e-2;
    let p = p * z - 5.373_971_6e-2;
    let p = p * z + 1.333_144_2e-1;
    let p = p * z - 3.333_328e-1;
    let near = p * z * x + x;
    let far = (1.0 - 2.0 / (exp(2.0 * size) + 1.0)).copysign(x);
    if size < 0.625 { near } else { far } // NaN comes out of `far`
}

/// The error function, by Cephes' polynomials, to 2e-7.
#[inline(always)]
fn erf(x: f32) -> f32 {
    let (size, z) = (x.abs(), x * x);
    let p = 7.853_861e-5_f32;
    let p = p * z - 8.010_194e-4;
    let p = p * z + 5.188_327_7e-3;
    let p = p * z - 2.685_381e-2;
    let p = p * z + 1.128_358_5e-1;
    let p = p * z - 3.761_262_6e-1;
    let near = x * (p * z + core::f32::consts::FRAC_2_SQRT_PI);
    let inverse = 1.0 / size.max(1.0);
    let w = inverse * inverse;
    let q = 2.326_82e-2_f32;
    let q = q * w - 1.387_039_4e-1;
    let q = q * w + 3.687_424_7e-1;
    let q = q * w - 5.824_733e-1;
    let q = q * w + 6.210_004_6e-1;
    let q = q * w - 4.944_515_3e-1;
    let q = q * w + 3.404_88e-1;
    let q = q * w - 2.741_127e-1;
    let q = q * w + 5.638_259_4e-1;
    let far = (1.0 - exp(-z) * inverse * q).copysign(x);
    if size < 1.0 { near } else { far }
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

    /// On a machine without AVX2 both sides are the same code, and this says nothing.
    #[test]
    fn wider_registers_change_no_bit() {
        let x = noise(1, 481, 3.0);
        let (mut a, mut b) = (x.clone(), x.clone());
        assert_eq!(exponentials(&mut a), plain_exponentials(&mut b));
        assert_eq!(a, b);
        let (mut s, mut t) = (vec![0.0; 481], vec![0.0; 481]);
        soften(2.0, &mut a, &mut s);
        plain_soften(2.0, &mut b, &mut t);
        assert_eq!((&a, &s), (&b, &t));
        let (gate, up, g) = (noise(4, 99, 9.0), noise(5, 99, 9.0), noise(6, 99, 9.0));
        for f in [Activation::Gelu, Activation::GeluTanh, Activation::Silu] {
            let (mut a, mut b) = ([0.0; 99], [0.0; 99]);
            activate(f, &gate, &up, &mut a);
            plain_activate(f, &gate, &up, &mut b);
            assert_eq!(a, b);
            let (mut c, mut d) = ([0.0; 99], [0.0; 99]);
            slope(f, &gate, &up, &g, &mut a, &mut c);
            plain_slope(f, &gate, &up, &g, &mut b, &mut d);
            assert_eq!((a, c), (b, d));
        }
    }

    #[test]
    fn activations_agree_with_their_definitions() {
        for i in -1_200..1_200_i16 {
            let x = f64::from(i) / 100.0;
            let cdf = 0.5 * (1.0 + libm::erf(x / 2.0_f64.sqrt()));
            let density = (-0.5 * x * x).exp() / (2.0 * core::f64::consts::PI).sqrt();
            let share = 1.0 / (1.0 + (-x).exp());
            let inside = (2.0 / core::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
            let slope = (2.0 / core::f64::consts::PI).sqrt() * (1.0 + 0.134145 * x * x);
            let t = inside.tanh();
            let cases = [
                (gelu(x as f32), [x * cdf, cdf + x * density]),
                (silu(x as f32), [x * share, share * (1.0 + x * (1.0 - share))]),
                (
                    gelu_tanh(x as f32),
                    [0.5 * x * (1.0 + t), 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * slope],
                ),
            ];
            for (found, exact) in cases {
                for (found, exact) in found.iter().zip(exact) {
                    assert!((f64::from(*found) - exact).abs() < 2e-6, "{x}: {found} {exact}");
                }
            }
            assert!((f64::from(tanh(x as f32)) - f64::from(x as f32).tanh()).abs() < 2e-7, "{x}");
            assert!((f64::from(erf(x as f32)) - libm::erf(f64::from(x as f32))).abs() < 3e-7);
        }
        assert!(tanh(f32::NAN).is_nan() && erf(f32::NAN).is_nan());
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
