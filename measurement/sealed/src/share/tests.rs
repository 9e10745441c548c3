//! Sharing, against itself and against `blahaj`, the repaired descendant of `sharks`.

use core::fmt::{Debug, Display};
use std::{collections::BTreeSet, vec};

use blahaj::Sharks;
use proptest::prelude::*;
use static_assertions::assert_not_impl_any;

use super::*;
use crate::golden;

assert_not_impl_any!(Share: Debug, Display, Clone, Copy, PartialEq, serde::Serialize);

fn shares(m: u8, n: u8) -> Vec<Share> {
    split(&golden::key(0x5a), Threshold::new(m, n).unwrap(), &mut golden::rng(3))
}

fn pick(from: &[Share], indices: &[u8]) -> Vec<Share> {
    let copy = |index: &u8| {
        let share = from.iter().find(|share| share.index == *index).unwrap();
        Share { index: *index, value: share.value.clone() }
    };
    indices.iter().map(copy).collect()
}

fn finding(result: Result<DataKey, ShareError>) -> ShareError {
    result.err().unwrap()
}

#[test]
fn any_three_of_five_rebuild_the_key() {
    let all = shares(3, 5);
    let id = golden::key(0x5a).id();
    for a in 1..=5 {
        for b in 1..=5 {
            for c in 1..=5 {
                if BTreeSet::from([a, b, c]).len() == 3 {
                    assert_eq!(recover(&pick(&all, &[a, b, c]), 3, &id).unwrap().id(), id);
                }
            }
        }
    }
}

#[test]
fn one_of_one_is_the_key_itself() {
    let all = shares(1, 1);
    assert_eq!(all[0].expose(|value| *value), [0x5a; 32]);
    assert_eq!(combine(&all, 1).unwrap().id(), golden::key(0x5a).id());
}

#[test]
fn two_hundred_and_fifty_five_of_as_many_rebuild_the_key() {
    assert_eq!(combine(&shares(255, 255), 255).unwrap().id(), golden::key(0x5a).id());
}

#[test]
fn rejects_fewer_shares_than_the_threshold() {
    let two = pick(&shares(3, 5), &[1, 4]);
    assert_eq!(finding(combine(&two, 3)), ShareError::TooFew { observed: 2, required: 3 });
}

#[test]
fn rejects_a_share_that_is_there_twice() {
    let twice = pick(&shares(3, 5), &[1, 4, 1]);
    assert_eq!(finding(combine(&twice, 3)), ShareError::Duplicate { index: 1 });
}

#[test]
fn rejects_a_further_share_off_the_polynomial() {
    let mut four = pick(&shares(3, 5), &[1, 2, 3, 5]);
    four[3].value[31] ^= 1;
    assert_eq!(finding(combine(&four, 3)), ShareError::Inconsistent { index: 5 });
}

#[test]
fn rejects_shares_that_make_another_key() {
    let mut three = pick(&shares(3, 5), &[1, 2, 3]);
    three[0].value[0] ^= 1;
    let required = golden::key(0x5a).id();
    let observed = combine(&three, 3).unwrap().id();
    assert_eq!(finding(recover(&three, 3, &required)), ShareError::Key { observed, required });
}

#[test]
fn rejects_a_share_other_than_the_one_committed_to() {
    let all = shares(2, 3);
    let id = golden::key(0x5a).id();
    let required = all[0].commitment(&id);
    assert_eq!(all[0].verify(&id, &required), Ok(()));
    let observed = all[1].commitment(&id);
    assert_eq!(
        all[1].verify(&id, &required),
        Err(ShareError::Commitment { index: 2, observed, required })
    );
}

#[test]
fn a_commitment_covers_the_key_s_name_and_the_place() {
    let value = || Zeroizing::new([1; 32]);
    let (one, two) =
        (Share::from_secret(1, value()).unwrap(), Share::from_secret(2, value()).unwrap());
    let (id, other) = (golden::key(1).id(), golden::key(2).id());
    assert_ne!(one.commitment(&id), two.commitment(&id));
    assert_ne!(one.commitment(&id), one.commitment(&other));
    let mut message = b"akr/1 share".to_vec();
    message.extend_from_slice(&id.0);
    message.push(1);
    message.extend_from_slice(&[1; 32]);
    assert_eq!(one.commitment(&id), Octets(sha256(&message)));
}

#[test]
fn refuses_a_share_at_place_zero() {
    let refused = Share::from_secret(0, Zeroizing::new([1; 32]));
    assert_eq!(refused.err(), Some(ShareError::IndexZero));
}

#[test]
fn refuses_thresholds_that_are_none() {
    for (m, n) in [(0, 0), (0, 3), (4, 3), (1, 0)] {
        assert_eq!(Threshold::new(m, n), Err(ShareError::Threshold { m, n }));
    }
    assert_eq!(finding(combine(&shares(1, 2), 0)), ShareError::Threshold { m: 0, n: 2 });
}

#[test]
fn draws_coefficients_that_may_be_zero() {
    // RUSTSEC-2024-0398: with a leading coefficient that is never 0, a 2-of-n share never equals
    // the key, and enough splittings of one key give it away.
    let mut rng = golden::rng(4);
    let threshold = Threshold::new(2, 2).unwrap();
    let mut equal = 0;
    for _ in 0..512 {
        let made = split(&golden::key(0x5a), threshold, &mut rng);
        equal += made[0].value.iter().filter(|byte| **byte == 0x5a).count();
    }
    assert!((32..=100).contains(&equal), "{equal} of 16384, expected about 64");
}

proptest! {
    #[test]
    fn our_shares_combine_there(key in any::<[u8; 32]>(), m in 1..=8_u8, more in 0..=4_u8) {
        let threshold = Threshold::new(m, m + more).unwrap();
        let key = DataKey::from_secret(Zeroizing::new(key));
        let ours = split(&key, threshold, &mut golden::rng(5));
        let theirs: Vec<blahaj::Share> = ours
            .iter()
            .rev()
            .take(usize::from(m))
            .map(|share| {
                let mut bytes = vec![share.index];
                bytes.extend_from_slice(share.value.as_slice());
                blahaj::Share::try_from(bytes.as_slice()).unwrap()
            })
            .collect();
        let back = Sharks(m).recover(&theirs).unwrap();
        prop_assert!(key.expose(|bytes| back == bytes));
    }

    #[test]
    fn their_shares_combine_here(key in any::<[u8; 32]>(), m in 1..=8_u8) {
        let theirs = Sharks(m).dealer_rng(&key, &mut golden::rng(6)).take(usize::from(m) + 2);
        let ours: Vec<Share> = theirs
            .map(|share| {
                let bytes = Vec::from(&share);
                let value: [u8; 32] = bytes[1..].try_into().unwrap();
                Share::from_secret(bytes[0], Zeroizing::new(value)).unwrap()
            })
            .collect();
        let back = combine(&ours, m).unwrap();
        prop_assert!(back.expose(|bytes| *bytes == key));
    }
}
