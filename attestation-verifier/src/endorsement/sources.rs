//! Where the endorsements of a piece of evidence are to be had, and until when each is good.
//!
//! Addresses only: nothing here connects to anything. AMD's key distribution service (57230) and Intel's
//! provisioning certification service, version 4.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use measurement::manifest::Tee;
use serde::Serialize;

use super::amd::{self, Product, Signer, SnpTcb};
use super::{
    Certificate, Collateral, Document, Kind, RevocationList, Role, Signed, budget, read_pem,
};
use crate::evidence::Evidence;
use crate::wire::{Malformed, snp, tdx};

const KDS: &str = "https://kdsintf.amd.com";
const PCS: &str = "https://api.trustedservices.intel.com";
const ROOT_CRL: &str = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der";

/// One thing to get.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Source {
    /// What it is.
    pub what: &'static str,
    /// Where it is.
    pub url: String,
    /// What else is to be known about it, as which header of the answer to keep; may be empty.
    pub note: &'static str,
}

/// What to get for `evidence`. For a report that does not say which product it is of, every product's.
///
/// # Errors
/// When it has not the shape of evidence.
pub fn sources(evidence: &Evidence<'_>) -> Result<Vec<Source>, Malformed> {
    match evidence.tee {
        Tee::Snp => Ok(from_amd(&snp::Report::parse(evidence.report)?.body)),
        Tee::Tdx => Ok(from_intel(&tdx::Quote::parse(evidence.report)?)),
    }
}

fn from_amd(body: &snp::Body) -> Vec<Source> {
    let signer = match (body.key_info >> 2) & 0b111 {
        1 => Signer::Vlek,
        _ => Signer::Vcek,
    };
    let products = match Product::of_cpu(body.cpuid_family, body.cpuid_model) {
        Some(product) if body.version >= 3 => Vec::from([product]),
        // Only these ever made reports of version 2.
        _ => Vec::from([Product::Milan, Product::Genoa]),
    };
    let mut all = Vec::new();
    for product in products {
        let name = product.name();
        let (kind, chain, crl) = match signer {
            Signer::Vcek => ("vcek", "ASK and ARK", "revocation list of the ARK"),
            Signer::Vlek => ("vlek", "ASVK and ARK", "revocation list of the ARK"),
        };
        if signer == Signer::Vcek {
            all.extend(vcek(body, product));
        }
        let url = |rest: &str| format!("{KDS}/{kind}/v1/{name}/{rest}");
        let note = "";
        all.push(Source { what: chain, url: url("cert_chain"), note });
        all.push(Source { what: crl, url: url("crl"), note: "changes: get it again every day" });
    }
    if signer == Signer::Vlek {
        let what = "VLEK";
        let note = "the provider hands it to its guests, beside the report";
        all.push(Source { what, url: String::new(), note });
    }
    all
}

fn vcek(body: &snp::Body, product: Product) -> Option<Source> {
    let tcb = SnpTcb::read("reported tcb", product, body.reported_tcb).ok()?;
    let SnpTcb { fmc, bootloader, tee, snp, microcode } = tcb;
    let (hardware_id, fmc) = match product {
        Product::Turin => {
            (body.chip_id.first_chunk::<8>()?.as_slice(), format!("fmcSPL={fmc:02}&"))
        }
        _ => (body.chip_id.as_slice(), String::new()),
    };
    if body.chip_id == [0; 64] {
        return None;
    }
    let levels =
        format!("blSPL={bootloader:02}&teeSPL={tee:02}&snpSPL={snp:02}&ucodeSPL={microcode:02}");
    let (name, chip) = (product.name(), hex::encode(hardware_id));
    Some(Source {
        what: "VCEK",
        url: format!("{KDS}/vcek/v1/{name}/{chip}?{fmc}{levels}"),
        note: "of this chip at this TCB: never changes; at most one every ten seconds",
    })
}

