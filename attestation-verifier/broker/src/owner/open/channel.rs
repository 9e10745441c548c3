//! TLS 1.3 to whichever custodian of a manifest answers: full handshake, no resumption, no early
//! data. A key that the manifest does not pin ends the handshake.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use attestation_verifier::pin::spki;
use measurement::binding::ALPN;
use measurement::digest::{Hash32, of};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, ClientConnection, Resumption};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, IpAddr, Ipv4Addr, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme, StreamOwned};

const CONNECT: Duration = Duration::from_secs(10);
/// A custodian logs and gathers witnesses before it answers.
const ANSWER: Duration = Duration::from_secs(60);

/// A TLS stream to the custodian that holds the key `peer`.
pub(super) struct Channel {
    stream: StreamOwned<ClientConnection, TcpStream>,
    peer: Hash32<of::Spki>,
}

impl Channel {
    /// Connects to `address` and completes a handshake with one of `pins`.
    pub(super) fn connect(address: &str, pins: &[Hash32<of::Spki>]) -> io::Result<Self> {
        let mut stream = dial(address)?;
        stream.set_read_timeout(Some(ANSWER))?;
        stream.set_write_timeout(Some(ANSWER))?;
        let name = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::from([0, 0, 0, 0])));
        let config = config(pins).map_err(io::Error::other)?;
        let mut tls = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut stream)?;
        }
        if tls.alpn_protocol() != Some(ALPN) {
            return Err(io::Error::other("the broker does not speak akr/1"));
        }
        let certificate = tls.peer_certificates().and_then(|chain| chain.first());
        let peer = certificate.and_then(|certificate| spki(certificate));
        let peer = peer.ok_or_else(|| io::Error::other("the broker shows no key"))?;
        Ok(Self { stream: StreamOwned::new(tls, stream), peer })
    }

    /// SHA-256 of the custodian's SubjectPublicKeyInfo.
    pub(super) const fn peer(&self) -> Hash32<of::Spki> {
        self.peer
    }
}

impl Read for Channel {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.stream.read(out)
    }
}

impl Write for Channel {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// Tries every address that a name stands for.
fn dial(address: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name stands for no address");
    for one in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&one, CONNECT) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn config(pins: &[Hash32<of::Spki>]) -> Result<ClientConfig, Error> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(Pinned { pins: pins.to_vec(), provider: Arc::clone(&provider) });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = false;
    Ok(config)
}

/// Accepts the custodians' public keys, and checks that the peer holds the one it shows: names,
/// dates and issuers say nothing here.
#[derive(Debug)]
struct Pinned {
    pins: Vec<Hash32<of::Spki>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match spki(end_entity) {
            Some(key) if self.pins.contains(&key) => Ok(ServerCertVerified::assertion()),
            _ => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken here".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
