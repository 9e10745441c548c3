//! AKR/1's messages: whatever is accepted encodes back to the same bytes.
#![no_main]

use attestation_verifier::protocol::{
    Challenge, Confirm, Evidence, HEADER, Hello, Logged, Message, Receipt, Refused, Release, Unwrap,
    Unwrapped, encode, read, read_header,
};
use libfuzzer_sys::fuzz_target;

fn check<M: Message>(body: &[u8]) {
    if let Ok(message) = read::<M>(M::KIND, body) {
        assert_eq!(encode(&message), body);
    }
}

fuzz_target!(|bytes: &[u8]| {
    if let Some((head, _)) = bytes.split_first_chunk::<HEADER>() {
        let _ = read_header(*head);
    }
    check::<Hello>(bytes);
    check::<Challenge>(bytes);
    check::<Evidence>(bytes);
    check::<Release>(bytes);
    check::<Confirm>(bytes);
    check::<Receipt>(bytes);
    check::<Logged>(bytes);
    check::<Unwrap>(bytes);
    check::<Unwrapped>(bytes);
    check::<Refused>(bytes);
});
