//! Gaussian noise on the integer grid, exact.
//!
//! `round(S z)` with `z` a standard normal deviate, by Karney's Algorithm N (arXiv 1303.6257):
//!
//! 1. `k >= 0` with probability in proportion to `exp(-k^2 / 2)`, and a sign. Karney flips coins for
//!    `k`; here one number is compared with a table of 255 binary digits ([`AT_MOST`]), of which
//!    more are looked at only where the first 63 do not decide. The law differs from the exact one
//!    by less than the chance to guess the stream's key.
//! 2. `x` uniform in [0, 1), known to as many digits as anyone asks for.
//! 3. `k + 1` times, with probability `exp(-x (2k + x) / (2k + 2))` each, keep `k + x`, or begin
//!    again (Algorithm B, by the parity of a falling run).
//! 4. Round `S (k + x)`, asking for as many digits of `x` as that needs.
//!
//! Only integers are compared, no float is rounded, so the attacks on floating-point samplers
//! (Mironov 2012, arXiv 2112.05307, 2207.13793) have nothing to look at. As the sum it is added to
//! lies on the grid, `sum + round(S z)` is `round(sum + S z)`: post-processing of the continuous
//! Gaussian mechanism.

use crate::real::parts;
use core::cmp::Ordering;
use rand_chacha::ChaCha20Rng;
use rand_core::Rng;

/// The probability that `k` is at most the row's number, in binary: 63 digits and three times 64.
const AT_MOST: [[u64; 4]; 18] = [
    [0x4901_2d8c_a416_7395, 0xea01_20ff_1ec2_81f0, 0x5486_c58b_1d38_09d0, 0x083d_a394_29f2_0b32],
    [0x7548_bcc2_a3d0_77c9, 0xeaae_a7fc_d5c2_10a4, 0xfb41_d203_1bc1_0cd6, 0xaa2a_70c4_ba41_30ec],
    [0x7f2a_0ae3_74ed_25d7, 0x755d_59ce_2b6a_0cdf, 0x1c70_1c8a_cc60_9136, 0x7c82_ef1f_851b_684e],
    [0x7ff9_a919_8cc8_4608, 0xec9b_de81_c93e_1784, 0xaa93_bc35_1e77_25f7, 0xb189_8f20_39dc_b61f],
    [0x7fff_ee18_dc77_aca1, 0x2446_21fa_10cd_2474, 0x6cf1_2668_9198_2c87, 0x2751_8bd5_e57c_31c0],
    [0x7fff_ffed_516b_91a2, 0x7836_aba7_92f1_3751, 0x761b_d155_d33c_66e9, 0x9cd5_5028_2222_9ff7],
    [0x7fff_ffff_f8d1_06d2, 0x1397_1c92_3cd8_71eb, 0x3e97_5fc7_d010_25b3, 0x0164_7bc8_6c91_2932],
    [0x7fff_ffff_fffe_fbb6, 0x2564_eb77_8cb3_3a39, 0xe8c7_7531_520e_6743, 0xfecb_a6f4_b834_bd99],
    [0x7fff_ffff_ffff_fff2, 0x71a0_f0d8_7a3b_249b, 0x71be_684d_2fc5_0aa8, 0x8e68_a67b_5345_327c],
    [0x7fff_ffff_ffff_ffff, 0xffbd_80ef_6ebd_2bce, 0x544e_e3af_1605_f9ba, 0x1abd_5d98_5a1b_1cbe],
    [0x7fff_ffff_ffff_ffff, 0xffff_ff88_0039_0a46, 0x3273_db4a_4ba7_2b03, 0xf6c5_7505_fd62_63cb],
    [0x7fff_ffff_ffff_ffff, 0xffff_ffff_ffb0_55b4, 0xd094_c243_c167_f6c1, 0xf803_82ce_3889_b8b4],
    [0x7fff_ffff_ffff_ffff, 0xffff_ffff_ffff_ffec, 0x8b1d_53ef_dbbd_b02b, 0xf2db_d7f9_0881_9a1f],
    [0x7fff_ffff_ffff_ffff, 0xffff_ffff_ffff_ffff, 0xfffe_407b_5e0b_ffff, 0x4009_b67d_a386_80bc],
    [0x7fff_ffff_ffff_ffff, 0xffff_ffff_ffff_ffff, 0xffff_ffff_f135_4dfa, 0xab2a_df89_90f6_c9b5],
    [0x7fff_ffff_ffff_ffff, 0xffff_ffff_ffff_ffff, 0xffff_ffff_ffff_ffd1, 0xf4a9_6753_330c_110a],
    [0x7fff_ffff_ffff_ffff, 0xffff_ffff_ffff_ffff, 0xffff_ffff_ffff_ffff, 0xffff_cb45_c652_d2c5],
    [0x7fff_ffff_ffff_ffff, 0xffff_ffff_ffff_ffff, 0xffff_ffff_ffff_ffff, 0xffff_ffff_ffe9_c986],
];

