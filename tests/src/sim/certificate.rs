//! Keys, certificates and revocation lists under names that say SIMULATED.
//!
//! The DER is that of the vendors' own certificates (RFC 5280), down to AMD's explicit PSS trailer
//! and the order of Intel's extensions; only the organisation in every subject differs.

use anyhow::{Context, Result, ensure};
use base64ct::Encoding;
use der::asn1::{Any, BitString, Ia5String, ObjectIdentifier, OctetString, Uint};
use der::{DateTime, Decode, Encode, Tag};
use measurement::digest::sha256;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
    RSA_PSS_SHA384, RsaKeyPair,
};
use rsa::pkcs8::EncodePrivateKey;
use std::str::FromStr;
use std::time::Duration;
use x509_cert::certificate::{Certificate, TbsCertificate, Version};
use x509_cert::crl::{CertificateList, RevokedCert, TbsCertList};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::name::{DistributionPointName, GeneralName};
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, CrlDistributionPoints, KeyUsage, KeyUsages,
    SubjectKeyIdentifier, crl::dp::DistributionPoint,
};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use x509_cert::time::{Time, Validity};

/// The organisation in the subject of every simulated certificate.
pub const ORGANISATION: &str = "SIMULATED hardware of Cloister";

/// What a key is for, and so what it is.
#[derive(Clone, Copy)]
pub enum Algorithm {
    /// ECDSA on P-256 with SHA-256: everything in Intel's hierarchy.
    P256,
    /// ECDSA on P-384 with SHA-384: AMD's chip key.
    P384,
    /// RSA-PSS with 4096 bits, SHA-384 and a salt of 48 bytes: AMD's two authorities.
    RsaPss,
}

/// A signing key of the simulated hardware. It protects nothing: whoever holds the state folder
/// holds it.
pub struct Key {
    pair: Pair,
    pkcs8: Vec<u8>,
}

enum Pair {
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    RsaPss(Box<RsaKeyPair>),
}

impl Key {
    /// Draws a new key. For RSA this searches primes for a few seconds.
    pub fn generate(algorithm: Algorithm) -> Result<Self> {
        let random = SystemRandom::new();
        let ecdsa = |of| EcdsaKeyPair::generate_pkcs8(of, &random).map(|key| key.as_ref().to_vec());
        let pkcs8 = match algorithm {
            Algorithm::P256 => ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING),
            Algorithm::P384 => ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING),
            Algorithm::RsaPss => {
                let key = rsa::RsaPrivateKey::new(&mut rsa::rand_core::OsRng, 4096)?;
                Ok(key.to_pkcs8_der()?.as_bytes().to_vec())
            }
        };
        Self::from_pkcs8(algorithm, pkcs8.context("no randomness")?)
    }

    /// Reads a key written from [`Key::pkcs8`].
    pub fn from_pkcs8(algorithm: Algorithm, pkcs8: Vec<u8>) -> Result<Self> {
        let random = SystemRandom::new();
        let pair = match algorithm {
            Algorithm::P256 => {
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8, &random)
                    .map(Pair::P256)
            }
            Algorithm::P384 => {
                EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &pkcs8, &random)
                    .map(Pair::P384)
            }
            Algorithm::RsaPss => {
                RsaKeyPair::from_pkcs8(&pkcs8).map(|pair| Pair::RsaPss(Box::new(pair)))
            }
        };
        let pair = pair.map_err(|error| anyhow::anyhow!("not a key of this kind: {error}"))?;
        Ok(Self { pair, pkcs8 })
    }

    /// The private key, PKCS #8.
    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// The public key as it stands in a certificate: an uncompressed point without its leading 4,
    /// so that Intel's quotes can hold it.
    pub fn point(&self) -> &[u8] {
        match &self.pair {
            Pair::P256(pair) | Pair::P384(pair) => &pair.public_key().as_ref()[1..],
            Pair::RsaPss(_) => &[],
        }
    }

    /// Signs `message`: `r || s`, big-endian and padded, or the PSS signature.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::P256(pair) | Pair::P384(pair) => {
                pair.sign(&random, message).expect("ECDSA signs").as_ref().to_vec()
            }
            Pair::RsaPss(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PSS_SHA384, &random, message, &mut signature).expect("PSS signs");
                signature
            }
        }
    }

    /// The signature as X.509 carries it: ECDSA as a SEQUENCE of two INTEGERs (RFC 3279 2.2.3).
    fn sign_der(&self, message: &[u8]) -> BitString {
        let signature = self.sign(message);
        let bytes = match self.pair {
            Pair::RsaPss(_) => signature,
            Pair::P256(_) | Pair::P384(_) => {
                let (r, s) = signature.split_at(signature.len() / 2);
                encode(&[r, s].map(|half| Uint::new(half).expect("an integer")).to_vec())
            }
        };
        BitString::from_bytes(&bytes).expect("a short bit string")
    }

    fn public(&self) -> SubjectPublicKeyInfoOwned {
        let (oid, parameters, key) = match &self.pair {
            Pair::P256(pair) => (EC_PUBLIC_KEY, any(&SECP256R1), pair.public_key().as_ref()),
            Pair::P384(pair) => (EC_PUBLIC_KEY, any(&SECP384R1), pair.public_key().as_ref()),
            Pair::RsaPss(pair) => (RSA_ENCRYPTION, Any::null(), pair.public().as_ref()),
        };
        SubjectPublicKeyInfoOwned {
            algorithm: AlgorithmIdentifierOwned { oid, parameters: Some(parameters) },
            subject_public_key: BitString::from_bytes(key).expect("a short bit string"),
        }
    }

    fn algorithm(&self, pss: &[u8]) -> AlgorithmIdentifierOwned {
        let (oid, parameters) = match self.pair {
            Pair::P256(_) => (ECDSA_WITH_SHA256, None),
            Pair::P384(_) => (ECDSA_WITH_SHA384, None),
            Pair::RsaPss(_) => (RSASSA_PSS, Some(Any::from_der(pss).expect("our parameters"))),
        };
        AlgorithmIdentifierOwned { oid, parameters }
    }

    /// Key identifier: the first 160 bits of the SHA-256 of the public key (RFC 7093 2, method 1).
    fn id(&self) -> OctetString {
        let public = self.public();
        let digest = sha256(public.subject_public_key.as_bytes().expect("whole bytes"));
        OctetString::new(&digest[..20]).expect("20 bytes")
    }
}

