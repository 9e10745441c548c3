//! `cloister VERB …` runs the program that knows the verb, as git does.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use host::front::{self, Request};

fn main() -> ExitCode {
    let beside = match std::env::current_exe() {
        Ok(path) => path.parent().map(Path::to_owned).unwrap_or_default(),
        Err(problem) => return fail(&format!("cannot find itself: {problem}"), None),
    };
    match front::read(std::env::args_os().skip(1).collect(), &beside) {
        Request::Run(program, arguments) => {
            // Only returns where the program does not start.
            let problem = Command::new(&program).args(arguments).exec();
            let hint = "the programs lie in one folder: build them with cargo build --release";
            fail(&format!("{}: {problem}", program.display()), Some(hint))
        }
        Request::Help => {
            print!("{}", front::help(|program| PathBuf::from(&beside).join(program).exists()));
            ExitCode::SUCCESS
        }
        Request::Unknown(name, meant) => {
            let hint = match meant {
                Some(verb) => format!("did you mean {verb}?"),
                None => "cloister --help lists the verbs".to_owned(),
            };
            fail(&format!("unknown verb {name:?}"), Some(&hint))
        }
        Request::Version => {
            println!("cloister {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
    }
}

fn fail(problem: &str, hint: Option<&str>) -> ExitCode {
    eprintln!("cloister: {problem}");
    if let Some(hint) = hint {
        eprintln!("hint: {hint}");
    }
    ExitCode::from(2)
}
