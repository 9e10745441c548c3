//! Wrapping, against itself and against ciphertexts made by pyca/cryptography.

use core::fmt::{Debug, Display};
use std::{string::String, vec};

use static_assertions::assert_not_impl_any;

use super::*;
use crate::golden;

assert_not_impl_any!(RecipientKey: Debug, Display, Clone, Copy, PartialEq, Serialize);

const INFO: &[u8] = b"one session";
const SECRET: [u8; 32] = [0x77; 32];

fn recipient(kem: Kem) -> RecipientKey {
    RecipientKey::generate(kem, &mut golden::rng(1))
}

fn wrapped(kem: Kem) -> Sealed {
    seal(kem, recipient(kem).public(), INFO, &SECRET, &mut golden::rng(2)).unwrap()
}

fn finding(kem: Kem, info: &[u8], sealed: &Sealed) -> WrapError {
    recipient(kem).open(info, sealed).err().unwrap()
}

#[derive(Deserialize)]
struct Known {
    kem: u16,
    secret: String,
    public: String,
    info: String,
    plaintext: String,
    enc: String,
    ct: String,
}

#[test]
fn opens_what_another_implementation_wrapped() {
    let text = include_str!("../../tests/vectors/hpke.json");
    let cases: Vec<Known> = serde_json::from_str(text).unwrap();
    assert_eq!(cases.len(), 4);
    for case in cases {
        let secret = hex::decode(case.secret).unwrap();
        let kem = Kem::from_id(case.kem).unwrap();
        let key = RecipientKey::from_secret(kem, exactly_32(&secret).unwrap());
        assert_eq!(hex::encode(key.public()), case.public);
        let enc = Blob(hex::decode(case.enc).unwrap());
        let sealed = Sealed { enc, ct: Blob(hex::decode(case.ct).unwrap()) };
        let opened = key.open(&hex::decode(case.info).unwrap(), &sealed).unwrap();
        assert_eq!(hex::encode(opened.as_slice()), case.plaintext);
    }
}

#[test]
fn opens_what_it_wraps() {
    for kem in Kem::ALL {
        let sealed = wrapped(kem);
        assert_eq!(recipient(kem).public().len(), kem.public_len());
        assert_eq!((sealed.enc.0.len(), sealed.ct.0.len()), (kem.enc_len(), CT_LEN));
        assert_eq!(*recipient(kem).open(INFO, &sealed).unwrap(), SECRET);
    }
}

#[test]
fn keeps_a_key_that_is_put_away_and_taken_back() {
    for kem in Kem::ALL {
        let key = recipient(kem);
        let kept = Zeroizing::new(key.expose(|secret| *secret));
        let back = RecipientKey::from_secret(kem, kept);
        assert_eq!(back.public(), key.public());
        assert_eq!(*back.open(INFO, &wrapped(kem)).unwrap(), SECRET);
    }
}

#[test]
fn rejects_another_recipient() {
    for kem in Kem::ALL {
        let other = RecipientKey::generate(kem, &mut golden::rng(9));
        assert_eq!(other.open(INFO, &wrapped(kem)).err(), Some(WrapError::Opening));
    }
}

#[test]
fn rejects_another_info() {
    for kem in Kem::ALL {
        assert_eq!(finding(kem, b"another session", &wrapped(kem)), WrapError::Opening);
    }
}

#[test]
fn rejects_a_flipped_bit_in_the_ciphertext() {
    for kem in Kem::ALL {
        for at in 0..CT_LEN {
            let mut forged = wrapped(kem);
            forged.ct.0[at] ^= 1;
            assert_eq!(finding(kem, INFO, &forged), WrapError::Opening, "byte {at}");
        }
    }
}

#[test]
fn rejects_a_flipped_bit_in_the_encapsulated_key() {
    for kem in Kem::ALL {
        let mut forged = wrapped(kem);
        forged.enc.0[5] ^= 1;
        assert_eq!(finding(kem, INFO, &forged), WrapError::Opening);
    }
}

#[test]
fn rejects_an_encapsulated_key_of_another_length() {
    for kem in Kem::ALL {
        for observed in [0, kem.enc_len() - 1, kem.enc_len() + 1] {
            let mut forged = wrapped(kem);
            forged.enc.0.resize(observed, 0);
            let expected = WrapError::Encapsulated { kem: kem.id(), observed };
            assert_eq!(finding(kem, INFO, &forged), expected);
        }
    }
}

