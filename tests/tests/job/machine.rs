//! A launch in this process: the enclave's own job, between the host's own supply and relay, on
//! simulated hardware.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use broker::random;
use enclave::broker::{Attester, Opened, SessionError};
use enclave::halt::Halt;
use enclave::job;
use enclave::pipe::Pipe;
use enclave::platform::{Platform, PlatformError};
use host::pipe::PipeError;
use host::relay::{self, Moved};
use host::session::{Outcome, Program, RunFolder, Session};
use host::supply::{self, Ending, Stock, SupplyError};
use measurement::carrier::{Event, HOST_PORT, Item, RELAY_PORT};
use measurement::cbor::Blob;
use measurement::manifest::Tee;
use measurement::receipt::CpuEvidence;
use ring::signature::Ed25519KeyPair;
use tests::sim::snp::Version;
use tests::sim::{self, Processor};

use crate::scene::{Scene, hardware, now};

/// One launch, golden until a test changes it.
pub struct Launch {
    /// What the host brings.
    pub stock: Stock,
    /// Where the relay dials.
    pub brokers: Vec<String>,
    /// The image that is launched.
    pub image: PathBuf,
    /// What the hardware is given as the launch blob.
    pub launch_blob: Vec<u8>,
    /// What happens to a report before it leaves.
    pub report: fn(&mut Vec<u8>),
    tee: Tee,
}

/// How a launch ended.
pub struct Ended {
    /// What the enclave knows.
    pub outcome: Result<(), Halt>,
    /// What the host heard.
    pub events: Vec<Event>,
    /// What the host was told last, and its files.
    pub ending: Result<Ending, SupplyError>,
    /// What the relay moved.
    pub moved: Result<Moved, PipeError>,
    /// Every byte the enclave wrote, by pipe.
    pub written: BTreeMap<String, Vec<u8>>,
}

impl Scene {
    /// What the host brings, with outputs that land beside it.
    pub fn stock(&self) -> Stock {
        let mut stock = Stock { out: self.path(""), ..Stock::default() };
        for (item, name) in [
            (Item::LaunchBlob, "plan/launch.blob"),
            (Item::Approvals, "approvals.json"),
            (Item::Dataset, "dataset.sds"),
            (Item::BaseConfig, "base/config.json"),
            (Item::BaseWeights, "base/model.safetensors"),
            (Item::Tokenizer, "base/tokenizer.json"),
        ] {
            stock.insert(item, self.path(name));
        }
        let template = self.path("base/chat_template.jinja");
        if template.exists() {
            stock.insert(Item::Template, template);
        }
        stock
    }

    /// Launches with one change.
    pub fn launch(&self, broker: &str, change: impl FnOnce(&mut Launch)) -> Ended {
        let mut launch = Launch {
            stock: self.stock(),
            brokers: vec![broker.to_owned()],
            image: self.path("image"),
            launch_blob: self.read("plan/launch.blob"),
            report: |_| (),
            tee: self.tee,
        };
        change(&mut launch);
        launch.run()
    }

