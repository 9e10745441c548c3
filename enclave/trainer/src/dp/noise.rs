//! Gaussian noise on the integer grid, exact.
//!
//! `round(S z)` with `z` a standard normal deviate: Karney's Algorithm N (arXiv 1303.6257) makes
//! `z = ±(k + x)` from uniform bits, where `x` is known to as many bits as anyone asks for, and
//! the rounding asks for as many as it needs. Only integers are compared, no float is rounded, so
//! the attacks on floating-point samplers (Mironov 2012, arXiv 2112.05307, 2207.13793) have
//! nothing to look at. As the sum it is added to lies on the grid, `sum + round(S z)` is
//! `round(sum + S z)`: post-processing of the continuous Gaussian mechanism.

use super::below;
use crate::real::parts;
use core::cmp::Ordering;
use rand_chacha::ChaCha20Rng;
use rand_core::Rng;

/// Uniform in [0, 1): 64 bits at once, and more when two numbers agree in those.
struct Uniform {
    first: u64,
    rest: Vec<u64>,
}

impl Uniform {
    fn draw(stream: &mut ChaCha20Rng) -> Self {
        Self { first: stream.next_u64(), rest: Vec::new() }
    }

    fn digit(&mut self, at: usize, stream: &mut ChaCha20Rng) -> u64 {
        let Some(at) = at.checked_sub(1) else { return self.first };
        while self.rest.len() <= at {
            self.rest.push(stream.next_u64());
        }
        self.rest.get(at).copied().unwrap_or_default()
    }

    fn is_below(&mut self, other: &mut Self, stream: &mut ChaCha20Rng) -> bool {
        for at in 0.. {
            match self.digit(at, stream).cmp(&other.digit(at, stream)) {
                Ordering::Less => return true,
                Ordering::Greater => return false,
                Ordering::Equal => {}
            }
        }
        false
    }
}

/// Whether a coin with probability `1/sqrt(e)` falls on its good side (Algorithm H).
fn half_exponential(stream: &mut ChaCha20Rng) -> bool {
    let mut last = Uniform::draw(stream);
    if last.first >> 63 == 1 {
        return true;
    }
    // Von Neumann: the length of the falling run below 1/2 is even with the probability asked for.
    loop {
        let mut next = Uniform::draw(stream);
        if !next.is_below(&mut last, stream) {
            return false;
        }
        last = Uniform::draw(stream);
        if !last.is_below(&mut next, stream) {
            return true;
        }
    }
}

/// True with probability `exp(-x (2k + x) / (2k + 2))` (Algorithm B).
fn accept(stream: &mut ChaCha20Rng, k: u64, x: &mut Uniform) -> bool {
    let sides = 2 * k + 2;
    let mut last: Option<Uniform> = None;
    let mut even = true;
    loop {
        let mut next = Uniform::draw(stream);
        let falls = match &mut last {
            Some(last) => next.is_below(last, stream),
            None => next.is_below(x, stream),
        };
        if !falls {
            return even;
        }
        // A die of 2k + 2 sides: one ends the run, one asks x, the others go on.
        let goes_on = match below(stream, sides) {
            0 => false,
            1 => Uniform::draw(stream).is_below(x, stream),
            _ => true,
        };
        if !goes_on {
            return even;
        }
        last = Some(next);
        even = !even;
    }
}

/// The magnitude of a standard normal deviate as `k + x` (Algorithm N, steps 1 to 4).
fn magnitude(stream: &mut ChaCha20Rng) -> (u64, Uniform) {
    loop {
        let mut k = 0_u64;
        while half_exponential(stream) {
            k += 1;
        }
        // exp(-k (k - 1) / 2)
        if !(0..k * k.saturating_sub(1)).all(|_| half_exponential(stream)) {
            continue;
        }
        let mut x = Uniform::draw(stream);
        if (0..=k).all(|_| accept(stream, k, &mut x)) {
            return (k, x);
        }
    }
}

/// A positive scale `mantissa * 2^-shift`, exactly the double it was made from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    mantissa: u64,
    shift: u32,
}

impl Scale {
    /// Takes a finite scale from 1 to 2^50.
    pub fn new(scale: f64) -> Option<Self> {
        let (mantissa, exponent) = parts(scale)?;
        let within = (1.0..=1_125_899_906_842_624.0).contains(&scale);
        within.then_some(Self { mantissa, shift: u32::try_from(-exponent).ok()? })
    }

    /// `round(scale * z)` for a fresh standard normal `z`.
    pub fn noise(self, stream: &mut ChaCha20Rng) -> i64 {
        let (k, mut x) = magnitude(stream);
        let rounded = self.round(k, &mut x, stream);
        let rounded = i64::try_from(rounded).unwrap_or(i64::MAX);
        if stream.next_u64() >> 63 == 1 { -rounded } else { rounded }
    }

