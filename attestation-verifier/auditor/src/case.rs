//! The files of a case: found beside the receipt unless named, read whole, and handed to the verifier.
//!
//! No file is trusted: each is hashed or verified, and what was not there is listed.

use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use attestation_verifier::receipt::{
    ADAPTER_PAGE, Fetch, Finding, ImageFiles, Inputs, VerifiedReceipt, verify,
};
use measurement::digest::{Digest, Hash32, of};
use ring::digest::{Context, SHA384};

use crate::dataset;

/// Most bytes of the receipt, the policy and the manifest; longer ones are refused by their parsers.
const MAX_PAPER: u64 = 16 << 20;
/// Most bytes of a part of the image, of a sealed adapter and of an adapter's file.
const MAX_PART: u64 = 2 << 30;
/// Most bytes of a file of the log.
const MAX_LOG_FILE: u64 = 32 << 20;
/// Most files in an adapter's folder.
const MAX_FILES: usize = 64;

/// Where the files of a case lie. What is `None` is looked for beside the receipt.
#[derive(Debug, Clone, clap::Args)]
pub struct Places {
    /// The receipt
    #[arg(value_name = "RECEIPT")]
    pub receipt: PathBuf,
    /// The appraisal policy [default: policy.toml beside the receipt]
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// The image folder [default: image/ beside the receipt]
    #[arg(long, value_name = "DIR")]
    pub image: Option<PathBuf>,
    /// The opened adapter's folder [default: adapter/ beside the receipt, if there]
    #[arg(long, value_name = "DIR")]
    pub adapter: Option<PathBuf>,
    /// The sealed adapter [default: adapter.sealed beside the receipt, if there]
    #[arg(long, value_name = "FILE")]
    pub sealed_adapter: Option<PathBuf>,
    /// The sealed data set [default: dataset.sds beside the receipt, if there]
    #[arg(long, value_name = "FILE")]
    pub dataset: Option<PathBuf>,
    /// The base model's folder [default: base/ beside the receipt, if there]
    #[arg(long, value_name = "DIR")]
    pub base: Option<PathBuf>,
    /// The audit copy of the ledger's log [default: log/ beside the receipt]
    #[arg(long, value_name = "DIR")]
    pub log: Option<PathBuf>,
    /// The manifest [default: manifest.cbor beside the receipt, if there]
    #[arg(long, value_name = "FILE")]
    pub manifest: Option<PathBuf>,
    /// Judge the evidence at this time, in seconds since 1970, instead of when it was logged
    #[arg(long, value_name = "UNIX")]
    pub at: Option<u64>,
}

impl Places {
    fn beside(&self, given: &Option<PathBuf>, name: &str) -> PathBuf {
        given.clone().unwrap_or_else(|| self.receipt.with_file_name(name))
    }
}

/// The files that need not be there.
struct Optional {
    manifest: Option<PathBuf>,
    sealed: Option<PathBuf>,
    adapter: Option<PathBuf>,
    dataset: Option<PathBuf>,
    base: Option<PathBuf>,
}

impl Optional {
    /// Looks for each; one that was named must be there.
    fn find(places: &Places) -> Result<Self, CannotJudge> {
        let find = |given: &Option<PathBuf>, name: &str, artefact, flag| {
            let path = places.beside(given, name);
            match given {
                Some(_) => present(artefact, flag, &path).map(|()| Some(path)),
                None => Ok(path.exists().then_some(path)),
            }
        };
        let sealed = &places.sealed_adapter;
        Ok(Self {
            manifest: find(&places.manifest, "manifest.cbor", "manifest", "--manifest")?,
            sealed: find(sealed, "adapter.sealed", "sealed adapter", "--sealed-adapter")?,
            adapter: find(&places.adapter, "adapter", "adapter", "--adapter")?,
            dataset: find(&places.dataset, "dataset.sds", "dataset", "--dataset")?,
            base: find(&places.base, "base", "base", "--base")?,
        })
    }
}

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CannotJudge {
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// What no verdict can do without is not there.
    #[error("{artefact} is missing: there is no {}", path.display())]
    Missing {
        /// What it is.
        artefact: &'static str,
        /// Where it was looked for.
        path: PathBuf,
        /// The flag that says where it is.
        flag: &'static str,
    },
    /// A file is longer than any honest one.
    #[error("{}: more than {limit} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The most that is read.
        limit: u64,
    },
}