/// Uniform in [0, 1): 64 digits at once, and more when two numbers agree in those.
struct Uniform {
    first: u64,
    rest: Vec<u64>,
}

impl Uniform {
    #[inline]
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

    #[inline]
    fn is_below(&mut self, other: &mut Self, stream: &mut ChaCha20Rng) -> bool {
        if self.first == other.first {
            self.is_below_in_the_rest(other, stream)
        } else {
            self.first < other.first
        }
    }

    #[cold]
    fn is_below_in_the_rest(&mut self, other: &mut Self, stream: &mut ChaCha20Rng) -> bool {
        for at in 1.. {
            match self.digit(at, stream).cmp(&other.digit(at, stream)) {
                Ordering::Less => return true,
                Ordering::Greater => return false,
                Ordering::Equal => {}
            }
        }
        false
    }
}

/// `k`, and whether the deviate is negative.
#[inline]
fn whole(stream: &mut ChaCha20Rng) -> (u32, bool) {
    let draw = stream.next_u64();
    let (first, negative) = (draw >> 1, draw & 1 == 1);
    let mut k = 0;
    for [digits, rest @ ..] in &AT_MOST {
        if first < *digits || (first == *digits && is_below(rest, stream)) {
            break;
        }
        k += 1;
    }
    (k, negative)
}

/// Whether digits yet to be drawn make a number below `digits`.
#[cold]
fn is_below(digits: &[u64], stream: &mut ChaCha20Rng) -> bool {
    let mut differing = digits.iter().map(|digit| (stream.next_u64(), digit));
    differing.find(|(draw, digit)| draw != *digit).is_some_and(|(draw, digit)| draw < *digit)
}

/// True with probability `(2k + x) / (2k + 2)`: whether `(2k + 2) w < 2k + x` for a uniform `w`.
#[inline]
fn goes_on(k: u32, x: &mut Uniform, stream: &mut ChaCha20Rng) -> bool {
    let sides = 2 * i128::from(k) + 2;
    let w = i128::from(stream.next_u64());
    // What is ahead, in units of the last digit known; digits to come of `w` can take less than
    // `sides` of it, and those of `x` add less than one.
    let mut ahead = ((sides - 2) << 64) + i128::from(x.first) - sides * w;
    for at in 1.. {
        if ahead >= sides {
            return true;
        }
        if ahead < 0 {
            return false;
        }
        let w = i128::from(stream.next_u64());
        ahead = (ahead << 64) + i128::from(x.digit(at, stream)) - sides * w;
    }
    false
}

/// True with probability `exp(-x (2k + x) / (2k + 2))` (Algorithm B).
#[inline]
fn accept(k: u32, x: &mut Uniform, stream: &mut ChaCha20Rng) -> bool {
    let mut last = Uniform::draw(stream);
    let mut falls = last.is_below(x, stream);
    let mut even = true;
    while falls && goes_on(k, x, stream) {
        even = !even;
        let mut next = Uniform::draw(stream);
        falls = next.is_below(&mut last, stream);
        last = next;
    }
    even
}

