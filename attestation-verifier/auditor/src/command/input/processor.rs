//! A processor's report or quote, without what was around it.

use attestation_verifier::appraise::Finding;
use attestation_verifier::evidence::{is_wrapped, recognise, unpadded, unwrapped};
use measurement::cbor;
use measurement::manifest::Tee;
use measurement::receipt::CpuEvidence;
use serde_json::{Map, Value};

use super::{malformed, table, text, unknown};

const WRAPPER: &str = "azure's wrapper was taken off; the report names its runtime data";

/// Bytes of an SNP report.
const REPORT_SIZE: usize = 1184;

/// A report or quote.
pub struct Processor {
    pub tee: Tee,
    pub report: Vec<u8>,
    /// What came with it in one file.
    pub endorsements: Vec<Vec<u8>>,
    /// What was taken off, for a person.
    pub note: Option<String>,
}

impl Processor {
    pub(super) fn read(bytes: &[u8], tee: Option<Tee>) -> Result<Self, Vec<Finding>> {
        if is_wrapped(bytes) {
            return Self::unwrapped(bytes, Vec::new());
        }
        if bytes.starts_with(b"{") {
            let object: Option<Map<String, Value>> = serde_json::from_slice(bytes).ok();
            if let Some(object) = object
                && let Some(read) = Self::in_json(&object, bytes)
            {
                return read;
            }
        }
        if let Ok(bundle) = cbor::decode::<CpuEvidence>(bytes, bytes.len()) {
            let endorsements = bundle.endorsements.into_iter().map(|blob| blob.0).collect();
            return Ok(Self { tee: bundle.tee, report: bundle.report.0, endorsements, note: None });
        }
        if let Some((report, rest)) = bytes.split_first_chunk::<REPORT_SIZE>()
            && let Some(endorsements) = table::certificates(rest)
        {
            return Self::bare(report, tee).map(|report| Self { endorsements, ..report });
        }
        Self::bare(bytes, tee)
    }

    fn bare(bytes: &[u8], tee: Option<Tee>) -> Result<Self, Vec<Finding>> {
        let Some(tee) = tee.or_else(|| recognise(bytes)) else {
            let head = hex::encode(bytes.get(..8).unwrap_or(bytes));
            return Err(vec![unknown(format!("{} bytes that begin with {head}", bytes.len()))]);
        };
        let report = match tee {
            Tee::Snp => bytes,
            Tee::Tdx => unpadded(bytes).map_err(malformed)?,
        };
        let note = match bytes.len().saturating_sub(report.len()) {
            0 => None,
            padding => Some(format!("{padding} zero bytes after the quote were left out")),
        };
        Ok(Self { tee, report: report.to_vec(), endorsements: Vec::new(), note })
    }

    fn unwrapped(wrapper: &[u8], endorsements: Vec<Vec<u8>>) -> Result<Self, Vec<Finding>> {
        let report = unwrapped(wrapper).map_err(malformed)?.report.to_vec();
        Ok(Self { tee: Tee::Snp, report, endorsements, note: Some(WRAPPER.into()) })
    }

    /// JSON as guests pass it on, by itself or under `evidence`: Azure's wrapper (`hcl_report`), a report
    /// (`report`), each perhaps with its `vcek`; a quote (`quote`), perhaps with its `event_log` or
    /// `cc_eventlog`. None if it is something else.
    fn in_json(outer: &Map<String, Value>, whole: &[u8]) -> Option<Result<Self, Vec<Finding>>> {
        let inner = outer.get("evidence").and_then(Value::as_object).unwrap_or(outer);
        let bytes = |name: &str| text::decode(inner.get(name)?.as_str()?);
        let certificate = |name: &str| match inner.get(name)?.as_str()? {
            pem if pem.starts_with("-----") => Some(pem.as_bytes().to_vec()),
            text => text::decode(text),
        };
        if let Some(wrapper) = bytes("hcl_report") {
            return Some(Self::unwrapped(&wrapper, certificate("vcek").into_iter().collect()));
        }
        if let Some(quote) = bytes("quote") {
            let own = inner.contains_key("event_log").then(|| whole.to_vec());
            let logs = own.into_iter().chain(bytes("cc_eventlog")).collect();
            let read = Self::bare(&quote, Some(Tee::Tdx));
            return Some(read.map(|quote| Self { endorsements: logs, ..quote }));
        }
        let report = bytes("report").or_else(|| bytes("attestation_report"))?;
        let certificates = ["vcek", "vlek"].iter().filter_map(|name| certificate(name)).collect();
        let read = Self::bare(&report, Some(Tee::Snp));
        Some(read.map(|report| Self { endorsements: certificates, ..report }))
    }
}
