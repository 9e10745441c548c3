extern crate std;

use std::prelude::v1::*;

use base64ct::{Base64, Encoding as _};
use proptest::prelude::*;

use super::tree;
use crate::log::{
    Checkpoint, ED25519, MAX_NOTE, MAX_SIGNATURES, Note, NoteError, NoteSignature, key_id, origin,
};

/// The example of Go's signed notes.
const EXAMPLE: &str = "If you think cryptography is the answer to your problem,\n\
    then you don't know what your problem is.\n\n\
    — PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
const EXAMPLE_KEY: &str = "ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";

fn golden() -> Note {
    let checkpoint = Checkpoint { origin: origin(&[7; 32]), size: 17, root: tree(17).root() };
    let signature = NoteSignature::ed25519(&checkpoint.origin, &[7; 32], [9; 64]);
    Note { text: checkpoint.to_string(), signatures: vec![signature] }
}

fn refusal(change: impl FnOnce(&mut String)) -> NoteError {
    let mut text = golden().to_string();
    change(&mut text);
    Note::parse(text.as_bytes()).unwrap_err()
}

fn checkpoint(text: &str) -> Result<Checkpoint, NoteError> {
    text.parse()
}

#[test]
fn reads_the_example_of_the_format() {
    let note = Note::parse(EXAMPLE.as_bytes()).unwrap();
    let key = Base64::decode_vec(EXAMPLE_KEY).unwrap();
    let (algorithm, key) = key.split_first().unwrap();
    assert_eq!(*algorithm, ED25519);
    let key: [u8; 32] = key.try_into().unwrap();
    assert_eq!(key_id("PeterNeumann", ED25519, &key), [0xc7, 0x4f, 0x20, 0xa3]);
    assert!(note.signatures[0].claims("PeterNeumann", &key));
    assert!(!note.signatures[0].claims("PeterNewman", &key));
    assert!(!note.signatures[0].claims("PeterNeumann", &[0; 32]));
    assert_eq!(note.signatures[0].signature.len(), 64);
    assert_eq!(note.to_string(), EXAMPLE);
    assert_eq!(note.checkpoint(), Err(NoteError::NotThreeLines { observed: 2 }));
}

#[test]
fn names_a_sigsum_log_by_its_key() {
    let zeros = "66687aadf862bd776c8fc18b8e9f8e20089714856ee233b3902a591d0d5f2925";
    assert_eq!(origin(&[0; 32]), format!("sigsum.org/v1/tree/{zeros}"));
}

#[test]
fn reads_what_it_prints() {
    let note = golden();
    assert_eq!(Note::parse(note.to_string().as_bytes()), Ok(note.clone()));
    assert_eq!(note.checkpoint().unwrap().size, 17);
    assert_eq!(note.checkpoint().unwrap().to_string(), note.text);
}

#[test]
fn refuses_a_note_without_whole_signature_lines() {
    assert_eq!(refusal(|text| text.truncate(golden().text.len())), NoteError::NoSignatures);
    assert_eq!(refusal(|text| text.truncate(text.len() - 1)), NoteError::NoSignatures);
    assert_eq!(refusal(|text| text.push('\n')), NoteError::NoSignatures);
    assert_eq!(refusal(|text| text.push_str("x\n")), NoteError::SignatureLine);
    assert_eq!(refusal(|text| *text = text.replace('—', "-")), NoteError::SignatureLine);
    assert_eq!(refusal(|text| *text = text.replace("— ", "—  ")), NoteError::SignatureName);
    assert_eq!(refusal(|text| text.push_str("— a+b AAAAAAA=\n")), NoteError::SignatureName);
    assert_eq!(refusal(|text| text.push_str("— a AAAAAA==\n")), NoteError::SignatureLine);
    assert_eq!(refusal(|text| text.push_str("— a AAAA\n")), NoteError::SignatureLine);
}

