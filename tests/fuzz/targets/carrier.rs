//! Frames between enclave and host: what is accepted prints back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use measurement::carrier::{Event, HEADER, header, read_header};

fuzz_target!(|bytes: &[u8]| {
    if let Some(event) = Event::from_bytes(bytes) {
        assert_eq!(event.to_bytes(), bytes);
    }
    if let Some(head) = bytes.first_chunk::<HEADER>() {
        if let Ok((kind, length)) = read_header(*head) {
            assert_eq!(header(kind, length), *head);
        }
    }
});
