//! Against other people's tools and real machines.

extern crate std;

use super::*;
use serde::Deserialize;
use std::path::PathBuf;

fn vector(path: &str) -> Option<Vec<u8>> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/vectors/cpu");
    let file = PathBuf::from(root).join(path);
    match std::fs::read(&file) {
        Ok(bytes) => Some(bytes),
        Err(error) if std::env::var_os("CI").is_some_and(|ci| ci == "true") => {
            panic!("{}: {error}", file.display())
        }
        Err(_) => {
            std::eprintln!("skipped: {} is missing", file.display());
            None
        }
    }
}

#[derive(Deserialize)]
struct SnpVectors {
    #[serde(rename = "ovmf_hash_AmdSev")]
    ovmf_hash: Octets<48>,
    cases: Vec<SnpCase>,
}

#[derive(Deserialize)]
struct SnpCase {
    id: String,
    vcpus: u32,
    vcpu_type: Option<String>,
    vcpu_sig: Option<u32>,
    ovmf: String,
    kernel: Option<String>,
    initrd: Option<String>,
    append: Option<String>,
    guest_features: u64,
    vmm: String,
    launch_digest: Option<Octets<48>>,
}

fn blob_of(name: Option<&str>) -> Vec<u8> {
    match name {
        None | Some("empty") => Vec::new(),
        Some(name) => vector(&format!("launch/{name}")).unwrap(),
    }
}

#[test]
fn snp_digests_equal_all_qemu_vectors() {
    let Some(json) = vector("launch/snp_launch_digests.json") else { return };
    let vectors: SnpVectors = serde_json::from_slice(&json).unwrap();
    let tail = vector("launch/ovmf_AmdSev_suffix.bin").unwrap();
    assert_eq!(Firmware::parse(&tail).unwrap().digest, vectors.ovmf_hash.0);
    let mut judged = 0;
    // Left out: two cases of loaders that this product does not launch on.
    for case in vectors.cases.iter().filter(|case| case.vmm == "qemu") {
        let cpu: CpuModel = case.vcpu_type.as_deref().unwrap().parse().unwrap();
        assert_eq!(Some(cpu.signature()), case.vcpu_sig, "{}", case.id);
        let shape = snp::Shape { vcpus: case.vcpus, cpu, guest_features: case.guest_features };
        let firmware = vector(&format!("launch/{}", case.ovmf)).unwrap();
        let kernel = blob_of(case.kernel.as_deref());
        let initrd = blob_of(case.initrd.as_deref());
        let digest = match (&case.kernel, &case.append) {
            (Some(_), Some(cmdline)) => {
                let parts =
                    Parts { firmware: &firmware, kernel: &kernel, initrd: &initrd, cmdline };
                snp::launch_digest(&parts, &shape)
            }
            _ => Firmware::parse(&firmware).unwrap().launch_digest(None, &shape),
        };
        let expected = case.launch_digest.map(|digest| digest.0);
        assert_eq!(digest, expected.ok_or(LaunchError::HashTableMissing), "{}", case.id);
        judged += 1;
    }
    assert_eq!(judged, 23);
}

#[derive(Deserialize)]
struct Dstack {
    ovmf_sections: Vec<DstackSection>,
    base_cmdline: String,
    ovmf_hash: Octets<48>,
    kernel_hash: Octets<32>,
    initrd_hash: Octets<32>,
    sev_hashes_table_gpa: u32,
    sev_es_reset_eip: u32,
    vcpus: u32,
    vcpu_type: String,
    guest_features: u64,
}

#[derive(Deserialize)]
struct DstackSection {
    gpa: u32,
    size: u32,
    section_type: u32,
}

#[test]
fn snp_digest_equals_the_report_of_a_real_guest() {
    let Some(json) = vector("launch/dstack_snp_measurement_input.json") else { return };
    let input: Dstack = serde_json::from_slice(&json).unwrap();
    let sections = input.ovmf_sections.iter().map(|section| SevSection {
        gpa: section.gpa,
        size: section.size,
        kind: SevSectionKind::from_code(section.section_type).unwrap(),
    });
    let firmware = Firmware {
        digest: input.ovmf_hash.0,
        sections: sections.collect(),
        hash_table_gpa: Some(input.sev_hashes_table_gpa),
        reset_eip: Some(input.sev_es_reset_eip),
    };
    let hashes = KernelHashes {
        kernel: input.kernel_hash.0,
        initrd: input.initrd_hash.0,
        cmdline: KernelHashes::cmdline(&input.base_cmdline),
    };
    let cpu = input.vcpu_type.parse().unwrap();
    let shape = snp::Shape { vcpus: input.vcpus, cpu, guest_features: input.guest_features };
    let digest = firmware.launch_digest(Some(&hashes), &shape).unwrap();
    let report = vector("snp/reports/milan-v3-launch/report.bin").unwrap();
    assert_eq!(digest, report[0x90..0xc0]);
}