/// A span of time, both ends included, in seconds since 1970.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// First second.
    pub from: u64,
    /// Last second.
    pub until: u64,
}

impl Span {
    /// From a day before `now`, for clocks that disagree, until `days` after it.
    pub fn around(now: u64, days: u64) -> Self {
        Self { from: now.saturating_sub(DAY), until: now + days * DAY }
    }
}

/// What a subject may do with its key.
#[derive(Clone, Copy)]
pub enum Role {
    /// Sign certificates and CRLs, with at most so many authorities below it.
    Authority(Option<u8>),
    /// Sign certificates only: AMD's ASK.
    Intermediate,
    /// Sign documents: Intel's leaves.
    Leaf,
    /// AMD's chip key, which carries no standard extension at all.
    Chip,
}

/// One certificate to be.
pub struct Subject<'a> {
    /// Distinguished name, RFC 4514.
    pub name: String,
    /// Serial number, big-endian; AMD numbers every VCEK 0.
    pub serial: &'a [u8],
    /// Key of the subject.
    pub key: &'a Key,
    /// First and last second of validity.
    pub validity: Span,
    /// Standard extensions to write.
    pub role: Role,
    /// Further extensions, in order.
    pub extensions: Vec<Extension>,
}

impl Subject<'_> {
    /// The certificate in DER, signed by `issuer` under the name `by`.
    pub fn certify(self, by: &str, issuer: &Key) -> Vec<u8> {
        let pss = if matches!(self.role, Role::Chip) { PSS_PLAIN } else { PSS_WITH_TRAILER };
        let mut extensions = standard_extensions(self.role, self.key, issuer);
        extensions.extend(self.extensions);
        let tbs_certificate = TbsCertificate {
            version: Version::V3,
            serial_number: SerialNumber::new(self.serial).expect("a serial number"),
            signature: issuer.algorithm(pss),
            issuer: name(by),
            validity: Validity {
                not_before: time(self.validity.from),
                not_after: time(self.validity.until),
            },
            subject: name(&self.name),
            subject_public_key_info: self.key.public(),
            issuer_unique_id: None,
            subject_unique_id: None,
            extensions: Some(extensions),
        };
        encode(&Certificate {
            signature: issuer.sign_der(&encode(&tbs_certificate)),
            signature_algorithm: issuer.algorithm(pss),
            tbs_certificate,
        })
    }
}

/// A revocation list (version 2, number 1) in DER: `issuer`, called `by`, revokes `serials`.
pub fn revocation_list(by: &str, issuer: &Key, validity: Span, serials: &[&[u8]]) -> Vec<u8> {
    let revoked: Vec<_> = serials.iter().map(|serial| revoked(serial, validity.from)).collect();
    let tbs_cert_list = TbsCertList {
        version: Version::V2,
        signature: issuer.algorithm(PSS_WITH_TRAILER),
        issuer: name(by),
        this_update: time(validity.from),
        next_update: Some(time(validity.until)),
        revoked_certificates: (!revoked.is_empty()).then_some(revoked),
        crl_extensions: Some(vec![
            extension(CRL_NUMBER, false, encode(&1u8)),
            extension(AUTHORITY_KEY_ID, false, encode(&authority(issuer))),
        ]),
    };
    encode(&CertificateList {
        signature: issuer.sign_der(&encode(&tbs_cert_list)),
        signature_algorithm: issuer.algorithm(PSS_WITH_TRAILER),
        tbs_cert_list,
    })
}

/// An extension of the vendor's own: `value` is what the OCTET STRING holds.
pub fn extension(oid: ObjectIdentifier, critical: bool, value: Vec<u8>) -> Extension {
    Extension {
        extn_id: oid,
        critical,
        extn_value: OctetString::new(value).expect("a short extension"),
    }
}

