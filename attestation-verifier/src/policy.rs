//! The appraisal policy: what a custodian asks of evidence, check by check.
//!
//! A policy is TOML. Every check of a section is named, as `{ require = … }` or as
//! `{ waived = "reason" }`; one that is not mentioned is an error, and so is one that is unknown. A
//! policy is identified by SHA-384 of its exact bytes. `policies/strict.toml` is one to start from.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use measurement::digest::{Digest, of};
use measurement::manifest::Tee;
use measurement::octets::Octets;
use serde::de::{Deserialize, Deserializer, Error as _};
use serde::{Deserialize as DeriveDeserialize, Serialize};
use thiserror::Error;

use crate::appraise::{Finding, Findings};
use crate::endorsement::amd::{Product, Signer};
use crate::endorsement::{Certificate, read_pem};
use crate::root::{Anchor, Platform, Root, built_in};

mod value;

pub(crate) use value::{
    Bits, Challenge, Crl, DatedFloor, Describe, Firmware, Mitigations, OneOf, Pinned, Status, Svn,
    Switch, TcbFloor, Word, word,
};

/// Most bytes of a policy.
const POLICY_LIMIT: usize = 256 * 1024;
/// Most further roots a policy names.
const ROOT_LIMIT: usize = 16;

/// What a custodian asks of evidence.
#[derive(Clone)]
pub struct AppraisalPolicy {
    pub(crate) binding: Binding,
    pub(crate) snp: Option<Snp>,
    pub(crate) tdx: Option<Tdx>,
    pub(crate) gpu: Option<Gpu>,
    pub(crate) nvswitch: Option<NvSwitch>,
    pub(crate) anchors: Vec<Anchor>,
    digest: Digest<of::Policy>,
}

impl AppraisalPolicy {
    /// Reads a policy.
    ///
    /// # Errors
    /// When a check is not mentioned or not known, a waiver gives no reason, or a root is not one
    /// CA certificate.
    pub fn parse(toml: &str) -> Result<Self, PolicyError> {
        if toml.len() > POLICY_LIMIT {
            return Err(PolicyError::TooLong { observed: toml.len(), limit: POLICY_LIMIT });
        }
        let document: Document = toml::from_str(toml).map_err(|error| PolicyError::Syntax {
            problem: error.to_string().trim_end().to_string(),
        })?;
        if document.judges_nothing() {
            return Err(PolicyError::Empty);
        }
        Ok(Self {
            anchors: document.anchors()?,
            binding: document.binding,
            snp: document.snp,
            tdx: document.tdx,
            gpu: document.gpu,
            nvswitch: document.nvswitch,
            digest: Digest::of(toml.as_bytes()),
        })
    }

    /// SHA-384 of the exact bytes that were parsed.
    pub fn digest(&self) -> Digest<of::Policy> {
        self.digest
    }

    /// The roots this policy believes beside the vendors' own.
    pub fn further_roots(&self) -> impl Iterator<Item = &Root> {
        let anchors = self.anchors.iter().map(|anchor| &anchor.root);
        anchors.filter(|root| **root != Root::BuiltIn)
    }

    /// The checks this policy waives for evidence of `tee`, with its reasons.
    pub fn waived(&self, tee: Tee) -> Vec<Waived> {
        let mut waived = self.binding.waived();
        waived.extend(match tee {
            Tee::Snp => self.snp.iter().flat_map(Snp::waived).collect::<Vec<_>>(),
            Tee::Tdx => self.tdx.iter().flat_map(Tdx::waived).collect(),
        });
        waived
    }

    /// The checks this policy waives for devices, with its reasons.
    pub fn waived_for_devices(&self) -> Vec<Waived> {
        let mut waived: Vec<_> = self.gpu.iter().flat_map(Gpu::waived).collect();
        waived.extend(self.nvswitch.iter().flat_map(NvSwitch::waived));
        waived
    }
}

/// A check that a policy switches off, and why.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Waived {
    /// The check's id.
    pub check: &'static str,
    /// The policy's reason.
    pub because: String,
}

/// Why a text is not an appraisal policy.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum PolicyError {
    /// It accepts nothing.
    #[error("the policy has none of the sections snp, tdx, gpu and nvswitch")]
    Empty,
    /// A further root is unusable.
    #[error("root {name}: {problem}")]
    Root {
        /// The root's name in the policy.
        name: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// Not TOML, or not in the terms of a policy.
    #[error("{problem}")]
    Syntax {
        /// The parser's words, with line and column.
        problem: String,
    },
    /// Longer than any honest policy.
    #[error("the policy is {observed} bytes, at most {limit} are read")]
    TooLong {
        /// Bytes seen.
        observed: usize,
        /// The most that is read.
        limit: usize,
    },
}

