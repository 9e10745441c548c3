//! The data owner's tool: begin, seal, plan, approve, and open the adapter that comes back.
//!
//! Standard output holds the result, standard error progress and problems. Exit status: 0 done,
//! 1 refused (the input, or a limit that the owner set), 2 could not tell (a file, the network, the
//! command line).

use std::fmt::Display;
use std::io::{IsTerminal, Write as _, stdout};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use broker::owner::approve::{ApproveError, approve};
use broker::owner::dataset::{DatasetError, Sidecar};
use broker::owner::init::{self, SimulatedRoot, init};
use broker::owner::job::{Job, JobError};
use broker::owner::keys::{self, Purpose};
use broker::owner::open::{self, OpenError, open};
use broker::owner::plan::{self, PlanError, plan};
use broker::owner::seal::{self, BYTES_PER_TOKEN, Outcome, SealError, read_custodian, seal};
use clap::{Args, Parser, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use measurement::manifest::{Custodian, Tee};
use sealed::Threshold;
use serde_json::{Value, json};

#[derive(Parser)]
#[command(name = "cloister-owner", version, about, long_about = None)]
#[command(about = "Seal records, plan and approve a job, open the adapter that comes back")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
    /// Print the result as JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Verb {
    /// Begin a folder: job.toml, policy.toml, threat.toml and synthetic tickets.
    Init(InitArgs),
    /// Make a key: to approve manifests with, or to receive adapters.
    Keygen(KeygenArgs),
    /// Seal records under a fresh key and deal that key to the custodians.
    Seal(SealArgs),
    /// Resolve every digest, solve for the noise, and write the manifest.
    Plan(PlanArgs),
    /// Sign a manifest.
    Approve(ApproveArgs),
    /// Open a sealed adapter with the custodians' help.
    Open(OpenArgs),
}

#[derive(Args)]
struct InitArgs {
    /// The folder to begin.
    folder: PathBuf,
    /// Records of the synthetic private set.
    #[arg(long, default_value_t = 400)]
    records: u32,
    /// Customers in it.
    #[arg(long, default_value_t = 200)]
    customers: u32,
    /// Planted secrets in it.
    #[arg(long, default_value_t = 4)]
    canaries: u32,
    /// The synthetic sets' seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A simulated root for the policy to believe, NAME=FILE.pem; with one --platform each.
    #[arg(long, value_name = "NAME=FILE", value_parser = named_file)]
    simulated_root: Vec<(String, PathBuf)>,
    /// What the simulated root signs for.
    #[arg(long)]
    platform: Vec<Platform>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Platform {
    Snp,
    Tdx,
}

#[derive(Args)]
struct KeygenArgs {
    /// Where the secret half goes; the public half goes to the same name with .pub behind it.
    #[arg(long)]
    out: PathBuf,
    /// A key to receive adapters (X25519) instead of one to approve with (Ed25519).
    #[arg(long)]
    recipient: bool,
}

#[derive(Args)]
struct SealArgs {
    /// Files of records: .jsonl, also .gz or .zst.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// The job whose bounds hold.
    #[arg(long, default_value = "job.toml")]
    job: PathBuf,
    /// A custodian's public description; once for each, in the order of the shares.
    #[arg(long, required = true, num_args = 1..)]
    custodian: Vec<PathBuf>,
    /// How many custodians must release their share.
    #[arg(long)]
    threshold: u8,
    /// Where the sealed data set goes.
    #[arg(long)]
    out: PathBuf,
    /// The folder for the custodians' envelopes.
    #[arg(long)]
    shares: PathBuf,
    /// The sealed data set that this is the next version of.
    #[arg(long)]
    previous: Option<PathBuf>,
}

#[derive(Args)]
struct PlanArgs {
    /// The job.
    #[arg(long, default_value = "job.toml")]
    job: PathBuf,
    /// An image folder; more than once for more platforms.
    #[arg(long, required = true)]
    image: Vec<PathBuf>,
    /// The base model's folder.
    #[arg(long)]
    base: PathBuf,
    /// The sealed data set.
    #[arg(long)]
    dataset: PathBuf,
    /// The appraisal policy.
    #[arg(long, default_value = "policy.toml")]
    policy: PathBuf,
    /// A custodian's public description; once for each, in any order.
    #[arg(long, required = true, num_args = 1..)]
    custodian: Vec<PathBuf>,
    /// The folder for manifest, launch blob and listing.
    #[arg(long, default_value = "plan")]
    out: PathBuf,
}

#[derive(Args)]
struct ApproveArgs {
    /// The manifest.
    #[arg(long)]
    manifest: PathBuf,
    /// The approver's secret key.
    #[arg(long)]
    key: PathBuf,
    /// The approvals; signatures that it holds already stay.
    #[arg(long)]
    out: PathBuf,
}

#[derive(Args)]
struct OpenArgs {
    /// The receipt.
    #[arg(long)]
    receipt: PathBuf,
    /// The sealed adapter.
    #[arg(long)]
    sealed: PathBuf,
    /// The recipient's secret key.
    #[arg(long)]
    recipient_key: PathBuf,
    /// The manifest that was approved; a receipt of another one is refused.
    #[arg(long)]
    manifest: Option<PathBuf>,
    /// A custodian's broker, HOST:PORT; once for each, in any order.
    #[arg(long, required = true, num_args = 1..)]
    broker: Vec<String>,
    /// The folder for the adapter.
    #[arg(long)]
    out: PathBuf,
}

/// Why a verb did not do what was asked.
struct Problem {
    /// What to exit with.
    status: u8,
    /// What to say.
    message: String,
    /// More lines to say, each on its own.
    details: Vec<String>,
    /// What to do about it.
    hint: Option<&'static str>,
}

const REFUSED: u8 = 1;
const COULD_NOT: u8 = 2;

impl Problem {
    fn new(status: u8, error: impl Display) -> Self {
        Self { status, message: error.to_string(), details: Vec::new(), hint: None }
    }

