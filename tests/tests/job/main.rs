//! Whole sessions, from sealed records to the auditor's verdict, and what each tampering gets.
//!
//! Three see a tampering: the enclave, which halts with a code; the custodian, which denies and logs
//! why; the auditor. Each test changes one thing and asserts who saw what.

mod custodian;
mod ledger;
mod machine;
mod peer;
mod scene;
mod session;
mod tampered;
mod verify;
mod whole;

use enclave::halt::Halt;
use measurement::manifest::Tee;

use machine::{Ended, Launch};
use scene::Scene;

/// What a custodian's log holds of a job that went well.
const GOLDEN_LOG: [&str; 5] = ["manifest", "debit", "release", "confirm", "receipt"];

/// Launches the golden scene with one change: how it ended, and what the custodian denied.
fn launched(tee: Tee, change: impl FnOnce(&Scene, &mut Launch)) -> Option<(Ended, Vec<String>)> {
    launch(&Scene::golden(tee)?, change)
}

fn launch(scene: &Scene, change: impl FnOnce(&Scene, &mut Launch)) -> Option<(Ended, Vec<String>)> {
    let server = scene.serve();
    let ended = scene.launch(&server.address().to_string(), |launch| change(scene, launch));
    server.shutdown();
    Some((ended, denied(scene)))
}

/// The codes of what the custodian denied.
fn denied(scene: &Scene) -> Vec<String> {
    let codes = scene.denials().into_iter();
    codes.flat_map(|(code, times)| (0..times).map(move |_| code.clone())).collect()
}

/// Nothing leaves a launch that halts.
fn halts(ended: &Ended, halt: Halt) {
    assert_eq!(ended.outcome, Err(halt));
    let ending = ended.ending.as_ref().unwrap();
    assert_eq!((ending.stage, ending.outputs.len()), (halt.stage(), 0));
}
