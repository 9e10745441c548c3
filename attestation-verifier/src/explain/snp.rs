//! The SNP report in words: SEV-SNP firmware ABI (56860), tables "ATTESTATION_REPORT", "Guest Policy"
//! and "PLATFORM_INFO".

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::{Bit, Field, Page};
use crate::endorsement::amd::{Product, SnpTcb};
use crate::wire::Malformed;
use crate::wire::snp::{Body, Report};

pub(super) fn explain(report: &[u8]) -> Result<Vec<Field>, Malformed> {
    let body = Report::parse(report)?.body;
    let mut page = Page::default();
    head(&mut page, &body);
    // The low 16 bits are the abi version.
    page.bits(0x008, body.policy & !0xffff, GUEST_POLICY);
    makers(&mut page, &body);
    page.bits(0x040, body.platform_info, PLATFORM_INFO);
    binding(&mut page, &body);
    chip(&mut page, &body);
    firmware(&mut page, &body);
    page.add(
        0x2a0,
        "SIGNATURE",
        "ECDSA P-384, 96 bytes",
        "by the key that KEY_INFO names, over everything above; explain does not verify it",
    );
    Ok(page.0)
}

fn head(page: &mut Page, body: &Body) {
    let version = match body.version {
        2 => "names no CPU and no alias check; the strict policy refuses it",
        3 => "names the CPU; carries no mitigation vectors",
        _ => "names the CPU and carries the mitigation vectors",
    };
    page.add(0x000, "VERSION", body.version, version);
    page.add(0x004, "GUEST_SVN", body.guest_svn, "the guest's own version, by its id block");
    let [minor, major, ..] = body.policy.to_le_bytes();
    page.add(
        0x008,
        "POLICY",
        format!("{:#x}, abi {major}.{minor}", body.policy),
        "what the guest's owner demanded at launch; the bits follow",
    );
}

fn makers(page: &mut Page, body: &Body) {
    let named = ("given by the guest's id block", "none given");
    page.digest(0x010, "FAMILY_ID", &body.family_id, named);
    page.digest(0x020, "IMAGE_ID", &body.image_id, named);
    let (value, meaning) = match body.vmpl {
        0 => ("0".to_string(), "asked for by the guest's most privileged software"),
        u32::MAX => ("0xffffffff".to_string(), "asked for by the HOST: never accepted"),
        level => (level.to_string(), "asked for by less privileged software inside the guest"),
    };
    page.add(0x030, "VMPL", value, meaning);
    page.add(0x034, "SIGNATURE_ALGO", body.signature_algorithm, "1 is ECDSA P-384 with SHA-384");
    page.add(0x038, "CURRENT_TCB", tcb(body, body.current_tcb), "what runs now");
    page.add(
        0x040,
        "PLATFORM_INFO",
        format!("{:#x}", body.platform_info),
        "how the machine is set up; the bits follow",
    );
}

fn binding(page: &mut Page, body: &Body) {
    let signer = match (body.key_info >> 2) & 0b111 {
        0 => "signed by this chip's own key (VCEK)",
        1 => "signed by a key lent to a cloud provider (VLEK): no chip can be told from another",
        _ => "signed by no one: worth nothing",
    };
    page.add(0x048, "KEY_INFO", format!("{:#x}", body.key_info), signer);
    page.digest(
        0x050,
        "REPORT_DATA",
        &body.report_data,
        (
            "chosen by the guest: must be the digest of your challenge and of the key you will send to",
            "zero: answers no challenge, so anyone can replay it",
        ),
    );
    page.digest(
        0x090,
        "MEASUREMENT",
        &body.measurement,
        (
            "what was launched: firmware, kernel, command line, CPU shape; compare with `cloister replay`",
            "zero",
        ),
    );
    page.digest(
        0x0c0,
        "HOST_DATA",
        &body.host_data,
        (
            "chosen by the HOST at launch and fixed since: for Cloister the digest of the launch blob",
            "zero: the launch names no job",
        ),
    );
    let key = ("digest of the key that signed the id block", "no id block");
    page.digest(0x0e0, "ID_KEY_DIGEST", &body.id_key_digest, key);
    let author = ("digest of the key that vouches for the id key", "no author key");
    page.digest(0x110, "AUTHOR_KEY_DIGEST", &body.author_key_digest, author);
    let id = ("this launch of this guest, drawn at random", "none");
    page.digest(0x140, "REPORT_ID", &body.report_id, id);
    let (value, meaning) = match body.report_id_ma {
        agent if agent == [0xff; 32] => ("all ones", "no migration agent"),
        _ => ("an agent", "a migration agent is bound: it can move the guest to another machine"),
    };
    page.add(0x160, "REPORT_ID_MA", value, meaning);
    page.add(
        0x180,
        "REPORTED_TCB",
        tcb(body, body.reported_tcb),
        "what the signing key is for: the key's certificate must say the same",
    );
}

