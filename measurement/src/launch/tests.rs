//! One small firmware of our own, with both kinds of metadata, and what it is tested against.
#![allow(clippy::as_conversions)]

mod changes;
mod image;
mod refusals;
mod vectors;

use super::snp::{Firmware, KernelHashes};
use super::tdx::{Acpi, Event, PageOrder, Rtmr};
use super::*;
use crate::digest::sha384;
use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

const SEV: usize = 0x2800;
const TDVF: usize = 0x2a00;
const SEV_SECTIONS: [(u32, u32, u32); 5] = [
    (0x80_0000, 0x2000, 1),
    (0x80_2000, 0x1000, 2),
    (0x80_3000, 0x1000, 3),
    (0x80_4000, 0x1000, 4),
    (0x81_0000, 0x1000, 0x10),
];
const TDVF_SECTIONS: [(u32, u32, u64, u64, u32, u32); 4] = [
    (0x1000, 0x2000, 0xffff_e000, 0x2000, 0, 1),
    (0, 0x1000, 0xffff_d000, 0x1000, 1, 0),
    (0, 0, 0x80_9000, 0x2000, 2, 0),
    (0, 0, 0x80_0000, 0x6000, 3, 0),
];

fn put(bytes: &mut [u8], at: usize, part: &[u8]) {
    bytes[at..at + part.len()].copy_from_slice(part);
}

fn entry(guid: &str, data: &[u8]) -> Vec<u8> {
    let mut entry = data.to_vec();
    entry.extend((data.len() as u16 + 18).to_le_bytes());
    let hex: Vec<u8> = hex::decode(guid.replace('-', "")).unwrap();
    for range in [0..4, 4..6, 6..8] {
        entry.extend(hex[range].iter().rev());
    }
    entry.extend(&hex[8..]);
    entry
}

fn firmware() -> Vec<u8> {
    let mut image: Vec<u8> = varstore::tests::volume(0x1000, &[]);
    image.extend((0..0x2000u32).map(|at| ((at * 7) >> 3) as u8));
    put(&mut image, SEV, b"ASEV");
    for (at, word) in [(4, 16 + 12 * 5), (8, 1), (12, 5u32)] {
        put(&mut image, SEV + at, &word.to_le_bytes());
    }
    for (index, (gpa, size, kind)) in SEV_SECTIONS.into_iter().enumerate() {
        let record = [gpa, size, kind].map(u32::to_le_bytes).concat();
        put(&mut image, SEV + 16 + 12 * index, &record);
    }
    put(&mut image, TDVF, b"TDVF");
    for (at, word) in [(4, 16 + 32 * 4), (8, 1), (12, 4u32)] {
        put(&mut image, TDVF + at, &word.to_le_bytes());
    }
    for (index, (data, raw, gpa, size, kind, flags)) in TDVF_SECTIONS.into_iter().enumerate() {
        let mut record = [data, raw].map(u32::to_le_bytes).concat();
        record.extend([gpa, size].map(u64::to_le_bytes).concat());
        record.extend([kind, flags].map(u32::to_le_bytes).concat());
        put(&mut image, TDVF + 16 + 32 * index, &record);
    }
    let length = image.len();
    let mut table = [
        entry("00f771de-1a7e-4fcb-890e-68c77e2fb44e", &0x0080_b004u32.to_le_bytes()),
        entry("7255371f-3a3b-4b04-927b-1da6efa8d454", &[0, 12, 0x81, 0, 0, 4, 0, 0]),
        entry("dc886566-984a-4798-a75e-5585a7bf67cc", &((length - SEV) as u32).to_le_bytes()),
        entry("e47a6535-984a-4798-865e-4685a7bf8ec2", &((length - TDVF) as u32).to_le_bytes()),
    ]
    .concat();
    let footer = entry("96b582de-1fb2-45f7-baea-a366c55a082d", &[]);
    table.extend((table.len() as u16 + 18).to_le_bytes());
    table.extend(&footer[2..]);
    put(&mut image, length - 32 - table.len(), &table);
    image
}

struct Golden {
    firmware: Vec<u8>,
    kernel: Vec<u8>,
    initrd: Vec<u8>,
    cmdline: String,
}

impl Golden {
    fn new() -> Self {
        Self {
            firmware: firmware(),
            kernel: pe::tests::golden(),
            initrd: b"initrd".to_vec(),
            cmdline: "console=hvc0 quiet".to_owned(),
        }
    }

    fn parts(&self) -> Parts<'_> {
        Parts {
            firmware: &self.firmware,
            kernel: &self.kernel,
            initrd: &self.initrd,
            cmdline: &self.cmdline,
        }
    }

    fn snp(&self) -> Result<[u8; 48], LaunchError> {
        snp::launch_digest(&self.parts(), &snp_shape())
    }

    fn tdx(&self) -> Result<tdx::Registers, LaunchError> {
        tdx::registers(&self.parts(), &tdx_shape())
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

fn event(events: &[Event], name: &str) -> [u8; 48] {
    events.iter().find(|event| event.name == name).unwrap().digest
}

fn snp_shape() -> snp::Shape {
    snp::Shape { vcpus: 2, cpu: "EPYC-Genoa".parse().unwrap(), guest_features: 1 }
}

fn acpi() -> Acpi {
    Acpi { loader: Octets([1; 48]), rsdp: Octets([2; 48]), tables: Octets([3; 48]) }
}

fn tdx_shape() -> tdx::Shape {
    tdx::Shape { memory_mib: 1024, page_order: PageOrder::SinglePass, acpi: acpi() }
}
