//! NVIDIA's chains: a fixed number of certificates, each signed by the next, the last a pinned root.
//!
//! All of NVIDIA's hierarchy is ECDSA on P-384. Which certificate stands where is given by position
//! alone; the root that came along must be one of the anchors, byte by byte.

use alloc::collections::BTreeSet;

use measurement::digest::sha256;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, UnparsedPublicKey,
    VerificationAlgorithm,
};

use super::amd::check_dates;
use super::{BASIC_CONSTRAINTS, Certificate, KEY_USAGE, Role};
use crate::evidence::Inauthentic;
use crate::root::{Anchor, Platform, Root};

/// What was seen while several chains were verified: links they share, so that each is verified once,
/// and the time in which all of their certificates are valid.
pub(crate) struct Survey {
    links: BTreeSet<[[u8; 32]; 2]>,
    /// Seconds since 1970, both ends included.
    pub(crate) valid: (u64, u64),
}

impl Survey {
    pub(crate) fn new() -> Self {
        Self { links: BTreeSet::new(), valid: (0, u64::MAX) }
    }

    pub(crate) fn narrow(&mut self, certificate: &Certificate) {
        let (from, until) = self.valid;
        self.valid = (from.max(certificate.not_before), until.min(certificate.not_after));
    }
}

/// Verifies `certificates`, leaf first, of which each has the role at its place, and returns the
/// root they end in.
pub(crate) fn verify(
    certificates: &[Certificate],
    roles: &[Role],
    platform: Platform,
    anchors: &[Anchor],
    now: u64,
    survey: &mut Survey,
) -> Result<Root, Inauthentic> {
    let last = certificates.last().ok_or(Inauthentic::Missing { role: Role::Root })?;
    let anchor = anchors
        .iter()
        .find(|anchor| anchor.platform == platform && anchor.certificate.der == last.der)
        .ok_or(Inauthentic::UnknownRoot)?;
    let (observed, required) = (certificates.len(), roles.len());
    if observed != required {
        return Err(Inauthentic::ChainLength { observed, required });
    }
    let issuers = certificates.iter().skip(1);
    for ((certificate, issuer), role) in certificates.iter().zip(issuers).zip(roles) {
        check_link(*role, certificate, issuer, survey)?;
    }
    for (place, (certificate, role)) in certificates.iter().zip(roles).enumerate() {
        check_dates(*role, certificate, now)?;
        check_place(*role, certificate, place)?;
        survey.narrow(certificate);
    }
    Ok(anchor.root.clone())
}

/// `certificate` names `issuer`, and is signed by it with ECDSA P-384 and SHA-384.
fn check_link(
    role: Role,
    certificate: &Certificate,
    issuer: &Certificate,
    survey: &mut Survey,
) -> Result<(), Inauthentic> {
    if certificate.issuer != issuer.subject {
        return Err(Inauthentic::Issuer { role });
    }
    if certificate.algorithm != ECDSA_SHA384 {
        let problem = "is not signed with ecdsa and sha-384";
        return Err(Inauthentic::Unusable { role, problem });
    }
    check_key(role, certificate)?;
    let link = [sha256(&certificate.der), sha256(&issuer.der)];
    if survey.links.contains(&link) {
        return Ok(());
    }
    verify_signature(&ECDSA_P384_SHA384_ASN1, issuer, &certificate.tbs, &certificate.signature)
        .ok_or(Inauthentic::Signature { over: role.name() })?;
    survey.links.insert(link);
    Ok(())
}

pub(crate) fn check_key(role: Role, certificate: &Certificate) -> Result<(), Inauthentic> {
    if certificate.key_algorithm == P384_KEY {
        return Ok(());
    }
    Err(Inauthentic::Unusable { role, problem: "has a key that is not on p-384" })
}