    /// `round(scale * (k + x))`, asking `x` for more bits until there is no doubt.
    fn round(self, k: u64, x: &mut Uniform, stream: &mut ChaCha20Rng) -> u128 {
        // In units of 2^-(shift + 64) the product lies in [low, low + mantissa].
        let mantissa = u128::from(self.mantissa);
        let shift = self.shift + 64;
        let half = 1_u128 << (shift - 1);
        let low = ((u128::from(k) << 64) | u128::from(x.first)) * mantissa;
        let (from, to) = ((low + half) >> shift, (low + mantissa + half) >> shift);
        if from == to {
            return from;
        }
        // The boundary between the two lies at the fraction (edge - low) / mantissa of what is
        // not known yet: compare with it digit by digit, by long division.
        let mut left = (to << shift) - half - low;
        for at in 1.. {
            let mut digits = x.digit(at, stream);
            for _ in 0..u64::BITS {
                left <<= 1;
                let edge = left >= mantissa;
                if edge {
                    left -= mantissa;
                }
                match (digits >> 63 == 1, edge) {
                    (false, true) => return from,
                    (true, false) => return to,
                    _ => digits <<= 1,
                }
            }
        }
        to
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::as_conversions)]
    use super::*;
    use rand_core::SeedableRng;

    fn stream(seed: u8) -> ChaCha20Rng {
        ChaCha20Rng::from_seed([seed; 32])
    }

    #[test]
    fn the_coin_has_the_probability_of_its_name() {
        let mut stream = stream(1);
        let n = 200_000;
        let good = (0..n).filter(|_| half_exponential(&mut stream)).count() as f64;
        let p = (-0.5_f64).exp();
        let sd = (f64::from(n) * p * (1.0 - p)).sqrt();
        assert!((good - f64::from(n) * p).abs() < 5.0 * sd, "{good}");
    }

    #[test]
    fn acceptance_has_the_probability_of_its_definition() {
        let mut stream = stream(2);
        for (k, first) in [(0_u64, u64::MAX / 2), (1, u64::MAX / 4), (3, u64::MAX)] {
            let n = 100_000;
            let mut once = || accept(&mut stream, k, &mut Uniform { first, rest: Vec::new() });
            let good = (0..n).filter(|_| once()).count() as f64;
            let (x, k) = (first as f64 / 2.0_f64.powi(64), k as f64);
            let p = (-x * (2.0 * k + x) / (2.0 * k + 2.0)).exp();
            let sd = (f64::from(n) * p * (1.0 - p)).sqrt();
            assert!((good - f64::from(n) * p).abs() < 5.0 * sd, "{k}: {good}");
        }
    }

    #[test]
    fn moments_and_tails_are_those_of_the_normal() {
        let mut stream = stream(3);
        let (n, scale) = (400_000, 1.1 * f64::from(1 << 24));
        let grid = Scale::new(scale).unwrap();
        let draws: Vec<f64> = (0..n).map(|_| grid.noise(&mut stream) as f64 / scale).collect();
        let moment = |power: i32| draws.iter().map(|z| z.powi(power)).sum::<f64>() / f64::from(n);
        // Deviations of the sample moments: 1, sqrt 2, sqrt 15, sqrt 96 over sqrt n.
        let root = f64::from(n).sqrt();
        assert!(moment(1).abs() < 5.0 / root);
        assert!((moment(2) - 1.0).abs() < 5.0 * 1.415 / root);
        assert!(moment(3).abs() < 5.0 * 3.88 / root);
        assert!((moment(4) - 3.0).abs() < 5.0 * 9.8 / root);
        for (at, tail) in [
            (0.5, 0.308_538),
            (1.0, 0.158_655),
            (2.0, 0.022_750),
            (3.0, 0.001_350),
            (4.0, 3.167e-5),
        ] {
            let (tail, n) = (2.0 * tail, f64::from(n));
            let count = draws.iter().filter(|z| z.abs() > at).count() as f64;
            let sd = (n * tail * (1.0 - tail)).sqrt();
            assert!((count - n * tail).abs() < 5.0 * sd, "{at}: {count}");
        }
    }

    #[test]
    fn small_scales_fill_the_cells_of_the_rounded_normal() {
        let mut stream = stream(4);
        let (n, grid) = (200_000, Scale::new(1.0).unwrap());
        let draws: Vec<i64> = (0..n).map(|_| grid.noise(&mut stream)).collect();
        for (cell, p) in
            [(0, 0.382_925), (1, 0.241_730), (-1, 0.241_730), (2, 0.060_598), (-3, 0.005_977)]
        {
            let (count, n) = (draws.iter().filter(|k| **k == cell).count() as f64, f64::from(n));
            assert!((count - n * p).abs() < 5.0 * (n * p * (1.0 - p)).sqrt(), "{cell}: {count}");
        }
    }

    #[test]
    fn rounding_decides_exactly_where_64_bits_do_not() {
        // x begins with the 64 bits just before 1/2, so round(x) hangs on the bits that follow.
        let grid = Scale::new(1.0).unwrap();
        let mut stream = stream(5);
        let mut round = |first, rest: &[u64]| {
            grid.round(0, &mut Uniform { first, rest: rest.to_vec() }, &mut stream)
        };
        assert_eq!(round((1 << 63) - 1, &[u64::MAX, 0]), 0);
        assert_eq!(round(1 << 63, &[0]), 1);
        // 1.5 * (k + x) with x just around 1/3: the boundary falls inside the 64-bit cell.
        let grid = Scale::new(1.5).unwrap();
        let third = u64::MAX / 3; // 0.0101… in binary
        let mut round = |rest: &[u64]| {
            grid.round(0, &mut Uniform { first: third, rest: rest.to_vec() }, &mut stream)
        };
        assert_eq!(round(&[0]), 0);
        assert_eq!(round(&[third, third - 1]), 0);
        assert_eq!(round(&[third, third + 1]), 1);
        assert_eq!(round(&[u64::MAX]), 1);
    }

    #[test]
    fn refuses_scales_it_cannot_hold() {
        for bad in [0.0, 0.5, -1.0, f64::NAN, f64::INFINITY, 1e16] {
            assert_eq!(Scale::new(bad), None);
        }
        assert_eq!(Scale::new(1.0), Some(Scale { mantissa: 1 << 52, shift: 52 }));
    }
}
