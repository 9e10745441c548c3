//! One file per verb.

pub mod appraise;
pub mod endorse;
pub mod epsilon;
pub mod explain;
mod input;
pub mod replay;
pub mod trace;
pub mod verify;

use std::fmt::Display;
use std::io::Write as _;
use std::process::ExitCode;

use serde::Serialize;

/// The status of an answer that is no.
pub const REJECTED: u8 = 1;
/// The status of no answer.
pub const COULD_NOT_JUDGE: u8 = 2;

/// Prints a result and gives the status it asks for; a closed pipe is no result.
pub fn print(text: &str, status: u8) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::from(status),
        Err(problem) => fail(&problem, None),
    }
}

/// Prints a result as JSON.
pub fn print_json<T: Serialize>(value: &T, status: u8) -> ExitCode {
    match serde_json::to_string_pretty(value) {
        Ok(json) => print(&format!("{json}\n"), status),
        Err(problem) => fail(&problem, None),
    }
}

/// Says why there is no answer.
pub fn fail(problem: &dyn Display, hint: Option<&str>) -> ExitCode {
    eprintln!("cloister-auditor: {problem}");
    if let Some(hint) = hint {
        eprintln!("hint: {hint}");
    }
    ExitCode::from(COULD_NOT_JUDGE)
}
