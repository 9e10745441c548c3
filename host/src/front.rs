//! The front: one name to learn, as with git. It runs the role's program that lies beside it.
//!
//! It sees arguments and nothing else, and what it runs is found by place, never by search path.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// A verb, and the program that knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verb {
    /// What the reader types.
    pub name: &'static str,
    /// One of [`ROLES`].
    pub role: &'static str,
    /// The program beside the front.
    pub program: &'static str,
    /// Whether the program takes the verb as its first argument, or is the verb.
    pub passed: Passed,
    /// One line of help.
    pub about: &'static str,
}

/// What becomes of the verb itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passed {
    /// The program has several verbs and gets this one.
    On,
    /// The program is the verb.
    Off,
}

/// The roles, in the order in which a job meets them.
pub const ROLES: [(&str, &str); 4] = [
    ("owner", "data owner: on a machine of its own"),
    ("custodian", "key custodian: on a machine of its own"),
    ("operator", "operator of the machines: trusted by no one"),
    ("auditor", "auditor: trusts no one"),
];

const fn verb(
    role: &'static str,
    program: &'static str,
    name: &'static str,
    about: &'static str,
) -> Verb {
    Verb { name, role, program, passed: Passed::On, about }
}

/// Every verb there is.
pub const VERBS: &[Verb] = &[
    verb("owner", "cloister-owner", "init", "write a job's files and a synthetic data set"),
    verb("owner", "cloister-owner", "keygen", "make a key to approve or to receive with"),
    verb("owner", "cloister-owner", "seal", "encrypt the records, deal the key to the custodians"),
    verb("owner", "cloister-owner", "plan", "resolve every digest, write the manifest"),
    verb("owner", "cloister-owner", "approve", "sign the manifest"),
    verb("owner", "cloister-owner", "open", "open the sealed adapter"),
    Verb {
        name: "broker",
        role: "custodian",
        program: "cloister-broker",
        passed: Passed::Off,
        about: "keep a key share, and release it against evidence",
    },
    verb("operator", "cloister-host", "image", "build an image folder from its parts"),
    verb("operator", "cloister-host", "measure", "print what the hardware will measure"),
    verb("operator", "cloister-host", "launch", "launch an image, carry its bytes"),
    verb("auditor", "cloister-auditor", "verify", "turn a receipt into a verdict"),
    verb("auditor", "cloister-auditor", "report", "write a page that a person can read"),
    verb("auditor", "cloister-auditor", "replay", "recompute a launch measurement"),
    verb("auditor", "cloister-auditor", "epsilon", "recompute the privacy loss"),
    verb("auditor", "cloister-trainer", "audit-trainer", "attack the trainer's own mechanism"),
    verb("auditor", "cloister-auditor", "trace", "say what the operator can see of a job"),
    verb("auditor", "cloister-auditor", "appraise", "judge evidence under a policy"),
    verb("auditor", "cloister-auditor", "explain", "say in words what evidence says"),
    verb("auditor", "cloister-auditor", "endorse", "list what to fetch for evidence, and keep it"),
];

/// What a command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Request {
    /// Run this program with these arguments.
    Run(PathBuf, Vec<OsString>),
    /// Show the page of verbs.
    Help,
    /// No such verb; perhaps this one was meant.
    Unknown(String, Option<&'static str>),
    /// Show the version.
    Version,
}

/// Reads the front's arguments, without its own name; `beside` is the folder it lies in.
#[must_use]
pub fn read(mut arguments: Vec<OsString>, beside: &Path) -> Request {
    let mut first = || (!arguments.is_empty()).then(|| arguments.remove(0));
    let Some(name) = first() else { return Request::Help };
    let mut name = name.to_string_lossy().into_owned();
    match name.as_str() {
        "--help" | "-h" => return Request::Help,
        "--version" | "-V" => return Request::Version,
        "help" => {
            let Some(topic) = first() else { return Request::Help };
            name = topic.to_string_lossy().into_owned();
            arguments = vec!["--help".into()];
        }
        _ => (),
    }
    let Some(verb) = VERBS.iter().find(|verb| verb.name == name) else {
        let meant = nearest(&name);
        return Request::Unknown(name, meant);
    };
    if verb.passed == Passed::On {
        arguments.insert(0, verb.name.into());
    }
    Request::Run(beside.join(verb.program), arguments)
}

