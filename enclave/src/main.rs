//! PID 1 of the measured image: prepare the machine, run the job, power off.

use std::path::Path;
use std::process::ExitCode;

use enclave::job;
use enclave::platform::{Platform, snp::Snp, system, tdx::Tdx};

fn main() -> ExitCode {
    let done =
        system::mounts().and_then(|()| system::modules()).and_then(|()| system::lock_memory());
    let outcome = match (done, platform()) {
        (Ok(()), Some(mut platform)) => job::run(platform.as_mut()).is_ok(),
        _ => false,
    };
    // As PID 1 there is nobody to return to; elsewhere the status says how it ended.
    if std::process::id() == 1 {
        system::power_off();
    }
    if outcome { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The hardware that is there. Without any there is no job: this program knows no other platform.
fn platform() -> Option<Box<dyn Platform>> {
    if Path::new("/dev/sev-guest").exists() {
        return Some(Box::new(Snp));
    }
    if Path::new("/dev/tdx_guest").exists() {
        return Some(Box::new(Tdx));
    }
    None
}
