//! A discrete Fourier transform with one order of operations, and a bound on its rounding errors.
//!
//! The forward transform leaves its output in bit-reversed order and the inverse one starts from it,
//! so nothing is ever permuted. Two real sequences travel as one complex one: at the places `p` and
//! `p'` of the frequencies `k` and `-k` lie `X_k + i Y_k` and `conj X_k + i conj Y_k`. In bit-reversed
//! order these places are mirrored within the blocks `[0]`, `[1]`, `[2, 3]`, `[4, .., 7]`, ..

use alloc::vec::Vec;
use core::f64::consts::PI;
use core::ops::{Add, Mul, Sub};

/// Rounding errors of a transform, by level and in units of 2^-53: a sum (1), a product (√5), and
/// those of the twiddle: a product, of a fine root (2) and a coarse one (5, most of it the angle's).
const LEVEL_ERROR: f64 = 12.5;

/// Sub-transforms of this many points are done level by level.
const BLOCK: usize = 2048;

/// A complex number.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Complex {
    pub(super) re: f64,
    pub(super) im: f64,
}

impl Complex {
    pub(super) const ONE: Self = Self { re: 1.0, im: 0.0 };

    pub(super) const fn conj(self) -> Self {
        Self { re: self.re, im: -self.im }
    }

    pub(super) fn norm_squared(self) -> f64 {
        self.re * self.re + self.im * self.im
    }

    pub(super) fn norm(self) -> f64 {
        libm::sqrt(self.norm_squared())
    }

    pub(super) fn scale(self, factor: f64) -> Self {
        Self { re: self.re * factor, im: self.im * factor }
    }

    /// By squaring; the relative error is at most `8 * exponent` units of 2^-53.
    pub(super) fn power(self, exponent: u64) -> Self {
        let (mut result, mut square, mut rest) = (Self::ONE, self, exponent);
        while rest > 0 {
            if rest & 1 == 1 {
                result = result * square;
            }
            square = square * square;
            rest >>= 1;
        }
        result
    }
}

impl Add for Complex {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { re: self.re + other.re, im: self.im + other.im }
    }
}

impl Sub for Complex {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self { re: self.re - other.re, im: self.im - other.im }
    }
}

impl Mul for Complex {
    type Output = Self;

    fn mul(self, other: Self) -> Self {
        Self {
            re: self.re * other.re - self.im * other.im,
            im: self.re * other.im + self.im * other.re,
        }
    }
}

/// The transforms of one length, a power of two.
pub(super) struct Transform {
    /// `e^(-2 pi i j / 2m)` for `j < m`, for `m` from half the length down to 1.
    levels: Vec<Vec<Complex>>,
}

impl Transform {
    /// For `2^log_length` points.
    pub(super) fn new(log_length: u32) -> Self {
        let mut levels = Vec::new();
        if let Some(log_half) = log_length.checked_sub(1) {
            let mut level = roots(log_half);
            while level.len() > 1 {
                let next = level.iter().step_by(2).copied().collect();
                levels.push(core::mem::replace(&mut level, next));
            }
            levels.push(level);
        }
        Self { levels }
    }

    /// Bound on the error of any value of either transform, as a part of the sum of the absolute
    /// values that went in (divided by the length, for the inverse one).
    pub(super) fn error(&self) -> f64 {
        let levels = self.levels.iter().map(|_| 1.0).sum::<f64>();
        LEVEL_ERROR * levels * super::ULP
    }

    /// In natural order in, in bit-reversed order out.
    pub(super) fn forward(&self, data: &mut [Complex]) {
        forward(&self.levels, data);
    }

    /// In bit-reversed order in, in natural order out; not divided by the length.
    pub(super) fn inverse(&self, data: &mut [Complex]) {
        inverse(&self.levels, data);
    }
}

/// `e^(-pi i j / m)` for `j < m = 2^log_half`: products of a coarse and a fine table.
fn roots(log_half: u32) -> Vec<Complex> {
    let fine_bits = log_half / 2;
    let fine = root_table(fine_bits, log_half);
    let coarse = root_table(log_half - fine_bits, log_half - fine_bits);
    coarse.iter().flat_map(|c| fine.iter().map(move |f| *c * *f)).collect()
}

/// `e^(-pi i j / 2^log_half)` for `j < 2^bits`.
fn root_table(bits: u32, log_half: u32) -> Vec<Complex> {
    let unit = libm::exp2(-f64::from(log_half));
    let mut j = 0.0;
    core::iter::from_fn(|| {
        let angle: f64 = PI * (j * unit);
        j += 1.0;
        let (sin, cos) = libm::sincos(angle);
        Some(Complex { re: cos, im: -sin })
    })
    .take(1_usize << bits)
    .collect()
}

/// Decimation in frequency, halves first so that they stay in the cache.
fn forward(levels: &[Vec<Complex>], data: &mut [Complex]) {
    let Some((twiddles, rest)) = levels.split_first() else { return };
    if data.len() > BLOCK {
        apart(data, twiddles);
        let (low, high) = data.split_at_mut(twiddles.len());
        forward(rest, low);
        forward(rest, high);
    } else {
        for twiddles in levels {
            for chunk in data.chunks_exact_mut(2 * twiddles.len()) {
                apart(chunk, twiddles);
            }
        }
    }
}

