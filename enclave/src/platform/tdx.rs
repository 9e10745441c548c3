//! Intel TDX: quotes by configfs-tsm, cross-checked with the TDREPORT of the guest device.
//!
//! The crate `tdx_attest` gets the TDREPORT. It panics without a device, so it is called behind a
//! check that the device is there; its quote call works on no supported kernel and is not called.

use std::path::Path;

use attestation_verifier::evidence::unpadded;
use base64ct::{Base64, Encoding as _};
use measurement::cbor::Blob;
use measurement::manifest::Tee;
use measurement::receipt::CpuEvidence;

use super::{Platform, PlatformError, system, tsm};
use crate::pipe::Pipe;

const DEVICE: &str = "/dev/tdx_guest";
/// Bytes of a TDREPORT (TDX module specification, TDREPORT_STRUCT).
const TD_REPORT: usize = 1024;
/// MRTD in a TDREPORT, and in a quote of version 4.
const MRTD_IN_REPORT: usize = 528;
const MRTD_IN_QUOTE: usize = 48 + 136;
const REGISTER: usize = 48;

/// A TDX guest.
pub struct Tdx;

impl Platform for Tdx {
    fn tee(&self) -> Tee {
        Tee::Tdx
    }

    fn evidence(&mut self, report_data: &[u8; 64]) -> Result<CpuEvidence, PlatformError> {
        let padded = tsm::report("tdx_guest", None, report_data)?.outblob;
        let quote = unpadded(&padded)
            .map_err(|_| PlatformError::Answer { device: DEVICE, observed: "no quote" })?;
        cross_check(quote, report_data)?;
        let report = Blob::from(quote);
        Ok(CpuEvidence { endorsements: Vec::new(), report, tee: Tee::Tdx })
    }

    fn pipe(&mut self, name: &str) -> Result<Box<dyn Pipe>, PlatformError> {
        system::port(name)
    }
}

/// A quote passes through the host. The TDREPORT comes from the module itself: where the device is
/// there, both must name the same build of the TD.
fn cross_check(quote: &[u8], report_data: &[u8; 64]) -> Result<(), PlatformError> {
    if !Path::new(DEVICE).exists() {
        return Ok(());
    }
    let report = tdx_attest::get_td_report(Base64::encode_string(report_data))
        .map_err(|_| PlatformError::Answer { device: DEVICE, observed: "no TDREPORT" })?;
    if report.len() != TD_REPORT {
        return Err(PlatformError::Answer { device: DEVICE, observed: "a short TDREPORT" });
    }
    let version_4 = quote.first() == Some(&4);
    let ours = report.get(MRTD_IN_REPORT..MRTD_IN_REPORT + REGISTER);
    let quoted = quote.get(MRTD_IN_QUOTE..MRTD_IN_QUOTE + REGISTER);
    if version_4 && ours != quoted {
        return Err(PlatformError::Answer { device: DEVICE, observed: "another TD's quote" });
    }
    Ok(())
}
