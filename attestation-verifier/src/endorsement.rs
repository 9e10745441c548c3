//! What others say about the hardware: certificates, revocation lists, Intel's collateral.
//!
//! Endorsements arrive as a list of byte strings and are told apart by content, never by name or
//! position: DER or PEM certificates, DER or PEM revocation lists, and Intel's collateral as the
//! JSON object commonly called `QuoteCollateralV3`. They are as untrusted as the evidence.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use base64ct::{Base64, Encoding};
use der::asn1::ObjectIdentifier;
use serde::{Deserialize, Deserializer};

use crate::wire::Malformed;
use crate::wire::asn1::{BIT_STRING, SEQUENCE, only};

pub mod amd;
mod budget;
pub(crate) mod chain;
pub(crate) mod device;
mod eventlog;
mod heap;
pub(crate) mod intel;
pub(crate) mod manifest;
mod needs;
pub mod nvidia;
pub(crate) mod ocsp;
mod pieces;
pub(crate) mod revocation;
mod sources;
mod x509;

use x509::{Extension, decode_base64};

pub use device::{describe_for_devices, device_sources};
pub(crate) use eventlog::EventLog;
pub use eventlog::is_event_log;
pub use heap::{Heap, sort};
pub use needs::DeviceNeeds;
pub use sources::{Described, Source, describe, parts, slot, sources};
pub(crate) use x509::Name;

/// Most endorsements one piece of evidence may come with.
const COUNT_LIMIT: usize = 16;
/// Most bytes of one endorsement: the largest honest one is Intel's collateral, about 25 KiB.
const ITEM_LIMIT: usize = 1 << 20;

const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");

/// The place of a certificate or list in its chain.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Role {
    /// NVIDIA's authority for a family of devices, as in "NVIDIA GH100 Identity".
    DeviceFamily,
    /// The certificate of one NVIDIA device, for life.
    DeviceIdentity,
    /// The certificate of the key that signs an NVIDIA device's reports.
    DeviceKey,
    /// NVIDIA's authority that certifies devices when they are made.
    DeviceProvisioner,
    /// What a guest says was recorded in its registers.
    EventLog,
    /// The certificate that signs the key's certificate: ASK, ASVK, or Intel's PCK CA.
    Intermediate,
    /// The certificate of the key that signs evidence: VCEK, VLEK, or Intel's PCK certificate.
    Key,
    /// NVIDIA's authority for the reference manifests of a product.
    ManifestAuthority,
    /// The certificate that signs the certificate of a manifest's signer.
    ManifestIssuer,
    /// The certificate of the key that signs a reference manifest.
    ManifestSigner,
    /// An answer about a certificate's revocation (RFC 6960).
    OcspAnswer,
    /// The certificate of the key that signs such answers.
    OcspResponder,
    /// The revocation list of the root, or of another authority.
    RevocationList,
    /// The trust anchor.
    Root,
    /// The certificate that signs Intel's collateral.
    TcbSigner,
}

impl Role {
    /// The role in words.
    pub fn name(self) -> &'static str {
        match self {
            Self::DeviceFamily => "device family certificate",
            Self::DeviceIdentity => "device identity certificate",
            Self::DeviceKey => "device key certificate",
            Self::DeviceProvisioner => "device provisioner certificate",
            Self::EventLog => "event log",
            Self::Intermediate => "intermediate certificate",
            Self::Key => "key certificate",
            Self::ManifestAuthority => "manifest authority certificate",
            Self::ManifestIssuer => "manifest issuer certificate",
            Self::ManifestSigner => "manifest signer certificate",
            Self::OcspAnswer => "ocsp answer",
            Self::OcspResponder => "ocsp responder certificate",
            Self::RevocationList => "revocation list",
            Self::Root => "root certificate",
            Self::TcbSigner => "tcb signing certificate",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// All endorsements of one piece of evidence, told apart.
#[derive(Default)]
pub(crate) struct Endorsements {
    pub(crate) certificates: Vec<Certificate>,
    pub(crate) revocation_lists: Vec<RevocationList>,
    pub(crate) collateral: Vec<Collateral>,
    pub(crate) documents: Vec<Document>,
    pub(crate) event_logs: usize,
}

impl Endorsements {
    pub(crate) fn read(items: &[&[u8]]) -> Result<Self, Malformed> {
        if items.len() > COUNT_LIMIT {
            return Err(Malformed::TooLong {
                part: "list of endorsements",
                observed: items.len(),
                limit: COUNT_LIMIT,
            });
        }
        let mut all = Self::default();
        for (index, item) in items.iter().enumerate() {
            all.add(item).map_err(|problem| Malformed::Endorsement { index, problem })?;
        }
        Ok(all)
    }

    fn add(&mut self, item: &[u8]) -> Result<(), &'static str> {
        if item.len() > ITEM_LIMIT {
            return Err("larger than any honest endorsement");
        }
        if EventLog::is_one(item) {
            EventLog::read(item)?;
            self.event_logs = self.event_logs.saturating_add(1);
            return Ok(());
        }
        if item.starts_with(b"{") {
            // Neither nests: a document is cut, not parsed, and collateral is a list of texts. What the
            // texts hold is held to the budget where it is read.
            let text = core::str::from_utf8(item).map_err(|_| "not UTF-8")?;
            match Document::read(text)? {
                Some(document) => self.documents.push(document),
                None => self.collateral.push(Collateral::read(item)?),
            }
            return Ok(());
        }
        if item.starts_with(b"-----BEGIN ") {
            return read_pem(item)?.iter().try_for_each(|der| self.add_der(der));
        }
        self.add_der(item)
    }

    fn add_der(&mut self, der: &[u8]) -> Result<(), &'static str> {
        if self.certificates.len().max(self.revocation_lists.len()) >= COUNT_LIMIT {
            return Err("one certificate or revocation list too many");
        }
        // A certificate's first field is its version, tagged [0]; a list's is a bare INTEGER.
        if Signed::read(der)?.starts_with_version() {
            self.certificates.push(Certificate::read(der)?);
        } else {
            self.revocation_lists.push(RevocationList::read(der)?);
        }
        Ok(())
    }
}

