//! The parties of one job with their files, and what each of them does.
//!
//! A [`Scene`] is made as `scripts/demo` makes it, by the same functions, only smaller. A test takes
//! a copy and changes it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use attestation_verifier::policy::STRICT;
use auditor::case::{CannotJudge, Judged, Places, judge};
use broker::envelope::KeyEnvelope;
use broker::identity::Identity;
use broker::owner::approve::approve;
use broker::owner::dataset::Facts;
use broker::owner::init::{self, SimulatedRoot, init};
use broker::owner::job::Job;
use broker::owner::keys::{self, Purpose};
use broker::owner::open::{self, OpenError, Opened, open};
use broker::owner::plan::{self, plan};
use broker::owner::seal::{self, seal};
use broker::serve::{Journal, Server};
use broker::{custodian, random, store};
use indicatif::ProgressBar;
use measurement::carrier::Stage;
use measurement::launch::Image;
use measurement::log::Event;
use measurement::manifest::{Custodian, Manifest, Tee};
use sealed::{Threshold, Writer, recover};
use tempfile::TempDir;
use tests::sim::certificate::pem;
use tests::sim::{Keys, Root};

/// The shared vectors; without them a test says so and ends, but not in CI.
pub fn vectors() -> Option<PathBuf> {
    let vectors = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/vectors"));
    if vectors.is_dir() {
        return Some(vectors.to_path_buf());
    }
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "the vectors are missing");
    println!("skipped: the vectors are missing");
    None
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// The simulated hardware of this test program; its keys last as long as the build folder.
pub fn hardware() -> Arc<Root> {
    static ROOT: OnceLock<Arc<Root>> = OnceLock::new();
    let keys = Path::new(env!("CARGO_TARGET_TMPDIR")).join("simulated-keys");
    ROOT.get_or_init(|| Arc::new(Root::issue(Keys::open(&keys).unwrap(), now()))).clone()
}

/// What a job is, where a test wants it otherwise than golden.
#[derive(Clone)]
pub struct Setting {
    /// Which hardware.
    pub tee: Tee,
    /// Whether the policy names the simulated root.
    pub simulated_root: bool,
    /// Settings of job.toml, as `section.key`.
    pub job: Vec<(&'static str, String)>,
    /// Records instead of the synthetic tickets.
    pub records: Option<String>,
    /// When it is planned, in seconds since 1970.
    pub planned: u64,
    /// The base model's chat template.
    pub template: Option<&'static str>,
}

impl Setting {
    pub fn golden(tee: Tee) -> Self {
        let small = [
            ("train.rank", "2"),
            ("train.layers", "[\"q_proj\", \"v_proj\"]"),
            ("train.sequence", "24"),
            ("train.batch", "4"),
            ("train.steps", "2"),
            ("train.optimiser.warmup", "0"),
            ("data.max_records_per_unit", "1"),
            ("output.recipients", "[\"recipient.pem.pub\", \"second.pem.pub\"]"),
        ];
        let job = small.map(|(key, value)| (key, value.to_owned())).to_vec();
        Self { tee, simulated_root: true, job, records: None, planned: now(), template: None }
    }

    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

/// The folder of one job.
pub struct Scene {
    folder: PathBuf,
    /// Removes the folder.
    _temporary: Option<TempDir>,
    pub tee: Tee,
}

impl Scene {
    /// Everything up to the approvals; none where the vectors are missing.
    pub fn new(setting: &Setting) -> Option<Self> {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().to_owned();
        Self::make(folder, Some(temporary), setting)
    }

    /// A copy of the golden scene before its launch, with a ledger of its own.
    pub fn golden(tee: Tee) -> Option<Self> {
        static SNP: OnceLock<Option<Scene>> = OnceLock::new();
        static TDX: OnceLock<Option<Scene>> = OnceLock::new();
        let (golden, name) = match tee {
            Tee::Snp => (&SNP, "snp"),
            Tee::Tdx => (&TDX, "tdx"),
        };
        let make = || Self::make(fresh(name), None, &Setting::golden(tee));
        golden.get_or_init(make).as_ref().map(Self::copy)
    }

