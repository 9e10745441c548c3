//! The programs as a reader runs them: what is printed, where, and the exit status.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "all of it is tests"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use measurement::launch::blob::{self, Algorithm};
use serde_json::Value;

const CMDLINE: &str = "console=ttyS0 quiet";

/// One launch's files; its image cannot be measured, for a page of zeros is no firmware.
struct Job {
    folder: tempfile::TempDir,
}

impl Job {
    fn new() -> Self {
        let job = Self { folder: tempfile::tempdir().unwrap() };
        for name in ["config.json", "model.safetensors", "tokenizer.json", "approvals", "dataset"] {
            fs::write(job.path(name), name).unwrap();
        }
        fs::write(job.path("blob"), blob::write(b"manifest", Algorithm::Sha256)).unwrap();
        let image = job.path("image");
        fs::create_dir(&image).unwrap();
        for (name, text) in [("kernel", "k"), ("initrd", "i"), ("cmdline", CMDLINE)] {
            fs::write(image.join(name), text).unwrap();
        }
        fs::write(image.join("firmware.fd"), vec![0; 4096]).unwrap();
        let shape = r#"{"platform":"snp","cpu":"EPYC-Genoa","vcpus":2,"memory_mib":512}"#;
        fs::write(image.join("image.json"), shape).unwrap();
        job
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A program in the place of the enclave or of QEMU.
    fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        path
    }

    fn launch(&self, platform: &str, more: &[&Path]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cloister-host"));
        command.arg("launch").args(["--platform", platform, "--broker", "127.0.0.1:1"]);
        command.env("XDG_RUNTIME_DIR", self.folder.path());
        for (flag, name) in [
            ("--image", "image"),
            ("--launch-blob", "blob"),
            ("--approvals", "approvals"),
            ("--dataset", "dataset"),
            ("--base", ""),
            ("--out", "out"),
        ] {
            command.arg(flag).arg(self.path(name));
        }
        command.args(more).output().unwrap()
    }

    fn launch_process(&self, enclave: &str) -> Output {
        let _asp = UnixListener::bind(self.path("asp.sock")).unwrap();
        let enclave = self.script("enclave", enclave);
        let flag = |text: &'static str| Path::new(text);
        let asp = self.path("asp.sock");
        self.launch(
            "process",
            &[flag("--enclave"), &enclave, flag("--asp"), &asp, flag("--timeout"), flag("20")],
        )
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn a_program_that_dies_gives_no_answer_and_leaves_its_console() {
    let job = Job::new();
    let output = job.launch_process("echo no luck; ls $1; exit 3");
    let problem = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{problem}");
    assert!(output.stdout.is_empty());
    assert!(problem.contains("ended with exit status: 3 before the job did"), "{problem}");
    let console = problem.split("is in ").nth(1).unwrap().lines().next().unwrap();
    let console = fs::read_to_string(console).unwrap();
    assert_eq!(console, "no luck\nasp.sock\nconsole.log\nhost.sock\nrelay.sock\n");
}

#[test]
fn the_run_folder_is_private() {
    let output = Job::new().launch_process("stat -c %a $1");
    let console = stderr(&output);
    let console = console.split("is in ").nth(1).map(|rest| rest.lines().next().unwrap());
    assert!(console.is_some());
    let job = Job::new();
    job.launch_process("stat -c %a $1 > $(dirname $1)/mode");
    assert_eq!(fs::read_to_string(job.path("mode")).unwrap(), "700\n");
}

#[test]
fn refuses_a_second_launch_into_the_same_folder() {
    let job = Job::new();
    fs::create_dir(job.path("out")).unwrap();
    fs::write(job.path("out/job.receipt"), "of another job").unwrap();
    let output = job.launch_process("touch $(dirname $1)/started");
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("job.receipt: exists already"), "{}", stderr(&output));
    assert!(!job.path("started").exists());
}

#[test]
fn names_a_missing_file_before_anything_starts() {
    let job = Job::new();
    fs::remove_file(job.path("tokenizer.json")).unwrap();
    let output = job.launch_process("touch $(dirname $1)/started");
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("tokenizer.json: No such file"), "{}", stderr(&output));
    assert!(!job.path("started").exists());
}