/// Decimation in time, the exact mirror image.
fn inverse(levels: &[Vec<Complex>], data: &mut [Complex]) {
    let Some((twiddles, rest)) = levels.split_first() else { return };
    if data.len() > BLOCK {
        let (low, high) = data.split_at_mut(twiddles.len());
        inverse(rest, low);
        inverse(rest, high);
        together(data, twiddles);
    } else {
        for twiddles in levels.iter().rev() {
            for chunk in data.chunks_exact_mut(2 * twiddles.len()) {
                together(chunk, twiddles);
            }
        }
    }
}

fn apart(data: &mut [Complex], twiddles: &[Complex]) {
    let (low, high) = data.split_at_mut(twiddles.len());
    for ((a, b), w) in low.iter_mut().zip(high).zip(twiddles) {
        let (sum, difference) = (*a + *b, *a - *b);
        *a = sum;
        *b = difference * *w;
    }
}

fn together(data: &mut [Complex], twiddles: &[Complex]) {
    let (low, high) = data.split_at_mut(twiddles.len());
    for ((a, b), w) in low.iter_mut().zip(high).zip(twiddles) {
        let turned = *b * w.conj();
        let (sum, difference) = (*a + turned, *a - turned);
        *a = sum;
        *b = difference;
    }
}

/// What lies at one place of two sequences.
type Place<'a, T> = (&'a mut T, &'a mut T);

/// Applies `f` to every pair of places of `k` and `-k` in bit-reversed order, in a fixed order, of two
/// sequences of one length; the two places that are their own mirror image come alone.
pub(super) fn for_mirrored<T>(
    first: &mut [T],
    second: &mut [T],
    mut f: impl FnMut(Place<'_, T>, Option<Place<'_, T>>),
) {
    let mut rest = (first, second);
    for _ in 0..2 {
        let (Some((a, first)), Some((b, second))) =
            (rest.0.split_first_mut(), rest.1.split_first_mut())
        else {
            return;
        };
        f((a, b), None);
        rest = (first, second);
    }
    let mut half = 1;
    while rest.0.len() >= 2 * half && rest.1.len() >= 2 * half {
        let (first, first_rest) = rest.0.split_at_mut(2 * half);
        let (second, second_rest) = rest.1.split_at_mut(2 * half);
        let (first, first_mirrored) = first.split_at_mut(half);
        let (second, second_mirrored) = second.split_at_mut(half);
        let mirrored = first_mirrored.iter_mut().zip(second_mirrored).rev();
        for (here, there) in first.iter_mut().zip(second).zip(mirrored) {
            f(here, Some(there));
        }
        rest = (first_rest, second_rest);
        half *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(length: u32) -> Vec<Complex> {
        let value = |j: u32, step: f64| libm::sin(f64::from(j) * step + 0.3);
        (0..length).map(|j| Complex { re: value(j, 1.7), im: value(j, 0.9) }).collect()
    }

    #[test]
    fn equals_the_definition_and_comes_back() {
        for log_length in 0..=7_u32 {
            let length = 1_u32 << log_length;
            let (given, transform) = (input(length), Transform::new(log_length));
            let mut data = given.clone();
            transform.forward(&mut data);
            for (place, value) in (0..length).zip(&data) {
                let k = if log_length == 0 { 0 } else { place.reverse_bits() >> (32 - log_length) };
                let turn = |j: u32| {
                    let angle = -2.0 * PI * f64::from(j * k % length) / f64::from(length);
                    Complex { re: libm::cos(angle), im: libm::sin(angle) }
                };
                let terms = (0..length).zip(&given).map(|(j, x)| *x * turn(j));
                let sum = terms.fold(Complex::default(), |a, b| a + b);
                assert!((sum - *value).norm() <= 1e-13 * f64::from(length), "{length} {place}");
            }
            transform.inverse(&mut data);
            for (x, y) in given.iter().zip(&data) {
                assert!((*x - y.scale(1.0 / f64::from(length))).norm() < 1e-14);
            }
        }
    }

    #[test]
    fn deep_transforms_stay_within_their_bound() {
        let log_length = 14;
        let (given, transform) = (input(1 << log_length), Transform::new(log_length));
        let mut data = given.clone();
        transform.forward(&mut data);
        transform.inverse(&mut data);
        let length = f64::from(1 << log_length);
        let mass: f64 = given.iter().map(|x| x.norm()).sum();
        for (x, y) in given.iter().zip(&data) {
            assert!((*x - y.scale(1.0 / length)).norm() <= 2.0 * transform.error() * mass);
        }
    }

    #[test]
    fn mirrored_places_hold_opposite_frequencies() {
        let mut places: Vec<u32> = (0..32).collect();
        let (mut same, mut seen) = (places.clone(), 0);
        for_mirrored(&mut places, &mut same, |(a, same), b| {
            let frequency = |place: u32| place.reverse_bits() >> 27;
            let other = b.map_or(*a, |(b, _)| *b);
            assert_eq!((frequency(*a) + frequency(other)) % 32, 0);
            assert_eq!(a, same);
            seen += 1;
        });
        assert_eq!(seen, 17);
        for_mirrored(&mut [0], &mut [0], |_, other| assert!(other.is_none()));
    }

    #[test]
    fn powers_are_repeated_products() {
        let x = Complex { re: 0.6, im: 0.7 };
        let product = (0..13).fold(Complex::ONE, |product, _| product * x);
        assert!((x.power(13) - product).norm() < 1e-14);
        assert_eq!(x.power(0), Complex::ONE);
    }
}
