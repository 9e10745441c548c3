//! Simulated hardware: genuine formats under simulated roots.
//!
//! # Trusts
//! Nothing, and no one trusts it: a verifier takes its evidence only where a policy names the
//! simulated root, and whatever was judged under that root says SIMULATED.
//!
//! # Never
//! Never linked into `cloister-enclave` or any other program that is not a test's. No variant of a
//! format, no bypass in a verifier: the only difference to hardware is who signs.
//!
//! # Invariants
//! - The processor measures what was launched with [`measurement::launch`], as hardware would, and
//!   reports that digest; no caller can name another one to it.
//! - Every certificate says SIMULATED in the organisation of its subject.
//!
//! # Wire
//! Between a guest and its security processor, any number of times over one connection:
//!
//! | direction | bytes |
//! |---|---|
//! | request | REPORT_DATA, 64 bytes |
//! | answer | length, u32 big-endian; then deterministic CBOR `{report: bytes, endorsements: [bytes]}` |
//!
//! Endorsements are, for SNP: VCEK, ASK, ARK and the ARK's revocation list, all DER; for TDX: one
//! `QuoteCollateralV3` in JSON.

pub mod certificate;
pub mod collateral;
pub mod processor;
pub mod root;
pub mod snp;
pub mod tdx;

pub use processor::{Evidence, Processor};
pub use root::{Keys, Root};

use anyhow::{Context, Result, ensure};
use measurement::cbor::{self, Blob};
use serde::{Deserialize, Serialize};
use std::io::{self, ErrorKind, Read, Write};

/// Longest answer that is read, in bytes; the longest there is has about 20 KiB.
pub const CAP: usize = 1 << 20;

/// Asks the processor at the other end of `stream` for a report over `report_data`: the report and
/// its endorsements.
pub fn ask(
    stream: &mut (impl Read + Write),
    report_data: &[u8; 64],
) -> Result<(Vec<u8>, Vec<Vec<u8>>)> {
    stream.write_all(report_data)?;
    stream.flush()?;
    let mut length = [0; 4];
    stream.read_exact(&mut length).context("the simulated processor does not answer")?;
    let length = usize::try_from(u32::from_be_bytes(length))?;
    ensure!(length <= CAP, "the answer has {length} bytes, at most {CAP} are read");
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).context("the answer of the simulated processor ends early")?;
    let answer: Answer = cbor::decode(&answer, CAP)?;
    Ok((answer.report.0, answer.endorsements.into_iter().map(|item| item.0).collect()))
}

/// Answers requests on `stream` until it ends.
pub fn answer(mut stream: impl Read + Write, processor: &Processor) -> io::Result<()> {
    let mut report_data = [0; 64];
    loop {
        match stream.read_exact(&mut report_data) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            read => read?,
        }
        let evidence = processor.report(&report_data);
        let answer = cbor::encode(&Answer {
            report: Blob(evidence.report),
            endorsements: evidence.endorsements.into_iter().map(Blob).collect(),
        });
        let length = u32::try_from(answer.len()).map_err(io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes()[..], &answer].concat())?;
        stream.flush()?;
    }
}

#[derive(Serialize, Deserialize)]
struct Answer {
    report: Blob,
    endorsements: Vec<Blob>,
}
