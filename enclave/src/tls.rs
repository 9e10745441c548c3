//! TLS 1.3 to a broker whose key the manifest pins: full handshake, no resumption, no early data.

use std::io::{self, Read, Write};
use std::sync::Arc;

use attestation_verifier::pin::spki;
use measurement::binding::{ALPN, EXPORTER_LABEL};
use measurement::digest::{Hash32, of};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, ClientConnection, Resumption};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, IpAddr, Ipv4Addr, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};

/// A TLS stream to a pinned broker.
pub struct Channel<S: Read + Write> {
    stream: rustls::StreamOwned<ClientConnection, S>,
    binding: [u8; 32],
}

impl<S: Read + Write> Channel<S> {
    /// Completes a handshake with the broker that holds the key `pin` over `stream`.
    ///
    /// # Errors
    /// When the peer does not hold that key, speaks anything but TLS 1.3 and `akr/1`, or gives no
    /// exporter: all of them end the session.
    pub fn connect(mut stream: S, pin: Hash32<of::Spki>) -> io::Result<Self> {
        let name = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::from([0, 0, 0, 0])));
        let config = config(pin).map_err(io::Error::other)?;
        let mut tls = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut stream)?;
        }
        if tls.alpn_protocol() != Some(ALPN) {
            return Err(io::Error::other("the broker does not speak akr/1"));
        }
        let binding =
            tls.export_keying_material([0; 32], EXPORTER_LABEL, None).map_err(io::Error::other)?;
        Ok(Self { stream: rustls::StreamOwned::new(tls, stream), binding })
    }

    /// The 32 bytes that only the two ends of this very connection know (RFC 9266).
    pub fn binding(&self) -> &[u8; 32] {
        &self.binding
    }
}

impl<S: Read + Write> Read for Channel<S> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.stream.read(out)
    }
}

impl<S: Read + Write> Write for Channel<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

fn config(pin: Hash32<of::Spki>) -> Result<ClientConfig, Error> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(Pinned { pin, provider: Arc::clone(&provider) });
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

/// Accepts one public key, and checks that the peer holds it: names, dates and issuers say nothing
/// here.
#[derive(Debug)]
struct Pinned {
    pin: Hash32<of::Spki>,
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
        if spki(end_entity) == Some(self.pin) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
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
