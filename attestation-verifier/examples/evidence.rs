//! How long a verdict takes, beside the `sev` crate, `dcap-qvl` and bare signature checks on the same
//! evidence in the same run: one thread, least and median of many rounds taken in turn, so that a busy
//! machine slows all of them alike. Run by `scripts/bench evidence`; the arguments are the folder of
//! recorded evidence (with `cpu` and `gpu` in it) and the number of rounds.

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

use attestation_verifier::appraise::{Expected, ExpectedDevices, Verifier};
use attestation_verifier::cache::Cache;
use attestation_verifier::evidence::device::DeviceEvidence;
use attestation_verifier::evidence::{Evidence, unpadded};
use attestation_verifier::pin;
use attestation_verifier::policy::{AppraisalPolicy, EVIDENCE};
use dcap_qvl::QuoteCollateralV3;
use dcap_qvl::verify::QuoteVerifier;
use measurement::manifest::Tee;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1,
    ECDSA_P384_SHA384_FIXED, RSA_PSS_2048_8192_SHA384, UnparsedPublicKey, VerificationAlgorithm,
};
use sev::certs::snp::{Certificate, Chain, Verifiable, ca};
use sev::firmware::guest::AttestationReport;
use sev::parser::ByteParser;

const ROUNDS: usize = 400;

fn main() {
    let root = std::env::args_os().nth(1).map_or_else(default_vectors, PathBuf::from);
    assert!(root.is_dir(), "{} is no folder of recorded evidence", root.display());
    println!("microseconds, {} rounds, one thread      least  median", rounds());
    gpu(&root.join("gpu"));
    let root = root.join("cpu");
    snp(&root);
    let (march, june) = ("assembled-90c06f-2026-03", "dcapqvl-v4-b0c06f");
    tdx(&root, "version 4", "dcapqvl-v4-b0c06f", june, 1_750_414_563);
    // Its module was replaced while it ran, so that two are judged.
    tdx(
        &root,
        "version 5 with body type 3, relaunched",
        "gotdx-v5-bt3-90c06f",
        march,
        1_774_000_000,
    );
}

fn default_vectors() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/vectors"))
}

fn rounds() -> usize {
    std::env::args().nth(2).map_or(ROUNDS, |count| count.parse().expect("a number of rounds"))
}

/// One thing that is timed.
struct Runner<'a> {
    name: &'static str,
    run: Box<dyn FnMut() + 'a>,
    times: Vec<f64>,
}

fn runner<'a>(name: &'static str, run: impl FnMut() + 'a) -> Runner<'a> {
    Runner { name, run: Box::new(run), times: Vec::with_capacity(rounds()) }
}