/// A requirement, or the reason why there is none. There is no default.
#[derive(Clone, Debug)]
pub(crate) enum Require<T> {
    This(T),
    Waived { because: String },
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Require<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(DeriveDeserialize)]
        #[serde(deny_unknown_fields)]
        struct Raw<T> {
            require: Option<T>,
            waived: Option<String>,
        }

        match Raw::deserialize(deserializer)? {
            Raw { require: Some(required), waived: None } => Ok(Self::This(required)),
            Raw { require: None, waived: Some(because) } if !because.trim().is_empty() => {
                Ok(Self::Waived { because })
            }
            Raw { require: None, waived: Some(_) } => {
                Err(D::Error::custom("a waiver needs its reason"))
            }
            _ => Err(D::Error::custom("expected either `require` or `waived`")),
        }
    }
}

/// One check of a section, by its id.
pub(crate) struct Check<'a, T> {
    id: &'static str,
    require: &'a Require<T>,
}

impl<T: Describe> Check<'_, T> {
    /// Whether the policy does not waive it.
    pub(crate) fn is_required(&self) -> bool {
        matches!(self.require, Require::This(_))
    }

    /// Adds a finding when `fails` returns what it saw instead of what is required.
    pub(crate) fn judge(self, findings: &mut Findings, fails: impl FnOnce(&T) -> Option<String>) {
        match self.require {
            Require::Waived { .. } => findings.waived(self.id),
            Require::This(required) => match fails(required) {
                Some(observed) => {
                    findings.add(Finding::new(self.id, observed, required.describe()));
                }
                None => findings.held(self.id),
            },
        }
    }
}