/// The three parts of a certificate or revocation list (RFC 5280 §4.1.1, §5.1.1).
struct Signed<'a> {
    /// What is signed, as it arrived.
    tbs: &'a [u8],
    /// The AlgorithmIdentifier beside the signature, as it arrived.
    algorithm: &'a [u8],
    signature: &'a [u8],
}

impl<'a> Signed<'a> {
    fn read(der: &'a [u8]) -> Result<Self, &'static str> {
        Self::decode(der).ok_or("neither a certificate, a revocation list, nor collateral")
    }

    fn decode(der: &'a [u8]) -> Option<Self> {
        let mut parts = only(SEQUENCE, der)?;
        let (tbs, algorithm) = (parts.any()?.whole, parts.any()?.whole);
        // Whole bytes: no unused bits.
        let [0, signature @ ..] = parts.expect(BIT_STRING)? else { return None };
        parts.end()?;
        Some(Self { tbs, algorithm, signature })
    }

    fn starts_with_version(&self) -> bool {
        let first = only(SEQUENCE, self.tbs).and_then(|mut fields| fields.any());
        first.is_some_and(|first| first.tag == 0xa0)
    }
}

/// An X.509 certificate: the fields we judge, and the bytes that were signed.
#[derive(Clone)]
pub(crate) struct Certificate {
    /// The whole certificate, as it arrived.
    pub(crate) der: Vec<u8>,
    pub(crate) tbs: Vec<u8>,
    pub(crate) algorithm: Vec<u8>,
    pub(crate) signature: Vec<u8>,
    pub(crate) issuer: Name,
    pub(crate) subject: Name,
    /// Minimal big-endian bytes.
    pub(crate) serial: Vec<u8>,
    /// Seconds since 1970.
    pub(crate) not_before: u64,
    /// Seconds since 1970; the last valid second.
    pub(crate) not_after: u64,
    pub(crate) key_algorithm: Vec<u8>,
    pub(crate) key: Vec<u8>,
    extensions: Vec<Extension>,
}

impl Certificate {
    pub(crate) fn read(der: &[u8]) -> Result<Self, &'static str> {
        let parts = Signed::read(der)?;
        let tbs = x509::Certificate::read(parts.tbs)
            .ok_or("not an X.509 certificate of version 3 in DER")?;
        if tbs.algorithm != parts.algorithm {
            return Err("names two different signature algorithms");
        }
        check_unique(&tbs.extensions)?;
        Ok(Self {
            der: der.to_vec(),
            tbs: parts.tbs.to_vec(),
            algorithm: parts.algorithm.to_vec(),
            signature: parts.signature.to_vec(),
            serial: tbs.serial.to_vec(),
            not_before: tbs.not_before,
            not_after: tbs.not_after,
            key_algorithm: tbs.key_algorithm.to_vec(),
            key: tbs.key.to_vec(),
            issuer: tbs.issuer,
            subject: tbs.subject,
            extensions: tbs.extensions,
        })
    }

    /// The bytes inside an extension's OCTET STRING.
    pub(crate) fn extension(&self, id: ObjectIdentifier) -> Option<&[u8]> {
        self.extensions
            .iter()
            .find(|extension| extension.id == id)
            .map(|extension| extension.value.as_slice())
    }