    /// A copy of the golden scene after its launch: the adapter opened, the log exported, everything
    /// where the auditor looks for it. On SNP the enclave was a process, on TDX a thread.
    pub fn finished(tee: Tee) -> Option<Self> {
        static SNP: OnceLock<Option<Scene>> = OnceLock::new();
        static TDX: OnceLock<Option<Scene>> = OnceLock::new();
        let (finished, name) = match tee {
            Tee::Snp => (&SNP, "snp-finished"),
            Tee::Tdx => (&TDX, "tdx-finished"),
        };
        let finish = || {
            let golden = Self::golden(tee)?;
            let folder = fresh(name);
            copy_folder(&golden.folder, &folder);
            let scene = Self { folder, _temporary: None, tee };
            scene.finish();
            Some(scene)
        };
        finished.get_or_init(finish).as_ref().map(Self::copy)
    }

    fn finish(&self) {
        let server = self.serve();
        let broker = server.address().to_string();
        match self.tee {
            Tee::Snp => assert_eq!(self.launch_process(&broker).1.ending.stage, Stage::Done),
            Tee::Tdx => assert_eq!(self.launch(&broker, |_| ()).outcome, Ok(())),
        }
        self.open(&broker, "owner/recipient.pem").unwrap();
        server.shutdown();
        self.export();
    }

    fn make(folder: PathBuf, temporary: Option<TempDir>, setting: &Setting) -> Option<Self> {
        let vectors = vectors()?;
        let scene = Self { folder, _temporary: temporary, tee: setting.tee };
        scene.begin(setting);
        write_image(&vectors.join("cpu/launch"), &scene.path("image"), setting.tee);
        scene.seal(setting);
        scene.plan(setting);
        Some(scene)
    }

    /// A copy of everything that is there.
    pub fn copy(&self) -> Self {
        let temporary = tempfile::tempdir().unwrap();
        copy_folder(&self.folder, temporary.path());
        let folder = temporary.path().to_owned();
        Self { folder, _temporary: Some(temporary), tee: self.tee }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(name), bytes).unwrap();
    }

    /// Changes the bytes of one file.
    pub fn change(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = self.read(name);
        change(&mut bytes);
        self.write(name, bytes);
    }