    fn hint(self, hint: &'static str) -> Self {
        Self { hint: Some(hint), ..self }
    }
}

/// A verb's result, once for people and once for programs.
struct Answer {
    text: String,
    json: Value,
}

fn main() -> ExitCode {
    let Cli { verb, json } = Cli::parse();
    let answer = match verb {
        Verb::Init(args) => run_init(args),
        Verb::Keygen(args) => run_keygen(&args),
        Verb::Seal(args) => run_seal(args),
        Verb::Plan(args) => run_plan(&args),
        Verb::Approve(args) => run_approve(&args),
        Verb::Open(args) => run_open(&args),
    };
    match answer {
        Ok(answer) => {
            let text = if json { format!("{}\n", answer.json) } else { answer.text };
            match stdout().write_all(text.as_bytes()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(_) => ExitCode::from(COULD_NOT),
            }
        }
        Err(problem) => {
            for line in &problem.details {
                eprintln!("cloister-owner: {line}");
            }
            eprintln!("cloister-owner: {}", problem.message);
            if let Some(hint) = problem.hint {
                eprintln!("hint: {hint}");
            }
            ExitCode::from(problem.status)
        }
    }
}

fn named_file(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, file)) if !name.is_empty() && !file.is_empty() => {
            Ok((name.to_owned(), file.into()))
        }
        _ => Err("expected NAME=FILE".to_owned()),
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

fn run_init(args: InitArgs) -> Result<Answer, Problem> {
    if args.platform.len() != args.simulated_root.len() {
        let problem = Problem::new(COULD_NOT, "every --simulated-root needs one --platform");
        return Err(problem.hint("--simulated-root demo=root.pem --platform snp"));
    }
    let roots = args.simulated_root.into_iter().zip(args.platform);
    let roots: Vec<_> = roots
        .map(|((name, certificate), platform)| {
            let platform = match platform {
                Platform::Snp => Tee::Snp,
                Platform::Tdx => Tee::Tdx,
            };
            SimulatedRoot { name, certificate, platform }
        })
        .collect();
    let files = init(&init::Request {
        folder: &args.folder,
        records: args.records,
        customers: args.customers,
        canaries: args.canaries,
        seed: args.seed,
        roots: &roots,
    })
    .map_err(|e| Problem::new(COULD_NOT, e))?;
    let text = files.iter().map(|file| format!("{}\n", file.display())).collect();
    Ok(Answer { text, json: json!({ "files": files }) })
}

