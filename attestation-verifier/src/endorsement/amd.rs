//! AMD's chain: ARK → ASK → VCEK → report, or ARK → ASVK → VLEK → report.
//!
//! AMD "Versioned Chip Endorsement Key (VCEK) Certificate and KDS Interface Specification" (57230)
//! and the SEV-SNP ABI (56860). Signatures are checked over the bytes that arrived:
//! 1. Find the anchor: the pinned ARK that issued the intermediate certificate.
//! 2. Judge the intermediate certificate under the anchor, and the revocation list if there is one.
//! 3. Judge the key certificate under the intermediate one.
//! 4. Bind the report to the key certificate: kind of signer, product, TCB, chip.
//! 5. Verify the report's signature.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use ring::signature::{
    ECDSA_P384_SHA384_FIXED, RSA_PSS_2048_8192_SHA384, UnparsedPublicKey, VerificationAlgorithm,
};
use serde::{Deserialize, Serialize};

use crate::endorsement::{Certificate, Endorsements, RevocationList, Role, common_name};
use crate::evidence::Inauthentic;
use crate::root::{Anchor, Platform, Root};
use crate::wire::snp::{Body, Report};

mod key;

use key::KeyCertificate;

/// A family of processors with its own root.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Product {
    /// EPYC 9004 and 8004.
    Genoa,
    /// EPYC 7003.
    Milan,
    /// EPYC 9005.
    Turin,
}

impl Product {
    const ALL: [Self; 3] = [Self::Genoa, Self::Milan, Self::Turin];

    /// The name in AMD's certificates.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Genoa => "Genoa",
            Self::Milan => "Milan",
            Self::Turin => "Turin",
        }
    }

    /// Which product a CPUID family and model are. Models not listed are unknown, not guessed.
    pub(crate) fn of_cpu(family: u8, model: u8) -> Option<Self> {
        match (family, model) {
            (0x19, 0x00..=0x0f) => Some(Self::Milan),
            (0x19, 0x10..=0x1f | 0xa0..=0xaf) => Some(Self::Genoa),
            (0x1a, 0x00..=0x11) => Some(Self::Turin),
            _ => None,
        }
    }
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What kind of key signed a report.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Signer {
    /// The chip's own key, for one TCB version.
    Vcek,
    /// A key that AMD lent to a cloud provider, for one TCB version. It names no chip.
    Vlek,
}

impl Signer {
    fn subject(self) -> &'static str {
        match self {
            Self::Vcek => "SEV-VCEK",
            Self::Vlek => "SEV-VLEK",
        }
    }

    /// The common name of the certificate that signs such keys: the ASK or the ASVK.
    fn issuer_prefix(self) -> &'static str {
        match self {
            Self::Vcek => "SEV-",
            Self::Vlek => "SEV-VLEK-",
        }
    }
}

impl fmt::Display for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vcek => "vcek",
            Self::Vlek => "vlek",
        })
    }
}

/// Security version numbers of the firmware, in the product's own layout.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SnpTcb {
    /// Firmware of the ASP's first stage; Turin only.
    #[serde(default)]
    pub fmc: u8,
    /// Bootloader of the security processor.
    pub bootloader: u8,
    /// Operating system of the security processor.
    pub tee: u8,
    /// SNP firmware.
    pub snp: u8,
    /// Microcode. Numbered per CPUID model, not per product.
    pub microcode: u8,
}

impl SnpTcb {
    pub(crate) fn read(
        field: &'static str,
        product: Product,
        bytes: [u8; 8],
    ) -> Result<Self, Inauthentic> {
        let (tcb, reserved) = match (product, bytes) {
            (Product::Turin, [fmc, bootloader, tee, snp, a, b, c, microcode]) => {
                (Self { fmc, bootloader, tee, snp, microcode }, [a, b, c, 0])
            }
            (_, [bootloader, tee, a, b, c, d, snp, microcode]) => {
                (Self { fmc: 0, bootloader, tee, snp, microcode }, [a, b, c, d])
            }
        };
        if reserved == [0; 4] { Ok(tcb) } else { Err(Inauthentic::TcbReserved { field, product }) }
    }

