//! The key custodian's service, and its folder.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use broker::custodian::{self, Ledger};
use broker::serve::{Journal, Server};
use clap::{Parser, Subcommand};

/// Keep one share of a data key, and release it to attested jobs that are paid for.
#[derive(Parser)]
#[command(name = "cloister-broker", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Make a custodian's keys, and print what a manifest names it by
    Init {
        /// An empty folder, or one that is not there
        dir: PathBuf,
        /// A name for people
        #[arg(long)]
        name: String,
        /// The result is JSON either way
        #[arg(long)]
        json: bool,
    },
    /// Check and take in a share that a data owner dealt
    Import {
        /// The custodian's folder
        dir: PathBuf,
        /// The share file
        #[arg(long)]
        share: PathBuf,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
    /// Serve until told to stop
    Serve {
        /// The custodian's folder
        dir: PathBuf,
        /// The appraisal policy
        #[arg(long)]
        policy: PathBuf,
        /// Where to listen; port 0 takes a free one
        #[arg(long)]
        listen: SocketAddr,
        /// Write the port here once the service listens
        #[arg(long)]
        port_file: Option<PathBuf>,
        /// One JSON object per event, and for the address
        #[arg(long)]
        json: bool,
    },
    /// Print what was paid, per data set
    Ledger {
        /// The custodian's folder
        dir: PathBuf,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
    /// Write the copy of the log that an auditor gets
    Export {
        /// The custodian's folder
        dir: PathBuf,
        /// A folder that is not there
        #[arg(long)]
        out: PathBuf,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse().verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cloister-broker: {error:#}");
            let no = error.is::<broker::envelope::EnvelopeError>();
            ExitCode::from(if no { 1 } else { 2 })
        }
    }
}

fn run(verb: Verb) -> Result<()> {
    match verb {
        Verb::Init { dir, name, json: _ } => {
            let public = custodian::init(&dir, &name)?;
            print!("{}", String::from_utf8_lossy(&measurement::dsse::print(&public)));
        }
        Verb::Import { dir, share, json } => import(&dir, &share, json)?,
        Verb::Serve { dir, policy, listen, port_file, json } => {
            serve(&dir, &policy, listen, port_file.as_deref(), json)?;
        }
        Verb::Ledger { dir, json } => {
            let ledger = custodian::ledger(&dir)?;
            if json {
                println!("{}", serde_json::to_string(&ledger)?);
            } else {
                print_ledger(&ledger);
            }
        }
        Verb::Export { dir, out, json } => {
            let records = broker::store::export(&dir, &out)?;
            if json {
                println!("{}", serde_json::json!({ "out": out, "records": records }));
            } else {
                println!("exported  {records} records to {}", out.display());
            }
        }
    }
    Ok(())
}

fn import(dir: &Path, share: &Path, json: bool) -> Result<()> {
    let imported = custodian::import(dir, share)?;
    if json {
        println!("{}", serde_json::to_string(&imported)?);
        return Ok(());
    }
    println!("imported  share {} of {}", imported.index, imported.custodians);
    println!("  data set   {}", imported.dataset);
    println!("  key        {}", imported.key);
    println!("  threshold  {}", imported.threshold);
    println!("  budget     epsilon {} at delta {:e}", imported.epsilon, imported.delta);
    println!("  units      at most {}", imported.max_units);
    Ok(())
}

fn serve(
    dir: &Path,
    policy: &Path,
    listen: SocketAddr,
    port_file: Option<&Path>,
    json: bool,
) -> Result<()> {
    let text = std::fs::read_to_string(policy)
        .with_context(|| format!("cannot read {}", policy.display()))?;
    let journal = if json { Journal::Json } else { Journal::Text };
    let server = Server::start(dir, &text, listen, journal)?;
    let address = server.address();
    if let Some(path) = port_file {
        use broker::owner::files::{Audience, Existing, write};
        let port = format!("{}\n", address.port());
        write(path, port.as_bytes(), Audience::Everyone, Existing::Replace)?;
    }
    if json {
        println!("{}", serde_json::json!({ "listening": address }));
    } else {
        println!("listening on {address}");
    }
    server.until_signal()?;
    Ok(())
}

fn print_ledger(ledger: &Ledger) {
    println!("ledger  {} records, root {}", ledger.size, ledger.root);
    for dataset in &ledger.datasets {
        println!("data set {}", dataset.dataset);
        println!("  debits   {}", dataset.debits);
        match (dataset.epsilon, dataset.delta) {
            (Some(epsilon), Some(delta)) => {
                println!("  epsilon  at most {} at delta {delta:e}", custodian::up(epsilon));
            }
            _ => println!("  epsilon  not bounded at any delta known here"),
        }
        if let Some(budget) = dataset.budget {
            println!("  budget   epsilon {budget}");
        }
        for job in &dataset.jobs {
            let receipts = job.receipts.len();
            let out = if job.unwrapped.is_some() { ", adapter unwrapped" } else { "" };
            println!("  job {}  {} attempts, {receipts} receipts{out}", job.job, job.attempts);
        }
    }
}
