//! Evidence and endorsements as they lie in files: what each is, and what is around it.
//!
//! Liberal in what it recognises, because it decides nothing: whatever is taken for what it is not is
//! refused where it is judged.

use attestation_verifier::appraise::{Finding, Rejection};
use attestation_verifier::endorsement::{Heap, describe, describe_for_devices, is_event_log, sort};
use attestation_verifier::evidence::Evidence;
use attestation_verifier::evidence::device::DeviceEvidence;
use attestation_verifier::wire::Malformed;
use measurement::manifest::Tee;

mod devices;
mod processor;
mod table;
mod text;

pub use processor::Processor;

/// Most bytes of any of the files.
pub const LIMIT: u64 = 1 << 20;

/// Everything that is to be judged, and what it is judged with.
#[derive(Default)]
pub struct Input {
    /// The processor's report or quote.
    pub processor: Option<Processor>,
    /// Its endorsements.
    pub processor_endorsements: Vec<Vec<u8>>,
    /// GPUs and switches.
    pub devices: Vec<DeviceEvidence>,
    /// Their endorsements.
    pub device_endorsements: Vec<Vec<u8>>,
    /// Tokens of NVIDIA's remote service.
    pub opinions: Vec<Vec<u8>>,
    /// What was taken off, for a person.
    pub notes: Vec<String>,
}

/// One file of evidence.
enum Piece {
    Processor(Processor),
    /// A device's report, whose certificates lie elsewhere.
    Report(Vec<u8>),
    Devices(Vec<DeviceEvidence>),
    Opinion(Vec<u8>),
    /// Not evidence, but what comes beside it.
    Endorsement(Vec<u8>),
}

impl Input {
    /// Recognises evidence by content, unless the caller says that it is a processor's of one kind;
    /// takes padding, text encodings and wrappers off; and gives each its endorsements.
    pub fn read(
        evidence: &[Vec<u8>],
        endorsements: &[Vec<u8>],
        tee: Option<Tee>,
    ) -> Result<Self, Vec<Finding>> {
        let mut input = Self::default();
        let (mut reports, mut beside) = (Vec::new(), Vec::new());
        for file in evidence {
            match recognise(file, tee)? {
                Piece::Processor(processor) => input.set_processor(processor)?,
                Piece::Report(report) => reports.push(report),
                Piece::Devices(devices) => input.devices.extend(devices),
                Piece::Opinion(token) => input.opinions.push(token),
                Piece::Endorsement(item) => beside.push(item),
            }
        }
        beside.extend(endorsements.iter().flat_map(|item| opened(item)));
        input.distribute(reports, beside);
        if input.processor.is_none() && input.devices.is_empty() && input.opinions.is_empty() {
            return Err(vec![unknown("no report, quote or device evidence".into())]);
        }
        Ok(input)
    }

    fn set_processor(&mut self, processor: Processor) -> Result<(), Vec<Finding>> {
        if self.processor.is_some() {
            return Err(vec![unknown("evidence of two processors".into())]);
        }
        self.notes.extend(processor.note.clone());
        self.processor_endorsements.extend(processor.endorsements.clone());
        self.processor = Some(processor);
        Ok(())
    }

    /// Gives reports their chains, in their order, and each part of the machine its endorsements.
    fn distribute(&mut self, reports: Vec<Vec<u8>>, beside: Vec<Vec<u8>>) {
        if reports.is_empty() && self.devices.is_empty() {
            self.processor_endorsements.extend(beside);
            return;
        }
        let items: Vec<&[u8]> = beside.iter().map(Vec::as_slice).collect();
        let processor = self.processor.as_ref().map(Processor::evidence);
        let Heap { processor, devices, chains } = sort(&items, processor.as_ref());
        self.processor_endorsements.extend(processor);
        self.device_endorsements.extend(devices);
        let mut chains = chains.into_iter();
        for report in reports {
            let chain = chains.next().unwrap_or_default();
            self.devices.push(DeviceEvidence::new(report, chain));
        }
        // A chain that is no one's is refused with the endorsements.
        self.device_endorsements.extend(chains);
    }
}

fn recognise(file: &[u8], tee: Option<Tee>) -> Result<Piece, Vec<Finding>> {
    let bytes = text::decoded(file);
    if tee.is_none() {
        if bytes.starts_with(&[0x11, 0xe0]) {
            return Ok(Piece::Report(bytes.into_owned()));
        }
        if let Some(token) = devices::opinion(&bytes) {
            return Ok(Piece::Opinion(token));
        }
        if let Some(devices) = devices::read(&bytes) {
            return Ok(Piece::Devices(devices.map_err(malformed)?));
        }
        if matches!(bytes.first(), Some(b'-' | b'<')) {
            return Ok(Piece::Endorsement(bytes.into_owned()));
        }
    }
    Processor::read(&bytes, tee).map(Piece::Processor).or_else(|findings| {
        // A certificate or a document among the evidence is as good as beside it.
        let beside = describe(&bytes).is_ok()
            || describe_for_devices(&bytes).is_ok()
            || is_event_log(&bytes);
        if beside { Ok(Piece::Endorsement(bytes.into_owned())) } else { Err(findings) }
    })
}

/// What a file of endorsements holds: itself, or the entries of a host's table.
fn opened(file: &[u8]) -> Vec<Vec<u8>> {
    let bytes = text::decoded(file);
    table::certificates(&bytes).unwrap_or_else(|| vec![bytes.into_owned()])
}

fn malformed(flaw: Malformed) -> Vec<Finding> {
    Rejection::Malformed(flaw).reasons()
}

fn unknown(observed: String) -> Finding {
    let required = "an SNP report of 1184 bytes, a TDX quote of version 4 or 5, or device evidence";
    Finding::about("shape.evidence", observed, required.into())
}

/// A processor's evidence, for those who want nothing else.
impl Processor {
    pub fn evidence(&self) -> Evidence<'_> {
        Evidence { tee: self.tee, report: &self.report }
    }
}
