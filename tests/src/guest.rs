//! The simulated guest: a platform for the enclave's own job, whose hardware is [`crate::sim`].
//!
//! Production binaries do not know this type. In a virtual machine its pipes are virtio-serial
//! ports; in a process they are the same three sockets, which QEMU would have connected to.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use attestation_verifier::evidence::Evidence;
use attestation_verifier::pin::measured;
use enclave::pipe::Pipe;
use enclave::platform::{Platform, PlatformError, system};
use measurement::carrier::{HOST_PORT, RELAY_PORT};
use measurement::cbor::Blob;
use measurement::manifest::Tee;
use measurement::receipt::CpuEvidence;

use crate::sim;

/// The port to the simulated security processor.
pub const PROCESSOR_PORT: &str = "cloister.asp";

/// Where the pipes are.
pub enum Wires {
    /// virtio-serial ports of a virtual machine.
    Ports,
    /// Sockets in a folder.
    Sockets(PathBuf),
}

impl Wires {
    fn open(&self, name: &str) -> Result<Box<dyn Pipe>, PlatformError> {
        let Self::Sockets(folder) = self else {
            return system::port(name);
        };
        let file = match name {
            HOST_PORT => "host.sock",
            RELAY_PORT => "relay.sock",
            _ => "asp.sock",
        };
        let stream = UnixStream::connect(folder.join(file));
        Ok(Box::new(stream.map_err(|source| PlatformError::Device { device: "socket", source })?))
    }
}

/// A guest whose evidence says SIMULATED, because its roots are.
pub struct Guest {
    wires: Wires,
    processor: Box<dyn Pipe>,
    tee: Tee,
}

impl Guest {
    /// Connects to the simulated security processor and learns from its first report what it
    /// simulates.
    pub fn new(wires: Wires) -> Result<Self, PlatformError> {
        let mut processor = wires.open(PROCESSOR_PORT)?;
        let (report, _) = ask(&mut processor, &[0; 64])?;
        let snp = measured(&Evidence { tee: Tee::Snp, report: &report }).is_ok();
        let tee = if snp { Tee::Snp } else { Tee::Tdx };
        Ok(Self { wires, processor, tee })
    }
}

fn ask(
    processor: &mut Box<dyn Pipe>,
    report_data: &[u8; 64],
) -> Result<(Vec<u8>, Vec<Vec<u8>>), PlatformError> {
    sim::ask(processor, report_data).map_err(|error| PlatformError::Device {
        device: PROCESSOR_PORT,
        source: io::Error::other(error),
    })
}

impl Platform for Guest {
    fn tee(&self) -> Tee {
        self.tee
    }

    fn evidence(&mut self, report_data: &[u8; 64]) -> Result<CpuEvidence, PlatformError> {
        let (report, endorsements) = ask(&mut self.processor, report_data)?;
        let endorsements = endorsements.into_iter().map(Blob).collect();
        Ok(CpuEvidence { endorsements, report: Blob(report), tee: self.tee })
    }

    fn pipe(&mut self, name: &str) -> Result<Box<dyn Pipe>, PlatformError> {
        self.wires.open(name)
    }
}
