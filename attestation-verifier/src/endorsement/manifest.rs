//! NVIDIA's reference manifests: root → authority → issuer → signer → manifest.
//!
//! The key that verifies is the one of the first certificate, after its chain has been verified. It is
//! never looked up elsewhere in the document.

use alloc::string::String;
use alloc::vec::Vec;

use base64ct::{Base64, Encoding};
use measurement::digest::{Hash32, of, sha256};
use ring::signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};
use serde::Deserialize;

use super::chain::{Survey, verify};
use super::{Certificate, Described, Role};
use crate::evidence::Inauthentic;
use crate::root::{Anchor, Platform, Root};
use crate::wire::rim::Manifest;

/// The chain's places, the signer first.
pub(crate) const ROLES: [Role; 4] =
    [Role::ManifestSigner, Role::ManifestIssuer, Role::ManifestAuthority, Role::Root];

/// A manifest as it arrived, with its certificates read.
pub(crate) struct Unverified {
    manifest: Manifest,
    certificates: Vec<Certificate>,
    sha256: [u8; 32],
    /// The name it was served under, where it came as its service sends it.
    id: Option<String>,
}

/// An authentic manifest.
pub(crate) struct Reference {
    pub(crate) manifest: Manifest,
    /// The signer's first.
    pub(crate) certificates: Vec<Certificate>,
    pub(crate) root: Root,
    pub(crate) sha256: Hash32<of::File>,
    pub(crate) id: Option<String>,
}

impl Unverified {
    /// Reads the XML of a manifest.
    pub(crate) fn read(xml: &[u8]) -> Result<Self, &'static str> {
        let manifest = Manifest::parse(xml)?;
        let certificates: Result<_, _> =
            manifest.certificates.iter().map(|der| Certificate::read(der)).collect();
        Ok(Self { manifest, certificates: certificates?, sha256: sha256(xml), id: None })
    }

    /// Reads the JSON in which NVIDIA's service sends a manifest.
    pub(crate) fn read_served(json: &[u8]) -> Result<Self, &'static str> {
        let served: Served =
            serde_json::from_slice(json).map_err(|_| "not a reference manifest as it is served")?;
        let xml = Base64::decode_vec(&served.rim).map_err(|_| "has a manifest not in base64")?;
        // The service's word for which of the two it digests differs from its documentation.
        let sums = [sha256(&xml), sha256(served.rim.as_bytes())].map(hex::encode);
        if !sums.contains(&served.sha256.to_ascii_lowercase()) {
            return Err("is not the manifest that its sha-256 names");
        }
        Ok(Self { id: Some(served.id), ..Self::read(&xml)? })
    }

    /// What it says of itself, and when its signer's certificate is valid.
    pub(super) fn describe(&self) -> Described {
        let dates = self.certificates.first().map(|signer| (signer.not_before, signer.not_after));
        let (from, until) = dates.unwrap_or_default();
        let subject = alloc::format!("{} {}", self.manifest.product, self.manifest.version);
        Described { what: "reference manifest", subject, from, until }
    }

    /// The signer's first.
    pub(super) fn certificates(&self) -> &[Certificate] {
        &self.certificates
    }

    /// The name it was served under, if it came so.
    pub(super) fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    pub(crate) fn authenticate(
        self,
        anchors: &[Anchor],
        now: u64,
        survey: &mut Survey,
    ) -> Result<Reference, Inauthentic> {
        let Self { manifest, certificates, sha256, id } = self;
        let root = verify(&certificates, &ROLES, Platform::NvidiaManifest, anchors, now, survey)?;
        let signer =
            certificates.first().ok_or(Inauthentic::Missing { role: Role::ManifestSigner })?;
        UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, &signer.key)
            .verify(&manifest.signed, &manifest.signature)
            .map_err(|_| Inauthentic::Signature { over: "reference manifest" })?;
        if manifest.signed_digest != manifest.digest {
            return Err(Inauthentic::Digest { over: "reference manifest" });
        }
        Ok(Reference { manifest, certificates, root, sha256: Hash32::from_bytes(sha256), id })
    }
}

/// What `GET /v1/rim/{id}` answers.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Served {
    id: String,
    rim: String,
    sha256: String,
    #[serde(rename = "last_updated")]
    _last_updated: Option<serde::de::IgnoredAny>,
    #[serde(rename = "rim_format")]
    _rim_format: Option<serde::de::IgnoredAny>,
    #[serde(rename = "request_id")]
    _request_id: Option<serde::de::IgnoredAny>,
}
