//! What an attester itself must check about its surroundings: the key at the other end of a channel,
//! and the blob it was launched with.

use der::{Decode, Encode};
use measurement::digest::{Hash32, of};
use measurement::launch::{Measured, blob};
use measurement::manifest::Tee;
use measurement::octets::Octets;
use x509_cert::Certificate;

use crate::evidence::Evidence;
use crate::wire::{Malformed, snp, tdx};

/// SHA-256 of a certificate's SubjectPublicKeyInfo: what a manifest pins a custodian's TLS key by.
///
/// None when the bytes are not a certificate.
#[must_use]
pub fn spki(certificate: &[u8]) -> Option<Hash32<of::Spki>> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let spki = certificate.tbs_certificate.subject_public_key_info.to_der().ok()?;
    Some(Hash32::of(&spki))
}

/// Whether evidence that the caller has just collected from its own hardware names the launch blob
/// in HOST_DATA (SNP) or MRCONFIGID (TDX). It is not judged here: the caller is the one it is about.
///
/// # Errors
/// When the report or quote does not have the shape of one.
pub fn launched_with(evidence: &Evidence<'_>, launch_blob: &[u8]) -> Result<bool, Malformed> {
    Ok(match evidence.tee {
        Tee::Snp => {
            let report = snp::Report::parse(evidence.report)?;
            report.body.host_data == blob::host_data(launch_blob)
        }
        Tee::Tdx => {
            let quote = tdx::Quote::parse(evidence.report)?;
            quote.report.mr_config_id == blob::mr_config_id(launch_blob)
        }
    })
}

/// What evidence that the caller has just collected from its own hardware says was launched.
///
/// # Errors
/// When the report or quote does not have the shape of one.
pub fn measured(evidence: &Evidence<'_>) -> Result<Measured, Malformed> {
    Ok(match evidence.tee {
        Tee::Snp => {
            let report = snp::Report::parse(evidence.report)?;
            Measured::Snp { launch_digest: Octets(report.body.measurement) }
        }
        Tee::Tdx => {
            let report = tdx::Quote::parse(evidence.report)?.report;
            Measured::Tdx {
                mrtd: Octets(report.mr_td),
                rtmr0: Octets(report.rtmr0),
                rtmr1: Octets(report.rtmr1),
                rtmr2: Octets(report.rtmr2),
            }
        }
    })
}

/// The 64 bytes that evidence carries, as it says itself.
///
/// # Errors
/// When the report or quote does not have the shape of one.
pub fn report_data(evidence: &Evidence<'_>) -> Result<[u8; 64], Malformed> {
    Ok(match evidence.tee {
        Tee::Snp => snp::Report::parse(evidence.report)?.body.report_data,
        Tee::Tdx => tdx::Quote::parse(evidence.report)?.report.report_data,
    })
}
