//! How long a verdict takes, beside the `sev` crate and `dcap-qvl` on the same evidence in the same
//! run: one thread, least and median of many rounds taken in turn, so that a busy machine slows all of
//! them alike. Run by `scripts/bench evidence`; the argument is the folder of recorded evidence.

#![allow(
    clippy::as_conversions,
    clippy::cast_precision_loss,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Instant;

use attestation_verifier::appraise::{Expected, Verifier};
use attestation_verifier::cache::Cache;
use attestation_verifier::evidence::{Evidence, unpadded};
use attestation_verifier::pin;
use attestation_verifier::policy::{AppraisalPolicy, EVIDENCE};
use dcap_qvl::QuoteCollateralV3;
use dcap_qvl::verify::QuoteVerifier;
use measurement::manifest::Tee;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, RSA_PSS_2048_8192_SHA384, UnparsedPublicKey,
    VerificationAlgorithm,
};
use sev::certs::snp::{Certificate, Chain, Verifiable, ca};
use sev::firmware::guest::AttestationReport;
use sev::parser::ByteParser;

const ROUNDS: usize = 400;

fn main() {
    let root = std::env::args_os().nth(1).map_or_else(default_vectors, PathBuf::from);
    assert!(root.is_dir(), "{} is no folder of recorded evidence", root.display());
    println!("microseconds, {ROUNDS} rounds, one thread      least  median");
    snp(&root);
    tdx(&root);
}

fn default_vectors() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/vectors/cpu"))
}

/// One thing that is timed.
struct Runner<'a> {
    name: &'static str,
    run: Box<dyn FnMut() + 'a>,
    times: Vec<f64>,
}

fn runner<'a>(name: &'static str, run: impl FnMut() + 'a) -> Runner<'a> {
    Runner { name, run: Box::new(run), times: Vec::with_capacity(ROUNDS) }
}

