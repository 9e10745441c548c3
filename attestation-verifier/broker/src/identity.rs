//! Who a custodian is: five keys, made once, in a folder for its user alone.
//!
//! | file | holds | mode |
//! |---|---|---|
//! | `keys/decision.pem` | Ed25519: signs leaves and countersigns receipts | 0600 |
//! | `keys/log.pem` | Ed25519: signs checkpoints | 0600 |
//! | `keys/unwrap.pem` | X25519: opens data shares and adapter shares | 0600 |
//! | `keys/tls.der` | P-256, PKCS #8: the TLS server's | 0600 |
//! | `keys/tls.crt` | its self-signed certificate, of which only the key counts | 0644 |
//! | `custodian.json` | the public halves, as a manifest names them | 0644 |
//!
//! Each key has one use: a key that signs leaves signs no checkpoint, and the reverse.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use attestation_verifier::pin::spki;
use measurement::dsse::{parse_printed, print};
use measurement::manifest::Custodian;
use measurement::octets::Octets;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sealed::RecipientKey;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::owner::files::{self, Audience, Existing, FileError};
use crate::owner::keys::{self, KeyError, Purpose};

/// Where a custodian's public keys are.
pub const PUBLIC: &str = "custodian.json";
const MAX_BYTES: u64 = 16 << 10;
const MAX_NAME: usize = 64;

/// Why a folder holds no custodian.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// A certificate was not made.
    #[error("tls certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The public file names other keys than those in the folder.
    #[error("{}: not the public half of the keys beside it", path.display())]
    Mismatch {
        /// The public file.
        path: PathBuf,
    },
    /// A name that people could not read.
    #[error("a custodian's name is 1 to {MAX_NAME} characters, none of them a control character")]
    Name,
    /// Others may enter the folder.
    #[error("{}: mode is {mode:o}, only the user may enter (0700)", path.display())]
    Open {
        /// The folder.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

/// A custodian with its keys.
///
/// Not `Debug`, `Clone` or serialisable.
pub struct Identity {
    custodian: Custodian,
    decision: Ed25519KeyPair,
    log: Ed25519KeyPair,
    unwrap: RecipientKey,
    tls: Zeroizing<Vec<u8>>,
    certificate: CertificateDer<'static>,
}

impl Identity {
    /// Makes all keys in `folder`, which must be empty or not there.
    ///
    /// # Errors
    /// [`IdentityError`]; no key is ever replaced.
    pub fn create(folder: &Path, name: &str) -> Result<Self, IdentityError> {
        let plain = !name.trim().is_empty() && !name.chars().any(char::is_control);
        if !plain || name.chars().count() > MAX_NAME {
            return Err(IdentityError::Name);
        }
        let keys = folder.join("keys");
        private_folder(folder)?;
        private_folder(&keys)?;
        keys::generate(&keys.join("decision.pem"), Purpose::Approve)?;
        keys::generate(&keys.join("log.pem"), Purpose::Approve)?;
        keys::generate(&keys.join("unwrap.pem"), Purpose::Receive)?;
        let tls = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let certificate =
            rcgen::CertificateParams::new(vec!["broker.invalid".to_owned()])?.self_signed(&tls)?;
        let secret = Zeroizing::new(tls.serialize_der());
        files::write(&keys.join("tls.der"), &secret, Audience::Owner, Existing::Keep)?;
        let public = certificate.der();
        files::write(&keys.join("tls.crt"), public, Audience::Everyone, Existing::Keep)?;
        let identity = Self::read(folder, name)?;
        let json = print(&identity.custodian);
        files::write(&folder.join(PUBLIC), &json, Audience::Everyone, Existing::Keep)?;
        Ok(identity)
    }

    /// Reads the custodian in `folder`.
    ///
    /// # Errors
    /// [`IdentityError`], also when others may enter the folder.
    pub fn load(folder: &Path) -> Result<Self, IdentityError> {
        let mode = fs::metadata(folder).map_err(FileError::at(folder))?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(IdentityError::Open { path: folder.to_owned(), mode: mode & 0o777 });
        }
        let public = public(folder)?;
        let identity = Self::read(folder, &public.name)?;
        if identity.custodian == public {
            Ok(identity)
        } else {
            Err(IdentityError::Mismatch { path: folder.join(PUBLIC) })
        }
    }

    fn read(folder: &Path, name: &str) -> Result<Self, IdentityError> {
        let keys = folder.join("keys");
        let decision = keys::read_signing_key(&keys.join("decision.pem"))?;
        let log = keys::read_signing_key(&keys.join("log.pem"))?;
        let unwrap = keys::read_recipient_key(&keys.join("unwrap.pem"))?;
        let tls = Zeroizing::new(files::read(&keys.join("tls.der"), MAX_BYTES)?);
        let path = keys.join("tls.crt");
        let certificate = CertificateDer::from(files::read(&path, MAX_BYTES)?);
        let pin = spki(&certificate).ok_or(IdentityError::Mismatch { path })?;
        let custodian = Custodian {
            decision: public_key(&decision),
            log: public_key(&log),
            name: name.to_owned(),
            tls: pin,
            unwrap: Octets::from_slice(unwrap.public()).unwrap_or(Octets([0; 32])),
        };
        Ok(Self { custodian, decision, log, unwrap, tls, certificate })
    }

    /// The public halves.
    #[must_use]
    pub const fn custodian(&self) -> &Custodian {
        &self.custodian
    }

    /// Signs with the decision key (Ed25519).
    #[must_use]
    pub fn decide(&self, message: &[u8]) -> [u8; 64] {
        signature(&self.decision, message)
    }

    /// Signs with the log key (Ed25519).
    #[must_use]
    pub fn log(&self, message: &[u8]) -> [u8; 64] {
        signature(&self.log, message)
    }

    /// The key that shares are wrapped to.
    #[must_use]
    pub const fn unwrap_key(&self) -> &RecipientKey {
        &self.unwrap
    }

    /// What the TLS server shows, and the key behind it.
    #[must_use]
    pub fn tls(&self) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let key = PrivatePkcs8KeyDer::from(self.tls.to_vec());
        (self.certificate.clone(), PrivateKeyDer::Pkcs8(key))
    }
}

