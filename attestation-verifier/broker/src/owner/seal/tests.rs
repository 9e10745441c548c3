use std::io::{Read, Seek, SeekFrom};

use measurement::cbor::Real;
use sealed::{Kem, Reader, RecipientKey, Records};
use tempfile::TempDir;

use super::*;
use crate::owner::dataset::Facts;
use crate::owner::job;
use crate::owner::synthetic::{Kind, Recipe};

/// A folder with synthetic tickets, a job, and three custodians with their keys.
pub(in crate::owner) struct Fixture {
    pub(in crate::owner) folder: TempDir,
    pub(in crate::owner) job: Job,
    pub(in crate::owner) custodians: Vec<Custodian>,
    pub(in crate::owner) keys: Vec<RecipientKey>,
    files: Vec<PathBuf>,
}

impl Fixture {
    pub(in crate::owner) fn new() -> Self {
        let recipe =
            Recipe { kind: Kind::Training, seed: 3, records: 40, customers: 12, canaries: 2 };
        Self::of(&recipe.jsonl())
    }

    fn of(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tickets.jsonl");
        fs::write(&path, text).unwrap();
        let mut rng = random::fresh().unwrap();
        let keys: Vec<_> = (0..3).map(|_| RecipientKey::generate(Kem::X25519, &mut rng)).collect();
        let custodians = keys.iter().enumerate().map(custodian).collect();
        Self { folder, job: job::tests::golden(), custodians, keys, files: vec![path] }
    }

