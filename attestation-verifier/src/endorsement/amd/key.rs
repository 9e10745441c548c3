//! What the certificate of a VCEK or VLEK says about its key, and what the report must repeat.
//!
//! Extensions are judged by their raw bytes: each is there exactly once, in its only DER encoding.

use alloc::string::String;
use alloc::vec::Vec;

use der::asn1::ObjectIdentifier;

use super::{Product, Signer, SnpTcb, check_critical, check_dates, verify_certificate};
use crate::endorsement::{Certificate, Role, common_name};
use crate::evidence::Inauthentic;
use crate::wire::snp::Body;

/// What the certificate of a VCEK or VLEK says about the key.
#[derive(Clone)]
pub(super) struct KeyCertificate {
    pub(super) signer: Signer,
    pub(super) product: Product,
    tcb: SnpTcb,
    /// The chip, for a VCEK.
    hardware_id: Option<Vec<u8>>,
    /// The cloud provider, for a VLEK.
    pub(super) csp: Option<String>,
}

const STRUCT_VERSION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.1");
const PRODUCT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.2");
const SPL_BOOTLOADER: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.1");
const SPL_TEE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.2");
const SPL_SNP: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.3");
const SPL_4: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.4");
const SPL_5: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.5");
const SPL_6: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.6");
const SPL_7: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.7");
const SPL_MICROCODE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.8");
const SPL_FMC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.9");
const HARDWARE_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.4");
const CSP_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.5");

/// Every extension that a key certificate may carry.
const KNOWN: [ObjectIdentifier; 13] = [
    STRUCT_VERSION,
    PRODUCT_NAME,
    SPL_BOOTLOADER,
    SPL_TEE,
    SPL_SNP,
    SPL_4,
    SPL_5,
    SPL_6,
    SPL_7,
    SPL_MICROCODE,
    SPL_FMC,
    HARDWARE_ID,
    CSP_ID,
];

impl KeyCertificate {
    pub(super) fn read(
        certificate: &Certificate,
        intermediate: &Certificate,
        now: u64,
    ) -> Result<Self, Inauthentic> {
        let role = Role::Key;
        if certificate.issuer != intermediate.subject {
            return Err(Inauthentic::Issuer { role });
        }
        verify_certificate(certificate, intermediate)
            .map_err(|_| Inauthentic::Signature { over: "key certificate" })?;
        check_dates(role, certificate, now)?;
        check_critical(role, certificate)?;
        if certificate.extension_ids().any(|id| !KNOWN.contains(&id)) {
            return Err(extension("(any)", "is not one that this verifier knows"));
        }
        let signer = signer_of(certificate)?;
        let product = product_of(certificate, signer)?;
        Ok(Self {
            signer,
            product,
            tcb: tcb_of(certificate, product)?,
            hardware_id: hardware_id_of(certificate, signer, product)?,
            csp: csp_of(certificate, signer)?,
        })
    }

    /// Whether a certificate says that its key signed such reports, of this chip at this TCB. Nothing is
    /// verified: this only picks one certificate of many.
    pub(super) fn seems_for(certificate: &Certificate, body: &Body) -> bool {
        let read = || -> Result<bool, Inauthentic> {
            let signer = signer_of(certificate)?;
            let product = product_of(certificate, signer)?;
            let key = Self {
                signer,
                product,
                tcb: tcb_of(certificate, product)?,
                hardware_id: hardware_id_of(certificate, signer, product)?,
                csp: csp_of(certificate, signer)?,
            };
            key.check_signer(body)?;
            key.check_product(body)?;
            key.check_tcb(&SnpTcb::read("reported tcb", product, body.reported_tcb)?)?;
            key.check_chip(&body.chip_id)?;
            Ok(true)
        };
        read().unwrap_or(false)
    }

    /// The report, the key's certificate and its issuer must name one kind of signer.
    pub(super) fn check_signer(&self, body: &Body) -> Result<(), Inauthentic> {
        const MASK_CHIP_KEY: u32 = 1 << 1;
        let report = match (body.key_info >> 2) & 0b111 {
            0 => Signer::Vcek,
            1 => Signer::Vlek,
            _ => return Err(Inauthentic::NotSigned),
        };
        if report != self.signer {
            return Err(Inauthentic::SignerKind { report, certificate: self.signer });
        }
        // Masked, the chip signs nothing: such a report cannot come from a VCEK.
        if report == Signer::Vcek && body.key_info & MASK_CHIP_KEY != 0 {
            return Err(Inauthentic::NotSigned);
        }
        Ok(())
    }

    /// From version 3 on the report says which processor it is; the certificates must agree.
    pub(super) fn check_product(&self, body: &Body) -> Result<(), Inauthentic> {
        if body.version < 3 {
            return Ok(());
        }
        let (family, model) = (body.cpuid_family, body.cpuid_model);
        let report = Product::of_cpu(family, model).ok_or(Inauthentic::Cpu { family, model })?;
        if report == self.product {
            Ok(())
        } else {
            Err(Inauthentic::Product { report, certificates: self.product })
        }
    }

    /// Equality, with the TCB that the report *claims*: another one has another key.
    pub(super) fn check_tcb(&self, reported: &SnpTcb) -> Result<(), Inauthentic> {
        let pairs = reported.components().into_iter().zip(self.tcb.components());
        for ((component, report), (_, certificate)) in pairs {
            if report != certificate {
                return Err(Inauthentic::Tcb { component, report, certificate });
            }
        }
        Ok(())
    }

