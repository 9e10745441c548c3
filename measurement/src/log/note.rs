//! Checkpoints and the notes that carry their signatures (C2SP signed-note and tlog-checkpoint).
//!
//! A checkpoint is three lines; a note is a text, an empty line, and one line per signature:
//!
//! ```text
//! sigsum.org/v1/tree/<hex>          origin
//! 17                                leaves, in decimal
//! <base64>                          root
//!
//! — <name> <base64 of key id(4) || signature>
//! ```
//!
//! Parsing is strict: what is accepted prints back to the same bytes. Signatures are only carried
//! here; they are made and checked upstairs.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use base64ct::{Base64, Encoding as _};

use crate::digest::{Hash32, of, sha256};

/// Longest note accepted, in bytes.
pub const MAX_NOTE: usize = 65_536;
/// Most signatures accepted on one note.
pub const MAX_SIGNATURES: usize = 64;
/// Longest signature accepted, in bytes.
const MAX_SIGNATURE: usize = 16_384;

/// Signature algorithm byte of plain Ed25519 (signed-note).
pub const ED25519: u8 = 0x01;
/// Signature algorithm byte of a witness's timestamped Ed25519 cosignature (tlog-cosignature).
pub const COSIGNATURE: u8 = 0x04;

/// Origin line and key name of a Sigsum log: `sigsum.org/v1/tree/<hex SHA-256(log key)>`.
pub fn origin(log_key: &[u8; 32]) -> String {
    format!("sigsum.org/v1/tree/{}", Hash32::<of::Signer>::of(log_key))
}

/// The first four bytes of `SHA-256(name || 0x0A || algorithm || public key)`.
pub fn key_id(name: &str, algorithm: u8, public_key: &[u8; 32]) -> [u8; 4] {
    let mut bytes = Vec::with_capacity(name.len() + 34);
    bytes.extend_from_slice(name.as_bytes());
    bytes.extend_from_slice(&[b'\n', algorithm]);
    bytes.extend_from_slice(public_key);
    let [a, b, c, d, ..] = sha256(&bytes);
    [a, b, c, d]
}

/// What a log signs: how many leaves it has, and their root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log's name, unique among all logs.
    pub origin: String,
    /// Number of leaves.
    pub size: u64,
    /// Merkle root over them.
    pub root: Hash32<of::Node>,
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let root = Base64::encode_string(self.root.as_bytes());
        write!(f, "{}\n{}\n{root}\n", self.origin, self.size)
    }
}

impl FromStr for Checkpoint {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let body = text.strip_suffix('\n').ok_or(NoteError::NoFinalNewline)?;
        let mut lines = body.split('\n');
        let (Some(origin), Some(size), Some(root), None) =
            (lines.next(), lines.next(), lines.next(), lines.next())
        else {
            return Err(NoteError::NotThreeLines { observed: body.split('\n').count() });
        };
        if origin.is_empty() || origin.chars().any(char::is_control) {
            return Err(NoteError::Origin);
        }
        let checkpoint = Self { origin: origin.into(), size: decimal(size)?, root: node(root)? };
        if checkpoint.to_string() == text { Ok(checkpoint) } else { Err(NoteError::OtherEncoding) }
    }
}

/// One signature line of a note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoteSignature {
    /// The key's name: not empty, no white space, no plus sign.
    pub name: String,
    /// First bytes of the key's identity; see [`key_id`].
    pub key_id: [u8; 4],
    /// The signature proper: 64 bytes for Ed25519, a big-endian u64 of epoch seconds before them
    /// in a cosignature.
    pub signature: Vec<u8>,
}

impl NoteSignature {
    /// A line with a plain Ed25519 signature over the note's text.
    pub fn ed25519(name: &str, public_key: &[u8; 32], signature: [u8; 64]) -> Self {
        let key_id = key_id(name, ED25519, public_key);
        Self { name: name.into(), key_id, signature: signature.to_vec() }
    }

    /// Whether the line claims to be by this plain Ed25519 key; the claim is yet to be checked.
    pub fn claims(&self, name: &str, public_key: &[u8; 32]) -> bool {
        self.name == name && self.key_id == key_id(name, ED25519, public_key)
    }