#[derive(Deserialize)]
struct TdxVectors {
    mrtd_two_pass: Octets<48>,
    mrtd_single_pass: Octets<48>,
    cfv_sha384: [Octets<48>; 1],
    td_hob: std::collections::BTreeMap<String, Octets<48>>,
}

#[test]
fn tdx_measurements_equal_the_vectors() {
    let Some(json) = vector("launch/tdx_measurements.json") else { return };
    let vectors: TdxVectors = serde_json::from_slice(&json).unwrap();
    let golden = Golden::new().with(|g| g.firmware = vector("launch/OVMF.inteltdx.fd").unwrap());
    let mrtd = |order| tdx::mrtd(&golden.firmware, order).map(Octets);
    assert_eq!(mrtd(PageOrder::TwoPass), Ok(vectors.mrtd_two_pass));
    assert_eq!(mrtd(PageOrder::SinglePass), Ok(vectors.mrtd_single_pass));
    for (gib, expected) in vectors.td_hob {
        let shape = tdx::Shape { memory_mib: gib.parse::<u32>().unwrap() * 1024, ..tdx_shape() };
        let events = tdx::events(&golden.parts(), &shape).unwrap();
        assert_eq!(event(&events, "memory layout"), expected.0, "{gib} GiB");
        assert_eq!(event(&events, "configuration volume"), vectors.cfv_sha384[0].0);
    }
}

/// Digests of a real event log: MR index, digest, in order.
fn log(bytes: &[u8]) -> Vec<(u32, [u8; 48])> {
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let mut at = 32 + word(28) as usize;
    let mut events = Vec::new();
    while !matches!(word(at), 0 | u32::MAX) {
        assert_eq!(word(at + 8), 1, "one digest per event");
        events.push((word(at), bytes[at + 14..at + 62].try_into().unwrap()));
        at += 66 + word(at + 62) as usize;
    }
    events
}

/// The recorded logs come from another firmware, kernel and machine, so five digests per log are
/// theirs; all the others are what this model computes, in the same registers and the same order.
#[test]
fn tdx_events_are_those_of_real_logs() {
    let theirs =
        ["memory layout", "configuration volume", "kernel", "command line", "initial ram disk"];
    for (file, of_register_2) in [("ccel/attrs-live.ccel.bin", 2), ("ccel/dstack.ccel.bin", 0)] {
        let Some(bytes) = vector(file) else { return };
        let log = log(&bytes);
        let of = |mr| log.iter().filter(move |(index, _)| *index == mr).map(|(_, digest)| *digest);
        let acpi: Vec<_> = of(1).skip(8).take(3).map(Octets).collect();
        let acpi = Acpi { loader: acpi[0], rsdp: acpi[1], tables: acpi[2] };
        let shape = tdx::Shape { acpi, ..tdx_shape() };
        let events = tdx::events(&Golden::new().parts(), &shape).unwrap();
        for (mr, register) in [(1, Rtmr::Rtmr0), (2, Rtmr::Rtmr1)] {
            let ours: Vec<_> = events.iter().filter(|event| event.register == register).collect();
            assert_eq!(ours.len(), of(mr).count(), "{file}");
            for (event, digest) in ours.iter().zip(of(mr)) {
                assert!(theirs.contains(&event.name) || event.digest == digest, "{}", event.name);
            }
        }
        assert_eq!(of(3).count(), of_register_2, "{file}");
    }
}

#[test]
fn tdx_registers_replay_like_a_real_log() {
    let Some(bytes) = vector("ccel/attrs-live.ccel.bin") else { return };
    let expected = vector("ccel/expected_replay.json").unwrap();
    let expected: serde_json::Value = serde_json::from_slice(&expected).unwrap();
    for mr in 1..=3 {
        let own = log(&bytes).into_iter().filter(|(index, _)| *index == mr);
        let value = own.fold([0; 48], |value, (_, digest)| sha384(&[value, digest].concat()));
        let expected = &expected["attrs-live"]["replay"][format!("mr{mr}")];
        assert_eq!(Octets(value).to_string(), expected.as_str().unwrap());
    }
}