    pub(in crate::owner) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn with<R>(&self, act: impl FnOnce(&Request<'_>) -> R) -> R {
        act(&Request {
            files: &self.files,
            job: &self.job,
            custodians: &self.custodians,
            threshold: Threshold::new(2, 3).unwrap(),
            previous: None,
            out: &self.path("data.sds"),
            shares: &self.path("shares"),
            now: 1_800_000_000,
            bar: &ProgressBar::hidden(),
        })
    }

    pub(in crate::owner) fn seal(&self) -> Result<Outcome, SealError> {
        self.with(seal)
    }

    fn key(&self, outcome: &Outcome) -> DataKey {
        let open = |(path, key): (&PathBuf, &RecipientKey)| {
            KeyEnvelope::parse(&fs::read(path).unwrap()).unwrap().open(key).ok().unwrap()
        };
        let shares: Vec<_> = outcome.shares.iter().zip(&self.keys).skip(1).map(open).collect();
        sealed::recover(&shares, 2, &outcome.sidecar.dataset.key).ok().unwrap()
    }

    /// Names of the files there are, hidden ones too.
    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.folder.path())
            .unwrap()
            .chain(fs::read_dir(self.path("shares")).into_iter().flatten())
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn custodian((n, key): (usize, &RecipientKey)) -> Custodian {
    let byte = u8::try_from(n).unwrap();
    Custodian {
        decision: Octets([byte; 32]),
        log: Octets([byte; 32]),
        name: format!("custodian-{}", n + 1),
        tls: Hash32::from_bytes([byte; 32]),
        unwrap: Octets::from_slice(key.public()).unwrap(),
    }
}

fn open(path: &Path, key: &DataKey, root: Hash32<of::Dataset>) -> Result<Records, ContainerError> {
    let mut reader = Reader::new(key, root, 1 << 30);
    reader.feed(&fs::read(path).unwrap())?;
    reader.finish()
}

#[test]
fn the_enclave_reads_what_the_owner_sealed() {
    let fixture = Fixture::new();
    let outcome = fixture.seal().unwrap();
    let key = fixture.key(&outcome);
    let records = open(&fixture.path("data.sds"), &key, outcome.sidecar.dataset.root).ok().unwrap();
    assert_eq!((records.len(), records.units()), (40, 12));
    let text = fs::read_to_string(&fixture.files[0]).unwrap();
    let mut units = std::collections::HashMap::new();
    for (line, (unit, payload)) in text.lines().zip(records.iter()) {
        let record = Record::parse(line.as_bytes(), Some("customer_id")).ok().unwrap();
        record.expose(|expected| assert_eq!(payload, expected));
        let name = record.expose_unit(|unit| unit.unwrap().to_owned());
        assert_eq!(*units.entry(name).or_insert(unit), unit);
    }
    assert_eq!(units.values().collect::<BTreeSet<_>>().len(), 12);
}

#[test]
fn describes_what_it_sealed_and_nothing_private() {
    let fixture = Fixture::new();
    let outcome = fixture.seal().unwrap();
    let facts = Facts::read(&fixture.path("data.sds")).unwrap();
    assert_eq!(facts.root, outcome.sidecar.dataset.root);
    assert_eq!(facts.header.dek_id, outcome.sidecar.dataset.key);
    assert_eq!(facts.header.n_max, 512);
    assert_eq!(Sidecar::read(&fixture.path("data.sds")).unwrap(), outcome.sidecar);
    let other = Fixture::of("{\"customer_id\":1,\"text\":\"a\"}\n");
    other.seal().unwrap();
    let length = |fixture: &Fixture| fs::metadata(fixture.path("data.sds")).unwrap().len();
    assert_eq!(length(&fixture), length(&other));
}

#[test]
fn writes_the_data_key_nowhere() {
    let fixture = Fixture::new();
    let outcome = fixture.seal().unwrap();
    let secret = fixture.key(&outcome).expose(|secret| *secret);
    for name in fixture.names() {
        let path = [fixture.path(&name), fixture.path("shares").join(&name)];
        for bytes in path.iter().filter_map(|path| fs::read(path).ok()) {
            assert!(!bytes.windows(32).any(|window| window == secret), "{name}");
        }
    }
}

#[test]
fn tells_the_custodians_the_budget_and_the_bound() {
    let fixture = Fixture::new();
    let outcome = fixture.seal().unwrap();
    let envelope = KeyEnvelope::parse(&fs::read(&outcome.shares[0]).unwrap()).unwrap();
    assert_eq!(envelope.budget.epsilon, Real(16.0));
    assert_eq!((envelope.max_units, envelope.index, envelope.threshold), (256, 1, 2));
    assert_eq!(envelope.commitments, outcome.sidecar.dataset.commitments);
}

#[test]
fn a_new_version_keeps_the_identity_and_names_the_root_before_it() {
    let fixture = Fixture::new();
    let first = fixture.seal().unwrap().sidecar.dataset;
    let (out, shares) = (fixture.path("next.sds"), fixture.path("next"));
    let next = fixture.with(|request| {
        seal(&Request { previous: Some(&first), out: &out, shares: &shares, ..*request })
    });
    let next = next.unwrap().sidecar.dataset;
    assert_eq!((next.id, next.version), (first.id, 2));
    assert_ne!(next.key, first.key);
    assert_eq!(Facts::read(&out).unwrap().header.previous_root, Some(first.root));
}

#[test]
fn refuses_every_flawed_line_with_its_place() {
    let good = "{\"customer_id\":\"c\",\"text\":\"a\"}\n";
    let text = [
        good,
        "{\"customer_id\":\"c\",\"text\":\"a\"\n",
        good,
        "\n",
        "{\"customer_id\":\"c\",\"text\":\" \"}\n",
        "{\"text\":\"a\"}\n",
        "{\"customer_id\":\"c\",\"text\":\"a\",\"text\":\"b\"}\n",
    ];
    let fixture = Fixture::of(&text.concat());
    let Err(SealError::Flawed(flaws)) = fixture.seal() else { panic!("sealed") };
    let shown: Vec<_> = flaws.shown.iter().map(|at| (at.line, at.flaw.to_string())).collect();
    assert_eq!(
        shown,
        [
            (2, "column 29: malformed json: EOF while parsing an object".to_owned()),
            (4, "blank line".to_owned()),
            (5, "empty record: `text` is blank".to_owned()),
            (6, "no privacy unit: `customer_id` is missing or blank".to_owned()),
            (7, "column 41: malformed json: duplicate field `text`".to_owned()),
        ]
    );
    assert_eq!(fixture.names(), ["tickets.jsonl"]);
}

#[test]
fn shows_twenty_flaws_and_counts_the_rest() {
    let fixture = Fixture::of(&"{\"text\":\"a\"}\n".repeat(57));
    let Err(SealError::Flawed(flaws)) = fixture.seal() else { panic!("sealed") };
    assert_eq!((flaws.shown.len(), flaws.total), (MAX_SHOWN, 57));
}

#[test]
fn refuses_what_exceeds_a_public_bound_and_names_the_setting() {
    let mut fixture = Fixture::new();
    fixture.job.data.max_records = 39;
    fixture.job.data.capacity = 100;
    fixture.job.data.max_units = 11;
    let Err(SealError::Bounds(exceeded)) = fixture.seal() else { panic!("sealed") };
    let named: Vec<_> = exceeded.iter().map(|at| (at.setting, at.allowed)).collect();
    assert_eq!(named, [("data.max_records", 39), ("data.capacity", 100), ("data.max_units", 11)]);
    assert_eq!((exceeded[0].observed, exceeded[2].observed), (40, 12));
    assert_eq!(fixture.names(), ["tickets.jsonl"]);
}

#[test]
fn refuses_files_without_a_record() {
    assert!(matches!(Fixture::of("").seal(), Err(SealError::NoRecord)));
}

#[test]
fn refuses_a_file_that_changed_between_the_passes() {
    for change in ["append", "reword", "new unit"] {
        let fixture = Fixture::new();
        let text = fs::read_to_string(&fixture.files[0]).unwrap();
        let changed = match change {
            "append" => format!("{text}{}\n", text.lines().next().unwrap()),
            "reword" => text.replacen("Dear", "Deer", 1),
            _ => text.replacen("\"c-", "\"d-", 1),
        };
        let outcome = fixture.with(|request| {
            let mut rng = random::fresh().unwrap();
            let units = Units::new(&mut rng);
            let survey = look(request, &units).unwrap();
            let key = DataKey::generate(&mut rng);
            let header = header(request, &key, &mut rng);
            fs::write(&fixture.files[0], &changed).unwrap();
            pour(request, &header, &key, (&units, &survey), &mut io::sink())
        });
        assert!(matches!(outcome, Err(SealError::Changed { .. })), "{change}");
    }
}

/// Rewrites the file of records while the container is written, after so many bytes of it.
struct Meddler<'a> {
    left: usize,
    path: &'a Path,
    text: &'a str,
}