#[test]
fn refuses_base64_that_is_not_canonical() {
    for encoded in ["AAAAAAB=", "AAAAAAA", "AAAAAA-_", "AAA AAAA=", "AAAAAAA=="] {
        let finding = refusal(|text| text.push_str(&format!("— a {encoded}\n")));
        assert_eq!(finding, NoteError::Base64, "{encoded}");
    }
}

#[test]
fn refuses_control_characters_and_what_is_not_text() {
    for foreign in ["\r", "\t", "\0", "\u{85}"] {
        assert_eq!(refusal(|text| text.insert_str(3, foreign)), NoteError::NotText);
    }
    assert_eq!(Note::parse(b"\xff\n\n"), Err(NoteError::NotText));
}

#[test]
fn refuses_more_than_it_is_willing_to_read() {
    let observed = MAX_NOTE + 1;
    assert_eq!(Note::parse(&vec![b'a'; observed]), Err(NoteError::TooLong { observed }));
    let observed = MAX_SIGNATURES + 1;
    let finding = refusal(|text| text.push_str(&"— a AAAAAAA=\n".repeat(MAX_SIGNATURES)));
    assert_eq!(finding, NoteError::ManySignatures { observed });
}

#[test]
fn refuses_a_checkpoint_that_is_not_three_lines() {
    let text = golden().text;
    assert_eq!(checkpoint(text.trim_end()), Err(NoteError::NoFinalNewline));
    let extended = format!("{text}extension\n");
    assert_eq!(checkpoint(&extended), Err(NoteError::NotThreeLines { observed: 4 }));
    assert_eq!(checkpoint("a\n1\n"), Err(NoteError::NotThreeLines { observed: 2 }));
    assert_eq!(checkpoint("\n"), Err(NoteError::NotThreeLines { observed: 1 }));
}

#[test]
fn refuses_every_other_way_to_write_a_checkpoint() {
    let text = golden().text;
    for (size, finding) in [
        ("017", NoteError::OtherEncoding),
        ("+17", NoteError::Size),
        ("-1", NoteError::Size),
        (" 17", NoteError::Size),
        ("", NoteError::Size),
        ("18446744073709551616", NoteError::Size),
    ] {
        let changed = text.replace("\n17\n", &format!("\n{size}\n"));
        assert_eq!(checkpoint(&changed), Err(finding), "{size}");
    }
    for (root, finding) in [
        ("AAAA", NoteError::Root),
        ("", NoteError::Root),
        (&"A".repeat(48), NoteError::Root),
        (&"A".repeat(43), NoteError::Base64),
        (&format!("{}B=", "A".repeat(42)), NoteError::Base64),
    ] {
        assert_eq!(checkpoint(&format!("a\n1\n{root}\n")), Err(finding), "{root}");
    }
    assert_eq!(checkpoint(&format!("\n1\n{}=\n", "A".repeat(43))), Err(NoteError::Origin));
}

#[test]
fn never_panics_on_a_prefix() {
    let whole = golden().to_string();
    for end in 0..whole.len() {
        assert!(Note::parse(&whole.as_bytes()[..end]).is_err(), "{end}");
    }
    let text = golden().text;
    for end in 0..text.len() {
        assert!(checkpoint(&text[..end]).is_err(), "{end}");
    }
}

proptest! {
    #[test]
    fn what_is_read_prints_back(text in "[a-c\n ]{0,20}\n\n— [a-c+ ]{0,3} [A-Ca=]{0,12}\n") {
        if let Ok(note) = Note::parse(text.as_bytes()) {
            prop_assert_eq!(note.to_string(), text);
        }
    }

    #[test]
    fn every_checkpoint_comes_back(origin in "[a-z./]{1,20}", size: u64, root: [u8; 32]) {
        let golden = Checkpoint { origin, size, root: crate::digest::Hash32::from_bytes(root) };
        prop_assert_eq!(checkpoint(&golden.to_string()), Ok(golden));
    }
}