    /// Launches as `cloister launch --platform process` does: the enclave is a process, and its
    /// program what `/init` of the simulated image is.
    pub fn launch_process(&self, broker: &str) -> (Vec<Event>, Outcome) {
        let processor = self.processor();
        let place = tempfile::tempdir().unwrap();
        let socket = place.path().join("asp.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        // Ends with its one guest.
        let serving = thread::spawn(move || {
            sim::answer(listener.accept().unwrap().0, &processor).unwrap();
        });
        let folder = RunFolder::new(place.path()).unwrap();
        folder.link_asp(&socket).unwrap();
        let program = Program {
            path: env!("CARGO_BIN_EXE_cloister-sim-init").into(),
            arguments: vec![folder.path().into()],
            log: folder.console(),
        };
        let session = Session {
            folder: &folder,
            program,
            stock: &self.stock(),
            brokers: vec![broker.to_owned()],
            timeout: Duration::from_secs(120),
        };
        let mut events = Vec::new();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let outcome = runtime.block_on(session.run(|event| events.push(event)));
        let console = std::fs::read_to_string(folder.console()).unwrap_or_default();
        let outcome = outcome.unwrap_or_else(|error| panic!("{error}\n{console}"));
        serving.join().unwrap();
        (events, outcome)
    }

    /// One session of a genuine enclave with the custodian at `address`.
    pub fn attest(&self, address: SocketAddr) -> Result<Opened, SessionError> {
        let signer = Ed25519KeyPair::from_seed_unchecked(&[9; 32]).unwrap();
        let attester = Attester {
            manifest: &self.manifest(),
            launch_blob: &self.read("plan/launch.blob"),
            approvals: &self.read("approvals.json"),
            signer: &signer,
            endorsements: &[],
        };
        let stream = TcpStream::connect(address).unwrap();
        attester.release(stream, 1, &mut Machine::of(self), &mut random::fresh().unwrap())
    }

    /// The simulated processor, launched with this scene's image and manifest.
    pub fn processor(&self) -> Processor {
        processor(&self.path("image"), &self.read("plan/launch.blob"))
    }
}

/// A processor that launched the image in `folder` with `launch_blob`.
pub fn processor(folder: &Path, launch_blob: &[u8]) -> Processor {
    Processor::launch(folder, launch_blob, hardware(), Version::V5, now()).unwrap()
}

impl Launch {
    fn run(self) -> Ended {
        let (host, host_end) = UnixStream::pair().unwrap();
        let (relay, relay_end) = UnixStream::pair().unwrap();
        let written = Arc::new(Mutex::new(BTreeMap::new()));
        let mut machine = Machine {
            processor: processor(&self.image, &self.launch_blob),
            pipes: BTreeMap::from([(HOST_PORT, host), (RELAY_PORT, relay)]),
            report: self.report,
            tee: self.tee,
            written: Arc::clone(&written),
        };
        let job = thread::spawn(move || job::run(&mut machine));
        let (events, ending, moved) = carry(host_end, relay_end, &self.stock, self.brokers);
        let outcome = job.join().unwrap();
        let written = written.lock().unwrap().clone();
        Ended { outcome, events, ending, moved, written }
    }
}

type Carried = (Vec<Event>, Result<Ending, SupplyError>, Result<Moved, PipeError>);

/// The host's side of both pipes.
fn carry(host: UnixStream, relay: UnixStream, stock: &Stock, brokers: Vec<String>) -> Carried {
    let mut events = Vec::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (ending, moved) = runtime.block_on(async {
        let asynchronous = |stream: UnixStream| {
            stream.set_nonblocking(true).unwrap();
            tokio::net::UnixStream::from_std(stream).unwrap()
        };
        let (host, relay) = (asynchronous(host), asynchronous(relay));
        let relayed = tokio::spawn(async move { relay::serve(relay, &brokers).await });
        let ending = supply::serve(host, stock, |event| events.push(event)).await;
        (ending, relayed.await.unwrap())
    });
    (events, ending, moved)
}

/// A machine whose evidence says SIMULATED, because its roots are.
pub struct Machine {
    pub processor: Processor,
    pub pipes: BTreeMap<&'static str, UnixStream>,
    pub report: fn(&mut Vec<u8>),
    pub tee: Tee,
    pub written: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
}

impl Machine {
    /// One without pipes.
    pub fn of(scene: &Scene) -> Self {
        Self {
            processor: scene.processor(),
            pipes: BTreeMap::new(),
            report: |_| (),
            tee: scene.tee,
            written: Arc::default(),
        }
    }
}

impl Platform for Machine {
    fn tee(&self) -> Tee {
        self.tee
    }

    fn evidence(&mut self, report_data: &[u8; 64]) -> Result<CpuEvidence, PlatformError> {
        let mut evidence = self.processor.report(report_data);
        (self.report)(&mut evidence.report);
        let endorsements = evidence.endorsements.into_iter().map(Blob).collect();
        Ok(CpuEvidence { endorsements, report: Blob(evidence.report), tee: evidence.tee })
    }

    fn pipe(&mut self, name: &str) -> Result<Box<dyn Pipe>, PlatformError> {
        let stream = self.pipes.remove(name).unwrap();
        Ok(Box::new(Tap { stream, name: name.to_owned(), written: Arc::clone(&self.written) }))
    }
}

/// Keeps a copy of what is written.
struct Tap {
    stream: UnixStream,
    name: String,
    written: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
}

impl Read for Tap {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.stream.read(out)
    }
}

impl Write for Tap {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.stream.write(bytes)?;
        let mut written = self.written.lock().unwrap();
        written.entry(self.name.clone()).or_default().extend(&bytes[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}
