//! The service: AKR/1 over TLS 1.3, one connection at a time per peer, nothing kept between them.
//!
//! A connection is a sequence in one task: HELLO, CHALLENGE, EVIDENCE, RELEASE, CONFIRM; or RECEIPT
//! and LOGGED; or UNWRAP and UNWRAPPED. There is no token, no cookie and no store of sessions: what
//! a connection knows is gone when it ends. What costs time (signatures, evidence, the ledger) runs
//! on blocking threads behind a semaphore; every wait has a deadline.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use attestation_verifier::appraise::{AttestationResult, Expected, Verifier};
use attestation_verifier::evidence::Evidence;
use attestation_verifier::policy::{AppraisalPolicy, PolicyError};
use attestation_verifier::protocol::{Answer, BadFrame, Kind};
use measurement::digest::{Digest, of};
use measurement::log::{Deny, Event, State};
use measurement::manifest::Manifest;
use measurement::octets::Octets;
use measurement::receipt::CpuEvidence;
use thiserror::Error;
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::envelope::KeyEnvelope;
use crate::identity::{Identity, IdentityError};
use crate::owner::files;
use crate::random::NoRandomness;
use crate::release::{Asked, Denial};
use crate::store::{AppendError, Store, StoreError};

mod channel;
mod journal;
mod receipt;
mod session;
mod unwrap;

pub use journal::{Journal, Line};

use channel::Channel;

/// Connections that are served at once; more are closed.
const CONNECTIONS: usize = 64;
/// Handshakes at once.
const HANDSHAKES: usize = 16;
/// Verifications at once.
const VERIFICATIONS: usize = 2;
/// How long a peer waits for a verification to begin before it hears "busy".
const QUEUE: Duration = Duration::from_secs(30);
/// How long a stopping server waits for connections to end.
const GRACE: Duration = Duration::from_secs(5);
/// Denials that are logged, per run; later ones are counted.
const DENIALS: u64 = 64;

/// Why the service does not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// The keys.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The socket or the threads.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The policy.
    #[error("policy: {0}")]
    Policy(#[from] PolicyError),
    /// The log.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// TLS.
    #[error("tls: {0}")]
    Tls(#[from] rustls::Error),
}

/// Why a connection ends early.
#[derive(Debug)]
enum Stop {
    /// The custodian refuses, for these reasons.
    Denied(Vec<Denial>),
    /// The peer is gone, or too slow.
    Gone(io::Error),
    /// The custodian cannot decide: its store, its randomness.
    Unable(String),
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(denials) => {
                let texts: Vec<_> = denials.iter().map(ToString::to_string).collect();
                f.write_str(&texts.join("; "))
            }
            Self::Gone(error) => error.fmt(f),
            Self::Unable(why) => f.write_str(why),
        }
    }
}

impl From<Denial> for Stop {
    fn from(denial: Denial) -> Self {
        Self::Denied(vec![denial])
    }
}

impl From<Vec<Denial>> for Stop {
    fn from(denials: Vec<Denial>) -> Self {
        Self::Denied(denials)
    }
}

impl From<BadFrame> for Stop {
    fn from(frame: BadFrame) -> Self {
        Denial::Frame(frame).into()
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Gone(error)
    }
}

impl From<AppendError> for Stop {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Forbidden(forbidden) => {
                Self::Denied(forbidden.findings.into_iter().map(Denial::Ledger).collect())
            }
            AppendError::Store(error) => Self::Unable(error.to_string()),
        }
    }
}

impl From<files::FileError> for Stop {
    fn from(error: files::FileError) -> Self {
        Self::Unable(error.to_string())
    }
}

impl From<NoRandomness> for Stop {
    fn from(error: NoRandomness) -> Self {
        Self::Unable(error.to_string())
    }
}

/// What all connections share.
struct Shared {
    folder: PathBuf,
    identity: Arc<Identity>,
    verifier: Verifier,
    policy: Digest<of::Policy>,
    store: Mutex<Store>,
    handshakes: Semaphore,
    verifications: Arc<Semaphore>,
    denials: AtomicU64,
    journal: Journal,
    /// How long a frame may take.
    patience: Duration,
}

impl Shared {
    /// The store. A panic while it was held leaves it broken, and it refuses by itself.
    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ledger as it is now.
    fn state(&self) -> State {
        self.store().fold().state().clone()
    }

    /// This custodian, now.
    fn asked<'a>(&'a self, state: &'a State) -> Asked<'a> {
        Asked { custodian: self.identity.custodian(), policy: self.policy, state, now: now() }
    }

