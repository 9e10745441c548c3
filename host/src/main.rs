//! `cloister-host`: builds, measures and launches images, and carries their bytes.
//!
//! Standard output is the result, standard error is progress and problems. Exit status 0: done;
//! 1: the enclave halted; 2: neither was reached.

mod command;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Build, measure and launch images. Trusted by no one.
#[derive(Debug, Parser)]
#[command(name = "cloister-host", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Build an image folder from its parts; the same parts are the same bytes
    Image(Box<command::image::Arguments>),
    /// Launch an image and serve it until it is done or halts
    Launch(Box<command::launch::Arguments>),
    /// Print what the hardware measures when an image is launched
    Measure(command::measure::Arguments),
}

fn main() -> ExitCode {
    let result = match Cli::parse().verb {
        Verb::Image(arguments) => command::image::run(&arguments),
        Verb::Launch(arguments) => command::launch::run(&arguments),
        Verb::Measure(arguments) => command::measure::run(&arguments),
    };
    result.unwrap_or_else(|problem| {
        eprintln!("cloister-host: {}", describe(&problem));
        ExitCode::from(2)
    })
}

/// The chain of causes, each said once: some errors quote their cause already.
fn describe(problem: &anyhow::Error) -> String {
    problem.chain().map(ToString::to_string).fold(String::new(), |text, cause| {
        match (text.is_empty(), text.contains(&cause)) {
            (true, _) => cause,
            (false, true) => text,
            (false, false) => format!("{text}: {cause}"),
        }
    })
}