/// Declares a section as its list of checks. Each check is a field of the TOML table, has the id
/// `section.field`, and is judged through the method of its name.
macro_rules! checks {
    ($(#[$about:meta])* $section:ident $prefix:literal {
        $($(#[$note:meta])* $check:ident: $kind:ty,)*
    }) => {
        $(#[$about])*
        #[derive(Clone, Debug, DeriveDeserialize)]
        #[serde(deny_unknown_fields)]
        pub(crate) struct $section {
            $($(#[$note])* $check: Require<$kind>,)*
        }

        impl $section {
            $(
                $(#[$note])*
                pub(crate) fn $check(&self) -> Check<'_, $kind> {
                    Check {
                        id: concat!($prefix, ".", stringify!($check)),
                        require: &self.$check,
                    }
                }
            )*

            pub(crate) fn waived(&self) -> Vec<Waived> {
                let mut waived = Vec::new();
                $(if let Require::Waived { because } = &self.$check {
                    waived.push(Waived {
                        check: concat!($prefix, ".", stringify!($check)),
                        because: because.clone(),
                    });
                })*
                waived
            }
        }
    };
}

word!(
    /// Nothing of the kind.
    Forbidden = "forbidden"
);
word!(
    /// One of a list that the job brings.
    Listed = "listed"
);
word!(
    /// The value the job brings.
    Bound = "bound"
);
word!(
    /// Set.
    On = "on"
);
word!(
    /// Demanded by the guest's policy and reported by the platform.
    Enforced = "enforced"
);
word!(
    /// No bit that this verifier does not know.
    Known = "known"
);

checks! {
    /// What ties the evidence to the job. That the report data is the expected one is always
    /// checked.
    Binding "binding" {
        /// The report data is not zero: zero answers no challenge.
        challenge: Challenge,
        /// The launch measurement is one of the job's.
        image: Word<Listed>,
        /// HOST_DATA or MRCONFIGID is the digest of the job's launch blob.
        launch_blob: Word<Bound>,
        /// The chip (CHIP_ID or PPID) is one of the job's.
        platform: Word<Listed>,
    }
}

checks! {
    /// What is asked of SEV-SNP. Always checked: reserved bits of the guest policy, its ABI, that
    /// TCB versions are in order, and that the guest itself asked for the report.
    Snp "snp" {
        /// PLATFORM_INFO 5: memory is free of aliases (BadRAM). Reports of version 2 do not say.
        alias_check: Word<On>,
        /// AUTHOR_KEY_DIGEST.
        author_key: OneOf<Octets<48>>,
        /// Guest policy 24 and PLATFORM_INFO 4: the host cannot read ciphertext.
        ciphertext_hiding: Word<Enforced>,
        /// CHIP_ID of the machines, beside those that the job lists.
        chip_id: OneOf<Octets<64>>,
        /// The root's revocation list.
        crl: Crl,
        /// Cloud providers whose VLEK is accepted.
        csp: OneOf<String>,
        /// Guest policy 21: devices on CXL.
        cxl: Word<Forbidden>,
        /// Guest policy 19.
        debug: Word<Forbidden>,
        /// PLATFORM_INFO 2: error-correcting memory.
        ecc: Word<On>,
        /// FAMILY_ID.
        family_id: OneOf<Octets<16>>,
        /// The least committed firmware version.
        firmware: Firmware,
        /// The least GUEST_SVN.
        guest_svn: u32,
        /// HOST_DATA, beside the job's launch blob.
        host_data: Pinned<32>,
        /// ID_KEY_DIGEST.
        id_key: OneOf<Octets<48>>,
        /// IMAGE_ID.
        image_id: OneOf<Octets<16>>,
        /// PLATFORM_INFO 6: the IOMMU is safe.
        iommu: Word<On>,
        /// The launch digest, beside the job's images.
        measurement: OneOf<Octets<48>>,
        /// Guest policy 22: memory is encrypted with AES-256-XTS.
        memory_aes_256_xts: Word<On>,
        /// Guest policy 18 and REPORT_ID_MA.
        migration: Word<Forbidden>,
        /// Bits of the launch and current mitigation vectors.
        mitigations: Mitigations,
        /// Guest policy 25: the host cannot swap pages.
        page_swap_disabled: Word<On>,
        /// PLATFORM_INFO: bits.
        platform_bits: Word<Known>,
        /// Products.
        products: OneOf<Product>,
        /// CURRENT_TCB above COMMITTED_TCB: firmware that can still be rolled back.
        provisional_firmware: Word<Forbidden>,
        /// Guest policy 23 and PLATFORM_INFO 3: no power readings.
        rapl_disabled: Word<Enforced>,
        /// Versions of the report.
        report_versions: OneOf<u32>,
        /// Kinds of signer.
        signers: OneOf<Signer>,
        /// Guest policy 20: one socket only.
        single_socket: Word<On>,
        /// Simultaneous multithreading, as guest policy 16 permits it and PLATFORM_INFO 0 has it.
        smt: OneOf<Switch>,
        /// The least REPORTED_TCB and LAUNCH_TCB, by CPUID model.
        tcb_floor: TcbFloor,
        /// PLATFORM_INFO 7: devices may become part of a guest (SEV-TIO).
        trusted_io: Word<Forbidden>,
        /// PLATFORM_INFO 1: all of memory is encrypted.
        tsme: Word<On>,
        /// Privilege level of the guest software that asked.
        vmpl: OneOf<u32>,
    }
}

checks! {
    /// What is asked of TDX. Always checked: Intel's chain, revocation lists, dates, FMSPC, PCE id,
    /// QE and module identity.
    Tdx "tdx" {
        /// Advisories that are accepted.
        advisories: OneOf<String>,
        /// Attribute bits that may be set beside those that other checks judge.
        attributes: Bits,
        /// Whether the platform may cache keys.
        cached_keys: OneOf<Switch>,
        /// Attribute bits 0 to 7.
        debug: Word<Forbidden>,
        /// Whether packages may be added to the platform.
        dynamic_platform: OneOf<Switch>,
        /// The least `tcbEvaluationDataNumber`, which may rise with time.
        evaluation_number: DatedFloor,
        /// Attribute bit 29.
        migration: Word<Forbidden>,
        /// MRCONFIGID, beside the job's launch blob.
        mr_config_id: Pinned<48>,
        /// MROWNER.
        mr_owner: Pinned<48>,
        /// MROWNERCONFIG.
        mr_owner_config: Pinned<48>,
        /// MRSEAM.
        mr_seam: OneOf<Octets<48>>,
        /// MRTD, beside the job's images.
        mr_td: OneOf<Octets<48>>,
        /// The platform's instance id: another one after its keys were renewed.
        platform_instance: OneOf<Octets<16>>,
        /// The platform's PPID, beside those that the job lists.
        ppid: OneOf<Octets<16>>,
        /// RTMR0, beside the job's images.
        rtmr0: OneOf<Octets<48>>,
        /// RTMR1, beside the job's images.
        rtmr1: OneOf<Octets<48>>,
        /// RTMR2, beside the job's images.
        rtmr2: OneOf<Octets<48>>,
        /// RTMR3, which is the guest's own.
        rtmr3: Pinned<48>,
        /// Attribute bit 28: an unexpected page fault cannot reach the guest.
        sept_ve_disable: Word<On>,
        /// MRSERVICETD, attribute bit 17 and the service TD hashes.
        service_td: Word<Forbidden>,
        /// Simultaneous multithreading.
        smt: OneOf<Switch>,
        /// Statuses of the TCB.
        tcb_status: OneOf<Status>,
        /// The least TEE_TCB_SVN, byte by byte.
        tee_tcb_svn: Svn,
        /// XFAM bits that may be set. Bits 0 and 1 are always set.
        xfam: Bits,
    }
}

mod device;

pub(crate) use device::{Gpu, NvSwitch};

/// The TOML document.
#[derive(DeriveDeserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    binding: Binding,
    snp: Option<Snp>,
    tdx: Option<Tdx>,
    gpu: Option<Gpu>,
    nvswitch: Option<NvSwitch>,
    #[serde(default, rename = "root")]
    roots: Vec<NamedRoot>,
}

impl Document {
    fn judges_nothing(&self) -> bool {
        self.snp.is_none() && self.tdx.is_none() && self.gpu.is_none() && self.nvswitch.is_none()
    }

    fn anchors(&self) -> Result<Vec<Anchor>, PolicyError> {
        let error = |name: &str, problem| PolicyError::Root { name: name.into(), problem };
        let mut anchors = built_in().map_err(|problem| error("built in", problem))?;
        if self.roots.len() > ROOT_LIMIT {
            return Err(error("", "too many roots"));
        }
        for root in &self.roots {
            let anchor = root.anchor().map_err(|problem| error(&root.name, problem))?;
            if anchors.iter().any(|other| other.certificate.der == anchor.certificate.der) {
                return Err(error(&root.name, "is already a root"));
            }
            anchors.push(anchor);
        }
        Ok(anchors)
    }
}

/// A root a policy believes beside the vendors' own.
#[derive(DeriveDeserialize)]
#[serde(deny_unknown_fields)]
struct NamedRoot {
    name: String,
    kind: RootKind,
    platform: Platform,
    /// PEM.
    certificate: String,
}

#[derive(Clone, Copy, DeriveDeserialize)]
#[serde(rename_all = "lowercase")]
enum RootKind {
    Private,
    Simulated,
}

impl NamedRoot {
    fn anchor(&self) -> Result<Anchor, &'static str> {
        let plain = |c: char| c.is_ascii_alphanumeric() || " -_.".contains(c);
        if self.name.trim().is_empty() || self.name.len() > 64 || !self.name.chars().all(plain) {
            return Err("needs a name of at most 64 letters, digits, spaces, '-', '_' or '.'");
        }
        let blocks = read_pem(self.certificate.as_bytes())?;
        let [der] = blocks.as_slice() else {
            return Err("needs exactly one certificate");
        };
        let certificate = Certificate::read(der)?;
        if !certificate.is_self_issued() || !certificate.is_authority() {
            return Err("is not the certificate of a root");
        }
        Ok(Anchor {
            root: match self.kind {
                RootKind::Private => Root::Private(self.name.clone()),
                RootKind::Simulated => Root::Simulated(self.name.clone()),
            },
            platform: self.platform,
            certificate,
        })
    }
}

/// The text of a policy that also believes one further root: `policy` with a `[[root]]` table
/// appended. `kind` is `simulated` or `private`, `platform` is `snp`, `tdx`, `nvidia`
/// (devices) or `nvidia-manifest`.
///
/// ```
/// let strict = attestation_verifier::policy::STRICT;
/// let pem = "-----BEGIN CERTIFICATE-----\n…\n-----END CERTIFICATE-----\n";
/// let text = attestation_verifier::policy::with_root(strict, "demo", "simulated", "snp", pem);
/// assert!(text.contains("kind = \"simulated\""));
/// ```
pub fn with_root(policy: &str, name: &str, kind: &str, platform: &str, pem: &str) -> String {
    let pem = pem.trim_end();
    format!(
        "{}\n\n[[root]]\nname = \"{name}\"\nkind = \"{kind}\"\nplatform = \"{platform}\"\n\
         certificate = '''\n{pem}\n'''\n",
        policy.trim_end()
    )
}

/// The policy to start from, `policies/strict.toml`.
pub const STRICT: &str = include_str!("../policies/strict.toml");

/// The strict policy for evidence that comes without a job, `policies/evidence.toml`: it differs from
/// [`STRICT`] only where evidence by itself cannot answer.
pub const EVIDENCE: &str = include_str!("../policies/evidence.toml");

/// For confidential guests of Azure, `policies/azure.toml`.
pub const AZURE: &str = include_str!("../policies/azure.toml");

/// For confidential guests of Google Cloud, `policies/gcp.toml`.
pub const GCP: &str = include_str!("../policies/gcp.toml");

/// For confidential guests of AWS, `policies/aws.toml`.
pub const AWS: &str = include_str!("../policies/aws.toml");
