//! `replay`: the launch measurement, recomputed from the parts and explained.

use std::path::PathBuf;
use std::process::ExitCode;

use attestation_verifier::receipt::describe;
use auditor::case::Parts as Files;
use clap::Args;
use measurement::digest::sha384;
use measurement::launch::{Image, Measured, Parts, Platform, snp, tdx};
use measurement::octets::Octets;
use serde::Serialize;

use super::{fail, print, print_json};

#[derive(Debug, Args)]
pub struct Arguments {
    /// The image folder
    #[arg(long, value_name = "DIR")]
    image: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// A measurement, and what it was made of, in order.
#[derive(Serialize)]
struct Replay {
    platform: Platform,
    measured: Measured,
    events: Vec<Event>,
}

/// One thing that entered the measurement.
#[derive(Serialize)]
struct Event {
    register: &'static str,
    what: &'static str,
    digest: String,
}

pub fn run(arguments: &Arguments) -> ExitCode {
    let files = match Files::read(&arguments.image) {
        Ok(files) => files,
        Err(problem) => return fail(&problem, problem.hint().as_deref()),
    };
    match replay(&files) {
        Err(problem) => fail(&format!("{}: {problem}", arguments.image.display()), None),
        Ok(replay) if arguments.json => print_json(&replay, 0),
        Ok(replay) => print(&text(&replay), 0),
    }
}

fn replay(files: &Files) -> Result<Replay, String> {
    let files = files.files();
    let cmdline = std::str::from_utf8(files.cmdline).map_err(|error| error.to_string())?;
    let (firmware, kernel, initrd) = (files.firmware, files.kernel, files.initrd);
    let parts = Parts { firmware, kernel, initrd, cmdline };
    let image: Image =
        serde_json::from_slice(files.shape).map_err(|error| format!("image.json: {error}"))?;
    let measured = image.measure(&parts).map_err(|error| error.to_string())?;
    let events = match image.platform {
        Platform::Snp => snp_events(&parts)?,
        Platform::Tdx => tdx_events(&image, &parts)?,
    };
    Ok(Replay { platform: image.platform, measured, events })
}

fn snp_events(parts: &Parts<'_>) -> Result<Vec<Event>, String> {
    let firmware = snp::Firmware::parse(parts.firmware).map_err(|error| error.to_string())?;
    let hashes = snp::KernelHashes::of(parts);
    let event = |what, digest: &[u8]| Event {
        register: "launch digest",
        what,
        digest: hex::encode(digest),
    };
    Ok(vec![
        event("firmware, running digest after its last page", &firmware.digest),
        event("kernel, sha256 in the page of kernel hashes", &hashes.kernel),
        event("initial ram disk, sha256 in the page of kernel hashes", &hashes.initrd),
        event("command line with its nul, sha256 in the page of kernel hashes", &hashes.cmdline),
    ])
}

fn tdx_events(image: &Image, parts: &Parts<'_>) -> Result<Vec<Event>, String> {
    let acpi = image.acpi.ok_or("image.json pins no acpi digests")?;
    let page_order = image.page_order.unwrap_or(tdx::PageOrder::SinglePass);
    let shape = tdx::Shape { memory_mib: image.memory_mib, page_order, acpi };
    let events = tdx::events(parts, &shape).map_err(|error| error.to_string())?;
    let firmware = Event {
        register: "MRTD",
        what: "firmware, sha384 of the file (its sections are added page by page)",
        digest: hex::encode(sha384(parts.firmware)),
    };
    let events = events.into_iter().map(|event| Event {
        register: match event.register {
            tdx::Rtmr::Rtmr0 => "RTMR0",
            tdx::Rtmr::Rtmr1 => "RTMR1",
            tdx::Rtmr::Rtmr2 => "RTMR2",
        },
        what: event.name,
        digest: Octets(event.digest).to_string(),
    });
    Ok(std::iter::once(firmware).chain(events).collect())
}

fn text(replay: &Replay) -> String {
    let mut text = format!("{}\n", describe(&replay.measured));
    for event in &replay.events {
        text.push_str(&format!("  {:<13}  {}  {}\n", event.register, event.digest, event.what));
    }
    text
}