    /// Judges evidence over `report_data` from one of the manifest's images.
    fn appraise(
        &self,
        cpu: &CpuEvidence,
        manifest: &Manifest,
        launch_blob: &[u8],
        report_data: &[u8; 64],
    ) -> Result<AttestationResult, Denial> {
        let endorsements: Vec<_> = cpu.endorsements.iter().map(|one| one.0.as_slice()).collect();
        let images: Vec<_> = manifest.images.iter().map(|image| image.measured).collect();
        let platforms = &manifest.platforms;
        let expected = Expected { report_data, launch_blob, images: &images, platforms };
        let evidence = Evidence { tee: cpu.tee, report: &cpu.report.0 };
        Ok(self.verifier.appraise(&evidence, &endorsements, &expected, now())?)
    }

    /// The wrapped share of `key`, if it lies here.
    fn share(&self, key: &Octets<32>) -> Result<Option<KeyEnvelope>, Stop> {
        let path = share_path(&self.folder, key);
        if !path.exists() {
            return Ok(None);
        }
        let cap = u64::try_from(crate::envelope::MAX_BYTES).unwrap_or(u64::MAX);
        let bytes = files::read(&path, cap)?;
        Ok(Some(KeyEnvelope::parse(&bytes).map_err(Denial::from)?))
    }

    /// The launch blob of a manifest that a share was released for.
    fn manifest(&self, digest: &Digest<Manifest>) -> Result<(Vec<u8>, Manifest), Stop> {
        let unknown = Denial::UnknownManifest { manifest: *digest };
        let path = self.manifest_path(digest);
        if !path.exists() {
            return Err(unknown.into());
        }
        let cap = u64::try_from(measurement::launch::blob::CAP).unwrap_or(u64::MAX);
        let blob = files::read(&path, cap)?;
        let (_, bytes) = measurement::launch::blob::read(&blob).map_err(Denial::from)?;
        let manifest = Manifest::parse(&bytes).map_err(Denial::from)?;
        if manifest.digest() == *digest { Ok((blob, manifest)) } else { Err(unknown.into()) }
    }

    fn manifest_path(&self, digest: &Digest<Manifest>) -> PathBuf {
        self.folder.join("manifests").join(format!("{digest}.blob"))
    }

    /// Logs the first finding, while there is room, and says so to the custodian.
    fn denied(&self, denials: &[Denial], manifest: Option<Digest<Manifest>>) {
        let code = denials.iter().find_map(Denial::code);
        let (Some(code), Some(manifest)) = (code, manifest) else { return };
        if self.denials.fetch_add(1, Ordering::Relaxed) >= DENIALS {
            return;
        }
        let deny = Event::Deny(Deny { code, manifest });
        if let Err(error) = self.store().append(vec![deny], now()) {
            self.journal.write(&Line::problem(&error.to_string()));
        }
    }
}

/// Where the wrapped share of `key` is in a custodian's folder.
#[must_use]
pub fn share_path(folder: &Path, key: &Octets<32>) -> PathBuf {
    folder.join("shares").join(format!("{key}.share"))
}

/// A running service. Dropping it stops it at once; [`Server::shutdown`] lets connections end.
pub struct Server {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    accepting: Option<JoinHandle<()>>,
    runtime: Option<Runtime>,
    shared: Arc<Shared>,
}

