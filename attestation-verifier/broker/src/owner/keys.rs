//! The owner's own keys: one to approve manifests with, one to receive adapters.
//!
//! A secret key is PKCS #8 in PEM, readable by the user alone: Ed25519 (RFC 8410, with its public
//! half, RFC 5958) or X25519 (RFC 8410). A public key is one line of text,
//!
//! ```text
//! ed25519 <64 hexadecimal digits> <name>
//! ```
//!
//! with `x25519` for a recipient. The name is for people; nothing follows from it.

use core::fmt;
use core::str::FromStr;
use std::path::{Path, PathBuf};

use base64ct::{Base64, Encoding};
use measurement::octets::Octets;
use ring::signature::{Ed25519KeyPair, KeyPair};
use sealed::{Kem, RecipientKey};
use thiserror::Error;
use zeroize::Zeroizing;

use super::files::{self, Audience, Existing, FileError};
use crate::random::{self, NoRandomness};

const MAX_BYTES: u64 = 4096;
const BEGIN: &str = "-----BEGIN PRIVATE KEY-----\n";
const END: &str = "-----END PRIVATE KEY-----\n";
/// `PrivateKeyInfo` of an X25519 key up to its 32 secret bytes (RFC 8410 §7).
const X25519_PREFIX: [u8; 16] =
    *b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x6e\x04\x22\x04\x20";

/// What a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Approves manifests: Ed25519.
    Approve,
    /// Receives adapters: X25519.
    Receive,
}

impl Purpose {
    const fn algorithm(self) -> &'static str {
        match self {
            Self::Approve => "ed25519",
            Self::Receive => "x25519",
        }
    }
}

/// A public key and the name it goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    /// What the key is for.
    pub purpose: Purpose,
    /// The key.
    pub key: Octets<32>,
    /// A name for people.
    pub name: String,
}

/// Why a file gives no key.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
    /// Not a key, or one for another purpose.
    #[error("{}: not an {required} key in {form}", path.display())]
    NotAKey {
        /// The file.
        path: PathBuf,
        /// The algorithm required.
        required: &'static str,
        /// How it should be written.
        form: &'static str,
    },
    /// No randomness.
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
}

impl PublicKey {
    /// Reads the public key file at `path`, which must be for `purpose`.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn read(path: &Path, purpose: Purpose) -> Result<Self, KeyError> {
        let text = files::read_text(path, MAX_BYTES)?;
        let key: Option<Self> = text.parse().ok();
        key.filter(|key| key.purpose == purpose).ok_or_else(|| KeyError::NotAKey {
            path: path.to_owned(),
            required: purpose.algorithm(),
            form: "one line: algorithm, hexadecimal digits, name",
        })
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.purpose.algorithm(), self.key, self.name)
    }
}

/// A text is not the one line of a public key.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("not the one line of a public key")]
pub struct NotALine;

impl FromStr for PublicKey {
    type Err = NotALine;

    fn from_str(text: &str) -> Result<Self, NotALine> {
        let line = text.strip_suffix('\n').unwrap_or(text);
        let mut words = line.splitn(3, ' ');
        let purpose = match words.next() {
            Some("ed25519") => Purpose::Approve,
            Some("x25519") => Purpose::Receive,
            _ => return Err(NotALine),
        };
        let key = words.next().and_then(|word| word.parse().ok()).ok_or(NotALine)?;
        let name = words.next().unwrap_or_default();
        if name.trim().is_empty() || name.chars().any(char::is_control) {
            return Err(NotALine);
        }
        Ok(Self { purpose, key, name: name.to_owned() })
    }
}

/// Makes a key: the secret half at `out`, the public half at `out` with `.pub` behind its name.
/// Neither replaces a file.
///
/// # Errors
/// [`KeyError`].
pub fn generate(out: &Path, purpose: Purpose) -> Result<PublicKey, KeyError> {
    let (secret, key) = match purpose {
        Purpose::Approve => signing_key()?,
        Purpose::Receive => receiving_key()?,
    };
    let name = out.file_stem().unwrap_or_default().to_string_lossy();
    let name = name.replace(char::is_control, "_");
    let public = PublicKey { purpose, key, name };
    files::write(out, to_pem(&secret).as_bytes(), Audience::Owner, Existing::Keep)?;
    let line = format!("{public}\n");
    files::write(&public_path(out), line.as_bytes(), Audience::Everyone, Existing::Keep)?;
    Ok(public)
}

/// Where the public half of the key at `out` is.
#[must_use]
pub fn public_path(out: &Path) -> PathBuf {
    let mut name = out.file_name().unwrap_or_default().to_owned();
    name.push(".pub");
    out.with_file_name(name)
}

/// Reads a key that approves.
///
/// # Errors
/// [`KeyError`].
pub fn read_signing_key(path: &Path) -> Result<Ed25519KeyPair, KeyError> {
    let der = read_pem(path, Purpose::Approve)?;
    Ed25519KeyPair::from_pkcs8(&der).map_err(|_| not_a_key(path, Purpose::Approve))
}