/// Below stand as many intermediate certificates as `place` says, less the leaf.
fn check_place(role: Role, certificate: &Certificate, place: usize) -> Result<(), Inauthentic> {
    let unusable = |problem| Err(Inauthentic::Unusable { role, problem });
    if certificate.unknown_critical() {
        return unusable("has a critical extension that this verifier does not know");
    }
    let Some(below) = place.checked_sub(1) else {
        // BasicConstraints absent, or CA:FALSE in its only encoding.
        let authority = !matches!(certificate.extension(BASIC_CONSTRAINTS), None | Some([0x30, 0]));
        return match certificate.extension(KEY_USAGE) {
            _ if authority => unusable("is of an authority"),
            Some([0x03, _, _, bits]) if bits & 0x80 != 0 => Ok(()),
            _ => unusable("may not sign"),
        };
    };
    if !certificate.is_authority() {
        return unusable("may not sign certificates");
    }
    match certificate.extension(BASIC_CONSTRAINTS) {
        Some([0x30, 0x03, ..]) => Ok(()),
        Some([0x30, 0x06, 0x01, 0x01, 0xff, 0x02, 0x01, limit @ 0..=0x7f])
            if below <= usize::from(*limit) =>
        {
            Ok(())
        }
        _ => unusable("may not stand so far up in a chain"),
    }
}

/// Verifies what an authority signs beside certificates: revocation lists and answers. Some of
/// NVIDIA's lists are signed with SHA-256 by a key on P-384.
pub(crate) fn verify_statement(
    algorithm: &[u8],
    signer: &Certificate,
    message: &[u8],
    signature: &[u8],
) -> Option<()> {
    let algorithm: &dyn VerificationAlgorithm = match (algorithm, signer.key_algorithm.as_slice()) {
        (ECDSA_SHA256, P256_KEY) => &ECDSA_P256_SHA256_ASN1,
        (ECDSA_SHA256, P384_KEY) => &ECDSA_P384_SHA256_ASN1,
        (ECDSA_SHA384, P384_KEY) => &ECDSA_P384_SHA384_ASN1,
        _ => return None,
    };
    verify_signature(algorithm, signer, message, signature)
}

fn verify_signature(
    algorithm: &'static dyn VerificationAlgorithm,
    signer: &Certificate,
    message: &[u8],
    signature: &[u8],
) -> Option<()> {
    UnparsedPublicKey::new(algorithm, &signer.key).verify(message, signature).ok()
}

