//! The verdict on a whole machine: its processor and its devices, under one session.
//!
//! One nonce chain holds them together: the session gives the devices' nonce, and the processor's
//! report data is over the session and the devices' evidence. So no device's evidence can be
//! exchanged, left out or brought from another session without the processor's report failing.

use measurement::binding::Binding;
use measurement::cbor::Blob;
use measurement::launch::Measured;
use measurement::octets::Octets;
use serde::Serialize;

use super::{AttestationResult, DevicesResult, Expected, ExpectedDevices, Rejection, Verifier};
use crate::cache::Cache;
use crate::evidence::Evidence;
use crate::evidence::device::{DeviceEvidence, set_digest};

/// What a machine sends, and what came with it. None of it is believed.
#[derive(Clone, Copy, Debug)]
pub struct MachineEvidence<'a> {
    /// The processor's report or quote.
    pub processor: Evidence<'a>,
    /// Endorsements of the processor.
    pub processor_endorsements: &'a [&'a [u8]],
    /// GPUs and switches.
    pub devices: &'a [DeviceEvidence],
    /// Endorsements of the devices.
    pub device_endorsements: &'a [&'a [u8]],
}

/// What the evidence of a machine must say to be of use to the one who asks.
#[derive(Clone, Copy, Debug)]
pub struct ExpectedMachine<'a> {
    /// The session that all of it answers.
    pub session: &'a Binding,
    /// The launch blob that holds the manifest.
    pub launch_blob: &'a [u8],
    /// The images that may run.
    pub images: &'a [Measured],
    /// The processors that may run them; none means any.
    pub platforms: &'a [Blob],
    /// How many GPUs there are.
    pub gpus: u8,
    /// How many NVSwitches there are.
    pub switches: u8,
    /// The devices that may be there; none means any.
    pub chips: &'a [Octets<8>],
}

/// The policy's yes to a whole machine. Only [`Verifier::appraise_machine`] and
/// [`Verifier::appraise_machine_with`] make one.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct MachineResult {
    processor: AttestationResult,
    devices: DevicesResult,
}

impl MachineResult {
    /// The processor, and the guest that runs on it.
    pub fn processor(&self) -> &AttestationResult {
        &self.processor
    }

    /// The devices.
    pub fn devices(&self) -> &DevicesResult {
        &self.devices
    }

    /// Whether any part of it was only simulated.
    pub fn simulated(&self) -> bool {
        self.processor.simulated() || self.devices.simulated()
    }
}

impl Verifier {
    /// Judges a processor and its devices as one machine that answers one session, at `now_unix`
    /// (seconds since 1970).
    ///
    /// # Errors
    /// At the first thing that is malformed or inauthentic, the processor's before the devices'; of
    /// what is merely unacceptable, all.
    pub fn appraise_machine(
        &self,
        evidence: &MachineEvidence<'_>,
        expected: &ExpectedMachine<'_>,
        now_unix: u64,
    ) -> Result<MachineResult, Rejection> {
        // A cache of no entries: every endorsement is verified.
        self.appraise_machine_with(&mut Cache::new(0), evidence, expected, now_unix)
    }

    /// [`Verifier::appraise_machine`], which finds in `cache` what it has verified before.
    ///
    /// # Errors
    /// The same.
    pub fn appraise_machine_with(
        &self,
        cache: &mut Cache,
        evidence: &MachineEvidence<'_>,
        expected: &ExpectedMachine<'_>,
        now_unix: u64,
    ) -> Result<MachineResult, Rejection> {
        let set = set_digest(evidence.devices)?;
        let session = expected.session;
        let expected_processor = Expected {
            report_data: &session.report_data(expected.gpus, Some(&set)),
            launch_blob: expected.launch_blob,
            images: expected.images,
            platforms: expected.platforms,
        };
        let expected_devices = ExpectedDevices {
            nonce: &session.gpu_nonce(),
            gpus: expected.gpus.into(),
            switches: expected.switches.into(),
            chips: expected.chips,
        };
        let processor = self.appraise_with(
            cache,
            &evidence.processor,
            evidence.processor_endorsements,
            &expected_processor,
            now_unix,
        );
        let devices = self.appraise_devices_with(
            cache,
            evidence.devices,
            evidence.device_endorsements,
            &expected_devices,
            now_unix,
        );
        match (processor, devices) {
            (Ok(processor), Ok(devices)) => Ok(MachineResult { processor, devices }),
            (Err(Rejection::Unacceptable(mut all)), Err(Rejection::Unacceptable(more))) => {
                all.append(more);
                Err(Rejection::Unacceptable(all))
            }
            (Err(Rejection::Unacceptable(_)), Err(worse))
            | (Err(worse), _)
            | (Ok(_), Err(worse)) => Err(worse),
        }
    }
}
