//! Stapled answers about revocation: OCSP (RFC 6960), as NVIDIA's responder gives them.
//!
//! An answer is about the certificates its single responses name, by digest of their issuer's name
//! and key and by serial number. It is signed by that issuer, or by a responder that the issuer
//! certified for this and nothing else.

use alloc::vec::Vec;

use der::Decode;
use der::asn1::{GeneralizedTime, ObjectIdentifier};
use ring::digest::{self, SHA1_FOR_LEGACY_USE_ONLY, SHA256, SHA384};

use super::amd::check_dates;
use super::chain::{Survey, verify_statement};
use super::x509::minimal;
use super::{BASIC_CONSTRAINTS, Certificate, Described, KEY_USAGE, Role};
use crate::evidence::Inauthentic;
use crate::wire::asn1::{self, Walker, only};

/// Most single responses of an answer.
pub(crate) const SINGLE_LIMIT: usize = 16;
/// Most certificates of an answer.
const CERTIFICATE_LIMIT: usize = 4;

const EXTENDED_KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37");
/// `id-kp-OCSPSigning`, alone in its sequence.
const OCSP_SIGNING: &[u8] =
    &[0x30, 0x0a, 0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x09];
/// `id-pkix-ocsp-basic`.
const BASIC: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01, 0x01];

/// An answer whose shape is right.
pub(crate) struct Answer {
    tbs: Vec<u8>,
    algorithm: Vec<u8>,
    signature: Vec<u8>,
    responder: Responder,
    certificates: Vec<Certificate>,
    singles: Vec<Single>,
}

enum Responder {
    /// DER of the name.
    Name(Vec<u8>),
    /// SHA-1 of the key.
    KeyHash(Vec<u8>),
}

/// What an answer says about one certificate.
pub(crate) struct Single {
    algorithm: &'static digest::Algorithm,
    issuer_name: Vec<u8>,
    issuer_key: Vec<u8>,
    serial: Vec<u8>,
    pub(crate) status: Status,
    /// Seconds since 1970.
    pub(crate) this_update: u64,
    /// Seconds since 1970, if the answer ends at all.
    pub(crate) next_update: Option<u64>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Status {
    Good,
    Revoked,
    Unknown,
}

impl Answer {
    /// Whether `der` looks like an answer: a sequence that starts with a status.
    pub(crate) fn looks_like(der: &[u8]) -> bool {
        only(asn1::SEQUENCE, der).and_then(|mut parts| parts.expect(asn1::ENUMERATED)).is_some()
    }

    pub(crate) fn read(der: &[u8]) -> Result<Self, &'static str> {
        let mut parts = only(asn1::SEQUENCE, der).ok_or("not an ocsp answer")?;
        if parts.expect(asn1::ENUMERATED) != Some(&[0]) {
            return Err("an ocsp answer without success");
        }
        Self::read_bytes(parts).ok_or("not an ocsp answer of the basic type")
    }

    fn read_bytes(mut parts: Walker<'_>) -> Option<Self> {
        let mut bytes = only(asn1::SEQUENCE, parts.expect(0xa0)?)?;
        parts.end()?;
        let kind = bytes.expect(asn1::OBJECT_ID)?;
        let basic = bytes.expect(asn1::OCTET_STRING)?;
        bytes.end()?;
        if kind != BASIC {
            return None;
        }
        let mut basic = only(asn1::SEQUENCE, basic)?;
        let tbs = basic.any().filter(|element| element.tag == asn1::SEQUENCE)?;
        let algorithm = basic.any()?.whole;
        let (unused, signature) = basic.expect(asn1::BIT_STRING)?.split_first()?;
        let certificates = match basic.optional(0xa0) {
            Some(list) => read_certificates(only(asn1::SEQUENCE, list)?)?,
            None => Vec::new(),
        };
        basic.end()?;
        let (responder, singles) = read_data(Walker::new(tbs.value))?;
        (*unused == 0).then(|| Self {
            tbs: tbs.whole.to_vec(),
            algorithm: algorithm.to_vec(),
            signature: signature.to_vec(),
            responder,
            certificates,
            singles,
        })
    }