impl Server {
    /// Opens the custodian's folder and serves on `listen` by the policy whose exact text is
    /// `policy`. Returns once the socket listens.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(
        folder: &Path,
        policy: &str,
        listen: SocketAddr,
        journal: Journal,
    ) -> Result<Self, StartError> {
        Self::patient(folder, policy, listen, journal, channel::FRAME)
    }

    /// As [`Server::start`], with another patience than the constant one.
    fn patient(
        folder: &Path,
        policy: &str,
        listen: SocketAddr,
        journal: Journal,
        patience: Duration,
    ) -> Result<Self, StartError> {
        let identity = Arc::new(Identity::load(folder)?);
        let policy = AppraisalPolicy::parse(policy)?;
        let store = Store::open(folder, Arc::clone(&identity))?;
        let config = channel::config(&identity)?;
        let shared = Arc::new(Shared {
            folder: folder.to_owned(),
            identity,
            policy: policy.digest(),
            verifier: Verifier::new(policy),
            store: Mutex::new(store),
            handshakes: Semaphore::new(HANDSHAKES),
            verifications: Arc::new(Semaphore::new(VERIFICATIONS)),
            denials: AtomicU64::new(0),
            journal,
            patience,
        });
        let listener = TcpListener::bind(listen)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(2).enable_all().build()?;
        let (stop, stopped) = watch::channel(false);
        let guard = runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener)?;
        drop(guard);
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let accept = accept(listener, acceptor, Arc::clone(&shared), stopped);
        let accepting = Some(runtime.spawn(accept));
        Ok(Self { address, stop, accepting, runtime: Some(runtime), shared })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many requests were denied since it started, those included that were not logged.
    #[must_use]
    pub fn denials(&self) -> u64 {
        self.shared.denials.load(Ordering::Relaxed)
    }

    /// Serves until the process is told to stop (SIGINT, SIGTERM), and shuts down.
    ///
    /// # Errors
    /// When signals cannot be received.
    pub fn until_signal(self) -> io::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        if let Some(runtime) = &self.runtime {
            runtime.block_on(async {
                let mut terminate = signal(SignalKind::terminate())?;
                let mut interrupt = signal(SignalKind::interrupt())?;
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                Ok::<(), io::Error>(())
            })?;
        }
        self.shutdown();
        Ok(())
    }

    /// Takes no new connection, lets those there are end, and releases the folder. Not to be called
    /// from asynchronous code.
    pub fn shutdown(mut self) {
        self.stop.send_replace(true);
        if let (Some(runtime), Some(accepting)) = (&self.runtime, self.accepting.take()) {
            // The task ends by itself within the grace; if it panicked there is nothing to wait for.
            let _ = runtime.block_on(accepting);
        }
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(GRACE);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn accept(
    listener: tokio::net::TcpListener,
    acceptor: TlsAcceptor,
    shared: Arc<Shared>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    loop {
        let arrived = tokio::select! {
            _ = stopped.changed() => break,
            Some(_) = connections.join_next() => continue,
            arrived = listener.accept() => arrived,
        };
        match arrived {
            Ok((stream, peer)) if connections.len() < CONNECTIONS => {
                let (acceptor, shared) = (acceptor.clone(), Arc::clone(&shared));
                connections.spawn(async move { serve(stream, peer, &acceptor, &shared).await });
            }
            Ok((_, peer)) => shared.journal.write(&Line::at("turned-away", peer)),
            Err(error) => {
                shared.journal.write(&Line::problem(&error.to_string()));
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    // Whatever has not ended by then is dropped, with its connection.
    let _ = timeout(GRACE, all).await;
}

/// One connection, from handshake to end.
async fn serve(
    stream: tokio::net::TcpStream,
    peer: SocketAddr,
    acceptor: &TlsAcceptor,
    shared: &Arc<Shared>,
) {
    let mut line = Line::at("refused", peer);
    let mut channel =
        match Channel::accept(stream, acceptor, &shared.handshakes, shared.patience).await {
            Ok(channel) => channel,
            Err(stop) => return shared.journal.write(&line.because(&stop)),
        };
    let mut manifest = None;
    let Err(stop) = converse(&mut channel, shared, &mut line, &mut manifest).await else {
        return channel.close().await;
    };
    let answer = match &stop {
        Stop::Denied(denials) => denials.first().map_or(Answer::Denied, Denial::answer),
        Stop::Gone(_) | Stop::Unable(_) => Answer::Retry,
    };
    shared.journal.write(&line.because(&stop));
    if let Stop::Denied(denials) = stop {
        let shared = Arc::clone(shared);
        let logged = tokio::task::spawn_blocking(move || shared.denied(&denials, manifest));
        // The peer is answered in any case.
        let _ = logged.await;
    } else if matches!(stop, Stop::Gone(_)) {
        return;
    }
    channel.refuse(answer).await;
}

async fn converse(
    channel: &mut Channel,
    shared: &Arc<Shared>,
    line: &mut Line,
    manifest: &mut Option<Digest<Manifest>>,
) -> Result<(), Stop> {
    match channel.kind().await? {
        (Kind::Receipt, length) => receipt::run(channel, length, shared, line, manifest).await,
        (Kind::Unwrap, length) => unwrap::run(channel, length, shared, line, manifest).await,
        (kind, length) => session::run(channel, (kind, length), shared, line, manifest).await,
    }
}

/// Runs `work` on a blocking thread when there is room.
async fn blocking<T: Send + 'static>(
    shared: &Arc<Shared>,
    work: impl FnOnce(&Shared) -> Result<T, Stop> + Send + 'static,
) -> Result<T, Stop> {
    let permit = timeout(QUEUE, Arc::clone(&shared.verifications).acquire_owned()).await;
    let permit = permit.ok().and_then(Result::ok).ok_or(Denial::Busy)?;
    let shared = Arc::clone(shared);
    let work = tokio::task::spawn_blocking(move || {
        let outcome = work(&shared);
        drop(permit);
        outcome
    });
    work.await.unwrap_or_else(|error| Err(Stop::Unable(error.to_string())))
}

/// The custodian's clock, in seconds since 1970; 0 before.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests;