    pub(crate) fn extension_ids(&self) -> impl Iterator<Item = ObjectIdentifier> {
        self.extensions.iter().map(|extension| extension.id)
    }

    /// Whether there is a critical extension whose meaning we would have to know.
    pub(crate) fn unknown_critical(&self) -> bool {
        self.critical_beyond(&[BASIC_CONSTRAINTS, KEY_USAGE])
    }

    /// Whether there is a critical extension that is none of `known`.
    pub(crate) fn critical_beyond(&self, known: &[ObjectIdentifier]) -> bool {
        let mut extensions = self.extensions.iter();
        extensions.any(|extension| extension.critical && !known.contains(&extension.id))
    }

    /// Whether this may sign certificates: `cA` is TRUE and `keyCertSign` is set.
    pub(crate) fn is_authority(&self) -> bool {
        let constraints = self.extension(BASIC_CONSTRAINTS);
        let usage = self.extension(KEY_USAGE);
        // SEQUENCE { BOOLEAN TRUE, … }
        let authority = matches!(constraints, Some([0x30, _, 0x01, 0x01, 0xff, ..]));
        // BIT STRING, bit 5
        authority && matches!(usage, Some([0x03, _, _, bits, ..]) if bits & 0x04 != 0)
    }

    pub(crate) fn is_self_issued(&self) -> bool {
        self.issuer == self.subject
    }

    pub(crate) fn common_name(&self) -> Option<String> {
        common_name(&self.subject)
    }
}

/// A certificate revocation list: the fields we judge, and the bytes that were signed.
pub(crate) struct RevocationList {
    /// The whole list, as it arrived.
    #[cfg_attr(not(feature = "tdx-collateral"), expect(dead_code, reason = "Intel's lists only"))]
    pub(crate) der: Vec<u8>,
    pub(crate) tbs: Vec<u8>,
    pub(crate) algorithm: Vec<u8>,
    pub(crate) signature: Vec<u8>,
    pub(crate) issuer: Name,
    /// Seconds since 1970.
    pub(crate) this_update: u64,
    /// Seconds since 1970.
    pub(crate) next_update: u64,
    revoked: Vec<Vec<u8>>,
}

impl RevocationList {
    pub(crate) fn read(der: &[u8]) -> Result<Self, &'static str> {
        let parts = Signed::read(der)?;
        let tbs = x509::List::read(parts.tbs)
            .ok_or("neither a certificate, a revocation list, nor collateral")?;
        if tbs.algorithm != parts.algorithm {
            return Err("names two different signature algorithms");
        }
        // An issuing distribution point or a delta would narrow what the list says.
        if tbs.critical {
            return Err("revocation list with a critical extension");
        }
        Ok(Self {
            der: der.to_vec(),
            tbs: parts.tbs.to_vec(),
            algorithm: parts.algorithm.to_vec(),
            signature: parts.signature.to_vec(),
            issuer: tbs.issuer,
            this_update: tbs.this_update,
            next_update: tbs.next_update,
            revoked: tbs.revoked.into_iter().map(<[u8]>::to_vec).collect(),
        })
    }

    pub(crate) fn lists(&self, certificate: &Certificate) -> bool {
        self.revoked.contains(&certificate.serial)
    }
}

/// Intel's collateral for one platform, as its provisioning service hands it out.
///
/// `pck_certificate_chain`, where a cache put one, is read past: it belongs to whichever platform
/// the cache served, and the quote carries its own.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(not(feature = "tdx-collateral"), expect(dead_code, reason = "judged by the feature"))]
pub(crate) struct Collateral {
    pub(crate) pck_crl_issuer_chain: String,
    #[serde(deserialize_with = "from_hex")]
    pub(crate) root_ca_crl: Vec<u8>,
    #[serde(deserialize_with = "from_hex")]
    pub(crate) pck_crl: Vec<u8>,
    pub(crate) tcb_info_issuer_chain: String,
    pub(crate) tcb_info: String,
    #[serde(deserialize_with = "from_hex")]
    pub(crate) tcb_info_signature: Vec<u8>,
    pub(crate) qe_identity_issuer_chain: String,
    pub(crate) qe_identity: String,
    #[serde(deserialize_with = "from_hex")]
    pub(crate) qe_identity_signature: Vec<u8>,
    #[serde(default, rename = "pck_certificate_chain")]
    _pck_certificate_chain: Option<String>,
}

impl Collateral {
    fn read(json: &[u8]) -> Result<Self, &'static str> {
        serde_json::from_slice(json).map_err(|_| "not a QuoteCollateralV3 object")
    }
}