    fn parse(line: &str) -> Result<Self, NoteError> {
        let rest = line.strip_prefix("— ").ok_or(NoteError::SignatureLine)?;
        let (name, encoded) = rest.split_once(' ').ok_or(NoteError::SignatureLine)?;
        if name.is_empty() || name.chars().any(|c| c.is_whitespace() || c.is_control() || c == '+')
        {
            return Err(NoteError::SignatureName);
        }
        if encoded.len() > MAX_SIGNATURE {
            return Err(NoteError::SignatureLine);
        }
        let bytes = Base64::decode_vec(encoded).map_err(|_| NoteError::Base64)?;
        let (key_id, signature) = bytes.split_first_chunk().ok_or(NoteError::SignatureLine)?;
        if signature.is_empty() {
            return Err(NoteError::SignatureLine);
        }
        Ok(Self { name: name.into(), key_id: *key_id, signature: signature.to_vec() })
    }
}

impl fmt::Display for NoteSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.key_id.to_vec();
        bytes.extend_from_slice(&self.signature);
        writeln!(f, "— {} {}", self.name, Base64::encode_string(&bytes))
    }
}

/// A text with signatures over it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// What is signed: these bytes, the final newline included.
    pub text: String,
    /// At least one signature, in the order they stand.
    pub signatures: Vec<NoteSignature>,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures.iter().try_for_each(|signature| signature.fmt(f))
    }
}

impl Note {
    /// Reads a note from bytes that anyone may have written.
    ///
    /// # Errors
    /// The first thing that makes it something else than a note.
    pub fn parse(bytes: &[u8]) -> Result<Self, NoteError> {
        if bytes.len() > MAX_NOTE {
            return Err(NoteError::TooLong { observed: bytes.len() });
        }
        let all = core::str::from_utf8(bytes).map_err(|_| NoteError::NotText)?;
        if all.chars().any(|c| c.is_control() && c != '\n') {
            return Err(NoteError::NotText);
        }
        let at = all.rfind("\n\n").ok_or(NoteError::NoSignatures)?;
        let (text, block) = all.split_at(at + 1);
        let block = block.strip_prefix('\n').ok_or(NoteError::NoSignatures)?;
        let block = block.strip_suffix('\n').ok_or(NoteError::NoSignatures)?;
        let count = block.split('\n').count();
        if count > MAX_SIGNATURES {
            return Err(NoteError::ManySignatures { observed: count });
        }
        let signatures = block.split('\n').map(NoteSignature::parse).collect::<Result<_, _>>()?;
        let note = Self { text: text.into(), signatures };
        if note.to_string() == all { Ok(note) } else { Err(NoteError::OtherEncoding) }
    }

    /// The checkpoint that is the note's text.
    ///
    /// # Errors
    /// As [`Checkpoint::from_str`].
    pub fn checkpoint(&self) -> Result<Checkpoint, NoteError> {
        self.text.parse()
    }
}

/// Why bytes are not a note, or a text not a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoteError {
    /// Not canonical base64 with padding.
    #[error("not base64")]
    Base64,
    /// More signatures than accepted.
    #[error("{observed} signatures, at most {MAX_SIGNATURES} are accepted")]
    ManySignatures {
        /// Signatures in the note.
        observed: usize,
    },
    /// The text's last line does not end.
    #[error("the last line does not end")]
    NoFinalNewline,
    /// No empty line followed by whole signature lines.
    #[error("there are no signatures")]
    NoSignatures,
    /// Not UTF-8, or with control characters.
    #[error("not a text")]
    NotText,
    /// Not exactly origin, size and root.
    #[error("a checkpoint has three lines, not {observed}")]
    NotThreeLines {
        /// Lines in the text.
        observed: usize,
    },
    /// Empty, or with control characters.
    #[error("not an origin")]
    Origin,
    /// It would print otherwise.
    #[error("not the encoding of what it says")]
    OtherEncoding,
    /// Not a root of 32 bytes.
    #[error("not a root of 32 bytes")]
    Root,
    /// Not `— name base64`.
    #[error("not a signature line")]
    SignatureLine,
    /// Empty, or with white space or a plus sign.
    #[error("not a key name")]
    SignatureName,
    /// Not a number of leaves in decimal.
    #[error("not a size")]
    Size,
    /// More bytes than accepted.
    #[error("{observed} bytes, at most {MAX_NOTE} are accepted")]
    TooLong {
        /// Bytes in the note.
        observed: usize,
    },
}

fn decimal(text: &str) -> Result<u64, NoteError> {
    let canonical = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| canonical).ok_or(NoteError::Size)
}

fn node(text: &str) -> Result<Hash32<of::Node>, NoteError> {
    let mut bytes = [0; 32];
    let decoded = Base64::decode(text, &mut bytes).map_err(|error| match error {
        base64ct::Error::InvalidEncoding => NoteError::Base64,
        base64ct::Error::InvalidLength => NoteError::Root,
    })?;
    if decoded.len() != 32 {
        return Err(NoteError::Root);
    }
    Ok(Hash32::from_bytes(bytes))
}