/// `ecdsa-with-SHA256` and `ecdsa-with-SHA384` (RFC 5758).
const ECDSA_SHA256: &[u8] =
    &[0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
const ECDSA_SHA384: &[u8] =
    &[0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03];

/// `id-ecPublicKey` on `prime256v1` and on `secp384r1` (RFC 5480).
const P256_KEY: &[u8] = &[
    0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
    0xce, 0x3d, 0x03, 0x01, 0x07,
];
pub(crate) const P384_KEY: &[u8] = &[
    0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04,
    0x00, 0x22,
];

#[cfg(test)]
mod tests {
    use base64ct::{Base64, Encoding};

    use super::*;

    fn verifies(algorithm: &[u8], certificate: &str, signature: &str) -> bool {
        let certificate = Certificate::read(&Base64::decode_vec(certificate).unwrap()).unwrap();
        let signature = Base64::decode_vec(signature).unwrap();
        verify_statement(algorithm, &certificate, b"a statement", &signature).is_some()
    }

    // Made with `openssl dgst -sign`: ring does not sign with SHA-256 by a key on P-384.
    #[test]
    fn verifies_statements_by_each_pair_of_digest_and_curve_and_by_no_other() {
        assert!(verifies(ECDSA_SHA256, P384_CERTIFICATE, P384_SHA256));
        assert!(verifies(ECDSA_SHA384, P384_CERTIFICATE, P384_SHA384));
        assert!(verifies(ECDSA_SHA256, P256_CERTIFICATE, P256_SHA256));
        assert!(!verifies(ECDSA_SHA384, P384_CERTIFICATE, P384_SHA256));
        assert!(!verifies(ECDSA_SHA256, P384_CERTIFICATE, P384_SHA384));
        assert!(!verifies(ECDSA_SHA384, P256_CERTIFICATE, P256_SHA256));
        assert!(!verifies(ECDSA_SHA256, P256_CERTIFICATE, P384_SHA256));
        assert!(!verifies(&[], P384_CERTIFICATE, P384_SHA384));
    }

    const P384_CERTIFICATE: &str = "\
        MIIBrDCCATKgAwIBAgIUdHJJNfRTNeIoy0Bp5+zu/mPBlKMwCgYIKoZIzj0EAwMwDDEKMAgGA1UEAwwBczAgFw0y\
        NjExMjMyMzQ2MTlaGA8yMTA5MDExMjIzNDYxOVowDDEKMAgGA1UEAwwBczB2MBAGByqGSM49AgEGBSuBBAAiA2IA\
        BEpuodNDXjwzDu2e71+F0GLSZx+a8zbh9hfN2H1G4+Pnmd16wF8Z5G6evuaFkLRAXglzkKLt+d/yzQl9dxCBNCCt\
        4LvYcL7HK3/Uc1DgzjFrbxnx6YeUFTdIcA1VQkTHmKNTMFEwHQYDVR0OBBYEFGB9W8TOkuqIf0LwFzqQ6M44D5EA\
        MB8GA1UdIwQYMBaAFGB9W8TOkuqIf0LwFzqQ6M44D5EAMA8GA1UdEwEB/wQFMAMBAf8wCgYIKoZIzj0EAwMDaAAw\
        ZQIwNbs0WqLdB2D1HuehYbSIAhzj35RBkYyIW8TbBb9rMe8wJyP04yfZjSENiMsKfloSAjEA1Eg3eLwvrG6HLsnz\
        WqJbSsnfe+hHQr3CM446V2Ht0QwgEmuu4S9ZRE8A4YUb1kHg";
    const P384_SHA256: &str = "\
        MGUCMDz56BRNpMpgCbEbp03TxqnBfT4K3fWs3XbY7N0U3HTTn0Y/oFyf0gX0s8YJOAK6TQIxAJ5rZ23/DSh+MahD\
        BmWlURInwXSDrjspwneFPoNi2G+5jrqgaQLCfJguwVpRfha7xg==";
    const P384_SHA384: &str = "\
        MGYCMQDz2rEeLmeBcYSZqjVXy7ZtBf1iVt/o7FCAz3TudaexbD9A3hwnYNEehdyAyoQdYF0CMQCCCyNWm9TdBz5u\
        /Gi3uCCubMdLXQ3Dpjqn4NrPGeXHKvI7CH+w53ID0P4bmkWkaEg=";
    const P256_CERTIFICATE: &str = "\
        MIIBbzCCARWgAwIBAgIUOl+T7OFoMGz4KUw86GpmdtvI9WcwCgYIKoZIzj0EAwIwDDEKMAgGA1UEAwwBcDAgFw0y\
        NjExMjMyMzQ2MjBaGA8yMTA5MDExMjIzNDYyMFowDDEKMAgGA1UEAwwBcDBZMBMGByqGSM49AgEGCCqGSM49AwEH\
        A0IABMpjAaxQvhaYMNpaqE9CT+5xPrdMK5LQFYVgz9+EYLXWWCaU/gUNAvUsZwSswQWr7kOTxwiGFNvVMwYdYq9q\
        n9mjUzBRMB0GA1UdDgQWBBTK0hyoP/Yo3nN1bhJ9ndOYzuLy8DAfBgNVHSMEGDAWgBTK0hyoP/Yo3nN1bhJ9ndOY\
        zuLy8DAPBgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0gAMEUCIQDcNxkaxyKQygTotF6Ab9dq2Rz2mxGpL+dE\
        zPCj2DJ0tQIgEl6RmWq9gzCvu3HcXmBiR0AjbPoJh9Jfdp1cMFw+Dzo=";
    const P256_SHA256: &str = "\
        MEUCIQCbw9APqL/U1Ibi1EmF4j6Qxqkq0qVtP2GErnArxLQKaQIgWEoLmwYsy71QxCdb+yyFXjZ5Y7IMFhk1/goO\
        Ro1r6B0=";
}