/// A standard normal deviate as `±(k + x)`.
#[inline]
fn deviate(stream: &mut ChaCha20Rng) -> (bool, u32, Uniform) {
    loop {
        let (k, negative) = whole(stream);
        let mut x = Uniform::draw(stream);
        if (0..=k).all(|_| accept(k, &mut x, stream)) {
            return (negative, k, x);
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
        let (negative, k, mut x) = deviate(stream);
        let rounded = self.round(k, &mut x, stream);
        let rounded = i64::try_from(rounded).unwrap_or(i64::MAX);
        if negative { -rounded } else { rounded }
    }

    /// `round(scale * (k + x))`, asking `x` for more bits until there is no doubt.
    #[inline]
    fn round(self, k: u32, x: &mut Uniform, stream: &mut ChaCha20Rng) -> u128 {
        // In units of 2^-(shift + 64) the product lies in [low, low + mantissa].
        let mantissa = u128::from(self.mantissa);
        let shift = self.shift + 64;
        let half = 1_u128 << (shift - 1);
        let low = ((u128::from(k) << 64) | u128::from(x.first)) * mantissa;
        let (from, to) = ((low + half) >> shift, (low + mantissa + half) >> shift);
        if from == to {
            return from;
        }
        from + u128::from(self.is_beyond((to << shift) - half - low, x, stream))
    }

    /// Whether the digits of `x` after the first lie beyond the fraction `left / mantissa`: digit
    /// by digit, by long division.
    #[cold]
    fn is_beyond(self, mut left: u128, x: &mut Uniform, stream: &mut ChaCha20Rng) -> bool {
        let mantissa = u128::from(self.mantissa);
        for at in 1.. {
            let mut digits = x.digit(at, stream);
            for _ in 0..u64::BITS {
                left <<= 1;
                let edge = left >= mantissa;
                if edge {
                    left -= mantissa;
                }
                if (digits >> 63 == 1) != edge {
                    return !edge;
                }
                digits <<= 1;
            }
        }
        true
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

    /// A number in [0, 4) as 2 + 5 * 64 binary digits, the highest word first.
    type Long = [u64; 5];

    const ONE: Long = [1 << 62, 0, 0, 0, 0];

    fn times(a: Long, b: Long) -> Long {
        let mut product = [0_u64; 10];
        for (i, a) in a.iter().rev().enumerate() {
            let mut carry = 0;
            for (j, b) in b.iter().rev().enumerate() {
                let sum = u128::from(*a) * u128::from(*b) + u128::from(product[i + j]) + carry;
                product[i + j] = sum as u64;
                carry = sum >> 64;
            }
            product[i + 5] = carry as u64;
        }
        // 124 digits before the point, in words of 64 from the top: shifted left by 2.
        let word = |i: usize| product[9 - i] << 2 | product[8 - i] >> 62;
        [word(0), word(1), word(2), word(3), word(4)]
    }

    fn divided(a: Long, by: u64) -> Long {
        let mut rest = 0_u128;
        a.map(|word| {
            let part = rest << 64 | u128::from(word);
            rest = part % u128::from(by);
            (part / u128::from(by)) as u64
        })
    }

    fn plus(a: Long, b: Long, sign: bool) -> Long {
        let mut sum = [0; 5];
        let mut carry = u128::from(!sign);
        for at in (0..5).rev() {
            let b = if sign { b[at] } else { !b[at] };
            carry += u128::from(a[at]) + u128::from(b);
            sum[at] = carry as u64;
            carry >>= 64;
        }
        sum
    }

    #[test]
    fn the_table_holds_the_law_of_the_whole_part_to_its_last_digits() {
        // exp(-1/2) by its series, exp(-k²/2) as its powers.
        let mut term = ONE;
        let mut root = ONE;
        for n in 1..60 {
            term = divided(term, 2 * n);
            root = plus(root, term, n % 2 == 0);
        }
        let mut at_most = Vec::new();
        let (mut weight, mut odd, square, mut total) = (ONE, root, times(root, root), [0; 5]);
        for _ in 0..24 {
            total = plus(total, weight, true);
            at_most.push(total);
            weight = times(weight, odd);
            odd = times(odd, square);
        }
        for (row, weight) in AT_MOST.iter().zip(at_most) {
            // As 1 + 4 * 64 digits: the row has one digit more before its first word.
            let [a, b, c, d] = *row;
            let share = [a >> 1, a << 63 | b >> 1, b << 63 | c >> 1, c << 63 | d >> 1, d << 63];
            let off = plus(weight, times(share, total), false);
            // Below by less than the last of 255 digits, times the total of 1.75.
            assert_eq!(off[..4], [0; 4], "{row:x?}");
        }
    }

    #[test]
    fn the_whole_part_has_the_law_of_the_table() {
        let mut stream = stream(1);
        let n = 200_000;
        let mut count = [0_u32; 18];
        (0..n).for_each(|_| count[whole(&mut stream).0 as usize] += 1);
        let total: f64 = (0..18).map(|k| (-f64::from(k * k) / 2.0).exp()).sum();
        for (k, count) in (0..5).zip(count) {
            let p = (-f64::from(k * k) / 2.0).exp() / total;
            let sd = (f64::from(n) * p * (1.0 - p)).sqrt();
            assert!((f64::from(count) - f64::from(n) * p).abs() < 5.0 * sd + 1.0, "{k}: {count}");
        }
    }

    #[test]
    fn digits_that_agree_are_followed_by_more() {
        let mut stream = stream(6);
        let below = (0..1000).filter(|_| is_below(&[1 << 63, 0, 0], &mut stream)).count();
        assert!((400..600).contains(&below), "{below}");
        assert!(!is_below(&[0, 0, 0], &mut stream));
        assert!(is_below(&[u64::MAX, u64::MAX, u64::MAX], &mut stream));
        // Of two numbers with the same first digits each is the smaller one as often as not.
        let mut once = || {
            let mut one = Uniform { first: 7, rest: Vec::new() };
            one.is_below(&mut Uniform { first: 7, rest: Vec::new() }, &mut stream)
        };
        let below = (0..1000).filter(|_| once()).count();
        assert!((400..600).contains(&below), "{below}");
    }

    #[test]
    fn acceptance_has_the_probability_of_its_definition() {
        let mut stream = stream(2);
        for (k, first) in [(0_u32, u64::MAX / 2), (1, u64::MAX / 4), (3, u64::MAX)] {
            let n = 100_000;
            let mut once = || accept(k, &mut Uniform { first, rest: Vec::new() }, &mut stream);
            let good = (0..n).filter(|_| once()).count() as f64;
            let (x, k) = (first as f64 / 2.0_f64.powi(64), f64::from(k));
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
