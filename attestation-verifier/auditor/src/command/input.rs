//! Evidence as it lies in a file: what it is, and what is around it.

use std::borrow::Cow;

use attestation_verifier::appraise::{Finding, Rejection};
use attestation_verifier::evidence::{Evidence, is_wrapped, recognise, unpadded, unwrapped};
use attestation_verifier::wire::Malformed;
use measurement::cbor;
use measurement::manifest::Tee;
use measurement::receipt::CpuEvidence;

/// Most bytes of any of the files.
pub const LIMIT: u64 = 1 << 20;

/// A report or quote without what was around it.
pub struct Input<'a> {
    tee: Tee,
    report: Cow<'a, [u8]>,
    /// What came with it in one file.
    pub endorsements: Vec<Vec<u8>>,
    /// What was taken off, for a person.
    pub notes: Vec<String>,
}

impl<'a> Input<'a> {
    /// Recognises evidence by content, unless the caller says what it is, and takes padding and Azure's
    /// wrapper off.
    pub fn read(bytes: &'a [u8], tee: Option<Tee>) -> Result<Self, Vec<Finding>> {
        let malformed = |flaw: Malformed| Rejection::Malformed(flaw).reasons();
        if is_wrapped(bytes) {
            let wrapped = unwrapped(bytes).map_err(malformed)?;
            let notes =
                vec!["azure's wrapper was taken off; the report names its runtime data".into()];
            let (report, endorsements) = (Cow::Borrowed(wrapped.report), Vec::new());
            return Ok(Self { tee: Tee::Snp, report, endorsements, notes });
        }
        if let Ok(bundle) = cbor::decode::<CpuEvidence>(bytes, bytes.len()) {
            let endorsements = bundle.endorsements.into_iter().map(|blob| blob.0).collect();
            let (report, notes) = (Cow::Owned(bundle.report.0), Vec::new());
            return Ok(Self { tee: bundle.tee, report, endorsements, notes });
        }
        let Some(tee) = tee.or_else(|| recognise(bytes)) else {
            return Err(vec![Finding::about(
                "shape.evidence",
                format!("{} bytes that begin with {}", bytes.len(), head(bytes)),
                "an SNP report of 1184 bytes, or a TDX quote of version 4 or 5".into(),
            )]);
        };
        let report = match tee {
            Tee::Snp => bytes,
            Tee::Tdx => unpadded(bytes).map_err(malformed)?,
        };
        let padding = bytes.len().saturating_sub(report.len());
        let notes = match padding {
            0 => Vec::new(),
            _ => vec![format!("{padding} zero bytes after the quote were left out")],
        };
        Ok(Self { tee, report: Cow::Borrowed(report), endorsements: Vec::new(), notes })
    }

    pub fn evidence(&self) -> Evidence<'_> {
        Evidence { tee: self.tee, report: &self.report }
    }
}

fn head(bytes: &[u8]) -> String {
    hex::encode(bytes.get(..8).unwrap_or(bytes))
}
