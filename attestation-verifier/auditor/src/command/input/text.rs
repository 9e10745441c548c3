//! Bytes that lie in a file as text.

use std::borrow::Cow;

use base64ct::{Base64, Base64UrlUnpadded, Encoding};

/// Shortest text that is taken for an encoding of something.
const LEAST: usize = 64;

/// What hexadecimal or base64 stands for; anything else as it is.
pub fn decoded(bytes: &[u8]) -> Cow<'_, [u8]> {
    let text = bytes.trim_ascii();
    if text.len() < LEAST || !text.is_ascii() {
        return Cow::Borrowed(bytes);
    }
    // What has a form of its own, white space around it or not.
    if matches!(text.first(), Some(b'{' | b'[' | b'<')) || text.starts_with(b"-----") {
        return Cow::Borrowed(text);
    }
    let text = std::str::from_utf8(text).ok();
    match text.and_then(|text| decode(text).or_else(|| blocks(text))) {
        Some(decoded) => Cow::Owned(decoded),
        None => Cow::Borrowed(bytes),
    }
}

/// The PEM blocks of a text that says more, as tools print certificates.
fn blocks(text: &str) -> Option<Vec<u8>> {
    let mut blocks = String::new();
    for part in text.split("-----BEGIN ").skip(1) {
        let (block, tail) = part.split_once("-----END ")?;
        let label = tail.split("-----").next()?;
        blocks.push_str(&format!("-----BEGIN {block}-----END {label}-----\n"));
    }
    (!blocks.is_empty()).then(|| blocks.into_bytes())
}

/// Decodes hexadecimal, with or without `0x`, or base64 in either alphabet, over any number of lines.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let one_line: String = text.split_ascii_whitespace().collect();
    let digits = one_line.strip_prefix("0x").unwrap_or(&one_line);
    let bare = one_line.trim_end_matches('=');
    hex::decode(digits)
        .ok()
        .or_else(|| Base64::decode_vec(&one_line).ok())
        .or_else(|| Base64UrlUnpadded::decode_vec(bare).ok())
}
