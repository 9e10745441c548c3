//! Launch measurement.

use serde::{Deserialize, Serialize};

use crate::octets::Octets;

/// What the hardware measures when an image is launched in its shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Measured {
    /// AMD SEV-SNP.
    Snp {
        /// MEASUREMENT of the report.
        launch_digest: Octets<48>,
    },
    /// Intel TDX.
    Tdx {
        /// The build-time register.
        mrtd: Octets<48>,
        /// Firmware configuration.
        rtmr0: Octets<48>,
        /// Kernel.
        rtmr1: Octets<48>,
        /// Command line and initial RAM disk.
        rtmr2: Octets<48>,
    },
}