    /// The components with their names, for comparisons and messages.
    pub fn components(&self) -> [(&'static str, u8); 5] {
        [
            ("fmc", self.fmc),
            ("bootloader", self.bootloader),
            ("tee", self.tee),
            ("snp", self.snp),
            ("microcode", self.microcode),
        ]
    }

    /// Whether every component is at least that of `floor`.
    pub fn at_least(&self, floor: &Self) -> bool {
        let pairs = self.components().into_iter().zip(floor.components());
        pairs.into_iter().all(|((_, seen), (_, least))| seen >= least)
    }
}

impl fmt::Display for SnpTcb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fmc, bootloader, tee, snp, microcode } = self;
        write!(f, "fmc {fmc} bootloader {bootloader} tee {tee} snp {snp} microcode {microcode}")
    }
}

/// What is known about the intermediate certificate's revocation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Revocation {
    /// No list came.
    Unknown,
    /// A list of the root does not name it.
    Listed { this_update: u64, next_update: u64 },
}

/// A report that a key of AMD's hierarchy signed, and what stands behind the key.
pub(crate) struct Claims {
    pub(crate) body: Body,
    pub(crate) root: Root,
    pub(crate) product: Product,
    pub(crate) signer: Signer,
    /// The cloud provider that a VLEK was lent to.
    pub(crate) csp: Option<String>,
    pub(crate) revocation: Revocation,
    pub(crate) reported: SnpTcb,
    pub(crate) current: SnpTcb,
    pub(crate) committed: SnpTcb,
    pub(crate) launch: SnpTcb,
}

/// A key that signs reports, and what stands behind it: what AMD's certificates say before any report
/// is looked at. Verified once, it serves every report of the chip until a certificate expires.
#[derive(Clone)]
pub(crate) struct Endorsed {
    root: Root,
    certificate: KeyCertificate,
    /// P-384, uncompressed.
    key: Vec<u8>,
    revocation: Revocation,
    /// When all of the certificates are valid, in seconds since 1970, both ends included.
    pub(crate) valid: (u64, u64),
}

/// Establishes that the endorsements lead from a key to one of `anchors`.
pub(crate) fn endorse(
    endorsements: &Endorsements,
    anchors: &[Anchor],
    now: u64,
) -> Result<Endorsed, Inauthentic> {
    if !endorsements.collateral.is_empty() || !endorsements.documents.is_empty() {
        return Err(Inauthentic::Surplus { role: Role::TcbSigner });
    }
    if endorsements.event_logs > 0 {
        return Err(Inauthentic::Surplus { role: Role::EventLog });
    }
    let chain = Chain::sort(&endorsements.certificates)?;
    let anchor = chain.anchor(anchors)?;
    check_dates(Role::Root, &anchor.certificate, now)?;
    chain.check_intermediate(now)?;
    let lists = &endorsements.revocation_lists;
    let revocation = check_revocation(lists, &anchor.certificate, chain.intermediate)?;
    let certificate = KeyCertificate::read(chain.key, chain.intermediate, now)?;
    let all = [&anchor.certificate, chain.intermediate, chain.key];
    let from = all.iter().map(|certificate| certificate.not_before).max();
    let until = all.iter().map(|certificate| certificate.not_after).min();
    Ok(Endorsed {
        root: anchor.root.clone(),
        certificate,
        key: chain.key.key.clone(),
        revocation,
        valid: (from.unwrap_or(u64::MAX), until.unwrap_or(0)),
    })
}

/// Establishes that `report` comes from the hardware that holds the endorsed key.
pub(crate) fn authenticate(report: Report<'_>, endorsed: &Endorsed) -> Result<Claims, Inauthentic> {
    let key = &endorsed.certificate;
    let body = report.body;
    key.check_signer(&body)?;
    key.check_product(&body)?;
    let product = key.product;
    let reported = SnpTcb::read("reported tcb", product, body.reported_tcb)?;
    key.check_tcb(&reported)?;
    key.check_chip(&body.chip_id)?;
    let algorithm = &ECDSA_P384_SHA384_FIXED;
    verify(algorithm, &endorsed.key, report.signed, &report.signature, "snp report")?;
    Ok(Claims {
        root: endorsed.root.clone(),
        product,
        signer: key.signer,
        csp: key.csp.clone(),
        revocation: endorsed.revocation,
        reported,
        current: SnpTcb::read("current tcb", product, body.current_tcb)?,
        committed: SnpTcb::read("committed tcb", product, body.committed_tcb)?,
        launch: SnpTcb::read("launch tcb", product, body.launch_tcb)?,
        body,
    })
}