    /// All that the answer says about `certificate`; nothing if it is about others.
    pub(crate) fn about(&self, certificate: &Certificate, issuer: &Certificate) -> Vec<&Single> {
        self.singles.iter().filter(|one| one.names(certificate, issuer)).collect()
    }

    /// What it says about each certificate, by serial number.
    pub(super) fn describe(&self) -> impl Iterator<Item = Described> {
        self.singles.iter().map(|single| Described {
            what: match single.status {
                Status::Good => "ocsp answer: good",
                Status::Revoked => "ocsp answer: revoked",
                Status::Unknown => "ocsp answer: unknown",
            },
            subject: hex::encode(&single.serial),
            from: single.this_update,
            until: single.next_update.map_or(single.this_update, |next| next.saturating_sub(1)),
        })
    }

    /// Whether `issuer`, or one it certified for this, signed the answer.
    pub(crate) fn verify(
        &self,
        issuer: &Certificate,
        now: u64,
        survey: &mut Survey,
    ) -> Result<(), Inauthentic> {
        let signer = if self.is_by(issuer) {
            issuer
        } else {
            let responder = self.certificates.iter().find(|one| self.is_by(one));
            let role = Role::OcspResponder;
            let responder = responder.ok_or(Inauthentic::Missing { role })?;
            check_responder(responder, issuer, now)?;
            survey.narrow(responder);
            responder
        };
        verify_statement(&self.algorithm, signer, &self.tbs, &self.signature)
            .ok_or(Inauthentic::Signature { over: Role::OcspAnswer.name() })
    }

    fn is_by(&self, certificate: &Certificate) -> bool {
        match &self.responder {
            Responder::Name(name) => certificate.subject.as_der() == name.as_slice(),
            Responder::KeyHash(hash) => {
                digest::digest(&SHA1_FOR_LEGACY_USE_ONLY, &certificate.key).as_ref() == hash
            }
        }
    }
}

/// A responder that is not the issuer: certified by the issuer, for answering only, and valid now.
fn check_responder(
    responder: &Certificate,
    issuer: &Certificate,
    now: u64,
) -> Result<(), Inauthentic> {
    let role = Role::OcspResponder;
    if responder.issuer != issuer.subject {
        return Err(Inauthentic::Issuer { role });
    }
    verify_statement(&responder.algorithm, issuer, &responder.tbs, &responder.signature)
        .ok_or(Inauthentic::Signature { over: role.name() })?;
    check_dates(role, responder, now)?;
    if responder.critical_beyond(&[BASIC_CONSTRAINTS, KEY_USAGE, EXTENDED_KEY_USAGE]) {
        let problem = "has a critical extension that this verifier does not know";
        return Err(Inauthentic::Unusable { role, problem });
    }
    if responder.extension(EXTENDED_KEY_USAGE) != Some(OCSP_SIGNING) || responder.is_authority() {
        return Err(Inauthentic::Unusable { role, problem: "may not answer for its issuer" });
    }
    Ok(())
}

impl Single {
    fn names(&self, certificate: &Certificate, issuer: &Certificate) -> bool {
        let hash = |bytes: &[u8]| digest::digest(self.algorithm, bytes);
        self.serial == certificate.serial
            && hash(&issuer.key).as_ref() == self.issuer_key
            && hash(issuer.subject.as_der()).as_ref() == self.issuer_name
    }
}

fn read_certificates(mut list: Walker<'_>) -> Option<Vec<Certificate>> {
    let mut certificates = Vec::new();
    while !list.is_empty() {
        if certificates.len() == CERTIFICATE_LIMIT {
            return None;
        }
        certificates.push(Certificate::read(list.any()?.whole).ok()?);
    }
    Some(certificates)
}