#[test]
fn rejects_a_ciphertext_of_another_length() {
    for observed in [0, 15, 47, 49] {
        let mut forged = wrapped(Kem::X25519);
        forged.ct.0.resize(observed, 0);
        assert_eq!(finding(Kem::X25519, INFO, &forged), WrapError::Ciphertext { observed });
    }
}

#[test]
fn rejects_an_encapsulated_point_of_small_order() {
    let mut forged = wrapped(Kem::X25519);
    forged.enc.0.fill(0);
    let expected = WrapError::Encapsulated { kem: 0x0020, observed: 32 };
    assert_eq!(finding(Kem::X25519, INFO, &forged), expected);
}

#[test]
fn refuses_a_public_key_of_small_order_and_of_another_length() {
    for observed in [0, 31, 32, 33] {
        let refused = seal(Kem::X25519, &vec![0; observed], INFO, &SECRET, &mut golden::rng(1));
        assert_eq!(refused, Err(WrapError::Public { kem: 0x0020, observed }));
    }
    let refused = seal(Kem::XWing, &[0; 32], INFO, &SECRET, &mut golden::rng(1));
    assert_eq!(refused, Err(WrapError::Public { kem: 0x647a, observed: 32 }));
}

#[test]
fn refuses_more_info_than_is_ever_needed() {
    let info = vec![0; MAX_INFO + 1];
    let observed = info.len();
    let public = recipient(Kem::X25519);
    let refused = seal(Kem::X25519, public.public(), &info, &SECRET, &mut golden::rng(1));
    assert_eq!(refused, Err(WrapError::Info { observed }));
    assert_eq!(finding(Kem::X25519, &info, &wrapped(Kem::X25519)), WrapError::Info { observed });
}

#[test]
fn knows_two_kems_by_number() {
    assert_eq!(Kem::from_id(0x0020), Some(Kem::X25519));
    assert_eq!(Kem::from_id(0x647a), Some(Kem::XWing));
    assert_eq!(Kem::from_id(0x0010), None);
}

fn share() -> (Share, Octets<32>, Threshold) {
    let share = Share::from_secret(2, Zeroizing::new([0x33; 32])).unwrap();
    (share, golden::key(4).id(), Threshold::new(2, 3).unwrap())
}

fn wrapped_share() -> Sealed {
    let (share, id, threshold) = share();
    let custodian = recipient(Kem::X25519);
    wrap_share(custodian.public(), &share, &id, threshold, &mut golden::rng(2)).unwrap()
}

#[test]
fn a_custodian_unwraps_its_share() {
    let (_, id, threshold) = share();
    let custodian = recipient(Kem::X25519);
    let back = unwrap_share(&custodian, &wrapped_share(), &id, 2, threshold).unwrap();
    assert_eq!((back.index(), back.expose(|value| *value)), (2, [0x33; 32]));
}

#[test]
fn rejects_a_share_for_another_key_place_or_threshold() {
    let (_, id, threshold) = share();
    let (custodian, sealed) = (recipient(Kem::X25519), wrapped_share());
    let other = golden::key(5).id();
    let attempts = [
        (other, 2, threshold),
        (id, 1, threshold),
        (id, 2, Threshold::new(1, 3).unwrap()),
        (id, 2, Threshold::new(2, 4).unwrap()),
    ];
    for (id, index, threshold) in attempts {
        let refused = unwrap_share(&custodian, &sealed, &id, index, threshold);
        assert_eq!(refused.err(), Some(WrapError::Opening));
    }
}

#[test]
fn refuses_to_unwrap_a_share_with_a_key_of_another_kind() {
    let (_, id, threshold) = share();
    let refused = unwrap_share(&recipient(Kem::XWing), &wrapped_share(), &id, 2, threshold);
    assert_eq!(refused.err(), Some(WrapError::Kem { observed: 0x647a, required: 0x0020 }));
}

#[test]
fn binds_a_share_by_deterministic_cbor() {
    let threshold = Threshold::new(2, 30).unwrap();
    let mut expected = vec![0x85, 0x6e];
    expected.extend_from_slice(b"cloister share");
    expected.extend_from_slice(&[0x58, 0x20]);
    expected.extend_from_slice(&[7; 32]);
    expected.extend_from_slice(&[0x01, 0x02, 0x18, 0x1e]);
    assert_eq!(share_info(&Octets([7; 32]), 1, threshold), expected);
}