/// The place that a certificate would take for a report, unjudged: none when it has none.
pub(super) fn place(certificate: &Certificate, body: &Body) -> Option<Role> {
    if certificate.key_algorithm == P384_KEY {
        return KeyCertificate::seems_for(certificate, body).then_some(Role::Key);
    }
    let signer = if (body.key_info >> 2) & 0b111 == 1 { Signer::Vlek } else { Signer::Vcek };
    let name = certificate.common_name()?;
    let products = || Product::ALL.into_iter().filter(|product| may_be(*product, body));
    if certificate.is_self_issued() {
        let root = |product: Product| name.strip_prefix("ARK-") == Some(product.name());
        return products().any(root).then_some(Role::Root);
    }
    let own = |product: Product| name.strip_prefix(signer.issuer_prefix()) == Some(product.name());
    products().any(own).then_some(Role::Intermediate)
}

/// Whether a list would be asked about a report's chain, unjudged.
pub(super) fn seems_asked(list: &RevocationList, body: &Body) -> bool {
    let name = common_name(&list.issuer).unwrap_or_default();
    let own = |product: Product| name.strip_prefix("ARK-") == Some(product.name());
    Product::ALL.into_iter().any(|product| may_be(product, body) && own(product))
}

/// From version 3 on a report says its product.
fn may_be(product: Product, body: &Body) -> bool {
    body.version < 3 || Product::of_cpu(body.cpuid_family, body.cpuid_model) == Some(product)
}

/// The certificates in their places.
struct Chain<'a> {
    key: &'a Certificate,
    intermediate: &'a Certificate,
    /// The root may be left out: it is pinned.
    root: Option<&'a Certificate>,
}

impl<'a> Chain<'a> {
    /// Tells the places apart by key: elliptic for the key, RSA above, self-issued at the top.
    fn sort(certificates: &'a [Certificate]) -> Result<Self, Inauthentic> {
        let [mut key, mut intermediate, mut root] = [None; 3];
        for certificate in certificates {
            let (role, place) = if certificate.key_algorithm == P384_KEY {
                (Role::Key, &mut key)
            } else if certificate.is_self_issued() {
                (Role::Root, &mut root)
            } else {
                (Role::Intermediate, &mut intermediate)
            };
            if place.replace(certificate).is_some() {
                return Err(Inauthentic::Surplus { role });
            }
        }
        let missing = |role| Inauthentic::Missing { role };
        Ok(Self {
            key: key.ok_or(missing(Role::Key))?,
            intermediate: intermediate.ok_or(missing(Role::Intermediate))?,
            root,
        })
    }

