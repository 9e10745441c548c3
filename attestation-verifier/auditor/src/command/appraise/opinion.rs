//! NVIDIA's remote service as a second opinion: it can only agree with what was judged here.

use attestation_verifier::appraise::Finding;
use attestation_verifier::nras::{self, Keys, NrasError};
use attestation_verifier::transcript::Verdicts;

/// What tokens say against the evidence, or is wrong with them. A token by itself is no evidence.
pub fn judge(
    tokens: &[Vec<u8>],
    keys: &Option<Vec<u8>>,
    verdicts: &Verdicts,
    now: u64,
) -> Vec<Finding> {
    let finding = |problem: NrasError| {
        let required = "a token of nvidia's service that agrees";
        Finding::about("nras.opinion", problem.to_string(), required.into())
    };
    let mut findings: Vec<_> = tokens
        .iter()
        .filter_map(|token| agrees(token, keys.as_deref(), verdicts, now).err())
        .map(finding)
        .collect();
    if !tokens.is_empty() && verdicts.devices.is_none() {
        findings.push(Finding::about(
            "shape.evidence",
            "a token of another verifier".into(),
            "the evidence that it speaks of".into(),
        ));
    }
    findings
}

fn agrees(
    token: &[u8],
    keys: Option<&[u8]>,
    verdicts: &Verdicts,
    now: u64,
) -> Result<(), NrasError> {
    // Without keys every signature is by an unknown one, and that is the finding.
    let keys = Keys::read(keys.unwrap_or(b"{\"keys\":[]}"))?;
    let result = verdicts.devices.as_ref().and_then(|verdict| verdict.as_ref().ok());
    let nonce = result.map_or([0; 32], |result| *result.nonce());
    let opinion = nras::verify(token, &keys, &nonce, now)?;
    result.map_or(Ok(()), |result| opinion.agrees_with(result))
}
