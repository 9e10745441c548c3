//! The data owner's tool as it is run.

#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "a test program")]

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use broker::envelope::KeyEnvelope;
use broker::random;
use measurement::digest::{Hash32, of};
use measurement::manifest::Custodian;
use measurement::octets::Octets;
use sealed::{Kem, Reader, RecipientKey, recover};
use serde_json::Value;
use tempfile::TempDir;

const OWNER: &str = env!("CARGO_BIN_EXE_cloister-owner");

/// A begun folder with one custodian.
struct Place {
    folder: TempDir,
    custodian: RecipientKey,
}

impl Place {
    fn new() -> Self {
        let custodian = RecipientKey::generate(Kem::X25519, &mut random::fresh().unwrap());
        let place = Self { folder: tempfile::tempdir().unwrap(), custodian };
        let description = Custodian {
            decision: Octets([1; 32]),
            log: Octets([2; 32]),
            name: "custodian-1".into(),
            tls: Hash32::from_bytes([3; 32]),
            unwrap: Octets::from_slice(place.custodian.public()).unwrap(),
        };
        fs::write(place.path("custodian.json"), serde_json::to_vec(&description).unwrap()).unwrap();
        let begun = place.run(&["init", "."]);
        assert!(begun.status.success(), "{}", said(&begun));
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(OWNER);
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command().args(args).output().unwrap()
    }

    fn seal(&self, file: &str) -> Output {
        self.run(&[
            "seal",
            file,
            "--custodian",
            "custodian.json",
            "--threshold",
            "1",
            "--out",
            "data.sds",
            "--shares",
            "shares",
            "--json",
        ])
    }

    fn set(&self, from: &str, to: &str) {
        let job = fs::read_to_string(self.path("job.toml")).unwrap();
        assert!(job.contains(from), "{from}");
        fs::write(self.path("job.toml"), job.replace(from, to)).unwrap();
    }

    /// The records of `data.sds`, opened as a custodian and an enclave would together.
    fn open(&self, root: &str) -> Vec<(u64, Vec<u8>)> {
        let envelope = fs::read(self.path("shares/custodian-1.share")).unwrap();
        let envelope = KeyEnvelope::parse(&envelope).unwrap();
        let share = envelope.open(&self.custodian).ok().unwrap();
        let key = recover(&[share], 1, &envelope.key).ok().unwrap();
        let root: Hash32<of::Dataset> = root.parse().unwrap();
        let mut reader = Reader::new(&key, root, 1 << 30);
        reader.feed(&fs::read(self.path("data.sds")).unwrap()).unwrap();
        let records = reader.finish().ok().unwrap();
        records.iter().map(|(unit, payload)| (unit, payload.to_vec())).collect()
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", said(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Names of all files below `folder`.
fn names(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            names.extend(self::names(&entry.path()));
        } else {
            names.push(entry.file_name().into_string().unwrap());
        }
    }
    names.sort();
    names
}

#[test]
fn seals_what_it_began_with() {
    let place = Place::new();
    let answer = json(&place.seal("tickets.jsonl"));
    assert_eq!((&answer["records"], &answer["units"]), (&Value::from(400), &Value::from(200)));
    let records = place.open(answer["dataset"]["root"].as_str().unwrap());
    assert_eq!(records.len(), 400);
    let first: Value = serde_json::from_slice(&records[0].1).unwrap();
    let fields: BTreeSet<_> = first.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(fields, BTreeSet::from(["completion", "prompt"]));
}

#[test]
fn shows_no_record_and_no_unit_in_what_it_writes_or_says() {
    let place = Place::new();
    let output = place.seal("tickets.jsonl");
    let mut written = [output.stdout.clone(), output.stderr.clone()].concat();
    for name in ["data.sds", "data.sds.json", "shares/custodian-1.share"] {
        written.extend(fs::read(place.path(name)).unwrap());
    }
    for word in [&b"Northwind"[..], b"example.com", b"c-00001", b"\"prompt\""] {
        assert!(!written.windows(word.len()).any(|window| window == word));
    }
}

#[test]
fn exits_1_and_names_line_and_column_of_what_is_wrong_with_the_data() {
    let place = Place::new();
    let mut text = fs::read_to_string(place.path("tickets.jsonl")).unwrap();
    text.push_str(
        "{\"customer_id\":\"c-1\",\"prompt\":\"cut\n{\"prompt\":\"a\",\"completion\":\"b\"}\n\n",
    );
    fs::write(place.path("tickets.jsonl"), text).unwrap();
    let output = place.seal("tickets.jsonl");
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    assert_eq!(
        said(&output),
        "cloister-owner: tickets.jsonl:401: column 34: malformed json: EOF while parsing a string\n\
         cloister-owner: tickets.jsonl:402: no privacy unit: `customer_id` is missing or blank\n\
         cloister-owner: tickets.jsonl:403: blank line\n\
         cloister-owner: 3 of the lines are flawed\n"
    );
    assert!(!names(place.folder.path()).iter().any(|name| name.contains("sds")));
}

#[test]
fn says_which_records_are_longer_than_the_context() {
    let place = Place::new();
    let mut text = fs::read_to_string(place.path("tickets.jsonl")).unwrap();
    let answer = json(&place.seal("tickets.jsonl"));
    assert_eq!(answer["long"], 0);
    let long = "word ".repeat(2000);
    for _ in 0..2 {
        text.push_str(&format!("{{\"customer_id\":\"c-1\",\"text\":\"{long}\"}}\n"));
    }
    fs::write(place.path("long.jsonl"), text).unwrap();
    fs::remove_file(place.path("data.sds")).unwrap();
    fs::remove_file(place.path("data.sds.json")).unwrap();
    fs::remove_dir_all(place.path("shares")).unwrap();
    let output = place.seal("long.jsonl");
    let said = said(&output);
    assert!(said.contains("long.jsonl:401: longer than the context: of 2 such records"), "{said}");
    assert_eq!(json(&output)["long"], 2);
}