/// Takes all of them in turn, and prints and returns the least time of each.
fn time<const N: usize>(mut runners: [Runner<'_>; N]) -> [f64; N] {
    for _ in 0..rounds() {
        for runner in &mut runners {
            let begin = Instant::now();
            (runner.run)();
            runner.times.push(begin.elapsed().as_secs_f64() * 1e6);
        }
    }
    runners.map(|mut runner| {
        runner.times.sort_by(f64::total_cmp);
        let (least, median) = (runner.times[0], runner.times[runner.times.len() / 2]);
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
    // By themselves: the peer's round fills the caches with its own.
    let [alone, bare_alone] = time([
        runner("ours, all checks, by itself", || {
            black_box(verifier.appraise(&evidence, &endorsements, &expected, at).unwrap());
        }),
        runner("ring, three signatures, by itself", || bare.iter().for_each(Bare::verify)),
    ]);
    println!("  sev / ours              {:.2}   (at least 3 is wanted)", theirs / ours);
    println!("  ours / signatures       {:.2}", ours / signatures);
    println!("  beyond the signatures   {:.1} us (under 20 is wanted)", alone - bare_alone);
    println!("  warm / one signature    {:.2}", warm / one);
}

/// An H100, its five certificates, and the manifests of its driver and its VBIOS.
fn gpu(root: &Path) {
    let at = 1_772_323_200;
    let read = |name: &str| std::fs::read(root.join("h100-550.90.07").join(name)).unwrap();
    let report = hex::decode(read("report.hex").trim_ascii()).unwrap();
    let chain = read("chain.pem");
    let manifests = [read("driver-rim.xml"), read("vbios-rim.xml")];
    let endorsements = manifests.each_ref().map(Vec::as_slice);
    let nonce = report[4..36].try_into().unwrap();
    let bare = bare_gpu(&report, &chain, &manifests);
    let devices = [DeviceEvidence::new(report, chain)];
    let verifier = Verifier::new(AppraisalPolicy::parse(EVIDENCE).unwrap());
    let expected = ExpectedDevices { nonce: &nonce, gpus: 1, switches: 0, chips: &[] };
    let mut cache = Cache::new(4);

    println!("GPU, H100: report, chain, two manifests with their chains");
    let [ours, signatures, warm, one] = time([
        runner("ours, all checks", || {
            let verdict = verifier.appraise_devices(&devices, &endorsements, &expected, at);
            black_box(verdict.unwrap());
        }),
        runner("ring, the same signatures, each once", || bare.iter().for_each(Bare::verify)),
        runner("ours, all checks, warm cache", || {
            let verdict =
                verifier.appraise_devices_with(&mut cache, &devices, &endorsements, &expected, at);
            black_box(verdict.unwrap());
        }),
        runner("ring, the report's signature", || bare[0].verify()),
    ]);
    println!("  {} distinct signatures", bare.len());
    println!("  ours / signatures       {:.2}   (under 3 is wanted)", ours / signatures);
    println!("  beyond the signatures   {:.1} us", ours - signatures);
    println!("  warm / one signature    {:.2}", warm / one);
}

/// The report's first, then each link of the three chains once, and each manifest's.
fn bare_gpu(report: &[u8], chain: &[u8], manifests: &[Vec<u8>; 2]) -> Vec<Bare> {
    use base64ct::{Base64, Encoding};

    let tail = report.len() - 96;
    let chain = certificates(std::str::from_utf8(chain).unwrap(), "-----BEGIN CERTIFICATE-----");
    let mut all = vec![Bare {
        algorithm: &ECDSA_P384_SHA384_FIXED,
        key: key(&chain[0]),
        message: report[..tail].to_vec(),
        signature: report[tail..].to_vec(),
    }];
    let mut links = linked(&chain);
    for manifest in manifests {
        let text = std::str::from_utf8(manifest).unwrap();
        let signers = certificates(text, "<ds:X509Certificate>");
        links.extend(linked(&signers));
        let (_, value) = text.split_once("<ds:SignatureValue>").unwrap();
        let value: String = value.split('<').next().unwrap().split_whitespace().collect();
        all.push(Bare {
            algorithm: &ECDSA_P384_SHA384_FIXED,
            key: key(&signers[0]),
            message: signed_info(text),
            signature: Base64::decode_vec(&value).unwrap(),
        });
    }
    links.sort_by(|one, other| one.signature.cmp(&other.signature));
    links.dedup_by(|one, other| one.signature == other.signature);
    all.extend(links);
    all
}

/// The certificates that begin after each `mark`, in base64.
fn certificates(text: &str, mark: &str) -> Vec<x509_cert::Certificate> {
    use base64ct::{Base64, Encoding};
    use der::Decode;

    let bodies = text.split(mark).skip(1).map(|rest| rest.split(['<', '-']).next().unwrap());
    let decode = |body: &str| {
        let body: String = body.split_whitespace().collect();
        x509_cert::Certificate::from_der(&Base64::decode_vec(&body).unwrap()).unwrap()
    };
    bodies.map(decode).collect()
}

fn key(certificate: &x509_cert::Certificate) -> Vec<u8> {
    let spki = &certificate.tbs_certificate.subject_public_key_info;
    spki.subject_public_key.as_bytes().unwrap().to_vec()
}

/// Each certificate's signature by the next.
fn linked(chain: &[x509_cert::Certificate]) -> Vec<Bare> {
    use der::Encode;

    let link = |pair: &[x509_cert::Certificate]| Bare {
        algorithm: match pair[0].signature_algorithm.oid.to_string().as_str() {
            "1.2.840.10045.4.3.2" => &ECDSA_P384_SHA256_ASN1,
            _ => &ECDSA_P384_SHA384_ASN1,
        },
        key: key(&pair[1]),
        message: pair[0].tbs_certificate.to_der().unwrap(),
        signature: pair[0].signature.as_bytes().unwrap().to_vec(),
    };
    chain.windows(2).map(link).collect()
}

/// The canonical form of what a manifest's signature is over: the namespaces in scope on it, and no
/// element without an end tag.
fn signed_info(text: &str) -> Vec<u8> {
    let open = text.find("<ds:SignedInfo").unwrap();
    let (from, to) = (text[open..].find('>').unwrap() + open + 1, text.find("</ds:SignedInfo>"));
    let mut out = String::from(concat!(
        "<ds:SignedInfo xmlns=\"http://standards.iso.org/iso/19770/-2/2015/schema.xsd\"",
        " xmlns:ds=\"http://www.w3.org/2000/09/xmldsig#\"",
        " xmlns:ns0=\"http://standards.iso.org/iso/19770/-2/2015/schema.xsd\"",
        " xmlns:ns2=\"http://www.w3.org/2001/04/xmlenc#sha384\">"
    ));
    for (index, part) in text[from..to.unwrap()].split('<').enumerate() {
        if index > 0 {
            out.push('<');
        }
        match part.split_once("/>") {
            Some((tag, rest)) => {
                let name = tag.split_whitespace().next().unwrap();
                out.push_str(&format!("{}></{name}>{rest}", tag.trim_end()));
            }
            None => out.push_str(part),
        }
    }
    out.push_str("</ds:SignedInfo>");
    out.into_bytes()
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

fn tdx(root: &Path, title: &str, quote: &str, collateral: &str, at: u64) {
    let read = |path: &str| std::fs::read(root.join(path)).unwrap();
    let quote = read(&format!("tdx/quotes/{quote}.bin"));
    let quote = unpadded(&quote).unwrap();
    let collateral = read(&format!("tdx/collateral/{collateral}.collateral.json"));
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
    let data = if quote[0] == 4 { 48 + 584 } else { 54 + 648 };
    let own = Bare {
        algorithm: &ECDSA_P256_SHA256_FIXED,
        key: [&[4], &quote[data + 68..data + 132]].concat(),
        message: quote[..data].to_vec(),
        signature: quote[data + 4..data + 68].to_vec(),
    };

    println!("TDX, {title}: quote and collateral");
    let claims = dcap_qvl::QuotePolicy::claims_only(at);
    let [ours, theirs, decoding, _, warm, one] = time([
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
        runner("dcap-qvl, with its claims", || {
            black_box(qvl.verify_with_policy(quote, parsed.clone(), at, &claims).unwrap());
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