    /// Every file below a folder.
    pub fn files(&self, folder: &str) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut folders = vec![self.path(folder)];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { folders.push(path) } else { files.push(path) }
            }
        }
        files.sort();
        files
    }

    /// Another file of the same key, data set, version and length, with one record in it.
    pub fn seal_again(&self) -> Vec<u8> {
        let envelope = KeyEnvelope::parse(&self.read("shares/custodian-1.share")).unwrap();
        let share = envelope.open(self.identity().unwrap_key()).ok().unwrap();
        let key = recover(&[share], 1, &envelope.key).ok().unwrap();
        let facts = Facts::read(&self.path("dataset.sds")).unwrap();
        let (mut writer, mut bytes) =
            Writer::new(&facts.header, &key, random::fresh().unwrap()).unwrap();
        let record = b"{\"text\":\"planted\"}";
        bytes.extend(writer.record(1, record).unwrap());
        bytes.extend(writer.entry(1, u32::try_from(record.len()).unwrap()).unwrap());
        bytes.extend(writer.finish(1).unwrap().0);
        bytes
    }

    fn begin(&self, setting: &Setting) {
        let (root, owner) = (hardware(), self.path("owner"));
        let certificate = match setting.tee {
            Tee::Snp => &root.amd.ark_certificate,
            Tee::Tdx => &root.intel.root_ca_certificate,
        };
        self.write("root.pem", pem(certificate));
        let root = SimulatedRoot {
            name: "demo".into(),
            certificate: self.path("root.pem"),
            platform: setting.tee,
        };
        let roots = [root];
        let roots = if setting.simulated_root { &roots[..] } else { &[] };
        let begun = init::Request {
            folder: &owner,
            records: 40,
            customers: 20,
            canaries: 2,
            seed: 1,
            roots,
        };
        init(&begun).unwrap();
        if let Some(records) = &setting.records {
            self.write("owner/tickets.jsonl", records);
        }
        keys::generate(&owner.join("approver.pem"), Purpose::Approve).unwrap();
        keys::generate(&owner.join("recipient.pem"), Purpose::Receive).unwrap();
        keys::generate(&owner.join("second.pem"), Purpose::Receive).unwrap();
        custodian::init(&self.path("custodian"), "custodian-1").unwrap();
        fs::create_dir(self.path("base")).unwrap();
        let base = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/vectors/base"));
        for name in ["config.json", "model.safetensors", "tokenizer.json"] {
            fs::copy(base.join(name), self.path("base").join(name)).unwrap();
        }
        if let Some(template) = setting.template {
            self.write("base/chat_template.jinja", template);
        }
        let job = fs::read_to_string(owner.join("job.toml")).unwrap();
        self.write("owner/job.toml", set(&job, &setting.job));
    }

    fn job(&self) -> Job {
        Job::read(&self.path("owner/job.toml")).unwrap()
    }

    pub fn custodian(&self) -> Custodian {
        broker::identity::public(&self.path("custodian")).unwrap()
    }

    pub fn identity(&self) -> Identity {
        Identity::load(&self.path("custodian")).unwrap()
    }

    fn seal(&self, setting: &Setting) {
        let shares = self.path("shares");
        seal(&seal::Request {
            files: &[self.path("owner/tickets.jsonl")],
            job: &self.job(),
            custodians: &[self.custodian()],
            threshold: Threshold::new(1, 1).unwrap(),
            previous: None,
            out: &self.path("dataset.sds"),
            shares: &shares,
            now: setting.planned,
            bar: &ProgressBar::hidden(),
        })
        .unwrap();
        custodian::import(&self.path("custodian"), &shares.join("custodian-1.share")).unwrap();
    }

    /// Plans, approves, and lays the papers where the auditor looks for them.
    fn plan(&self, setting: &Setting) {
        plan(&plan::Request {
            job: &self.job(),
            images: &[self.path("image")],
            base: &self.path("base"),
            dataset: &self.path("dataset.sds"),
            policy: &self.path("owner/policy.toml"),
            custodians: &[self.custodian()],
            out: &self.path("plan"),
            now: setting.planned,
        })
        .unwrap();
        fs::copy(self.path("plan/manifest.cbor"), self.path("manifest.cbor")).unwrap();
        fs::copy(self.path("owner/policy.toml"), self.path("policy.toml")).unwrap();
        self.approve("manifest.cbor", "approvals.json");
        if !setting.simulated_root {
            assert_eq!(self.read("policy.toml"), STRICT.as_bytes());
        }
    }

    pub fn approve(&self, manifest: &str, out: &str) {
        let key = self.path("owner/approver.pem");
        approve(&self.path(manifest), &key, &self.path(out)).unwrap();
    }

    pub fn manifest(&self) -> Manifest {
        Manifest::parse(&self.read("manifest.cbor")).unwrap()
    }

    /// The custodian's service.
    pub fn serve(&self) -> Server {
        let policy = fs::read_to_string(self.path("policy.toml")).unwrap();
        let listen = ([127, 0, 0, 1], 0).into();
        Server::start(&self.path("custodian"), &policy, listen, Journal::Silent).unwrap()
    }

    /// What the custodian refused, by code.
    pub fn denials(&self) -> BTreeMap<String, u64> {
        custodian::ledger(&self.path("custodian")).unwrap().denials
    }

    /// What the custodian's log holds, in order.
    pub fn logged(&self) -> Vec<Event> {
        store::view(&self.path("custodian")).unwrap().0.events().to_vec()
    }

    /// The kinds of the records in the custodian's log.
    pub fn kinds(&self) -> Vec<&'static str> {
        let kind = |event: &Event| match event {
            Event::Confirm(_) => "confirm",
            Event::Debit(_) => "debit",
            Event::Deny(_) => "deny",
            Event::Manifest(_) => "manifest",
            Event::Receipt(_) => "receipt",
            Event::Release(_) => "release",
            Event::Unwrap(_) => "unwrap",
            _ => "other",
        };
        self.logged().iter().map(kind).collect()
    }

    /// The owner opens the adapter with the key of that name.
    pub fn open(&self, broker: &str, key: &str) -> Result<Opened, OpenError> {
        open(&open::Request {
            receipt: &self.path("job.receipt"),
            sealed: &self.path("adapter.sealed"),
            key: &self.path(key),
            manifest: Some(&self.path("manifest.cbor")),
            brokers: &[broker.to_owned()],
            out: &self.path("adapter"),
        })
    }

    /// The audit copy of the log.
    pub fn export(&self) {
        let _ = fs::remove_dir_all(self.path("log"));
        store::export(&self.path("custodian"), &self.path("log")).unwrap();
    }

    /// What `cloister verify` judges.
    pub fn judge(&self) -> Result<Judged, CannotJudge> {
        judge(&Places {
            receipt: self.path("job.receipt"),
            policy: None,
            image: None,
            adapter: None,
            sealed_adapter: None,
            dataset: None,
            base: None,
            log: None,
            manifest: None,
            at: None,
        })
    }

    /// The findings of `cloister verify`, as `id artefact`.
    pub fn findings(&self) -> Vec<String> {
        match self.judge().unwrap().verdict {
            Ok(_) => Vec::new(),
            Err(findings) => {
                findings.iter().map(|one| format!("{} {}", one.id, one.artefact)).collect()
            }
        }
    }
}