impl CannotJudge {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Missing { flag: "", .. } | Self::File { .. } | Self::TooLong { .. } => None,
            Self::Missing { flag, .. } => Some(format!("say where it is with {flag}")),
        }
    }
}

/// A judged receipt.
pub struct Judged {
    /// The verdict.
    pub verdict: Result<VerifiedReceipt, Vec<Finding>>,
    /// The artefacts that were checked.
    pub checked: Vec<&'static str>,
    /// The artefacts that were not there.
    pub not_checked: Vec<&'static str>,
    /// The receipt's file.
    pub receipt: PathBuf,
    /// The image's folder.
    pub image: PathBuf,
}

/// Reads the files of a case and judges it.
///
/// # Errors
/// [`CannotJudge`] when a file that is needed is missing, or one that is there cannot be read.
pub fn judge(places: &Places) -> Result<Judged, CannotJudge> {
    let bundle = required("receipt", "", places.receipt.clone(), MAX_PAPER)?;
    let policy = places.beside(&places.policy, "policy.toml");
    let policy = required("policy", "--policy", policy, MAX_PAPER)?;
    let image = places.beside(&places.image, "image");
    let parts = Parts::read(&image)?;
    let log = places.beside(&places.log, "log");
    present("log", "--log", &log)?;
    let Optional { manifest, sealed, adapter, dataset, base } = Optional::find(places)?;
    let mut sorted = Sorted::default();
    sorted.note("manifest", manifest.is_some());
    sorted.note("sealed adapter", sealed.is_some());
    sorted.note("adapter", adapter.is_some());
    sorted.note("dataset", dataset.is_some());
    sorted.note("base", base.is_some());

    let manifest = manifest.map(|path| read(&path, MAX_PAPER)).transpose()?;
    let sealed = sealed.map(|path| read(&path, MAX_PART)).transpose()?;
    let adapter = adapter.map(|path| folder(&path)).transpose()?;
    if adapter.iter().flatten().any(|(name, _)| name == ADAPTER_PAGE) {
        sorted.not_checked.push("adapter: README.md");
    }
    let adapter: Option<Vec<_>> = adapter
        .as_ref()
        .map(|files| files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect());
    let base = base.map(|path| base_digests(&path)).transpose()?;
    let mut malformed = None;
    let dataset = match dataset {
        Some(path) => dataset_root(&path, &mut malformed)?,
        None => None,
    };

    let fetch = |name: &str| read(&log.join(name), MAX_LOG_FILE).ok();
    let fetch: Fetch<'_> = &fetch;
    let inputs = Inputs {
        adapter: adapter.as_deref(),
        at: places.at,
        base: base.as_deref(),
        bundle: &bundle,
        dataset,
        image: parts.files(),
        log: Some(fetch),
        manifest: manifest.as_deref(),
        policy: &policy,
        sealed_adapter: sealed.as_deref(),
    };
    let verdict = match (verify(&inputs), malformed) {
        (verdict, None) => verdict,
        (Ok(_), Some(finding)) => Err(vec![finding]),
        (Err(findings), Some(finding)) => Err([findings, vec![finding]].concat()),
    };
    let Sorted { checked, not_checked } = sorted;
    Ok(Judged { verdict, checked, not_checked, receipt: places.receipt.clone(), image })
}

/// What was there to be checked, and what was not.
struct Sorted {
    checked: Vec<&'static str>,
    not_checked: Vec<&'static str>,
}

impl Default for Sorted {
    fn default() -> Self {
        let checked = vec!["receipt", "approvals", "policy", "evidence", "image", "log"];
        Self { checked, not_checked: Vec::new() }
    }
}

impl Sorted {
    fn note(&mut self, artefact: &'static str, there: bool) {
        let list = if there { &mut self.checked } else { &mut self.not_checked };
        list.push(artefact);
    }
}

/// The files of an image folder, whole.
pub struct Parts {
    cmdline: Vec<u8>,
    firmware: Vec<u8>,
    initrd: Vec<u8>,
    kernel: Vec<u8>,
    shape: Vec<u8>,
}