impl Write for Meddler<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.left = self.left.saturating_sub(bytes.len());
        if self.left == 0 {
            fs::write(self.path, self.text)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn refuses_a_file_that_changed_before_its_index_was_read() {
    let fixture = Fixture::new();
    let text = fs::read_to_string(&fixture.files[0]).unwrap();
    let first = text.lines().next().unwrap();
    for changed in [
        format!("{text}{first}\n"),
        text.replacen("Dear", "Deer", 1),
        text.replacen("\"c-", "\"d-", 1),
        text.replacen("Dear", "Dears", 1),
        String::new(),
        "{".to_owned(),
    ] {
        fs::write(&fixture.files[0], &text).unwrap();
        let outcome = fixture.with(|request| {
            let mut rng = random::fresh().unwrap();
            let units = Units::new(&mut rng);
            let survey = look(request, &units).unwrap();
            let key = DataKey::generate(&mut rng);
            let header = header(request, &key, &mut rng);
            let left = usize::try_from(header.capacity).unwrap();
            let mut out = Meddler { left, path: &fixture.files[0], text: &changed };
            pour(request, &header, &key, (&units, &survey), &mut out)
        });
        assert!(matches!(outcome, Err(SealError::Changed { .. })), "{outcome:?}");
    }
}

#[test]
fn counts_units_exactly_and_no_further_than_there_is_room() {
    let count = |room: u64, units: &[u64]| {
        let mut census = Census::new(room);
        units.iter().for_each(|unit| census.count(*unit));
        census.result()
    };
    assert_eq!(count(9, &[]), (0, 0));
    assert_eq!(count(9, &[5, 1, 5, u64::MAX, 5, 1]), (3, 3));
    assert_eq!(count(2, &[5, 1, 5, u64::MAX, 5, 1]), (3, 3));
    assert_eq!(count(1, &[5, 1, 7, 8]), (2, 1));
    assert_eq!(count(9, &[7; 70_000]), (1, 65_535));
    let many: Vec<_> = (0..3 * u64::try_from(FOLD).unwrap()).map(|n| n / 2 % 300_000).collect();
    assert_eq!(count(1 << 20, &many), (300_000, 4));
    assert_eq!(count(1000, &many), (1001, 2));
}

/// A disk with so many bytes left.
struct Disk {
    left: usize,
    kept: Vec<u8>,
}

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let taken = &bytes[..bytes.len().min(self.left)];
        self.kept.extend_from_slice(taken);
        self.left -= taken.len();
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_disk_that_fills_leaves_nothing_that_any_reader_accepts() {
    let fixture = Fixture::new();
    fixture.with(|request| {
        let mut rng = random::fresh().unwrap();
        let units = Units::new(&mut rng);
        let survey = look(request, &units).unwrap();
        let key = DataKey::generate(&mut rng);
        let header = header(request, &key, &mut rng);
        let length = usize::try_from(header.file_len().unwrap()).unwrap();
        for left in [0, 1, 500, 65_536, 100_000, 200_000, length - 1] {
            let mut disk = Disk { left, kept: Vec::new() };
            let full = pour(request, &header, &key, (&units, &survey), &mut disk);
            let Err(SealError::File(error)) = full else { panic!("{left}: not full") };
            assert_eq!(error.source.kind(), io::ErrorKind::StorageFull, "{left}");
            let mut reader = Reader::new(&key, Hash32::from_bytes([0; 32]), 1 << 30);
            reader.feed(&disk.kept).unwrap();
            let refusal = reader.finish().err().unwrap();
            assert!(matches!(refusal, ContainerError::Truncated { .. }), "{left}: {refusal}");
        }
    });
}

#[test]
fn replaces_no_file_and_leaves_no_draft() {
    for name in ["data.sds", "data.sds.json", "shares/custodian-3.share"] {
        let fixture = Fixture::new();
        fs::create_dir(fixture.path("shares")).unwrap();
        fs::write(fixture.path(name), "mine").unwrap();
        let before = fixture.names();
        let Err(SealError::File(error)) = fixture.seal() else { panic!("sealed over {name}") };
        assert_eq!(error.source.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fixture.names(), before);
        assert_eq!(fs::read(fixture.path(name)).unwrap(), b"mine");
    }
}

#[test]
fn refuses_custodians_it_cannot_tell_apart() {
    let problem = |change: fn(&mut Vec<Custodian>)| {
        let mut fixture = Fixture::new();
        change(&mut fixture.custodians);
        fixture.seal().unwrap_err().to_string()
    };
    assert_eq!(
        problem(|all| all[2].name = "custodian-1".into()),
        "custodian \"custodian-1\": is named twice"
    );
    assert!(problem(|all| all[0].name = "../x".into()).contains("a name is letters"));
    assert_eq!(problem(|all| drop(all.pop())), "2 custodians for 3 shares");
    assert!(
        problem(|all| all[1].unwrap = Octets([0; 32])).starts_with("custodian \"custodian-2\"")
    );
}

#[test]
fn facts_refuse_a_file_that_is_cut_or_none() {
    let fixture = Fixture::new();
    fixture.seal().unwrap();
    let path = fixture.path("data.sds");
    let mut file = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    file.set_len(u64::try_from(bytes.len()).unwrap() - 1).unwrap();
    let refusal = Facts::read(&path).unwrap_err().to_string();
    assert!(refusal.contains("its header makes"), "{refusal}");
    file.seek(SeekFrom::Start(0)).unwrap();
    file.write_all(b"X").unwrap();
    let refusal = Facts::read(&path).unwrap_err().to_string();
    assert!(refusal.ends_with("not a sealed data set"), "{refusal}");
}
