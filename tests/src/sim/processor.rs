//! The simulated security processor: measures what is launched, then answers the guest.

use crate::sim::certificate::Span;
use crate::sim::collateral::Collateral;
use crate::sim::root::{Amd, Root};
use crate::sim::{snp, tdx};
use anyhow::{Context, Result};
use measurement::launch::{Image, Measured, Parts, blob};
use measurement::manifest::Tee;
use std::fs;
use std::path::Path;
use std::sync::Arc;

/// A report and what a verifier needs to judge it.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// Which hardware.
    pub tee: Tee,
    /// Report (1184 bytes) or quote.
    pub report: Vec<u8>,
    /// SNP: VCEK, ASK, ARK and the ARK's revocation list, DER. TDX: one collateral, JSON.
    pub endorsements: Vec<Vec<u8>>,
}

/// One launched guest, seen from its security processor.
pub struct Processor {
    root: Arc<Root>,
    measured: Measured,
    guest: Guest,
    endorsements: Vec<Vec<u8>>,
}

enum Guest {
    Snp(snp::Version, snp::Guest),
    Tdx(tdx::Guest),
}

impl Processor {
    /// Launches the image in `folder` with `launch_blob`, and measures both. The endorsements are
    /// those of the time `now`, in seconds since 1970; `version` is the report's, for SNP.
    pub fn launch(
        folder: &Path,
        launch_blob: &[u8],
        root: impl Into<Arc<Root>>,
        version: snp::Version,
        now: u64,
    ) -> Result<Self> {
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let (firmware, kernel, initrd) = (read("firmware.fd")?, read("kernel")?, read("initrd")?);
        let cmdline = String::from_utf8(read("cmdline")?).context("the command line is no text")?;
        let image: Image =
            serde_json::from_slice(&read("image.json")?).context("cannot understand image.json")?;
        let parts =
            Parts { firmware: &firmware, kernel: &kernel, initrd: &initrd, cmdline: &cmdline };
        Ok(Self::launched(image.measure(&parts)?, launch_blob, root, version, now))
    }

    /// The processor of a guest that was measured already.
    pub fn launched(
        measured: Measured,
        launch_blob: &[u8],
        root: impl Into<Arc<Root>>,
        version: snp::Version,
        now: u64,
    ) -> Self {
        let root = root.into();
        let (guest, endorsements) = match &measured {
            Measured::Snp { launch_digest } => {
                let guest = snp::Guest::launched(launch_digest.0, blob::host_data(launch_blob));
                (Guest::Snp(version, guest), root.amd.endorsements(now))
            }
            Measured::Tdx { mrtd, rtmr0, rtmr1, rtmr2 } => {
                let guest = tdx::Guest {
                    mrtd: mrtd.0,
                    rtmr: [rtmr0.0, rtmr1.0, rtmr2.0, [0; 48]],
                    mr_config_id: blob::mr_config_id(launch_blob),
                };
                (Guest::Tdx(guest), vec![Collateral::new(&root.intel, now).sign()])
            }
        };
        Self { root, measured, guest, endorsements }
    }

    /// What was measured at launch.
    pub fn measured(&self) -> &Measured {
        &self.measured
    }

    /// Reports on the guest, with the 64 bytes it chose.
    pub fn report(&self, report_data: &[u8; 64]) -> Evidence {
        let (tee, report) = match &self.guest {
            Guest::Snp(version, guest) => {
                let amd = &self.root.amd;
                (Tee::Snp, snp::Report::new(*version, amd, guest, report_data).sign(amd))
            }
            Guest::Tdx(guest) => {
                let intel = &self.root.intel;
                (Tee::Tdx, tdx::Quote::new(intel, guest, report_data).sign(intel))
            }
        };
        Evidence { tee, report, endorsements: self.endorsements.clone() }
    }
}

impl Amd {
    /// VCEK, ASK, ARK and a revocation list that revokes nothing, fresh at `now`.
    pub fn endorsements(&self, now: u64) -> Vec<Vec<u8>> {
        vec![
            self.vcek_certificate.clone(),
            self.ask_certificate.clone(),
            self.ark_certificate.clone(),
            self.revocation_list(Span::around(now, 30), &[]),
        ]
    }
}
