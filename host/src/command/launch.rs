//! `cloister-host launch`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use host::image::Image;
use host::progress::{self, Progress};
use host::session::{self, Outcome, Program, RunFolder, Session};
use host::supply::Stock;
use host::vm::{self, Guest, Wires};
use measurement::carrier::{Item, Stage};
use measurement::launch::{self, blob};
use serde_json::json;

/// What a job that is done has handed out.
const OUTPUTS: [Item; 2] = [Item::SealedAdapter, Item::Receipt];

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Platform {
    /// AMD SEV-SNP
    Snp,
    /// Intel TDX
    Tdx,
    /// Software emulation, with a simulated security processor
    Emulated,
    /// No machine at all: the enclave as a process, with a simulated security processor
    Process,
}

#[derive(Debug, Args)]
pub struct Arguments {
    /// What to launch on
    #[arg(long)]
    platform: Platform,
    /// The image folder
    #[arg(long, value_name = "DIR", required_if_eq_any = [
        ("platform", "snp"), ("platform", "tdx"), ("platform", "emulated"),
    ])]
    image: Option<PathBuf>,
    /// The launch blob, which holds the manifest
    #[arg(long, value_name = "FILE")]
    launch_blob: PathBuf,
    /// The manifest's approvals
    #[arg(long, value_name = "FILE")]
    approvals: PathBuf,
    /// The sealed data set
    #[arg(long, value_name = "FILE")]
    dataset: PathBuf,
    /// The base model's folder: config.json, model.safetensors, tokenizer.json
    #[arg(long, value_name = "DIR")]
    base: PathBuf,
    /// The brokers' addresses, in the order of the manifest
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',', required = true)]
    broker: Vec<String>,
    /// Certificates or collateral that the guest cannot get by itself
    #[arg(long, value_name = "FILE")]
    endorsements: Option<PathBuf>,
    /// Folder for the sealed adapter and the receipt
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The enclave's program (process)
    #[arg(long, value_name = "PROGRAM", required_if_eq("platform", "process"))]
    enclave: Option<PathBuf>,
    /// The simulated security processor's socket (emulated, process)
    #[arg(long, value_name = "SOCKET", required_if_eq_any = [
        ("platform", "emulated"), ("platform", "process"),
    ])]
    asp: Option<PathBuf>,
    /// QEMU
    #[arg(long, value_name = "PATH", default_value = "qemu-system-x86_64")]
    qemu: PathBuf,
    /// How long the job may take
    #[arg(long, value_name = "SECONDS", default_value_t = 86_400)]
    timeout: u64,
    /// Print QEMU's arguments, one per line, and the predicted measurement; launch nothing
    #[arg(long, conflicts_with = "enclave")]
    dry_run: bool,
    /// Print one JSON object, and events as JSON lines on standard error
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    check_platform(arguments)?;
    let parent = std::env::var_os("XDG_RUNTIME_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    if arguments.dry_run {
        return dry_run(arguments, &parent.join("cloister"));
    }
    let stock = stock(arguments)?;
    let mut folder = RunFolder::new(&parent)?;
    let program = program(arguments, &folder)?;
    let session = Session {
        folder: &folder,
        program,
        stock: &stock,
        brokers: arguments.broker.clone(),
        timeout: Duration::from_secs(arguments.timeout),
    };
    let start = Instant::now();
    let progress = Progress::new(arguments.json);
    let runtime = tokio::runtime::Runtime::new()?;
    let result = runtime.block_on(session.run(|event| progress.hear(event)));
    progress.end();
    let done = result.as_ref().is_ok_and(|outcome| outcome.ending.stage == Stage::Done);
    let whole = |outcome: &Outcome| OUTPUTS.iter().all(|item| outcome.output(*item).is_some());
    if !done || !result.as_ref().is_ok_and(whole) {
        folder.keep();
        eprintln!("hint: the console of this run is in {}", folder.console().display());
    }
    report(&result?, &stock, start.elapsed(), arguments.json)
}

fn check_platform(arguments: &Arguments) -> anyhow::Result<()> {
    let Some(folder) = &arguments.image else { return Ok(()) };
    let image = Image::read(folder)?;
    match (arguments.platform, image.shape.platform) {
        (Platform::Snp, launch::Platform::Tdx) => bail!("the image is for tdx, not for snp"),
        (Platform::Tdx, launch::Platform::Snp) => bail!("the image is for snp, not for tdx"),
        _ => Ok(()),
    }
}

/// Everything the enclave may ask for, looked at before a machine is started.
fn stock(arguments: &Arguments) -> anyhow::Result<Stock> {
    std::fs::create_dir_all(&arguments.out).with_context(|| arguments.out.display().to_string())?;
    let mut stock = Stock { out: arguments.out.clone(), ..Stock::default() };
    stock.insert(Item::LaunchBlob, arguments.launch_blob.clone());
    stock.insert(Item::Approvals, arguments.approvals.clone());
    stock.insert(Item::Dataset, arguments.dataset.clone());
    stock.insert(Item::BaseConfig, arguments.base.join("config.json"));
    stock.insert(Item::BaseWeights, arguments.base.join("model.safetensors"));
    stock.insert(Item::Tokenizer, arguments.base.join("tokenizer.json"));
    let template = arguments.base.join("chat_template.jinja");
    if template.exists() {
        stock.insert(Item::Template, template);
    }
    if let Some(path) = &arguments.endorsements {
        stock.insert(Item::Endorsements, path.clone());
    }
    for path in stock.items.values() {
        let found = std::fs::metadata(path).with_context(|| path.display().to_string())?;
        if !found.is_file() {
            bail!("{}: not a file", path.display());
        }
    }
    for item in OUTPUTS {
        if let Some(path) = stock.output(item).filter(|path| path.exists()) {
            bail!("{}: exists already\nhint: give every launch its own --out", path.display());
        }
    }
    Ok(stock)
}