/// One of the two documents of Intel's collateral, as its provisioning service hands it out: the text
/// that is signed, and its signature.
#[cfg_attr(not(feature = "tdx-collateral"), expect(dead_code, reason = "judged by the feature"))]
pub(crate) struct Document {
    pub(crate) kind: Kind,
    pub(crate) text: String,
    pub(crate) signature: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    QeIdentity,
    TcbInfo,
}

impl Document {
    /// None when `text` is another object.
    fn read(text: &str) -> Result<Option<Self>, &'static str> {
        let heads = [("{\"tcbInfo\":", Kind::TcbInfo), ("{\"enclaveIdentity\":", Kind::QeIdentity)];
        let found = heads.iter().find_map(|(head, kind)| Some((text.strip_prefix(head)?, *kind)));
        let Some((rest, kind)) = found else { return Ok(None) };
        let parts = rest.trim_end().strip_suffix("\"}").and_then(|rest| {
            let (text, signature) = rest.rsplit_once(",\"signature\":\"")?;
            Some((text, hex::decode(signature).ok()?))
        });
        let (text, signature) = parts.ok_or("a document of Intel's without its signature")?;
        Ok(Some(Self { kind, text: text.into(), signature }))
    }
}

fn from_hex<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    hex::decode(text).map_err(|_| serde::de::Error::custom("not hexadecimal"))
}

/// Reads PEM (RFC 7468) with nothing but white space around its blocks.
pub(crate) fn read_pem(text: &[u8]) -> Result<Vec<Vec<u8>>, &'static str> {
    const PROBLEM: &str = "not PEM of certificates or revocation lists";
    let mut rest = core::str::from_utf8(text).map_err(|_| PROBLEM)?.trim_start();
    let mut blocks = Vec::new();
    while !rest.is_empty() {
        if blocks.len() == COUNT_LIMIT {
            return Err("more PEM blocks than any honest endorsement has");
        }
        let (block, after) = read_pem_block(rest).ok_or(PROBLEM)?;
        blocks.push(block);
        rest = after.trim_start();
    }
    if blocks.is_empty() { Err(PROBLEM) } else { Ok(blocks) }
}

/// A certificate as PEM (RFC 7468).
fn write_pem(der: &[u8]) -> String {
    let text = Base64::encode_string(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----");
    for (index, character) in text.chars().enumerate() {
        if index.is_multiple_of(64) {
            pem.push('\n');
        }
        pem.push(character);
    }
    pem.push_str("\n-----END CERTIFICATE-----\n");
    pem
}

/// Whether `text`, less its last line end, has the one layout of certificates in PEM: lines of 64
/// characters but the last of each, all of them ended alike, and nothing else.
#[cfg_attr(not(feature = "tdx-collateral"), expect(dead_code, reason = "judged by the feature"))]
pub(crate) fn is_canonical_pem(text: &[u8]) -> bool {
    let Ok(text) = core::str::from_utf8(text) else { return false };
    ["\n", "\r\n"].iter().any(|end| {
        let text = if *end == "\n" { text } else { text.strip_suffix('\r').unwrap_or(text) };
        has_canonical_lines(text.split(end))
    })
}

fn has_canonical_lines<'a>(mut lines: impl Iterator<Item = &'a str>) -> bool {
    let plain = |line: &str| line.bytes().all(|c| c.is_ascii_alphanumeric() || b"+/=".contains(&c));
    while let Some(first) = lines.next() {
        if first != "-----BEGIN CERTIFICATE-----" {
            return false;
        }
        let mut full = true;
        loop {
            match lines.next() {
                Some("-----END CERTIFICATE-----") => break,
                Some(line) if full && (1..=64).contains(&line.len()) && plain(line) => {
                    full = line.len() == 64;
                }
                _ => return false,
            }
        }
    }
    true
}

fn read_pem_block(text: &str) -> Option<(Vec<u8>, &str)> {
    ["CERTIFICATE", "X509 CRL"].iter().find_map(|label| {
        let body = text.strip_prefix("-----BEGIN ")?.strip_prefix(label)?.strip_prefix("-----")?;
        let (body, after) = body.split_once("-----END ")?;
        let after = after.strip_prefix(label)?.strip_prefix("-----")?;
        Some((decode_base64(body)?, after))
    })
}

pub(crate) fn common_name(name: &Name) -> Option<String> {
    name.common_name().map(String::from)
}

fn check_unique(extensions: &[Extension]) -> Result<(), &'static str> {
    let mut ids: Vec<_> = extensions.iter().map(|extension| extension.id).collect();
    ids.sort_unstable();
    let before = ids.len();
    ids.dedup();
    if ids.len() == before { Ok(()) } else { Err("carries an extension twice") }
}
