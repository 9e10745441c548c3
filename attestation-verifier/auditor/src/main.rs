//! `cloister-auditor`: verify receipts, replay measurements, recompute privacy loss, judge evidence.
//!
//! Standard output is the result, standard error is problems. The verdict is the first line. Numbers
//! round against us. Exit status 0: verified; 1: rejected; 2: could not judge.

mod command;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Turn receipts into verdicts. No network, no secrets, no trust.
#[derive(Debug, Parser)]
#[command(name = "cloister-auditor", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Judge evidence under a policy
    Appraise(Box<command::appraise::Arguments>),
    /// Say what to fetch for evidence, and keep what was fetched
    Endorse(command::endorse::Arguments),
    /// Recompute the privacy loss of a mechanism
    Epsilon(command::epsilon::Arguments),
    /// Print every field of a piece of evidence in words
    Explain(command::explain::Arguments),
    /// Recompute and explain the launch measurement of an image
    Replay(command::replay::Arguments),
    /// Write a page about a receipt that a person can read
    Report(Box<command::verify::ReportArguments>),
    /// Say what the operator can see of a job, from its manifest
    Trace(command::trace::Arguments),
    /// Turn a receipt into a verdict
    Verify(Box<command::verify::Arguments>),
}

fn main() -> ExitCode {
    match Cli::parse().verb {
        Verb::Appraise(arguments) => command::appraise::run(&arguments),
        Verb::Endorse(arguments) => command::endorse::run(&arguments),
        Verb::Epsilon(arguments) => command::epsilon::run(&arguments),
        Verb::Explain(arguments) => command::explain::run(&arguments),
        Verb::Replay(arguments) => command::replay::run(&arguments),
        Verb::Report(arguments) => command::verify::report(&arguments),
        Verb::Trace(arguments) => command::trace::run(&arguments),
        Verb::Verify(arguments) => command::verify::run(&arguments),
    }
}