/// Reads a key that receives.
///
/// # Errors
/// [`KeyError`].
pub fn read_recipient_key(path: &Path) -> Result<RecipientKey, KeyError> {
    let der = read_pem(path, Purpose::Receive)?;
    let secret: Option<&[u8; 32]> =
        der.strip_prefix(&X25519_PREFIX).and_then(|secret| secret.try_into().ok());
    let secret = secret.ok_or_else(|| not_a_key(path, Purpose::Receive))?;
    Ok(RecipientKey::from_secret(Kem::X25519, Zeroizing::new(*secret)))
}

fn signing_key() -> Result<(Zeroizing<Vec<u8>>, Octets<32>), NoRandomness> {
    let document = Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new());
    let der = Zeroizing::new(document.map_err(|_| NoRandomness)?.as_ref().to_vec());
    let pair = Ed25519KeyPair::from_pkcs8(&der).map_err(|_| NoRandomness)?;
    let public = Octets::from_slice(pair.public_key().as_ref()).ok_or(NoRandomness)?;
    Ok((der, public))
}

fn receiving_key() -> Result<(Zeroizing<Vec<u8>>, Octets<32>), NoRandomness> {
    let key = RecipientKey::generate(Kem::X25519, &mut random::fresh()?);
    let public = Octets::from_slice(key.public()).ok_or(NoRandomness)?;
    let der = key.expose(|secret| [&X25519_PREFIX[..], secret].concat());
    Ok((Zeroizing::new(der), public))
}

fn not_a_key(path: &Path, purpose: Purpose) -> KeyError {
    let form = "pkcs8 pem";
    KeyError::NotAKey { path: path.to_owned(), required: purpose.algorithm(), form }
}

fn to_pem(der: &[u8]) -> Zeroizing<String> {
    let base64 = Zeroizing::new(Base64::encode_string(der));
    let mut pem = Zeroizing::new(String::with_capacity(256));
    pem.push_str(BEGIN);
    for (place, character) in base64.chars().enumerate() {
        if place > 0 && place % 64 == 0 {
            pem.push('\n');
        }
        pem.push(character);
    }
    pem.push('\n');
    pem.push_str(END);
    pem
}

fn read_pem(path: &Path, purpose: Purpose) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let text = Zeroizing::new(files::read_text(path, MAX_BYTES)?);
    let body = text.strip_prefix(BEGIN).and_then(|text| text.strip_suffix(END));
    let body = Zeroizing::new(body.unwrap_or_default().replace('\n', ""));
    match Base64::decode_vec(&body) {
        Ok(der) if !der.is_empty() => Ok(Zeroizing::new(der)),
        _ => Err(not_a_key(path, purpose)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn reads_back_what_it_made_for_the_user_alone() {
        let folder = tempfile::tempdir().unwrap();
        let approver = folder.path().join("approver.pem");
        let public = generate(&approver, Purpose::Approve).unwrap();
        let pair = read_signing_key(&approver).unwrap();
        assert_eq!(pair.public_key().as_ref(), public.key.as_bytes());
        let recipient = folder.path().join("recipient.pem");
        let public = generate(&recipient, Purpose::Receive).unwrap();
        let key = read_recipient_key(&recipient).ok().unwrap();
        assert_eq!(key.public(), public.key.as_bytes());
        assert_eq!(PublicKey::read(&public_path(&recipient), Purpose::Receive).unwrap(), public);
        let mode = std::fs::metadata(&recipient).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn never_replaces_a_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("k");
        generate(&path, Purpose::Approve).unwrap();
        assert!(matches!(generate(&path, Purpose::Approve), Err(KeyError::File(_))));
    }

    #[test]
    fn rejects_a_key_for_another_purpose() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("k");
        generate(&path, Purpose::Approve).unwrap();
        let error = read_recipient_key(&path).err().unwrap().to_string();
        assert!(error.ends_with("not an x25519 key in pkcs8 pem"), "{error}");
        let wrong = PublicKey::read(&public_path(&path), Purpose::Receive);
        assert!(matches!(wrong, Err(KeyError::NotAKey { required: "x25519", .. })));
    }

    #[test]
    fn rejects_lines_that_are_no_public_key() {
        let hex = "00".repeat(32);
        let good = format!("ed25519 {hex} Northwind Care\n");
        assert_eq!(good.parse::<PublicKey>().unwrap().to_string() + "\n", good);
        for bad in [
            String::new(),
            format!("rsa {hex} a"),
            format!("ed25519 {hex}"),
            format!("ed25519 {hex} "),
            format!("ed25519 {} a", "00".repeat(31)),
            format!("{good}ed25519"),
        ] {
            assert_eq!(bad.parse::<PublicKey>(), Err(NotALine), "{bad}");
        }
    }
}