    pub(super) fn check_chip(&self, chip_id: &[u8; 64]) -> Result<(), Inauthentic> {
        let Some(hardware_id) = &self.hardware_id else {
            return Ok(());
        };
        let (head, tail) =
            chip_id.split_at_checked(hardware_id.len()).ok_or(Inauthentic::ChipId)?;
        // A hidden chip id is all zero and names no chip.
        let hidden = head.iter().all(|byte| *byte == 0);
        if head == hardware_id && tail.iter().all(|byte| *byte == 0) && !hidden {
            Ok(())
        } else {
            Err(Inauthentic::ChipId)
        }
    }
}

fn signer_of(certificate: &Certificate) -> Result<Signer, Inauthentic> {
    let name = certificate.common_name();
    [Signer::Vcek, Signer::Vlek]
        .into_iter()
        .find(|signer| name.as_deref() == Some(signer.subject()))
        .ok_or(Inauthentic::Unusable {
            role: Role::Key,
            problem: "is of neither a vcek nor a vlek",
        })
}

/// The product, from the issuer's name and from the certificate's own extension.
fn product_of(certificate: &Certificate, signer: Signer) -> Result<Product, Inauthentic> {
    let issuer = common_name(&certificate.issuer).unwrap_or_default();
    let product = Product::ALL
        .into_iter()
        .find(|product| issuer.strip_prefix(signer.issuer_prefix()) == Some(product.name()))
        .ok_or(Inauthentic::Issuer { role: Role::Key })?;
    let name = "productName";
    // IA5String: the product, or the product and its stepping, as in "Milan-B0".
    let value = certificate.extension(PRODUCT_NAME).ok_or(extension(name, "is missing"))?;
    let text = ia5(value).ok_or(extension(name, "is not an IA5String"))?;
    match text.strip_prefix(product.name()) {
        Some("") => Ok(product),
        Some(stepping) if stepping.starts_with('-') => Ok(product),
        _ => Err(extension(name, "is of another product than the issuer")),
    }
}

fn tcb_of(certificate: &Certificate, product: Product) -> Result<SnpTcb, Inauthentic> {
    let number = |id, name| match certificate.extension(id) {
        Some(value) => uint8(value).ok_or(extension(name, "is not an INTEGER from 0 to 255")),
        None => Err(extension(name, "is missing")),
    };
    if number(STRUCT_VERSION, "structVersion")? > 1 {
        return Err(extension("structVersion", "is not known"));
    }
    for (id, name) in [(SPL_4, "spl_4"), (SPL_5, "spl_5"), (SPL_6, "spl_6"), (SPL_7, "spl_7")] {
        if certificate.extension(id).is_some_and(|value| value != [0x02, 0x01, 0x00]) {
            return Err(extension(name, "is reserved and not zero"));
        }
    }
    let fmc = match product {
        Product::Turin => number(SPL_FMC, "fmcSPL")?,
        _ if certificate.extension(SPL_FMC).is_some() => {
            return Err(extension("fmcSPL", "is not of this product"));
        }
        _ => 0,
    };
    Ok(SnpTcb {
        fmc,
        bootloader: number(SPL_BOOTLOADER, "blSPL")?,
        tee: number(SPL_TEE, "teeSPL")?,
        snp: number(SPL_SNP, "snpSPL")?,
        microcode: number(SPL_MICROCODE, "ucodeSPL")?,
    })
}

/// The raw bytes of the hardware id: 64, on Turin 8. A VLEK has none.
fn hardware_id_of(
    certificate: &Certificate,
    signer: Signer,
    product: Product,
) -> Result<Option<Vec<u8>>, Inauthentic> {
    let len = if product == Product::Turin { 8 } else { 64 };
    match (signer, certificate.extension(HARDWARE_ID)) {
        (Signer::Vcek, Some(id)) if id.len() == len => Ok(Some(id.to_vec())),
        (Signer::Vcek, Some(_)) => Err(extension("hwID", "has another length")),
        (Signer::Vcek, None) => Err(extension("hwID", "is missing")),
        (Signer::Vlek, Some(_)) => Err(extension("hwID", "is not of a vlek")),
        (Signer::Vlek, None) => Ok(None),
    }
}

fn csp_of(certificate: &Certificate, signer: Signer) -> Result<Option<String>, Inauthentic> {
    match (signer, certificate.extension(CSP_ID)) {
        (Signer::Vcek, None) => Ok(None),
        (Signer::Vcek, Some(_)) => Err(extension("cspID", "is not of a vcek")),
        (Signer::Vlek, Some(value)) => match ia5(value) {
            Some(text) => Ok(Some(text.into())),
            None => Err(extension("cspID", "is not an IA5String")),
        },
        (Signer::Vlek, None) => Err(extension("cspID", "is missing")),
    }
}

fn extension(extension: &'static str, problem: &'static str) -> Inauthentic {
    Inauthentic::Extension { role: Role::Key, extension, problem }
}

/// A DER INTEGER from 0 to 255, in its only encoding.
fn uint8(der: &[u8]) -> Option<u8> {
    match der {
        [0x02, 0x01, value @ 0..=0x7f] | [0x02, 0x02, 0x00, value @ 0x80..=0xff] => Some(*value),
        _ => None,
    }
}

/// A DER IA5String of less than 128 characters.
fn ia5(der: &[u8]) -> Option<&str> {
    match der {
        [0x16, len @ 0..=0x7f, text @ ..] if usize::from(*len) == text.len() && text.is_ascii() => {
            core::str::from_utf8(text).ok()
        }
        _ => None,
    }
}