/// The page of verbs, grouped by role; only programs that `installed` finds.
#[must_use]
pub fn help(installed: impl Fn(&str) -> bool) -> String {
    let mut page = String::from(
        "Fine-tune a model on data its operator must never see.\n\n\
         Usage: cloister VERB [ARGUMENTS]\n       cloister help VERB\n",
    );
    for (role, title) in ROLES {
        let verbs = VERBS.iter().filter(|verb| verb.role == role && installed(verb.program));
        let lines: Vec<_> =
            verbs.map(|verb| format!("  {:<15}{}", verb.name, verb.about)).collect();
        if !lines.is_empty() {
            let _ = write!(page, "\n{title}\n{}\n", lines.join("\n"));
        }
    }
    page
}

fn nearest(name: &str) -> Option<&'static str> {
    let best = VERBS.iter().min_by_key(|verb| distance(name, verb.name))?;
    (distance(name, best.name) <= 2).then_some(best.name)
}

/// Levenshtein's distance, in bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (y, cell) in b.bytes().zip(row.iter_mut().skip(1)) {
            let above = *cell;
            left = (above.min(left) + 1).min(diagonal + usize::from(x != y));
            diagonal = above;
            *cell = left;
        }
        if let Some(cell) = row.first_mut() {
            *cell = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(line: &str) -> Request {
        read(line.split_whitespace().map(OsString::from).collect(), Path::new("/bin"))
    }

    fn run(program: &str, line: &str) -> Request {
        Request::Run(
            Path::new("/bin").join(program),
            line.split_whitespace().map(OsString::from).collect(),
        )
    }

    #[test]
    fn a_verb_runs_the_program_of_its_role() {
        assert_eq!(request("seal a --json"), run("cloister-owner", "seal a --json"));
        assert_eq!(request("verify x"), run("cloister-auditor", "verify x"));
        assert_eq!(request("broker serve --state s"), run("cloister-broker", "serve --state s"));
        assert_eq!(request("help launch"), run("cloister-host", "launch --help"));
        assert_eq!(request("help broker"), run("cloister-broker", "--help"));
    }

    #[test]
    fn an_unknown_verb_gets_a_hint_and_runs_nothing() {
        assert_eq!(request("launhc"), Request::Unknown("launhc".into(), Some("launch")));
        assert_eq!(request("verfy x"), Request::Unknown("verfy".into(), Some("verify")));
        assert_eq!(request("frobnicate"), Request::Unknown("frobnicate".into(), None));
        assert_eq!(request("help ../sh"), Request::Unknown("../sh".into(), None));
        assert_eq!(request("cloister-host"), Request::Unknown("cloister-host".into(), None));
    }

    #[test]
    fn the_page_groups_every_verb_by_its_role() {
        assert_eq!([request(""), request("help"), request("-h")], [(); 3].map(|()| Request::Help));
        let page = help(|_| true);
        for verb in VERBS {
            assert!(ROLES.iter().any(|(role, _)| *role == verb.role), "{}", verb.name);
            assert!(page.contains(&format!("\n  {:<15}{}\n", verb.name, verb.about)));
        }
        assert!(!help(|program| program != "cloister-auditor").contains("verify"));
    }

    #[test]
    fn verbs_are_named_once() {
        for (place, verb) in VERBS.iter().enumerate() {
            assert!(VERBS[..place].iter().all(|other| other.name != verb.name), "{}", verb.name);
        }
    }

    #[test]
    fn distances_are_those_of_levenshtein() {
        for (a, b, expected) in [("", "abc", 3), ("kitten", "sitting", 3), ("open", "open", 0)] {
            assert_eq!((distance(a, b), distance(b, a)), (expected, expected));
        }
    }
}