fn chip(page: &mut Page, body: &Body) {
    if body.version >= 3 {
        let (family, model) = (body.cpuid_family, body.cpuid_model);
        let product = Product::of_cpu(family, model);
        let value = format!("{family:02x}/{model:02x} stepping {}", body.cpuid_stepping);
        let meaning = match product {
            Some(Product::Milan) => "Milan, whose root seed can be extracted (2026)".to_string(),
            Some(product) => product.to_string(),
            None => "no product that this verifier knows".to_string(),
        };
        page.add(0x188, "CPUID", value, &meaning);
    }
    page.digest(
        0x1a0,
        "CHIP_ID",
        &body.chip_id,
        (
            "this very chip: keep a list of those you know where they stand",
            "hidden: nobody can say which chip this is",
        ),
    );
}

fn firmware(page: &mut Page, body: &Body) {
    page.add(
        0x1e0,
        "COMMITTED_TCB",
        tcb(body, body.committed_tcb),
        "what the machine cannot be rolled back below",
    );
    let version = |major: u8, minor: u8, build: u8| format!("{major}.{minor}.{build}");
    let current = version(body.current_major, body.current_minor, body.current_build);
    let committed = version(body.committed_major, body.committed_minor, body.committed_build);
    let meaning = if current == committed {
        "current and committed are one"
    } else {
        "current is not committed: it can be rolled back"
    };
    page.add(0x1e8, "firmware", format!("current {current}, committed {committed}"), meaning);
    page.add(
        0x1f0,
        "LAUNCH_TCB",
        tcb(body, body.launch_tcb),
        "what ran when the guest was launched; an old one may have weakened it for ever",
    );
    if body.version >= 5 {
        let vectors = [
            (0x1f8, "LAUNCH_MIT_VECTOR", body.launch_mitigations),
            (0x200, "CURRENT_MIT_VECTOR", body.current_mitigations),
        ];
        for (at, name, vector) in vectors {
            let meaning = "mitigations in force; bit 1 is AMD-SB-3020 (RMPocalypse)";
            page.add(at, name, format!("{vector:#x}"), meaning);
        }
    }
}

/// A TCB in the product's layout; in hexadecimal where no product is named.
fn tcb(body: &Body, bytes: [u8; 8]) -> String {
    let product = match body.version {
        2 => Some(Product::Milan),
        _ => Product::of_cpu(body.cpuid_family, body.cpuid_model),
    };
    product
        .and_then(|product| SnpTcb::read("tcb", product, bytes).ok())
        .map_or_else(|| hex::encode(bytes), |tcb| tcb.to_string())
}

const fn bit(number: u32, name: &'static str, set: &'static str, clear: &'static str) -> Bit {
    Bit { number, name, set, clear }
}

const GUEST_POLICY: &[Bit] = &[
    bit(16, "POLICY.SMT", "may run beside another thread of the core", "needs its cores alone"),
    bit(17, "POLICY.RSVD_ONE", "as it must be", "must be set: not a lawful policy"),
    bit(18, "POLICY.MIGRATE_MA", "a migration agent MAY MOVE the guest", "cannot be migrated"),
    bit(19, "POLICY.DEBUG", "the host MAY READ the guest's memory", "no debugging from outside"),
    bit(20, "POLICY.SINGLE_SOCKET", "runs on one socket only", "may use several sockets"),
    bit(21, "POLICY.CXL_ALLOW", "memory on CXL devices is allowed", "no memory on CXL devices"),
    bit(22, "POLICY.MEM_AES_256_XTS", "demands AES-256-XTS", "AES-128 may encrypt memory"),
    bit(23, "POLICY.RAPL_DIS", "demands that power readings are off", "power may be measured"),
    bit(
        24,
        "POLICY.CIPHERTEXT_HIDING",
        "demands that the host cannot read ciphertext",
        "the host may watch ciphertext change",
    ),
    bit(
        25,
        "POLICY.PAGE_SWAP_DISABLE",
        "the host cannot swap the guest's pages",
        "the host may swap the guest's pages, encrypted",
    ),
];

const PLATFORM_INFO: &[Bit] = &[
    bit(0, "PLATFORM_INFO.SMT_EN", "cores run two threads", "cores run one thread"),
    bit(1, "PLATFORM_INFO.TSME_EN", "all memory is encrypted", "only guests are encrypted"),
    bit(2, "PLATFORM_INFO.ECC_EN", "memory corrects errors", "memory corrects no errors"),
    bit(3, "PLATFORM_INFO.RAPL_DIS", "power readings are off", "power can be measured"),
    bit(
        4,
        "PLATFORM_INFO.CIPHERTEXT_HIDING_DRAM_EN",
        "the host cannot read ciphertext",
        "the host can read ciphertext",
    ),
    bit(
        5,
        "PLATFORM_INFO.ALIAS_CHECK_COMPLETE",
        "memory was checked for aliases",
        "memory was NOT checked for aliases (BadRAM)",
    ),
    bit(6, "PLATFORM_INFO.IOMMU", "the IOMMU is set up safely", "nothing is said of the IOMMU"),
    bit(7, "PLATFORM_INFO.TIO_EN", "devices may become part of a guest", "no trusted devices"),
];
