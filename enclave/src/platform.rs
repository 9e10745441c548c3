//! The hardware the job runs on, as far as the job needs to know it.
//!
//! The job is written against [`Platform`]. The genuine ones are [`snp::Snp`] and [`tdx::Tdx`];
//! nothing else lives in this crate.

use measurement::manifest::Tee;
use measurement::receipt::CpuEvidence;

use crate::pipe::Pipe;

pub mod snp;
pub mod system;
pub mod tdx;
pub mod tsm;

/// Why a platform gives no evidence or no pipe. Stays inside.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlatformError {
    /// The device answered something that cannot be its answer.
    #[error("{device} answered {observed}")]
    Answer {
        /// Which device.
        device: &'static str,
        /// What is wrong with the answer.
        observed: &'static str,
    },
    /// The device is not there or refused.
    #[error("{device}: {source}")]
    Device {
        /// Which device.
        device: &'static str,
        /// Why.
        source: std::io::Error,
    },
}

impl PlatformError {
    pub(crate) fn device(device: &'static str) -> impl Fn(std::io::Error) -> Self {
        move |source| Self::Device { device, source }
    }
}

/// A machine that can prove what it runs.
pub trait Platform {
    /// The kind of its evidence.
    fn tee(&self) -> Tee;

    /// Evidence over `report_data`, with the endorsements the machine has at hand.
    ///
    /// # Errors
    /// [`PlatformError`].
    fn evidence(&mut self, report_data: &[u8; 64]) -> Result<CpuEvidence, PlatformError>;

    /// The pipe with this name, see `measurement::carrier`.
    ///
    /// # Errors
    /// [`PlatformError`].
    fn pipe(&mut self, name: &str) -> Result<Box<dyn Pipe>, PlatformError>;
}
