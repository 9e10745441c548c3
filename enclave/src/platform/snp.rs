//! AMD SEV-SNP: configfs-tsm first, then the guest device's ioctl (crate `sev`).

use measurement::cbor::Blob;
use measurement::manifest::Tee;
use measurement::receipt::CpuEvidence;
use sev::firmware::guest::Firmware;

use super::{Platform, PlatformError, system, tsm};
use crate::pipe::Pipe;

const DEVICE: &str = "/dev/sev-guest";
/// The level with all rights, at which this program runs.
const VMPL: u8 = 0;
/// Bytes of a row of the certificate table: a GUID, an offset and a length (GHCB §4.1.8.1).
const ROW: usize = 24;

/// An SNP guest.
pub struct Snp;

impl Platform for Snp {
    fn tee(&self) -> Tee {
        Tee::Snp
    }

    fn evidence(&mut self, report_data: &[u8; 64]) -> Result<CpuEvidence, PlatformError> {
        let (report, certificates) = if tsm::present() {
            let report = tsm::report("sev_guest", Some(VMPL), report_data)?;
            (report.outblob, certificate_table(&report.auxblob))
        } else {
            ioctl(report_data)?
        };
        let endorsements = certificates.into_iter().map(Blob).collect();
        Ok(CpuEvidence { endorsements, report: Blob(report), tee: Tee::Snp })
    }

    fn pipe(&mut self, name: &str) -> Result<Box<dyn Pipe>, PlatformError> {
        system::port(name)
    }
}

fn ioctl(report_data: &[u8; 64]) -> Result<(Vec<u8>, Vec<Vec<u8>>), PlatformError> {
    let mut firmware = Firmware::open().map_err(PlatformError::device(DEVICE))?;
    let (report, table) = firmware
        .get_ext_report(None, Some(*report_data), Some(VMPL.into()))
        .map_err(|_| PlatformError::Answer { device: DEVICE, observed: "no report" })?;
    let certificates = table.unwrap_or_default().into_iter().map(|entry| entry.data).collect();
    Ok((report, certificates))
}

/// The certificates of a table the host gave: what does not lie inside the table is left out.
fn certificate_table(table: &[u8]) -> Vec<Vec<u8>> {
    let (rows, _) = table.as_chunks::<ROW>();
    let certificate = |row: &[u8; ROW]| {
        let offset = number(row.get(16..20)?)?;
        let length = number(row.get(20..24)?)?;
        Some(table.get(offset..offset.checked_add(length)?)?.to_vec())
    };
    rows.iter()
        .take_while(|row| row.iter().any(|byte| *byte != 0))
        .filter_map(certificate)
        .collect()
}

fn number(bytes: &[u8]) -> Option<usize> {
    usize::try_from(u32::from_le_bytes(bytes.try_into().ok()?)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: &[(u32, u32)], tail: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (offset, length) in rows {
            bytes.extend([1; 16]);
            bytes.extend(offset.to_le_bytes());
            bytes.extend(length.to_le_bytes());
        }
        bytes.extend([0; ROW]);
        bytes.extend(tail);
        bytes
    }

    #[test]
    fn reads_the_certificates_of_a_table() {
        let bytes = table(&[(72, 2), (74, 3)], b"abcde");
        assert_eq!(certificate_table(&bytes), [b"ab".to_vec(), b"cde".to_vec()]);
    }

    #[test]
    fn leaves_out_what_lies_outside_the_table_and_never_panics() {
        assert!(certificate_table(&table(&[(u32::MAX, u32::MAX)], b"")).is_empty());
        let bytes = table(&[(48, 5)], b"abcde");
        for end in 0..bytes.len() {
            certificate_table(&bytes[..end]);
        }
    }
}