/// `ResponseData`.
fn read_data(mut data: Walker<'_>) -> Option<(Responder, Vec<Single>)> {
    // Version 1 is the default, which DER leaves out; some responders spell it.
    if let Some(version) = data.optional(0xa0)
        && version != [0x02, 0x01, 0x00]
    {
        return None;
    }
    let responder = match data.any()? {
        element if element.tag == 0xa1 => Responder::Name(element.value.to_vec()),
        element if element.tag == 0xa2 => {
            let mut hash = Walker::new(element.value);
            let key = hash.expect(asn1::OCTET_STRING)?;
            hash.end()?;
            Responder::KeyHash(key.to_vec())
        }
        _ => return None,
    };
    time(data.any()?.whole)?;
    let mut list = Walker::new(data.expect(asn1::SEQUENCE)?);
    let mut singles = Vec::new();
    while !list.is_empty() {
        if singles.len() == SINGLE_LIMIT {
            return None;
        }
        singles.push(read_single(Walker::new(list.expect(asn1::SEQUENCE)?))?);
    }
    if let Some(extensions) = data.optional(0xa1) {
        check_extensions(only(asn1::SEQUENCE, extensions)?)?;
    }
    data.end()?;
    Some((responder, singles))
}

/// `SingleResponse`.
fn read_single(mut parts: Walker<'_>) -> Option<Single> {
    let mut id = Walker::new(parts.expect(asn1::SEQUENCE)?);
    let algorithm = hash_algorithm(id.expect(asn1::SEQUENCE)?)?;
    let issuer_name = id.expect(asn1::OCTET_STRING)?.to_vec();
    let issuer_key = id.expect(asn1::OCTET_STRING)?.to_vec();
    let serial = minimal(id.expect(asn1::INTEGER)?).to_vec();
    id.end()?;
    let status = match parts.any()? {
        element if element.tag == 0x80 && element.value.is_empty() => Status::Good,
        // With the time of revocation and, if given, the reason: a hold counts as revoked.
        element if element.tag == 0xa1 => Status::Revoked,
        element if element.tag == 0x82 && element.value.is_empty() => Status::Unknown,
        _ => return None,
    };
    let this_update = time(parts.any()?.whole)?;
    let next_update = match parts.optional(0xa0) {
        Some(next) => Some(time(next)?),
        None => None,
    };
    if let Some(extensions) = parts.optional(0xa1) {
        check_extensions(only(asn1::SEQUENCE, extensions)?)?;
    }
    parts.end()?;
    Some(Single { algorithm, issuer_name, issuer_key, serial, status, this_update, next_update })
}

/// The contents of an AlgorithmIdentifier with absent or null parameters.
fn hash_algorithm(contents: &[u8]) -> Option<&'static digest::Algorithm> {
    let mut parts = Walker::new(contents);
    let algorithm = match parts.expect(asn1::OBJECT_ID)? {
        [0x2b, 0x0e, 0x03, 0x02, 0x1a] => &SHA1_FOR_LEGACY_USE_ONLY,
        [0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01] => &SHA256,
        [0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02] => &SHA384,
        _ => return None,
    };
    if !parts.is_empty() && parts.any()?.whole != [0x05, 0x00] {
        return None;
    }
    parts.end()?;
    Some(algorithm)
}

/// Extensions change nothing for us, unless one is critical.
fn check_extensions(mut list: Walker<'_>) -> Option<()> {
    while !list.is_empty() {
        let mut extension = Walker::new(list.expect(asn1::SEQUENCE)?);
        extension.expect(asn1::OBJECT_ID)?;
        if extension.optional(asn1::BOOLEAN).is_some() {
            return None;
        }
        extension.expect(asn1::OCTET_STRING)?;
        extension.end()?;
    }
    Some(())
}

fn time(der: &[u8]) -> Option<u64> {
    Some(GeneralizedTime::from_der(der).ok()?.to_unix_duration().as_secs())
}
