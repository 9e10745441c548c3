//! AKR/1 by hand, where a test must say what no enclave says.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use attestation_verifier::protocol::{
    self, Answer, Challenge, Confirm, Evidence, Hello, KEM_X25519, KemKey, Kind, Message, Refused,
    VERSION,
};
use broker::random;
use enclave::tls::Channel;
use measurement::binding::{Binding, Session};
use measurement::cbor::Blob;
use measurement::digest::{Hash32, of};
use measurement::octets::Octets;
use measurement::receipt::CpuEvidence;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use sealed::{Kem, RecipientKey};
use tests::sim::Processor;

use crate::scene::Scene;

/// A connection to a custodian whose key is pinned.
pub struct Peer {
    channel: Channel<TcpStream>,
    broker: Hash32<of::Spki>,
}

/// A session that was challenged.
pub struct Challenged {
    pub hello: Hello,
    pub challenge: Challenge,
    pub binding: Binding,
    pub signer: Ed25519KeyPair,
}

/// Writes a message; returns its CBOR.
pub fn say<M: Message>(stream: &mut impl Write, message: &M) -> Vec<u8> {
    let body = protocol::encode(message);
    stream.write_all(&protocol::frame(M::KIND, &body)).unwrap();
    stream.flush().unwrap();
    body
}

/// The next frame, whatever it is.
pub fn frame(stream: &mut (impl Read + ?Sized)) -> io::Result<(Kind, Vec<u8>)> {
    let mut header = [0; protocol::HEADER];
    stream.read_exact(&mut header)?;
    let (kind, length) = protocol::read_header(header).unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok((kind, body))
}

/// The next message, or what the custodian answers instead.
pub fn hear<M: Message>(stream: &mut impl Read) -> Result<(M, Vec<u8>), Answer> {
    let (kind, body) = frame(stream).unwrap();
    if kind == Kind::Refused {
        return Err(protocol::read::<Refused>(kind, &body).unwrap().answer);
    }
    Ok((protocol::read(kind, &body).unwrap(), body))
}

impl Peer {
    pub fn connect(scene: &Scene, address: SocketAddr) -> Self {
        Self::admitted(scene, address).unwrap()
    }

    /// A connection, or how the custodian turned it away.
    pub fn admitted(scene: &Scene, address: SocketAddr) -> io::Result<Self> {
        let broker = scene.custodian().tls;
        let stream = TcpStream::connect(address)?;
        Ok(Self { channel: Channel::connect(stream, broker).map_err(io::Error::other)?, broker })
    }

    /// The connection itself.
    pub fn stream(&mut self) -> &mut Channel<TcpStream> {
        &mut self.channel
    }

    pub fn say<M: Message>(&mut self, message: &M) -> Vec<u8> {
        say(&mut self.channel, message)
    }

    pub fn hear<M: Message>(&mut self) -> Result<(M, Vec<u8>), Answer> {
        hear(&mut self.channel)
    }

    /// Whether the custodian hung up.
    pub fn hung_up(&mut self) -> bool {
        frame(&mut self.channel).is_err()
    }

    /// HELLO and CHALLENGE.
    pub fn challenged(&mut self, scene: &Scene) -> Challenged {
        let mut rng = random::fresh().unwrap();
        let key = RecipientKey::generate(Kem::X25519, &mut rng);
        let signer = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let manifest = scene.manifest();
        let hello = Hello {
            instance: Octets([1; 16]),
            job: manifest.job,
            kems: vec![KemKey { kem: KEM_X25519, key: key.public().into() }],
            keys: vec![manifest.dataset.key],
            manifest: manifest.digest(),
            signer: Octets::from_slice(signer.public_key().as_ref()).unwrap(),
            tee: scene.tee,
            version: VERSION,
        };
        let hello_bytes = self.say(&hello);
        let (challenge, challenge_bytes) = self.hear::<Challenge>().unwrap();
        let binding = Session {
            nonce: &challenge.nonce,
            channel: self.channel.binding(),
            broker: &self.broker,
            kem: challenge.kem,
            recipient: key.public(),
            signer: &hello.signer,
            manifest: &hello.manifest,
            instance: &hello.instance,
            hello: &hello_bytes,
            challenge: &challenge_bytes,
        }
        .binding();
        Challenged { hello, challenge, binding, signer }
    }
}

impl Challenged {
    /// The evidence that the custodian wants.
    pub fn evidence(&self, scene: &Scene) -> Evidence {
        let report_data = self.binding.report_data(0, None);
        Evidence {
            approvals: Blob(scene.read("approvals.json")),
            cpu: report(&scene.processor(), &report_data),
            gpus: Vec::new(),
            launch_blob: Blob(scene.read("plan/launch.blob")),
        }
    }

    /// The confirmation of a release.
    pub fn confirm(&self, id: Octets<16>, release: &[u8]) -> Confirm {
        let message = Binding::confirmation(&id, release);
        let signature = self.signer.sign(&message);
        Confirm { id, signature: Octets::from_slice(signature.as_ref()).unwrap() }
    }
}

/// A report, and what a verifier needs to judge it.
pub fn report(processor: &Processor, report_data: &[u8; 64]) -> CpuEvidence {
    let evidence = processor.report(report_data);
    let endorsements = evidence.endorsements.into_iter().map(Blob).collect();
    CpuEvidence { endorsements, report: Blob(evidence.report), tee: evidence.tee }
}