/// A random serial number of 20 bytes with a clear sign bit.
pub fn serial() -> [u8; 20] {
    let mut bytes = random();
    bytes[0] = bytes[0] & 0x7f | 0x40;
    bytes
}

/// `N` random bytes.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).expect("the system has randomness");
    bytes
}

/// PEM (RFC 7468) of a certificate.
pub fn pem(certificate: &[u8]) -> String {
    let text = base64ct::Base64::encode_string(certificate);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.extend(line.iter().map(|byte| char::from(*byte)));
        pem.push('\n');
    }
    pem + "-----END CERTIFICATE-----\n"
}

/// DER of one of our own values, which always encodes.
pub fn encode(value: &impl Encode) -> Vec<u8> {
    value.to_der().expect("our own value encodes")
}

/// DER SEQUENCE of parts that are DER already.
pub fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    encode(&Any::new(Tag::Sequence, parts.concat()).expect("a short sequence"))
}

/// The serial number inside a certificate.
pub fn serial_of(certificate: &[u8]) -> Result<Vec<u8>> {
    let certificate = Certificate::from_der(certificate)?;
    let serial = certificate.tbs_certificate.serial_number.as_bytes().to_vec();
    ensure!(!serial.is_empty(), "a certificate without a serial number");
    Ok(serial)
}

fn standard_extensions(role: Role, key: &Key, issuer: &Key) -> Vec<Extension> {
    let (usage, ca, path) = match role {
        Role::Authority(path) => (KeyUsages::KeyCertSign | KeyUsages::CRLSign, true, path),
        Role::Intermediate => (KeyUsages::KeyCertSign.into(), true, Some(0)),
        Role::Leaf => (KeyUsages::DigitalSignature | KeyUsages::NonRepudiation, false, None),
        Role::Chip => return Vec::new(),
    };
    let constraints = BasicConstraints { ca, path_len_constraint: path };
    vec![
        extension(AUTHORITY_KEY_ID, false, encode(&authority(issuer))),
        extension(CRL_DISTRIBUTION_POINTS, false, encode(&distribution())),
        extension(SUBJECT_KEY_ID, false, encode(&SubjectKeyIdentifier(key.id()))),
        extension(KEY_USAGE, true, encode(&KeyUsage(usage))),
        extension(BASIC_CONSTRAINTS, true, encode(&constraints)),
    ]
}

fn authority(issuer: &Key) -> AuthorityKeyIdentifier {
    AuthorityKeyIdentifier { key_identifier: Some(issuer.id()), ..Default::default() }
}

/// A list that no one can fetch: `.invalid` is reserved (RFC 2606).
fn distribution() -> CrlDistributionPoints {
    let uri = Ia5String::new("https://simulated.invalid/crl").expect("ASCII");
    let name = vec![GeneralName::UniformResourceIdentifier(uri)];
    CrlDistributionPoints(vec![DistributionPoint {
        distribution_point: Some(DistributionPointName::FullName(name)),
        reasons: None,
        crl_issuer: None,
    }])
}

fn revoked(serial: &[u8], since: u64) -> RevokedCert {
    let reason = encode(&Any::new(Tag::Enumerated, [KEY_COMPROMISE]).expect("one byte"));
    RevokedCert {
        serial_number: SerialNumber::new(serial).expect("a serial number"),
        revocation_date: time(since),
        crl_entry_extensions: Some(vec![extension(REASON_CODE, false, reason)]),
    }
}

fn name(text: &str) -> Name {
    Name::from_str(text).expect("a name of ours")
}

fn time(seconds: u64) -> Time {
    let date = DateTime::from_unix_duration(Duration::from_secs(seconds)).expect("before 9999");
    if date.year() < 2050 {
        Time::UtcTime(date.try_into().expect("before 2050"))
    } else {
        Time::GeneralTime(date.into())
    }
}

fn any(value: &ObjectIdentifier) -> Any {
    Any::from_der(&encode(value)).expect("DER")
}

const DAY: u64 = 86_400;

/// CRLReason keyCompromise (RFC 5280 5.3.1).
const KEY_COMPROMISE: u8 = 1;

/// RSASSA-PSS-params of AMD's own authorities: SHA-384, MGF1 with SHA-384, salt 48 and a trailer
/// field that DER would have left out.
const PSS_WITH_TRAILER: &[u8] = b"\x30\x39\
    \xa0\x0f\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\
    \xa1\x1c\x30\x1a\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x08\
    \x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\
    \xa2\x03\x02\x01\x30\xa3\x03\x02\x01\x01";

/// The same as today's VCEKs have it, without the trailer field.
const PSS_PLAIN: &[u8] = b"\x30\x34\
    \xa0\x0f\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\
    \xa1\x1c\x30\x1a\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x08\
    \x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\
    \xa2\x03\x02\x01\x30";

const AUTHORITY_KEY_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.35");
const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
const CRL_DISTRIBUTION_POINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.31");
const CRL_NUMBER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.20");
const ECDSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
const ECDSA_WITH_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");
const REASON_CODE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.21");
const RSASSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const SECP256R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const SECP384R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const SUBJECT_KEY_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.14");
