//! One launch, from the sockets to the enclave's last word.
//!
//! 1. A private folder with the sockets, which listen before anything starts.
//! 2. The machine, or the program, that connects to them.
//! 3. Supply and relay, until the enclave is done, halts, dies or takes too long.
//! 4. The machine is stopped, whatever happened.

use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use measurement::carrier::{Event, Item, Stage};
use tokio::net::UnixListener;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

use crate::pipe::PipeError;
use crate::relay::{self, Moved};
use crate::supply::{self, Ending, Stock, SupplyError};

/// How long a machine may take to switch itself off after its last word.
const POWER_OFF: Duration = Duration::from_secs(15);
/// How long what a dead machine sent may take to arrive.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Linux' `sun_path` has 108 bytes with its NUL; `relay.sock` is the longest name.
const LONGEST_FOLDER: usize = 96;

/// Why a launch gave no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The machine ended before the enclave said a last word.
    #[error("{} ended with {status} before the job did", program.display())]
    Died {
        /// The program.
        program: PathBuf,
        /// How it ended.
        status: ExitStatus,
    },
    /// The run folder's name leaves no room for a socket's.
    #[error("{}: folder name has {observed} bytes, at most {LONGEST_FOLDER} fit a socket's address", path.display())]
    FolderName {
        /// The folder.
        path: PathBuf,
        /// Bytes in its name.
        observed: usize,
    },
    /// The operator, or the system, asked to stop.
    #[error("interrupted")]
    Interrupted,
    /// A file or socket of the run cannot be made.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A program cannot be started.
    #[error("{} does not start: {source}", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The host pipe cannot be served any longer.
    #[error(transparent)]
    Supply(#[from] SupplyError),
    /// Too slow.
    #[error("no end after {} seconds", .0.as_secs())]
    Timeout(Duration),
}

/// The private folder of one run; gone when dropped, unless it was kept.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    kept: bool,
}

impl RunFolder {
    /// Makes a folder that only this user can enter, inside `parent`.
    ///
    /// # Errors
    /// [`SessionError::FolderName`] and [`SessionError::Io`].
    pub fn new(parent: &Path) -> Result<Self, SessionError> {
        let stamp = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let stamp = stamp.map_or(0, |time| time.subsec_nanos());
        let path = parent.join(format!("cloister-{}-{stamp:08x}", std::process::id()));
        let observed = path.as_os_str().len();
        if observed > LONGEST_FOLDER {
            return Err(SessionError::FolderName { path, observed });
        }
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|source| SessionError::Io { path: path.clone(), source })?;
        Ok(Self { path, kept: false })
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The socket of `cloister.host`.
    #[must_use]
    pub fn host(&self) -> PathBuf {
        self.path.join("host.sock")
    }

    /// The socket of `cloister.relay`.
    #[must_use]
    pub fn relay(&self) -> PathBuf {
        self.path.join("relay.sock")
    }

    /// What the machine wrote to its console.
    #[must_use]
    pub fn console(&self) -> PathBuf {
        self.path.join("console.log")
    }

    /// Gives a process the simulated security processor under the name it looks for.
    ///
    /// # Errors
    /// [`SessionError::Io`].
    pub fn link_asp(&self, socket: &Path) -> Result<(), SessionError> {
        let failed = |source| SessionError::Io { path: socket.to_owned(), source };
        let socket = fs::canonicalize(socket).map_err(failed)?;
        symlink(&socket, self.path.join("asp.sock")).map_err(failed)
    }

