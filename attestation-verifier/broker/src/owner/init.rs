//! `init`: a folder to start from, with synthetic tickets in it.
//!
//! | file | holds |
//! |---|---|
//! | `job.toml` | what the job is, in public numbers |
//! | `policy.toml` | the strict appraisal policy, and the simulated roots asked for |
//! | `threat.toml` | who is kept out, in words |
//! | `tickets.jsonl` | the synthetic private set |
//! | `validation.jsonl` | the synthetic public set |

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use attestation_verifier::policy::{AppraisalPolicy, PolicyError};
use measurement::manifest::Tee;
use thiserror::Error;

use super::files::{self, Audience, Draft, Existing, FileError};
use super::job;
use super::synthetic::{Kind, Recipe};

const STRICT: &str = include_str!("../../../policies/strict.toml");
const THREAT: &str = include_str!("threat.toml");
const MAX_CERTIFICATE: u64 = 64 * 1024;
/// Records of the public set.
const VALIDATION: u32 = 64;

/// What to begin with.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The folder; it may exist.
    pub folder: &'a Path,
    /// Records of the private set.
    pub records: u32,
    /// Customers in it.
    pub customers: u32,
    /// Planted secrets in it.
    pub canaries: u32,
    /// The synthetic sets' seed.
    pub seed: u64,
    /// Simulated roots that the policy is to believe.
    pub roots: &'a [SimulatedRoot],
}

/// The root of a simulated security processor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimulatedRoot {
    /// What everything judged under it will say beside SIMULATED.
    pub name: String,
    /// Its certificate, PEM.
    pub certificate: PathBuf,
    /// What it signs for.
    pub platform: Tee,
}

/// Why nothing was begun.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum InitError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The policy with the roots asked for is none.
    #[error("policy.toml: {0}")]
    Policy(#[from] PolicyError),
}

/// Writes the files, all or none but for what a crash leaves, and returns their paths.
///
/// # Errors
/// [`InitError`]; a file that is there already is never replaced.
pub fn init(request: &Request<'_>) -> Result<Vec<PathBuf>, InitError> {
    let policy = policy(request.roots)?;
    let Request { records, customers, canaries, seed, .. } = *request;
    let training = Recipe { kind: Kind::Training, seed, records, customers, canaries };
    let validation = Recipe {
        kind: Kind::Validation,
        seed,
        records: VALIDATION,
        customers: VALIDATION,
        canaries: 0,
    };
    fs::create_dir_all(request.folder).map_err(FileError::at(request.folder))?;
    let mut drafts = Vec::new();
    for (name, audience, text) in [
        ("job.toml", Audience::Everyone, job::template(customers, records)),
        ("policy.toml", Audience::Everyone, policy),
        ("threat.toml", Audience::Everyone, THREAT.to_owned()),
        ("tickets.jsonl", Audience::Owner, training.jsonl()),
        ("validation.jsonl", Audience::Everyone, validation.jsonl()),
    ] {
        let path = request.folder.join(name);
        let mut draft = Draft::create(&path, audience, Existing::Keep)?;
        draft.write_all(text.as_bytes()).map_err(FileError::at(&path))?;
        drafts.push((path, draft));
    }
    drafts.into_iter().map(|(path, draft)| Ok(draft.publish().map(|()| path)?)).collect()
}

/// The strict policy with further simulated roots, checked.
fn policy(roots: &[SimulatedRoot]) -> Result<String, InitError> {
    let mut text = STRICT.to_owned();
    for root in roots {
        let certificate = files::read_text(&root.certificate, MAX_CERTIFICATE)?;
        let platform = match root.platform {
            Tee::Snp => "snp",
            Tee::Tdx => "tdx",
        };
        // A value in quotes of its own kind, so that neither name nor certificate can end it.
        let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
        text.push_str(&format!(
            "\n# SIMULATED hardware: whatever is judged under this root says so for ever.\n\
             [[root]]\nname = {}\nkind = \"simulated\"\nplatform = \"{platform}\"\n\
             certificate = {}\n",
            quoted(&root.name),
            quoted(&certificate),
        ));
    }
    AppraisalPolicy::parse(&text)?;
    Ok(text)
}

#[cfg(test)]
pub(super) mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose};

    use super::*;
    use crate::owner::job::Job;

    fn request<'a>(folder: &'a Path, roots: &'a [SimulatedRoot]) -> Request<'a> {
        Request { folder, records: 60, customers: 30, canaries: 2, seed: 1, roots }
    }

    fn root(folder: &Path, pem: &str, name: &str) -> SimulatedRoot {
        let certificate = folder.join("root.pem");
        fs::write(&certificate, pem).unwrap();
        SimulatedRoot { name: name.into(), certificate, platform: Tee::Snp }
    }

    /// A root, PEM.
    pub(in crate::owner) fn certificate() -> String {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        params.self_signed(&key).unwrap().pem()
    }

    #[test]
    fn begins_with_files_that_the_other_verbs_accept() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("new");
        let files = init(&request(&place, &[])).unwrap();
        assert_eq!(files.len(), 5);
        let job = Job::read(&place.join("job.toml")).unwrap();
        assert!(job.path(&job.job.threat).exists());
        let policy = fs::read_to_string(place.join("policy.toml")).unwrap();
        assert_eq!(AppraisalPolicy::parse(&policy).unwrap().further_roots().count(), 0);
        let lines = |name| fs::read_to_string(place.join(name)).unwrap().lines().count();
        assert_eq!((lines("tickets.jsonl"), lines("validation.jsonl")), (60, 64));
    }

    #[test]
    fn names_a_simulated_root_in_the_policy() {
        let folder = tempfile::tempdir().unwrap();
        let roots = [root(folder.path(), &certificate(), "demo")];
        let policy = AppraisalPolicy::parse(&policy(&roots).unwrap()).unwrap();
        let further: Vec<_> = policy.further_roots().map(|root| format!("{root:?}")).collect();
        assert_eq!(further, ["Simulated(\"demo\")"]);
    }

    #[test]
    fn refuses_a_root_that_is_none_and_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("new");
        for (pem, name) in [("no pem", "demo"), (certificate().as_str(), "x\"\nkind = \"private")] {
            let roots = [root(folder.path(), pem, name)];
            let refusal = init(&request(&place, &roots)).unwrap_err();
            assert!(matches!(refusal, InitError::Policy(PolicyError::Root { .. })), "{refusal}");
            assert!(!place.exists());
        }
    }

    #[test]
    fn replaces_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mine = folder.path().join("threat.toml");
        fs::write(&mine, "mine").unwrap();
        assert!(matches!(init(&request(folder.path(), &[])), Err(InitError::File(_))));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(fs::read_to_string(mine).unwrap(), "mine");
    }
}