#[test]
fn refuses_an_image_of_the_other_platform() {
    let output = Job::new().launch("tdx", &[]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(stderr(&output), "cloister-host: the image is for snp, not for tdx\n");
}

#[test]
fn refuses_a_qemu_that_is_too_old_for_the_platform() {
    let job = Job::new();
    let qemu = job.script("qemu", "echo QEMU emulator version 7.2.22");
    let output = job.launch("snp", &[Path::new("--qemu"), &qemu]);
    assert_eq!(output.status.code(), Some(2));
    let problem = "cloister-host: qemu is 7.2, this platform requires 9.1\n";
    assert!(stderr(&output).contains(problem), "{}", stderr(&output));
}

#[test]
fn refuses_a_launch_blob_that_is_none() {
    let job = Job::new();
    fs::write(job.path("blob"), "manifest").unwrap();
    let output = job.launch("snp", &[Path::new("--dry-run")]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("the launch blob is not"), "{}", stderr(&output));
}

#[test]
fn an_image_that_cannot_be_measured_is_named() {
    let job = Job::new();
    let mut measure = Command::new(env!("CARGO_BIN_EXE_cloister-host"));
    let output = measure.args(["measure", "--image"]).arg(job.path("image")).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("firmware"), "{}", stderr(&output));
    fs::remove_file(job.path("image/initrd")).unwrap();
    let output = measure.output().unwrap();
    assert!(stderr(&output).contains("initrd: No such file"), "{}", stderr(&output));
}

#[test]
fn the_front_passes_arguments_and_exit_status_through() {
    let front = Command::new(env!("CARGO_BIN_EXE_cloister"))
        .args(["measure", "--image", "/nowhere", "--json"])
        .output()
        .unwrap();
    assert_eq!(front.status.code(), Some(2));
    assert!(stderr(&front).starts_with("cloister-host: /nowhere/image.json: "));
    let unknown = Command::new(env!("CARGO_BIN_EXE_cloister")).arg("lunch").output().unwrap();
    assert_eq!(unknown.status.code(), Some(2));
    assert_eq!(stderr(&unknown), "cloister: unknown verb \"lunch\"\nhint: did you mean launch?\n");
}

#[test]
fn the_same_parts_make_the_same_image_and_a_dry_run_says_what_is_run() {
    let job = Job::new();
    fs::write(job.path("firmware.fd"), firmware()).unwrap();
    for name in ["one", "two"] {
        let built = Command::new(env!("CARGO_BIN_EXE_cloister-host"))
            .args(["image", "--platform", "snp", "--cmdline", CMDLINE, "--cpu", "EPYC-Genoa"])
            .args(["--vcpus", "2", "--memory-mib", "512", "--json", "--firmware"])
            .arg(job.path("firmware.fd"))
            .arg("--init")
            .arg(job.path("dataset"))
            .arg("--kernel")
            .arg(job.path("approvals"))
            .arg("--out")
            .arg(job.path(name))
            .output()
            .unwrap();
        assert_eq!(built.status.code(), Some(0), "{}", stderr(&built));
    }
    for part in ["cmdline", "firmware.fd", "image.json", "initrd", "kernel"] {
        let read = |folder: &str| fs::read(job.path(folder).join(part)).unwrap();
        assert_eq!(read("one"), read("two"), "{part}");
    }
    fs::remove_dir_all(job.path("image")).unwrap();
    fs::rename(job.path("one"), job.path("image")).unwrap();
    let dry = job.launch("snp", &[Path::new("--dry-run"), Path::new("--json")]);
    assert_eq!(dry.status.code(), Some(0), "{}", stderr(&dry));
    let facts: Value = serde_json::from_slice(&dry.stdout).unwrap();
    assert_eq!(facts["measured"]["snp"]["launch_digest"].as_str().unwrap().len(), 96);
    assert!(facts["argv"].as_array().unwrap().contains(&Value::from(CMDLINE)));
    assert!(!job.path("out").exists());
}

/// Two pages that carry what SNP needs of OVMF: a hash table's page, a reset vector, two sections.
fn firmware() -> Vec<u8> {
    let mut image = vec![0xf4; 8192];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    let words = |words: &[u32]| words.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<_>>();
    put(0x1000, b"ASEV");
    put(0x1004, &words(&[16 + 2 * 12, 1, 2, 0x80_e000, 0x1000, 3, 0x81_0000, 0x1000, 0x10]));
    let mut table = entry("de71f700 7e1a cb4f 890e68c77e2fb44e", &words(&[0x80_b004]));
    table.extend(entry("1f375572 3b3a 044b 927b1da6efa8d454", &words(&[0x81_0c00, 0x400])));
    table.extend(entry("666588dc 4a98 9847 a75e5585a7bf67cc", &words(&[0x1000])));
    let length = u16::try_from(table.len() + 18).unwrap();
    table.extend(length.to_le_bytes());
    table.extend(hex::decode("de82b596b21ff745baeaa366c55a082d").unwrap());
    put(8192 - 32 - table.len(), &table);
    image
}

/// An entry ends with its length and its GUID, here as the bytes lie.
fn entry(guid: &str, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len() + 18).unwrap().to_le_bytes();
    [data, &length, &hex::decode(guid.replace(' ', "")).unwrap()].concat()
}