fn run_keygen(args: &KeygenArgs) -> Result<Answer, Problem> {
    let purpose = if args.recipient { Purpose::Receive } else { Purpose::Approve };
    let public = keys::generate(&args.out, purpose).map_err(|e| Problem::new(COULD_NOT, e))?;
    let path = keys::public_path(&args.out);
    let json = json!({ "secret": args.out, "public": path, "key": public.key.to_string() });
    Ok(Answer { text: format!("{public}\n"), json })
}

fn read_job(path: &std::path::Path) -> Result<Job, Problem> {
    Job::read(path).map_err(|error| match error {
        JobError::File(_) => Problem::new(COULD_NOT, error),
        _ => Problem::new(REFUSED, error),
    })
}

fn read_custodians(paths: &[PathBuf]) -> Result<Vec<Custodian>, Problem> {
    let read = |path: &PathBuf| read_custodian(path).map_err(|e| Problem::new(COULD_NOT, e));
    paths.iter().map(read).collect()
}

fn progress() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let template = "  {msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec}";
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn run_seal(args: SealArgs) -> Result<Answer, Problem> {
    let job = read_job(&args.job)?;
    let custodians = read_custodians(&args.custodian)?;
    let n = u8::try_from(custodians.len()).unwrap_or(u8::MAX);
    let threshold = Threshold::new(args.threshold, n).map_err(|e| Problem::new(COULD_NOT, e))?;
    let previous = args.previous.map(|path| Sidecar::read(&path)).transpose();
    let previous = previous.map_err(|e| Problem::new(COULD_NOT, e))?;
    let (bar, started) = (progress(), Instant::now());
    let outcome = seal(&seal::Request {
        files: &args.files,
        job: &job,
        custodians: &custodians,
        threshold,
        previous: previous.as_ref().map(|sidecar| &sidecar.dataset),
        out: &args.out,
        shares: &args.shares,
        now: now(),
        bar: &bar,
    })
    .map_err(sealing)?;
    let seconds = started.elapsed().as_secs_f64();
    note(&outcome, &job);
    Ok(sealed(&outcome, &args.out, seconds))
}

fn sealing(error: SealError) -> Problem {
    match error {
        SealError::Flawed(flaws) => {
            let details = flaws.shown.iter().map(ToString::to_string).collect();
            Problem { details, ..Problem::new(REFUSED, SealError::Flawed(flaws)) }
        }
        SealError::Bounds(_) => Problem::new(REFUSED, error)
            .hint("raise the setting in job.toml to a bound that will still hold next month"),
        SealError::Changed { .. } | SealError::NoRecord => Problem::new(REFUSED, error),
        _ => Problem::new(COULD_NOT, error),
    }
}

/// What the owner should know of the private set, on the owner's own terminal.
fn note(outcome: &Outcome, job: &Job) {
    let survey = &outcome.survey;
    if !survey.left_out.is_empty() {
        let names: Vec<_> = survey.left_out.iter().map(String::as_str).collect();
        eprintln!("cloister-owner: left out of every record: {}", names.join(", "));
    }
    if let Some((path, line)) = &survey.first_long {
        eprintln!(
            "cloister-owner: {}:{line}: longer than the context: of {} such records training reads \
             the first {} tokens (train.sequence, at {BYTES_PER_TOKEN} bytes a token)",
            path.display(),
            survey.long,
            job.train.sequence,
        );
    }
    let (most, allowed) = (survey.most, job.data.max_records_per_unit);
    if most > allowed {
        eprintln!(
            "cloister-owner: one unit has {most} records; a step looks at {allowed} \
             (data.max_records_per_unit)"
        );
    }
}

