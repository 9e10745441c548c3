//! GF(2⁸) modulo x⁸ + x⁴ + x³ + x² + 1, without tables and without branches on the operands:
//! neither the time nor the memory touched depends on a secret.

/// The modulus without its x⁸.
const REDUCTION: u8 = 0x1d;

/// The product of two elements.
pub(super) const fn mul(mut a: u8, mut b: u8) -> u8 {
    let mut product = 0;
    let mut bit = 0;
    while bit < 8 {
        product ^= mask(b & 1) & a;
        a = (a << 1) ^ (mask(a >> 7) & REDUCTION);
        b >>= 1;
        bit += 1;
    }
    product
}

/// The inverse, a²⁵⁴; 0 for 0.
pub(super) const fn inverse(a: u8) -> u8 {
    // 254 = 0b1111_1110: square, and multiply in every power from a² to a¹²⁸.
    let mut power = a;
    let mut product = 1;
    let mut step = 0;
    while step < 7 {
        power = mul(power, power);
        product = mul(product, power);
        step += 1;
    }
    product
}

/// All ones for 1, all zeros for 0.
const fn mask(bit: u8) -> u8 {
    bit.wrapping_neg()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn multiplies_as_polynomials_do() {
        for a in 0..=255_u8 {
            for b in 0..=255_u8 {
                let mut long = (0..8)
                    .filter(|bit| b >> bit & 1 == 1)
                    .fold(0_u16, |sum, bit| sum ^ (u16::from(a) << bit));
                for bit in (8..16).rev() {
                    if long >> bit & 1 == 1 {
                        long ^= 0x11d << (bit - 8);
                    }
                }
                assert_eq!(u16::from(mul(a, b)), long, "{a} times {b}");
            }
        }
    }

    #[test]
    fn inverts_everything_but_zero() {
        assert_eq!(inverse(0), 0);
        for a in 1..=255 {
            assert_eq!(mul(a, inverse(a)), 1, "{a}");
        }
    }
}
