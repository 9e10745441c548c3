//! Whole sessions, from sealed records to the auditor's verdict, and what each tampering gets.

mod common;

use common::{Scene, Setting};
use enclave::halt::Halt;
use measurement::carrier::Stage;
use measurement::manifest::Tee;

/// The enclave as a process, which is what `/init` of the simulated image is.
const ENCLAVE: &str = env!("CARGO_BIN_EXE_cloister-sim-init");

/// Runs the golden scene to its end: opened, exported, ready for the auditor.
fn finished(tee: Tee) -> Option<Scene> {
    let scene = Scene::golden(tee)?;
    let server = scene.serve();
    let broker = server.address().to_string();
    match tee {
        Tee::Snp => {
            let (_, outcome) = scene.launch_process(&broker, ENCLAVE);
            assert_eq!(outcome.ending.stage, Stage::Done);
        }
        Tee::Tdx => assert_eq!(scene.launch(&broker, |_| ()).outcome, Ok(())),
    }
    scene.open(&broker, "owner/recipient.pem").unwrap();
    server.shutdown();
    scene.export();
    Some(scene)
}

#[test]
fn one_attested_job_end_to_end_on_snp() {
    let Some(scene) = finished(Tee::Snp) else { return };
    let judged = scene.judge().unwrap();
    let receipt = judged.verdict.unwrap();
    assert!(receipt.simulated());
    assert_eq!(judged.not_checked, ["adapter: README.md"]);
}

#[test]
fn one_attested_job_end_to_end_on_tdx() {
    let Some(scene) = finished(Tee::Tdx) else { return };
    let judged = scene.judge().unwrap();
    assert!(judged.verdict.unwrap().simulated());
}
