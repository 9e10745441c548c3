//! `/init` of the simulated image: the enclave's own job over simulated hardware.
//!
//! Without an argument it is PID 1 of a virtual machine and speaks over virtio-serial ports. With a
//! folder it is a process and speaks over the sockets in it. Either way everything that comes out
//! says SIMULATED, for the evidence is signed under roots that a policy must name as such.

use std::path::PathBuf;
use std::process::ExitCode;

use enclave::job;
use enclave::platform::system;
use tests::guest::{Guest, Wires};

fn main() -> ExitCode {
    match std::env::args_os().nth(1) {
        Some(folder) => run(Wires::Sockets(PathBuf::from(folder))),
        None => {
            let prepared = system::mounts().and_then(|()| system::lock_memory());
            let status = match prepared {
                Ok(()) => run(Wires::Ports),
                Err(error) => {
                    eprintln!("cloister-sim-init: {error}");
                    ExitCode::from(2)
                }
            };
            system::power_off();
            status
        }
    }
}

fn run(wires: Wires) -> ExitCode {
    let mut guest = match Guest::new(wires) {
        Ok(guest) => guest,
        Err(error) => {
            eprintln!("cloister-sim-init: {error}");
            return ExitCode::from(2);
        }
    };
    match job::run(&mut guest) {
        Ok(()) => ExitCode::SUCCESS,
        Err(halt) => {
            // The simulator may say what the enclave only hints at with a code.
            eprintln!("cloister-sim-init: {halt}");
            ExitCode::FAILURE
        }
    }
}