/// Takes all of them in turn, and prints and returns the least time of each.
fn time<const N: usize>(mut runners: [Runner<'_>; N]) -> [f64; N] {
    for _ in 0..ROUNDS {
        for runner in &mut runners {
            let begin = Instant::now();
            (runner.run)();
            runner.times.push(begin.elapsed().as_secs_f64() * 1e6);
        }
    }
    runners.map(|mut runner| {
        runner.times.sort_by(f64::total_cmp);
        let (least, median) = (runner.times[0], runner.times[ROUNDS / 2]);
        println!("  {:<40} {least:>9.1} {median:>7.1}", runner.name);
        least
    })
}

fn snp(root: &Path) {
    let at = 1_772_500_000;
    let read = |path: &str| std::fs::read(root.join(path)).unwrap();
    let report = read("snp/reports/genoa-v5/report.bin");
    let files = [
        read("snp/reports/genoa-v5/vcek.der"),
        read("snp/roots/genoa_ask.pem"),
        read("snp/roots/genoa_ark.pem"),
    ];
    let endorsements: Vec<&[u8]> = files.iter().map(Vec::as_slice).collect();
    let evidence = Evidence { tee: Tee::Snp, report: &report };
    let verifier = Verifier::new(AppraisalPolicy::parse(EVIDENCE).unwrap());
    let images = [pin::measured(&evidence).unwrap()];
    let report_data = pin::report_data(&evidence).unwrap();
    let expected =
        Expected { report_data: &report_data, launch_blob: b"", images: &images, platforms: &[] };
    let mut cache = Cache::new(4);

    println!("SNP, Genoa: report, VCEK, ASK, ARK");
    let bare = bare_snp(&report, &files);
    let [ours, theirs, signatures, warm, one] = time([
        runner("ours, all checks", || {
            black_box(verifier.appraise(&evidence, &endorsements, &expected, at).unwrap());
        }),
        runner("sev (crypto_nossl), signatures only", || sev(&report, &files)),
        runner("ring, the same three signatures", || bare.iter().for_each(Bare::verify)),
        runner("ours, all checks, warm cache", || {
            let verdict =
                verifier.appraise_with(&mut cache, &evidence, &endorsements, &expected, at);
            black_box(verdict.unwrap());
        }),
        runner("ring, the report's signature", || bare[2].verify()),
    ]);
    println!("  sev / ours              {:.2}   (at least 3 is wanted)", theirs / ours);
    println!("  beyond the signatures   {:.1} us (under 20 is wanted)", ours - signatures);
    println!("  warm / one signature    {:.2}", warm / one);
}

fn sev(report: &[u8], files: &[Vec<u8>; 3]) {
    let certificate = |bytes: &[u8]| match bytes {
        [b'-', ..] => Certificate::from_pem(bytes).unwrap(),
        _ => Certificate::from_der(bytes).unwrap(),
    };
    let [vek, ask, ark] = files;
    let chain = Chain {
        ca: ca::Chain { ark: certificate(ark), ask: certificate(ask) },
        vek: certificate(vek),
    };
    let report = AttestationReport::from_bytes(report).unwrap();
    (&chain, &report).verify().unwrap();
    black_box(());
}

/// A signature without anything around it.
struct Bare {
    algorithm: &'static dyn VerificationAlgorithm,
    key: Vec<u8>,
    message: Vec<u8>,
    signature: Vec<u8>,
}

impl Bare {
    fn verify(&self) {
        UnparsedPublicKey::new(self.algorithm, &self.key)
            .verify(&self.message, &self.signature)
            .unwrap();
    }
}

fn bare_snp(report: &[u8], files: &[Vec<u8>; 3]) -> [Bare; 3] {
    use attestation_verifier::endorsement::parts;
    use der::{Decode, Encode};
    use x509_cert::Certificate;

    let [vek, ask, ark] =
        files.each_ref().map(|file| Certificate::from_der(&parts(file).unwrap()[0]).unwrap());
    let key = |certificate: &Certificate| {
        let spki = &certificate.tbs_certificate.subject_public_key_info;
        spki.subject_public_key.as_bytes().unwrap().to_vec()
    };
    let issued = |certificate: &Certificate, issuer: &Certificate| Bare {
        algorithm: &RSA_PSS_2048_8192_SHA384,
        key: key(issuer),
        message: certificate.tbs_certificate.to_der().unwrap(),
        signature: certificate.signature.as_bytes().unwrap().to_vec(),
    };
    let big_endian = |at: usize| report[at..at + 48].iter().rev().copied().collect::<Vec<_>>();
    let signed = Bare {
        algorithm: &ECDSA_P384_SHA384_FIXED,
        key: key(&vek),
        message: report[..0x2a0].to_vec(),
        signature: [big_endian(0x2a0), big_endian(0x2e8)].concat(),
    };
    [issued(&ask, &ark), issued(&vek, &ask), signed]
}

fn tdx(root: &Path) {
    let at = 1_774_000_000;
    let read = |path: &str| std::fs::read(root.join(path)).unwrap();
    let quote = read("tdx/quotes/gotdx-v5-bt3-90c06f.bin");
    let quote = unpadded(&quote).unwrap();
    let collateral = read("tdx/collateral/assembled-90c06f-2026-03.collateral.json");
    let parsed: QuoteCollateralV3 = serde_json::from_slice(&collateral).unwrap();
    let endorsements = [collateral.as_slice()];
    let evidence = Evidence { tee: Tee::Tdx, report: quote };
    let verifier = Verifier::new(AppraisalPolicy::parse(EVIDENCE).unwrap());
    let images = [pin::measured(&evidence).unwrap()];
    let report_data = pin::report_data(&evidence).unwrap();
    let expected =
        Expected { report_data: &report_data, launch_blob: b"", images: &images, platforms: &[] };
    let mut cache = Cache::new(4);
    let qvl = QuoteVerifier::new_prod();
    let data = 54 + 648 + 4;
    let own = Bare {
        algorithm: &ECDSA_P256_SHA256_FIXED,
        key: [&[4], &quote[data + 64..data + 128]].concat(),
        message: quote[..54 + 648].to_vec(),
        signature: quote[data..data + 64].to_vec(),
    };

    println!("TDX, version 5 with body type 3: quote and collateral");
    let [ours, theirs, decoding, warm, one] = time([
        runner("ours, all checks", || {
            black_box(verifier.appraise(&evidence, &endorsements, &expected, at).unwrap());
        }),
        runner("dcap-qvl, collateral in memory", || {
            black_box(qvl.verify(quote, &parsed, at).unwrap());
        }),
        runner("dcap-qvl, collateral as it came", || {
            let parsed: QuoteCollateralV3 = serde_json::from_slice(&collateral).unwrap();
            black_box(qvl.verify(quote, &parsed, at).unwrap());
        }),
        runner("ours, all checks, warm cache", || {
            let verdict =
                verifier.appraise_with(&mut cache, &evidence, &endorsements, &expected, at);
            black_box(verdict.unwrap());
        }),
        runner("ring, the quote's signature", || own.verify()),
    ]);
    println!("  ours / dcap-qvl         {:.2}   (at most 1.3 is wanted)", ours / theirs);
    println!("  the same, as it came    {:.2}", ours / decoding);
    println!("  warm / one signature    {:.2}", warm / one);
}