fn from_intel(quote: &tdx::Quote<'_>) -> Vec<Source> {
    let platform = Platform::of(quote);
    let (fmspc, ca) = platform.as_ref().map_or(("(unknown)".to_string(), "platform"), |platform| {
        (hex::encode(platform.fmspc), platform.ca)
    });
    let source = |what, url, note| Source { what, url, note };
    Vec::from([
        source(
            "TCB info",
            format!("{PCS}/tdx/certification/v4/tcb?fmspc={fmspc}"),
            "keep the header TCB-Info-Issuer-Chain too, as PEM",
        ),
        source(
            "QE identity",
            format!("{PCS}/tdx/certification/v4/qe/identity"),
            "keep the header SGX-Enclave-Identity-Issuer-Chain too, as PEM",
        ),
        source(
            "revocation list of the PCK CA",
            format!("{PCS}/sgx/certification/v4/pckcrl?ca={ca}&encoding=der"),
            "",
        ),
        source(
            "revocation list of the root",
            ROOT_CRL.to_string(),
            "a revocation list, whatever its name",
        ),
    ])
}

/// What a PCK certificate says that decides what to fetch. Unjudged.
struct Platform {
    fmspc: [u8; 6],
    ca: &'static str,
}

impl Platform {
    fn of(quote: &tdx::Quote<'_>) -> Option<Self> {
        // Intel's extension 1.2.840.113741.1.13.1.4: OID, then OCTET STRING of six bytes.
        const FMSPC: &[u8] =
            &[0x06, 0x0a, 0x2a, 0x86, 0x48, 0x86, 0xf8, 0x4d, 0x01, 0x0d, 0x01, 0x04, 0x04, 0x06];
        let pem = quote.pck_chain.strip_suffix(b"\0").unwrap_or(quote.pck_chain);
        let blocks = read_pem(pem).ok()?;
        let pck = Certificate::read(blocks.first()?).ok()?;
        let at = pck.der.windows(FMSPC.len()).position(|window| window == FMSPC)?;
        let fmspc = pck.der.get(at.checked_add(FMSPC.len())?..)?.first_chunk::<6>()?;
        let issuer = super::common_name(&pck.issuer).unwrap_or_default();
        let ca = if issuer.contains("Processor") { "processor" } else { "platform" };
        Some(Self { fmspc: *fmspc, ca })
    }
}

/// What one endorsement is, and until when it is good. Unjudged: a file says this of itself.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Described {
    /// What it is.
    pub what: &'static str,
    /// Whom it is about, or whose it is.
    pub subject: String,
    /// First second, since 1970.
    pub from: u64,
    /// Last second, since 1970.
    pub until: u64,
}

/// Tells an endorsement by its content: every certificate, list and document in it.
///
/// # Errors
/// What is wrong with it, when it is none.
pub fn describe(item: &[u8]) -> Result<Vec<Described>, &'static str> {
    if item.starts_with(b"{") {
        let text = core::str::from_utf8(item).map_err(|_| "not UTF-8")?;
        budget::check(text)?;
        return match Document::read(text)? {
            Some(document) => Ok(Vec::from([described(document.kind, &document.text)?])),
            None => whole(item),
        };
    }
    if item.starts_with(b"-----BEGIN ") {
        return read_pem(item)?.iter().map(|der| one(der)).collect();
    }
    Ok(Vec::from([one(item)?]))
}

/// The pieces of a file: each certificate and list by itself, in DER; a document as it is.
///
/// # Errors
/// When it is no endorsement.
pub fn parts(item: &[u8]) -> Result<Vec<Vec<u8>>, &'static str> {
    describe(item)?;
    if item.starts_with(b"-----BEGIN ") { read_pem(item) } else { Ok(Vec::from([item.to_vec()])) }
}

