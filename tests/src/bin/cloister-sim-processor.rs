//! A simulated security processor: measures an image as AMD's and Intel's hardware would and
//! answers its guest with reports under simulated roots.
//!
//! Exit status: 0 done, 2 could not.

use anyhow::{Context, Result, anyhow};
use clap::{Parser, Subcommand, ValueEnum};
use std::fs;
use std::io::Write;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;
use tests::sim::{self, Processor, Root, snp::Version};

/// SIMULATED security processor: genuine formats under simulated roots, for tests and the demo.
#[derive(Parser)]
#[command(name = "cloister-sim-processor", version)]
struct Options {
    #[command(subcommand)]
    verb: Verb,
    /// Print the result as one line of JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Verb {
    /// Make the simulated vendors; a policy names them by `root.pem`.
    Roots {
        /// Folder of keys and certificates.
        #[arg(long, value_name = "DIR")]
        state: PathBuf,
    },
    /// Launch an image and answer its guest.
    Serve {
        /// Folder with firmware.fd, kernel, initrd, cmdline and image.json.
        #[arg(long, value_name = "DIR")]
        image: PathBuf,
        /// Launch blob, whose digest goes into HOST_DATA or MRCONFIGID.
        #[arg(long, value_name = "FILE")]
        launch_blob: PathBuf,
        /// Folder of keys and certificates.
        #[arg(long, value_name = "DIR")]
        state: PathBuf,
        /// Unix socket to listen on.
        #[arg(long, value_name = "PATH")]
        listen: PathBuf,
        /// Version of SNP reports.
        #[arg(long, value_enum, default_value = "5")]
        report_version: ReportVersion,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum ReportVersion {
    #[value(name = "3")]
    V3,
    #[value(name = "5")]
    V5,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cloister-sim-processor: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(options: Options) -> Result<()> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    match options.verb {
        Verb::Roots { state } => {
            eprintln!("cloister-sim-processor: drawing simulated roots, a few seconds");
            Root::create(&state, now)?;
            let root = state.join("root.pem");
            let facts = serde_json::json!({ "simulated": true, "root": root });
            say(options.json, &facts, &format!("SIMULATED  roots  {}", root.display()))
        }
        Verb::Serve { image, launch_blob, state, listen, report_version } => {
            let blob = fs::read(&launch_blob)
                .with_context(|| format!("cannot read {}", launch_blob.display()))?;
            let version = match report_version {
                ReportVersion::V3 => Version::V3,
                ReportVersion::V5 => Version::V5,
            };
            let root = Root::open(&state).map_err(|error| anyhow!("{error:#}\n{NO_ROOTS}"))?;
            let processor = Processor::launch(&image, &blob, root, version, now)?;
            let listener = bind(&listen)?;
            let measured = serde_json::to_value(processor.measured())?;
            let line = format!("SIMULATED  launched  {measured}");
            let facts = serde_json::json!({ "simulated": true, "measured": measured });
            say(options.json, &facts, &line)?;
            serve(&listener, &processor)
        }
    }
}

/// Answers every connection on a thread of its own; a guest that misbehaves loses its own only.
fn serve(listener: &UnixListener, processor: &Processor) -> Result<()> {
    std::thread::scope(|scope| {
        loop {
            let (stream, _) = listener.accept().context("cannot accept a connection")?;
            scope.spawn(move || {
                if let Err(error) = sim::answer(stream, processor) {
                    eprintln!("cloister-sim-processor: a guest went away: {error}");
                }
            });
        }
    })
}

/// Takes the place of a socket that an earlier run left behind, but of nothing else.
fn bind(path: &Path) -> Result<UnixListener> {
    if fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
        fs::remove_file(path).with_context(|| format!("cannot replace {}", path.display()))?;
    }
    UnixListener::bind(path).with_context(|| format!("cannot listen on {}", path.display()))
}

/// The result, at once: the one who started us waits for it.
fn say(json: bool, facts: &serde_json::Value, text: &str) -> Result<()> {
    let mut out = std::io::stdout();
    if json {
        writeln!(out, "{facts}")?
    } else {
        writeln!(out, "{text}")?
    }
    Ok(out.flush()?)
}

const NO_ROOTS: &str = "hint: make simulated roots with `cloister-sim-processor roots --state DIR`";