#[test]
fn exits_1_and_names_the_setting_that_is_too_small() {
    let place = Place::new();
    place.set("max_units = 256", "max_units = 150");
    let output = place.seal("tickets.jsonl");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said(&output).contains("data.max_units is 150, the files need 151"),
        "{}",
        said(&output)
    );
    assert!(said(&output).contains("\nhint: raise the setting"), "{}", said(&output));
}

#[test]
fn exits_2_when_a_file_is_not_there_or_of_no_known_kind() {
    let place = Place::new();
    for (file, words) in [
        ("missing.jsonl", "missing.jsonl: No such file"),
        ("table.parquet", "parquet is not supported yet"),
        ("table.csv", "unknown ending"),
    ] {
        let output = place.seal(file);
        assert_eq!(output.status.code(), Some(2));
        assert!(said(&output).contains(words), "{}", said(&output));
    }
    assert_eq!(place.run(&["seal"]).status.code(), Some(2));
}

#[test]
fn never_replaces_a_sealed_data_set() {
    let place = Place::new();
    json(&place.seal("tickets.jsonl"));
    let before = fs::read(place.path("data.sds")).unwrap();
    assert_eq!(place.seal("tickets.jsonl").status.code(), Some(2));
    assert_eq!(fs::read(place.path("data.sds")).unwrap(), before);
}

/// Runs `seal` where files may have no more than `blocks` of 512 bytes.
fn seal_on_a_small_disk(place: &Place, blocks: u32, first: &str) -> Output {
    let script = format!("{first} ulimit -f {blocks}; exec \"$0\" \"$@\"");
    Command::new("/bin/sh")
        .current_dir(place.folder.path())
        .args(["-c", &script, OWNER, "seal", "tickets.jsonl", "--custodian", "custodian.json"])
        .args(["--threshold", "1", "--out", "data.sds", "--shares", "shares"])
        .output()
        .unwrap()
}

#[test]
fn a_disk_that_fills_while_sealing_leaves_no_file() {
    let place = Place::new();
    let before = names(place.folder.path());
    for blocks in [0, 1, 100, 300] {
        let output = seal_on_a_small_disk(&place, blocks, "trap '' XFSZ;");
        assert_eq!(output.status.code(), Some(2), "{blocks}: {}", said(&output));
        assert!(said(&output).contains("File too large"), "{}", said(&output));
        assert_eq!(names(place.folder.path()), before);
    }
    json(&place.seal("tickets.jsonl"));
}

#[test]
fn a_crash_while_sealing_leaves_nothing_that_is_ever_read() {
    let place = Place::new();
    let before = names(place.folder.path());
    let output = seal_on_a_small_disk(&place, 100, "");
    assert!(output.status.signal().is_some(), "{:?}", output.status);
    let behind: Vec<_> =
        names(place.folder.path()).into_iter().filter(|name| !before.contains(name)).collect();
    assert!(
        behind.iter().all(|name| name.starts_with('.') && name.contains(".draft-")),
        "{behind:?}"
    );
    json(&place.seal("tickets.jsonl"));
}

/// The most memory a run had, in KiB, read while it ran.
fn peak(mut command: Command) -> u64 {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
        peak = number.and_then(|number| number.parse().ok()).unwrap_or(peak).max(peak);
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    assert!(child.wait().unwrap().success());
    peak
}

#[test]
fn memory_stays_flat_while_64_mib_are_sealed() {
    let place = Place::new();
    let tickets = fs::read_to_string(place.path("tickets.jsonl")).unwrap();
    let mut file = std::io::BufWriter::new(fs::File::create(place.path("many.jsonl")).unwrap());
    let rounds = (64 << 20) / tickets.len();
    for _ in 0..rounds {
        file.write_all(tickets.as_bytes()).unwrap();
    }
    file.into_inner().unwrap();
    place.set("max_records = 512", &format!("max_records = {}", rounds * 400));
    place.set("capacity = 262144", "capacity = 67108864");
    let mut command = place.command();
    command.args(["seal", "many.jsonl", "--custodian", "custodian.json", "--threshold", "1"]);
    command.args(["--out", "data.sds", "--shares", "shares"]);
    let peak = peak(command);
    assert!(peak > 1024 && peak < 24 * 1024, "{peak} KiB");
}

#[test]
fn makes_keys_that_only_their_owner_can_read() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    let answer = json(&place.run(&["keygen", "--out", "approver.pem", "--json"]));
    let public = fs::read_to_string(place.path("approver.pem.pub")).unwrap();
    assert_eq!(public, format!("ed25519 {} approver\n", answer["key"].as_str().unwrap()));
    json(&place.run(&["keygen", "--recipient", "--out", "recipient.pem", "--json"]));
    for name in ["approver.pem", "recipient.pem"] {
        let mode = fs::metadata(place.path(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[test]
fn asks_for_a_platform_with_every_simulated_root() {
    let place = Place::new();
    let output = place.run(&["init", "other", "--simulated-root", "demo=root.pem"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("hint: --simulated-root demo=root.pem --platform snp"));
}