fn sealed(outcome: &Outcome, out: &std::path::Path, seconds: f64) -> Answer {
    let (dataset, survey) = (&outcome.sidecar.dataset, &outcome.survey);
    let (m, n) = (outcome.sidecar.threshold, outcome.shares.len());
    let text = format!(
        "sealed   {}\n  data set  {} version {}\n  root      {}\n  records   {} of {} units, {} \
         bytes\n  key       {m} of {n} shares: {}\n",
        out.display(),
        dataset.id,
        dataset.version,
        dataset.root,
        survey.records,
        survey.units,
        survey.bytes,
        outcome.shares.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", "),
    );
    let json = json!({
        "dataset": dataset,
        "file": out,
        "sidecar": Sidecar::path(out),
        "shares": outcome.shares,
        "threshold": m,
        "records": survey.records,
        "units": survey.units,
        "bytes": survey.bytes,
        "long": survey.long,
        "seconds": seconds,
    });
    Answer { text, json }
}

fn run_plan(args: &PlanArgs) -> Result<Answer, Problem> {
    let job = read_job(&args.job)?;
    let custodians = read_custodians(&args.custodian)?;
    let plan = plan(&plan::Request {
        job: &job,
        images: &args.image,
        base: &args.base,
        dataset: &args.dataset,
        policy: &args.policy,
        custodians: &custodians,
        out: &args.out,
        now: now(),
    })
    .map_err(planning)?;
    let mut json = serde_json::to_value(&plan.listing).unwrap_or_default();
    if let Value::Object(fields) = &mut json {
        fields.insert("files".to_owned(), json!(plan.files));
    }
    Ok(Answer { text: plan.listing.to_string(), json })
}

fn planning(error: PlanError) -> Problem {
    let could_not = matches!(
        error,
        PlanError::File(_)
            | PlanError::Key(_)
            | PlanError::Randomness(_)
            | PlanError::Dataset(DatasetError::File(_))
    );
    let problem = Problem::new(if could_not { COULD_NOT } else { REFUSED }, &error);
    match error {
        PlanError::Budget { .. } => problem.hint(
            "lower privacy.epsilon or train.steps; the budget was fixed when the data was sealed",
        ),
        PlanError::Accountant(_) => {
            problem.hint("raise privacy.epsilon or data.max_units, or lower train.steps")
        }
        PlanError::Disagree(_) => problem.hint("set job.toml back, or seal the data set again"),
        _ => problem,
    }
}

fn run_approve(args: &ApproveArgs) -> Result<Answer, Problem> {
    let approved = approve(&args.manifest, &args.key, &args.out).map_err(|error| {
        let could_not = matches!(error, ApproveError::File(_) | ApproveError::Key(_));
        Problem::new(if could_not { COULD_NOT } else { REFUSED }, error)
    })?;
    let text = format!(
        "approved {}\n  by        {}\n  approvals {} of {}\n",
        approved.manifest, approved.approver, approved.approvals, approved.required
    );
    let json = json!({
        "manifest": approved.manifest,
        "approver": approved.approver,
        "approvals": approved.approvals,
        "required": approved.required,
        "file": args.out,
    });
    Ok(Answer { text, json })
}

fn run_open(args: &OpenArgs) -> Result<Answer, Problem> {
    let opened = open(&open::Request {
        receipt: &args.receipt,
        sealed: &args.sealed,
        key: &args.recipient_key,
        manifest: args.manifest.as_deref(),
        brokers: &args.broker,
        out: &args.out,
    })
    .map_err(opening)?;
    let mut text = format!("opened   {}\n", args.out.display());
    if opened.simulated {
        text.push_str("  SIMULATED no confidential hardware vouches for this adapter\n");
    }
    let epsilon = (opened.epsilon * 100.0).ceil() / 100.0;
    text.push_str(&format!("  privacy   epsilon <= {epsilon:.2} at delta {}\n", opened.delta));
    text.push_str(&format!("  released  by {}\n", opened.custodians.join(", ")));
    Ok(Answer { text, json: json!(opened) })
}

fn opening(error: OpenError) -> Problem {
    match error {
        OpenError::Custodians { ref refusals, .. } => {
            let details =
                refusals.iter().map(|(address, why)| format!("{address}: {why}")).collect();
            Problem { details, ..Problem::new(COULD_NOT, &error) }
        }
        OpenError::File(_) | OpenError::Key(_) => Problem::new(COULD_NOT, error),
        _ => Problem::new(REFUSED, error).hint("ask `cloister verify` what the receipt is worth"),
    }
}
