//! Notes, checkpoints, leaves and records of the log.
#![no_main]

use libfuzzer_sys::fuzz_target;
use measurement::log::{Leaf, Note, Record};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(note) = Note::parse(bytes) {
        assert_eq!(note.to_string().as_bytes(), bytes);
        if let Ok(checkpoint) = note.checkpoint() {
            assert_eq!(checkpoint.to_string(), note.text);
        }
    }
    if let Some(leaf) = Leaf::from_slice(bytes) {
        assert_eq!(leaf.to_bytes(), bytes);
    }
    if let Ok(record) = Record::parse(bytes) {
        assert_eq!(record.to_bytes(), bytes);
    }
});