fn program(arguments: &Arguments, folder: &RunFolder) -> anyhow::Result<Program> {
    if arguments.platform == Platform::Process {
        let enclave = arguments.enclave.as_ref().context("--enclave is needed")?;
        let asp = arguments.asp.as_ref().context("--asp is needed")?;
        folder.link_asp(asp)?;
        return Ok(Program {
            path: enclave.clone(),
            arguments: vec![folder.path().into()],
            log: folder.console(),
        });
    }
    let (_, guest, argv) = machine(arguments, folder.path())?;
    check_qemu(&arguments.qemu, guest)?;
    Ok(Program {
        path: arguments.qemu.clone(),
        arguments: argv.into_iter().map(OsString::from).collect(),
        log: folder.path().join("qemu.log"),
    })
}

/// The image, the machine for it, and QEMU's arguments.
fn machine(arguments: &Arguments, folder: &Path) -> anyhow::Result<(Image, Guest, Vec<String>)> {
    let path = arguments.image.as_ref().context("--image is needed")?;
    let image = Image::read(path)?;
    let bytes = std::fs::read(&arguments.launch_blob)
        .with_context(|| arguments.launch_blob.display().to_string())?;
    blob::read(&bytes).with_context(|| arguments.launch_blob.display().to_string())?;
    let guest = match arguments.platform {
        Platform::Snp => Guest::Snp { host_data: blob::host_data(&bytes) },
        Platform::Tdx => Guest::Tdx { mr_config_id: blob::mr_config_id(&bytes) },
        Platform::Emulated => Guest::Emulated,
        Platform::Process => bail!("a process has no machine"),
    };
    let wires = Wires {
        host: folder.join("host.sock"),
        relay: folder.join("relay.sock"),
        asp: arguments.asp.clone(),
        console: folder.join("console.log"),
    };
    let argv = vm::arguments(&image.machine(path), guest, &wires);
    Ok((image, guest, argv))
}

fn check_qemu(qemu: &Path, guest: Guest) -> anyhow::Result<()> {
    let output = Command::new(qemu).arg("--version").output().with_context(|| {
        format!("{} does not start\nhint: apt-get install qemu-system-x86", qemu.display())
    })?;
    let text = String::from_utf8_lossy(&output.stdout);
    let observed = vm::version(&text).context("this is no qemu, or one without a version")?;
    let required = guest.needs_qemu();
    if observed < required {
        bail!(
            "qemu is {}.{}, this platform requires {}.{}\nhint: name another one with --qemu",
            observed.0,
            observed.1,
            required.0,
            required.1
        );
    }
    Ok(())
}

fn dry_run(arguments: &Arguments, folder: &Path) -> anyhow::Result<ExitCode> {
    let (image, _, argv) = machine(arguments, folder)?;
    let measured = image.measure()?;
    let qemu = arguments.qemu.display().to_string();
    let argv: Vec<_> = std::iter::once(qemu).chain(argv).collect();
    if arguments.json {
        println!("{}", json!({ "argv": argv, "measured": measured }));
    } else {
        println!("{}\n\n{}", argv.join("\n"), super::lines(&measured));
    }
    Ok(ExitCode::SUCCESS)
}

fn report(
    outcome: &Outcome,
    stock: &Stock,
    time: Duration,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let ending = &outcome.ending;
    let done = ending.stage == Stage::Done;
    let (adapter, receipt) = (outcome.output(Item::SealedAdapter), outcome.output(Item::Receipt));
    if done && (adapter.is_none() || receipt.is_none()) {
        bail!("the enclave is done, yet handed out no adapter or no receipt");
    }
    let relayed = outcome.relayed.as_ref().and_then(|relayed| relayed.as_ref().ok());
    if let Some(Err(problem)) = &outcome.relayed {
        eprintln!("cloister-host: relay: {problem}");
    }
    if json {
        let facts = json!({
            "outcome": progress::name(ending.stage),
            "steps": ending.steps,
            "adapter": adapter,
            "receipt": receipt,
            "relayed": relayed,
            "seconds": time.as_secs_f64(),
        });
        println!("{facts}");
    } else if done {
        println!("done  {} steps in {} s", ending.steps, time.as_secs());
    } else {
        println!("halted  {}", session::explain(ending.stage));
    }
    if let (false, Some(adapter), Some(receipt)) = (json, adapter, receipt) {
        println!("  adapter  {}\n  receipt  {}", adapter.display(), receipt.display());
    }
    if !done && ending.outputs.is_empty() {
        eprintln!("hint: nothing was written to {}", stock.out.display());
    }
    Ok(if done { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