    /// The pinned root that issued the intermediate certificate. A root that came along must be
    /// that very certificate: another one with the same name is a stranger.
    fn anchor(&self, anchors: &'a [Anchor]) -> Result<&'a Anchor, Inauthentic> {
        let named: Vec<_> = anchors
            .iter()
            .filter(|anchor| anchor.platform == Platform::Snp)
            .filter(|anchor| anchor.certificate.subject == self.intermediate.issuer)
            .filter(|anchor| self.root.is_none_or(|root| root.der == anchor.certificate.der))
            .collect();
        if named.is_empty() {
            return Err(match self.root {
                Some(root) if root.subject != self.intermediate.issuer => {
                    Inauthentic::Issuer { role: Role::Intermediate }
                }
                _ => Inauthentic::UnknownRoot,
            });
        }
        // A simulated root may bear the vendor's name, so the signature decides.
        named
            .into_iter()
            .find(|anchor| verify_certificate(self.intermediate, &anchor.certificate).is_ok())
            .ok_or(Inauthentic::Signature { over: "intermediate certificate" })
    }

    fn check_intermediate(&self, now: u64) -> Result<(), Inauthentic> {
        let role = Role::Intermediate;
        check_dates(role, self.intermediate, now)?;
        if !self.intermediate.is_authority() {
            return Err(Inauthentic::Unusable { role, problem: "may not sign certificates" });
        }
        check_critical(role, self.intermediate)
    }
}

/// The revocation list of the root, if it came. Only the intermediate certificate can be on it:
/// VCEK and VLEK all have the serial number zero.
fn check_revocation(
    lists: &[RevocationList],
    root: &Certificate,
    intermediate: &Certificate,
) -> Result<Revocation, Inauthentic> {
    let role = Role::RevocationList;
    let list = match lists {
        [] => return Ok(Revocation::Unknown),
        [list] => list,
        _ => return Err(Inauthentic::Surplus { role }),
    };
    if list.issuer != root.subject {
        return Err(Inauthentic::Issuer { role });
    }
    check_algorithm(role, &list.algorithm)?;
    verify(&RSA_PSS_2048_8192_SHA384, &root.key, &list.tbs, &list.signature, "revocation list")?;
    for (role, certificate) in [(Role::Intermediate, intermediate), (Role::Root, root)] {
        if list.lists(certificate) {
            return Err(Inauthentic::Revoked { role });
        }
    }
    Ok(Revocation::Listed { this_update: list.this_update, next_update: list.next_update })
}

pub(crate) fn check_dates(
    role: Role,
    certificate: &Certificate,
    now: u64,
) -> Result<(), Inauthentic> {
    let (from, until) = (certificate.not_before, certificate.not_after);
    if now < from {
        Err(Inauthentic::NotYetValid { role, from, now })
    } else if now > until {
        Err(Inauthentic::Expired { role, now, until })
    } else {
        Ok(())
    }
}

fn check_critical(role: Role, certificate: &Certificate) -> Result<(), Inauthentic> {
    if certificate.unknown_critical() {
        return Err(Inauthentic::Unusable {
            role,
            problem: "has a critical extension that this verifier does not know",
        });
    }
    Ok(())
}

/// RSASSA-PSS with SHA-384, MGF1 with SHA-384 and 48 bytes of salt (RFC 4055), the only algorithm
/// of AMD's hierarchy. Some of its certificates spell the default trailer field out.
const PSS: &[u8] = &[
    0x30, 0x41, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a, 0x30, 0x34, 0xa0,
    0x0f, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02, 0x05, 0x00,
    0xa1, 0x1c, 0x30, 0x1a, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x08, 0x30,
    0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02, 0x05, 0x00, 0xa2, 0x03,
    0x02, 0x01, 0x30,
];
const PSS_WITH_TRAILER: &[u8] = &[
    0x30, 0x46, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a, 0x30, 0x39, 0xa0,
    0x0f, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02, 0x05, 0x00,
    0xa1, 0x1c, 0x30, 0x1a, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x08, 0x30,
    0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02, 0x05, 0x00, 0xa2, 0x03,
    0x02, 0x01, 0x30, 0xa3, 0x03, 0x02, 0x01, 0x01,
];

/// `id-ecPublicKey` on `secp384r1` (RFC 5480).
const P384_KEY: &[u8] = &[
    0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04,
    0x00, 0x22,
];

fn check_algorithm(role: Role, algorithm: &[u8]) -> Result<(), Inauthentic> {
    if algorithm == PSS || algorithm == PSS_WITH_TRAILER {
        return Ok(());
    }
    Err(Inauthentic::Unusable {
        role,
        problem: "is not signed with RSASSA-PSS, SHA-384 and 48 bytes of salt",
    })
}

fn verify_certificate(certificate: &Certificate, issuer: &Certificate) -> Result<(), Inauthentic> {
    check_algorithm(Role::Key, &certificate.algorithm)?;
    verify(
        &RSA_PSS_2048_8192_SHA384,
        &issuer.key,
        &certificate.tbs,
        &certificate.signature,
        "certificate",
    )
}

fn verify(
    algorithm: &'static dyn VerificationAlgorithm,
    key: &[u8],
    message: &[u8],
    signature: &[u8],
    over: &'static str,
) -> Result<(), Inauthentic> {
    UnparsedPublicKey::new(algorithm, key)
        .verify(message, signature)
        .map_err(|_| Inauthentic::Signature { over })
}
