//! What evidence is held to. Where nothing was asked it is held to what it says of itself, and that is
//! listed.

use attestation_verifier::evidence::device::{Architecture, DeviceEvidence, set_digest};
use attestation_verifier::pin;
use measurement::binding::Binding;
use measurement::cbor::Blob;
use measurement::launch::Measured;
use measurement::octets::Octets;

use super::Arguments;
use crate::command::input::{Input, Processor};

/// What is asked of evidence.
pub struct Asked {
    pub report_data: Octets<64>,
    pub images: Vec<Measured>,
    pub platforms: Vec<Blob>,
    pub nonce: Octets<32>,
    pub gpus: usize,
    pub switches: usize,
    pub chips: Vec<Octets<8>>,
    /// The ids of the checks for which nothing was asked.
    pub not_judged: Vec<&'static str>,
}

impl Asked {
    /// Nothing asked, of nothing.
    pub fn nothing() -> Self {
        Self {
            report_data: Octets([0; 64]),
            images: Vec::new(),
            platforms: Vec::new(),
            nonce: Octets([0; 32]),
            gpus: 0,
            switches: 0,
            chips: Vec::new(),
            not_judged: Vec::new(),
        }
    }

    pub fn read(arguments: &Arguments, input: &Input) -> Result<Self, String> {
        let session = arguments.session.map(Binding::from_octets);
        let mut asked = Self::nothing();
        if !input.devices.is_empty() {
            asked.of_devices(arguments, session.as_ref(), &input.devices);
        }
        if let Some(processor) = &input.processor {
            asked.of_processor(arguments, session.as_ref(), processor, &input.devices)?;
        }
        if input.processor.is_some() && !input.devices.is_empty() && session.is_none() {
            asked.not_judged.push("binding.session");
        }
        Ok(asked)
    }

    fn of_devices(
        &mut self,
        arguments: &Arguments,
        session: Option<&Binding>,
        devices: &[DeviceEvidence],
    ) {
        let asked = session.map(|session| Octets(session.gpu_nonce())).or(arguments.nonce);
        self.nonce = asked.unwrap_or_else(|| {
            self.not_judged.push("devices.nonce");
            Octets(devices.first().and_then(|one| one.nonce().ok()).unwrap_or_default())
        });
        if arguments.gpus.is_none() && arguments.switches.is_none() {
            self.not_judged.push("devices.count");
        }
        let is_switch =
            |one: &&DeviceEvidence| matches!(one.architecture(), Ok(Some(Architecture::Ls10)));
        let switches = devices.iter().filter(is_switch).count();
        self.switches = arguments.switches.unwrap_or(switches);
        self.gpus = arguments.gpus.unwrap_or(devices.len().saturating_sub(switches));
    }

    fn of_processor(
        &mut self,
        arguments: &Arguments,
        session: Option<&Binding>,
        processor: &Processor,
        devices: &[DeviceEvidence],
    ) -> Result<(), String> {
        let evidence = processor.evidence();
        let asked = match session {
            Some(session) => Some(Octets(self.bound(session, devices)?)),
            None => arguments.report_data,
        };
        self.report_data = asked.unwrap_or_else(|| {
            self.not_judged.push("binding.report_data");
            Octets(pin::report_data(&evidence).unwrap_or([0; 64]))
        });
        let measured: Option<Measured> = match &arguments.measured {
            Some(text) => Some(serde_json::from_str(text).map_err(|error| error.to_string())?),
            None => {
                self.not_judged.push("binding.image");
                pin::measured(&evidence).ok()
            }
        };
        self.images.extend(measured);
        if arguments.launch_blob.is_none() {
            self.not_judged.push("binding.launch_blob");
        }
        Ok(())
    }

    /// What a processor signs that answers `session` together with `devices`.
    fn bound(&self, session: &Binding, devices: &[DeviceEvidence]) -> Result<[u8; 64], String> {
        let count = u8::try_from(self.gpus).map_err(|_| "no machine has that many gpus")?;
        let set = match devices {
            [] => None,
            _ => Some(set_digest(devices).map_err(|flaw| flaw.to_string())?),
        };
        Ok(session.report_data(count, set.as_ref()))
    }
}