    /// Leaves the folder where it is, for the console's sake.
    pub fn keep(&mut self) {
        self.kept = true;
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        if !self.kept {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// What is started: QEMU, or the enclave as a process.
#[derive(Debug, Clone)]
pub struct Program {
    /// The program.
    pub path: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Where standard output and error go; `None` leaves the console to the machine.
    pub log: PathBuf,
}

/// One launch.
#[derive(Debug)]
pub struct Session<'a> {
    /// Where the sockets are.
    pub folder: &'a RunFolder,
    /// What connects to them.
    pub program: Program,
    /// What it may ask for.
    pub stock: &'a Stock,
    /// `brokers[i]` is the address of the manifest's broker `i`.
    pub brokers: Vec<String>,
    /// How long all of it may take.
    pub timeout: Duration,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// The enclave's last word and its outputs.
    pub ending: Ending,
    /// What the relay moved, or why it stopped.
    pub relayed: Option<Result<Moved, PipeError>>,
}

impl Outcome {
    /// Where an output was written, if the enclave handed it out.
    #[must_use]
    pub fn output(&self, item: Item) -> Option<&Path> {
        self.ending.outputs.get(&item.code()).map(PathBuf::as_path)
    }
}

impl Session<'_> {
    /// Runs the launch to its end; `watch` hears every event.
    ///
    /// # Errors
    /// [`SessionError`] where the enclave said no last word. The machine is gone in any case.
    pub async fn run(&self, watch: impl FnMut(Event)) -> Result<Outcome, SessionError> {
        let host = listen(&self.folder.host())?;
        let relay = listen(&self.folder.relay())?;
        let mut child = self.program.start()?;
        let relayed = tokio::spawn(serve_relay(relay, self.brokers.clone()));
        let served = self.serve(host, watch);
        tokio::pin!(served);
        let ending = tokio::select! {
            ending = &mut served => ending,
            status = child.wait() => match tokio::time::timeout(LAST_WORDS, &mut served).await {
                Ok(Ok(ending)) => Ok(ending),
                _ => Err(self.died(status)),
            },
            () = tokio::time::sleep(self.timeout) => Err(SessionError::Timeout(self.timeout)),
            () = stop_requested() => Err(SessionError::Interrupted),
        };
        // Where the pipe was lost the machine is usually gone too, and says more.
        let ending = match ending {
            Err(SessionError::Supply(SupplyError::Lost)) => {
                match tokio::time::timeout(LAST_WORDS, child.wait()).await {
                    Ok(status) => Err(self.died(status)),
                    Err(_) => Err(SupplyError::Lost.into()),
                }
            }
            other => other,
        };
        let grace = if ending.is_ok() { POWER_OFF } else { Duration::ZERO };
        stop(&mut child, grace).await;
        let relayed = end_relay(relayed).await;
        Ok(Outcome { ending: ending?, relayed })
    }

    async fn serve(
        &self,
        host: UnixListener,
        watch: impl FnMut(Event),
    ) -> Result<Ending, SessionError> {
        let (pipe, _) = host
            .accept()
            .await
            .map_err(|source| SessionError::Io { path: self.folder.host(), source })?;
        drop(host);
        Ok(supply::serve(pipe, self.stock, watch).await?)
    }

    fn died(&self, status: std::io::Result<ExitStatus>) -> SessionError {
        let program = self.program.path.clone();
        match status {
            Ok(status) => SessionError::Died { program, status },
            Err(source) => SessionError::Io { path: program, source },
        }
    }
}

impl Program {
    fn start(&self) -> Result<Child, SessionError> {
        let failed = |source| SessionError::Io { path: self.log.clone(), source };
        let out = fs::File::create(&self.log).map_err(failed)?;
        let err = out.try_clone().map_err(failed)?;
        Command::new(&self.path)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| SessionError::Start { program: self.path.clone(), source })
    }
}

fn listen(path: &Path) -> Result<UnixListener, SessionError> {
    UnixListener::bind(path).map_err(|source| SessionError::Io { path: path.to_owned(), source })
}

async fn serve_relay(relay: UnixListener, brokers: Vec<String>) -> Result<Moved, PipeError> {
    let (pipe, _) = relay.accept().await?;
    drop(relay);
    relay::serve(pipe, &brokers).await
}

/// The relay ends with its pipe; where it was never connected, nothing will.
async fn end_relay(
    mut relayed: JoinHandle<Result<Moved, PipeError>>,
) -> Option<Result<Moved, PipeError>> {
    let ended = tokio::time::timeout(LAST_WORDS, &mut relayed).await;
    relayed.abort();
    ended.ok()?.ok()
}

async fn stop(child: &mut Child, grace: Duration) {
    if tokio::time::timeout(grace, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
}

/// Ends when the terminal, the user or the system asks this program to stop.
async fn stop_requested() {
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    let [Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)] = kinds.map(signal) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => (),
        _ = terminate.recv() => (),
        _ = hangup.recv() => (),
    }
}

/// What a halt means to the operator, and who can do something about it.
#[must_use]
pub const fn explain(stage: Stage) -> &'static str {
    match stage {
        Stage::HaltedCarrier => "an item it asked for was not brought, or a pipe broke",
        Stage::HaltedManifest => "the launch blob or its manifest is not acceptable",
        Stage::HaltedPlatform => "the platform gave no evidence",
        Stage::HaltedRelease => "a broker refused to release its share, or was not reached",
        Stage::HaltedBase => "the base model is not the one the manifest names",
        Stage::HaltedDataset => "the sealed data set is not the one the manifest names",
        Stage::HaltedTraining => "training cannot be done as the manifest says",
        Stage::HaltedReceipt => "the ledger did not log the receipt",
        Stage::HaltedLease => "the lease of the released shares has ended",
        _ => "the job goes on",
    }
}