impl Parts {
    /// Reads an image folder.
    ///
    /// # Errors
    /// [`CannotJudge`] names the file that is missing.
    pub fn read(folder: &Path) -> Result<Self, CannotJudge> {
        present("image", "--image", folder)?;
        let part = |artefact, name: &str| required(artefact, "", folder.join(name), MAX_PART);
        Ok(Self {
            cmdline: part("image: cmdline", "cmdline")?,
            firmware: part("image: firmware.fd", "firmware.fd")?,
            initrd: part("image: initrd", "initrd")?,
            kernel: part("image: kernel", "kernel")?,
            shape: part("image: image.json", "image.json")?,
        })
    }

    /// The files as the verifier wants them.
    #[must_use]
    pub fn files(&self) -> ImageFiles<'_> {
        ImageFiles {
            cmdline: &self.cmdline,
            firmware: &self.firmware,
            initrd: &self.initrd,
            kernel: &self.kernel,
            shape: &self.shape,
        }
    }
}

fn present(artefact: &'static str, flag: &'static str, path: &Path) -> Result<(), CannotJudge> {
    if path.exists() {
        return Ok(());
    }
    Err(CannotJudge::Missing { artefact, path: path.to_owned(), flag })
}

fn required(
    artefact: &'static str,
    flag: &'static str,
    path: PathBuf,
    limit: u64,
) -> Result<Vec<u8>, CannotJudge> {
    present(artefact, flag, &path)?;
    read(&path, limit)
}

/// Reads a file of at most `limit` bytes.
///
/// # Errors
/// [`CannotJudge::File`], [`CannotJudge::TooLong`].
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>, CannotJudge> {
    let failed = |source| CannotJudge::File { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length <= limit) {
        return Ok(bytes);
    }
    Err(CannotJudge::TooLong { path: path.to_owned(), limit })
}

/// Every file of an adapter's folder, by name; whatever is no plain file is read as empty, and so is
/// never the one named.
fn folder(path: &Path) -> Result<Vec<(String, Vec<u8>)>, CannotJudge> {
    let failed = |source| CannotJudge::File { path: path.to_owned(), source };
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)?.take(MAX_FILES) {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let plain = entry.path().is_file();
        let bytes = if plain { read(&entry.path(), MAX_PART)? } else { Vec::new() };
        files.push((name, bytes));
    }
    files.sort();
    Ok(files)
}

/// SHA-384 of the base model's files that are there, read in pieces.
fn base_digests(folder: &Path) -> Result<Vec<(&'static str, Digest<of::BaseFile>)>, CannotJudge> {
    let names = ["config.json", "tokenizer.json", "model.safetensors", "chat_template.jinja"];
    let there = names.into_iter().filter(|name| folder.join(name).exists());
    there.map(|name| Ok((name, digest_of(&folder.join(name))?))).collect()
}

fn digest_of(path: &Path) -> Result<Digest<of::BaseFile>, CannotJudge> {
    let failed = |source| CannotJudge::File { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(failed)?;
    let mut context = Context::new(&SHA384);
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer).map_err(failed)?;
        if read == 0 {
            break;
        }
        context.update(buffer.get(..read).unwrap_or_default());
    }
    let mut bytes = [0; 48];
    for (to, from) in bytes.iter_mut().zip(context.finish().as_ref()) {
        *to = *from;
    }
    Ok(Digest::from_bytes(bytes))
}

/// The data set's root; a file that has none is a finding, one that cannot be opened is not judged.
fn dataset_root(
    path: &Path,
    malformed: &mut Option<Finding>,
) -> Result<Option<Hash32<of::Dataset>>, CannotJudge> {
    let file =
        File::open(path).map_err(|source| CannotJudge::File { path: path.to_owned(), source })?;
    match dataset::root(&mut BufReader::with_capacity(1 << 20, file)) {
        Ok(root) => Ok(Some(root)),
        Err(error) => {
            let required = "a sealed data set";
            let finding = Finding::new("dataset.malformed", "dataset", "the file", error, required);
            *malformed = Some(finding);
            Ok(None)
        }
    }
}
