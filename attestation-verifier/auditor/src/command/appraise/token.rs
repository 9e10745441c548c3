//! The result as an EAR, signed.

use std::path::Path;

use attestation_verifier::ear::{self, Attested};
use attestation_verifier::transcript::Verdicts;
use auditor::case::read;
use ring::signature::Ed25519KeyPair;

use super::{EarProfile, now};
use crate::command::input::{Input, LIMIT, Processor};

/// Seconds for which a token may be believed.
const LIFE: u64 = 300;

pub fn made(
    profile: EarProfile,
    verdicts: &Verdicts,
    input: &Input,
    key: &Path,
) -> Result<String, String> {
    let pkcs8 = read(key, LIMIT).map_err(|error| error.to_string())?;
    let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&pkcs8)
        .map_err(|error| format!("{}: {error}", key.display()))?;
    let issued_at = now();
    let token = ear::Token {
        profile: match profile {
            EarProfile::Trustee => ear::Profile::Trustee,
            EarProfile::Ietf2026 => ear::Profile::Ietf2026,
        },
        issuer: "cloister-auditor",
        issued_at,
        expires_at: issued_at.saturating_add(LIFE),
    };
    let evidence = input.processor.as_ref().map(Processor::evidence);
    let result = verdicts.processor.as_ref().and_then(|verdict| verdict.as_ref().ok());
    let attested = Attested {
        processor: result.zip(evidence.as_ref()),
        devices: verdicts.devices.as_ref().and_then(|verdict| verdict.as_ref().ok()),
    };
    let claims = ear::claims(&attested, &token).map_err(|error| error.to_string())?;
    let input = ear::signing_input(&claims, ear::Algorithm::EdDsa);
    Ok(ear::token(&input, key.sign(input.as_bytes()).as_ref()))
}