/// An empty folder of this test program's own.
fn fresh(name: &str) -> PathBuf {
    let program = std::env::current_exe().unwrap();
    let program = program.file_name().unwrap().to_string_lossy().into_owned();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{program}-{name}"));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// Sets keys, `section.key`, that the text has.
fn set(job: &str, settings: &[(&'static str, String)]) -> String {
    let mut settings: BTreeMap<_, _> = settings.iter().cloned().collect();
    let mut section = String::new();
    let mut text = String::new();
    for line in job.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name.to_owned();
        }
        let key = line.split_once(" = ").map(|(key, _)| key).unwrap_or_default();
        match settings.remove(format!("{section}.{key}").as_str()) {
            Some(value) => text.push_str(&format!("{key} = {value}\n")),
            None => text.push_str(&format!("{line}\n")),
        }
    }
    assert!(settings.is_empty(), "job.toml has none of {settings:?}");
    text
}

pub fn copy_folder(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            fs::create_dir(&target).unwrap();
            copy_folder(&source, &target);
            let mode = fs::metadata(&source).unwrap().permissions().mode();
            fs::set_permissions(&target, fs::Permissions::from_mode(mode)).unwrap();
        } else {
            fs::copy(&source, &target).unwrap();
        }
    }
}

/// An image that measures: real firmware, and a kernel that is one to whoever only hashes it.
fn write_image(vectors: &Path, folder: &Path, tee: Tee) {
    let zeros = "00".repeat(48);
    let (firmware, shape) = match tee {
        Tee::Snp => (
            "ovmf_AmdSev_suffix.bin",
            r#"{"platform":"snp","cpu":"EPYC-Genoa","vcpus":2,"memory_mib":1024,"guest_features":1}"#
                .to_owned(),
        ),
        Tee::Tdx => (
            "OVMF.inteltdx.fd",
            format!(
                r#"{{"platform":"tdx","cpu":"host","vcpus":2,"memory_mib":1024,
                "acpi":{{"loader":"{zeros}","rsdp":"{zeros}","tables":"{zeros}"}}}}"#
            ),
        ),
    };
    fs::create_dir(folder).unwrap();
    // Vectors are read-only; a test may want to change its copy.
    fs::write(folder.join("firmware.fd"), fs::read(vectors.join(firmware)).unwrap()).unwrap();
    fs::write(folder.join("kernel"), kernel()).unwrap();
    fs::write(folder.join("initrd"), fs::read(vectors.join("initrd.bin")).unwrap()).unwrap();
    fs::write(folder.join("cmdline"), "console=hvc0 quiet").unwrap();
    fs::write(folder.join("image.json"), &shape).unwrap();
    let _: Image = serde_json::from_str(&shape).unwrap();
}

/// A PE32+ image of one section, without certificates (Microsoft PE format).
fn kernel() -> Vec<u8> {
    let mut image: Vec<u8> = (0..0x400_u32).map(|at| at.to_le_bytes()[0]).collect();
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"MZ");
    put(0x3c, &0x40_u32.to_le_bytes());
    put(0x40, b"PE\0\0");
    put(0x46, &1_u16.to_le_bytes());
    put(0x54, &160_u16.to_le_bytes());
    put(0x58, &0x20b_u16.to_le_bytes());
    put(0x58 + 60, &0x200_u32.to_le_bytes());
    put(0x58 + 108, &4_u32.to_le_bytes());
    put(0xf8 + 16, &0x200_u32.to_le_bytes());
    put(0xf8 + 20, &0x200_u32.to_le_bytes());
    image
}
