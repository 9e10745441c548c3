//! Data keys: 32 secret bytes, and the one thing that may be said of them in public.

use core::hint::black_box;

use measurement::octets::Octets;
use rand_core::CryptoRng;
use ring::hmac;
use zeroize::Zeroizing;

/// The key that a data set, or an adapter, is sealed under: 32 bytes, uniform.
///
/// Not `Debug`, `Display`, `Clone`, `PartialEq` or serialisable, and gone from memory on drop.
pub struct DataKey(Zeroizing<[u8; 32]>);

impl DataKey {
    /// Draws a fresh key.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        rng.fill_bytes(bytes.as_mut_slice());
        Self(bytes)
    }

    /// Takes over 32 bytes that came out of [`crate::RecipientKey::open`] or a sealed checkpoint.
    #[must_use]
    pub const fn from_secret(secret: Zeroizing<[u8; 32]>) -> Self {
        Self(secret)
    }

    /// The public name of this key: `HKDF-Expand-SHA384(key, "akr/1 dek-id", 32)`.
    #[must_use]
    pub fn id(&self) -> Octets<32> {
        Octets(*expand(&self.prk(), &[b"akr/1 dek-id"]))
    }

    /// Lends the key to `f` and to nothing after it.
    pub fn expose<R>(&self, f: impl FnOnce(&[u8; 32]) -> R) -> R {
        f(&self.0)
    }

    /// The key as HKDF's pseudo-random key.
    pub(crate) fn prk(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA384, self.0.as_slice())
    }
}

/// `HKDF-Expand-SHA384(prk, info, N)` (RFC 5869 §2.3) for at most one block of output, where it is
/// one HMAC and cannot fail; `info` is the concatenation of the parts.
pub(crate) fn expand<const N: usize>(prk: &hmac::Key, info: &[&[u8]]) -> Zeroizing<[u8; N]> {
    const { assert!(N <= 48, "one block of SHA-384 is 48 bytes") };
    let mut context = hmac::Context::with_key(prk);
    for part in info {
        context.update(part);
    }
    context.update(&[1]);
    let block = context.sign();
    let mut out = Zeroizing::new([0; N]);
    for (to, from) in out.iter_mut().zip(block.as_ref()) {
        *to = *from;
    }
    out
}

/// Compares in a time that does not tell where the two differ.
pub(crate) fn same(left: &[u8; 32], right: &[u8; 32]) -> bool {
    let difference = left.iter().zip(right).fold(0, |sum, (l, r)| sum | (l ^ r));
    black_box(difference) == 0
}

#[cfg(test)]
mod tests {
    use core::fmt::{Debug, Display};

    use ring::hkdf;
    use static_assertions::assert_not_impl_any;

    use super::*;
    use crate::golden;

    assert_not_impl_any!(DataKey: Debug, Display, Clone, Copy, PartialEq, serde::Serialize);

    struct Length(usize);

    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }

    fn ring_expand<const N: usize>(secret: &[u8], info: &[&[u8]]) -> [u8; N] {
        let mut out = [0; N];
        hkdf::Prk::new_less_safe(hkdf::HKDF_SHA384, secret)
            .expand(info, Length(N))
            .unwrap()
            .fill(&mut out)
            .unwrap();
        out
    }

    #[test]
    fn expands_as_the_full_construction_does() {
        let key = golden::key(7);
        let prk = key.prk();
        let secret = key.expose(|bytes| *bytes);
        assert_eq!(*expand::<32>(&prk, &[b"a", b"bc"]), ring_expand::<32>(&secret, &[b"abc"]));
        assert_eq!(*expand::<48>(&prk, &[]), ring_expand::<48>(&secret, &[]));
    }

    #[test]
    fn names_a_key_by_what_everyone_can_recompute() {
        let key = golden::key(9);
        let expected = ring_expand::<32>(&[9; 32], &[b"akr/1 dek-id"]);
        assert_eq!(key.id(), Octets(expected));
        assert_ne!(key.id(), golden::key(8).id());
    }

    #[test]
    fn draws_every_byte_from_the_source_it_is_given() {
        let key = DataKey::generate(&mut golden::rng(1));
        let again = DataKey::generate(&mut golden::rng(1));
        let other = DataKey::generate(&mut golden::rng(2));
        assert_eq!(key.id(), again.id());
        assert_ne!(key.id(), other.id());
        assert!(key.expose(|bytes| bytes.iter().any(|byte| *byte != 0)));
    }

    #[test]
    fn compares_every_byte() {
        let one = [5; 32];
        assert!(same(&one, &[5; 32]));
        for at in 0..32 {
            let mut other = one;
            other[at] ^= 0x80;
            assert!(!same(&one, &other), "byte {at}");
        }
    }
}