/// Which question about `evidence` one of [`parts`] would answer, unjudged: two with the same slot are
/// for the same place, and of them the newer is the one to take. None when it is about something else.
pub fn slot(evidence: &Evidence<'_>, part: &[u8]) -> Option<String> {
    let slot = match evidence.tee {
        Tee::Snp => amd_slot(&snp::Report::parse(evidence.report).ok()?.body, part)?,
        Tee::Tdx => intel_slot(&Platform::of(&tdx::Quote::parse(evidence.report).ok()?)?, part)?,
    };
    Some(slot.to_string())
}

fn amd_slot(body: &snp::Body, part: &[u8]) -> Option<&'static str> {
    if Signed::read(part).ok()?.starts_with_version() {
        return Some(match amd::place(&Certificate::read(part).ok()?, body)? {
            Role::Key => "key",
            Role::Intermediate => "intermediate",
            _ => "root",
        });
    }
    amd::seems_asked(&RevocationList::read(part).ok()?, body).then_some("revocation list")
}

fn intel_slot(platform: &Platform, part: &[u8]) -> Option<&'static str> {
    if part.starts_with(b"{") {
        let mut described = describe(part).ok()?.into_iter();
        let first = described.next()?;
        let own = first.subject.eq_ignore_ascii_case(&hex::encode(platform.fmspc));
        return match (first.what, described.next().is_some()) {
            ("TCB info", true) if own => Some("collateral"),
            ("TCB info", false) if own => Some("tcb info"),
            ("QE identity", false) => Some("qe identity"),
            _ => None,
        };
    }
    if Signed::read(part).ok()?.starts_with_version() {
        let name = Certificate::read(part).ok()?.common_name()?;
        return (name == "Intel SGX TCB Signing").then_some("tcb signer");
    }
    match super::common_name(&RevocationList::read(part).ok()?.issuer)?.as_str() {
        "Intel SGX Root CA" => Some("root's revocation list"),
        "Intel SGX PCK Processor CA" if platform.ca == "processor" => Some("ca's revocation list"),
        "Intel SGX PCK Platform CA" if platform.ca == "platform" => Some("ca's revocation list"),
        _ => None,
    }
}

fn one(der: &[u8]) -> Result<Described, &'static str> {
    if Signed::read(der)?.starts_with_version() {
        let certificate = Certificate::read(der)?;
        let subject = certificate.subject.to_string();
        let (from, until) = (certificate.not_before, certificate.not_after);
        return Ok(Described { what: "certificate", subject, from, until });
    }
    let list = RevocationList::read(der)?;
    Ok(Described {
        what: "revocation list",
        subject: list.issuer.to_string(),
        from: list.this_update,
        until: list.next_update.saturating_sub(1),
    })
}

fn whole(item: &[u8]) -> Result<Vec<Described>, &'static str> {
    let collateral = Collateral::read(item)?;
    let mut all = Vec::from([
        described(Kind::TcbInfo, &collateral.tcb_info)?,
        described(Kind::QeIdentity, &collateral.qe_identity)?,
        one(&collateral.root_ca_crl)?,
        one(&collateral.pck_crl)?,
    ]);
    for chain in [&collateral.tcb_info_issuer_chain, &collateral.qe_identity_issuer_chain] {
        for der in read_pem(chain.as_bytes())? {
            all.push(one(&der)?);
        }
    }
    Ok(all)
}

fn described(kind: Kind, text: &str) -> Result<Described, &'static str> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Dates {
        issue_date: String,
        next_update: String,
        fmspc: Option<String>,
    }

    let what = match kind {
        Kind::QeIdentity => "QE identity",
        Kind::TcbInfo => "TCB info",
    };
    let dates: Dates = serde_json::from_str(text).map_err(|_| "a document without its dates")?;
    let seconds = |text: &str| -> Result<u64, &'static str> {
        let date: der::DateTime = text.parse().map_err(|_| "a date that is none")?;
        Ok(date.unix_duration().as_secs())
    };
    Ok(Described {
        what,
        subject: dates.fmspc.unwrap_or_default(),
        from: seconds(&dates.issue_date)?,
        until: seconds(&dates.next_update)?,
    })
}