/// Reads the public halves in `folder`, for which no secret is needed.
///
/// # Errors
/// [`IdentityError`].
pub fn public(folder: &Path) -> Result<Custodian, IdentityError> {
    let path = folder.join(PUBLIC);
    let json = files::read(&path, MAX_BYTES)?;
    let cap = usize::try_from(MAX_BYTES).unwrap_or(usize::MAX);
    parse_printed(&json, cap).map_err(|_| IdentityError::Mismatch { path })
}

fn private_folder(path: &Path) -> Result<(), FileError> {
    if path.is_dir() {
        let everyone_out = fs::Permissions::from_mode(0o700);
        return fs::set_permissions(path, everyone_out).map_err(FileError::at(path));
    }
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700).create(path).map_err(FileError::at(path))
}

fn public_key(pair: &Ed25519KeyPair) -> Octets<32> {
    Octets::from_slice(pair.public_key().as_ref()).unwrap_or(Octets([0; 32]))
}

/// Ed25519 signatures of ring have 64 bytes; were it otherwise, no signature would verify.
fn signature(pair: &Ed25519KeyPair, message: &[u8]) -> [u8; 64] {
    pair.sign(message).as_ref().try_into().unwrap_or([0; 64])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_back_from_its_folder_and_shows_no_key_to_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let made = Identity::create(&path, "first clinic").unwrap();
        let read = Identity::load(&path).unwrap();
        assert_eq!(read.custodian(), made.custodian());
        assert_eq!(public(&path).unwrap(), *made.custodian());
        for name in ["decision.pem", "log.pem", "unwrap.pem", "tls.der"] {
            let mode = fs::metadata(path.join("keys").join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn refuses_a_folder_that_others_may_enter() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        Identity::create(&path, "a").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).unwrap();
        let refused = Identity::load(&path).err().unwrap();
        assert!(matches!(refused, IdentityError::Open { mode: 0o750, .. }));
    }

    #[test]
    fn never_replaces_keys_and_refuses_names_that_cannot_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        Identity::create(&path, "a").unwrap();
        assert!(matches!(Identity::create(&path, "a"), Err(IdentityError::Key(_))));
        for name in ["", " ", "a\nb", &"a".repeat(65)] {
            let refused = Identity::create(&folder.path().join("b"), name);
            assert!(matches!(refused, Err(IdentityError::Name)), "{name}");
        }
    }

    #[test]
    fn refuses_a_public_file_that_names_other_keys() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (folder.path().join("a"), folder.path().join("b"));
        Identity::create(&one, "a").unwrap();
        Identity::create(&other, "a").unwrap();
        fs::copy(other.join(PUBLIC), one.join(PUBLIC)).unwrap();
        assert!(matches!(Identity::load(&one), Err(IdentityError::Mismatch { .. })));
    }
}
