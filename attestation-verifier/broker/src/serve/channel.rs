//! TLS 1.3 and frames: full handshakes only, no ticket, no early data, and a deadline on each wait.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use attestation_verifier::protocol::{self, Answer, BadFrame, HEADER, Kind, Message, Refused};
use measurement::binding::{ALPN, EXPORTER_LABEL};
use rustls::server::NoServerSessionStorage;
use rustls::{ServerConfig, ServerConnection};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::Stop;
use crate::identity::Identity;
use crate::release::Denial;

/// How long a handshake may take, waiting for its turn included.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a frame may take; slow machines need a while for their evidence.
pub(super) const FRAME: Duration = Duration::from_secs(180);
/// How long the last bytes may take.
const FAREWELL: Duration = Duration::from_secs(5);

/// The server's side of TLS.
pub(super) fn config(identity: &Identity) -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let (certificate, key) = identity.tls();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(config)
}

/// One connection.
pub(super) struct Channel {
    stream: TlsStream<TcpStream>,
    binding: [u8; 32],
    patience: Duration,
}

impl Channel {
    /// Shakes hands with a peer, each of whose frames may take as long as `patience`.
    pub(super) async fn accept(
        stream: TcpStream,
        acceptor: &TlsAcceptor,
        handshakes: &Semaphore,
        patience: Duration,
    ) -> Result<Self, Stop> {
        let handshake = async {
            let permit = handshakes.acquire().await.map_err(io::Error::other)?;
            let stream = acceptor.accept(stream).await;
            drop(permit);
            stream
        };
        let stream = timeout(HANDSHAKE, handshake).await.map_err(io::Error::from)??;
        let connection = stream.get_ref().1;
        if connection.alpn_protocol() != Some(ALPN) {
            return Err(io::Error::other("the peer does not speak akr/1").into());
        }
        let binding = exporter(connection)?;
        Ok(Self { stream, binding, patience })
    }

    /// The 32 bytes that only the two ends of this very connection know (RFC 9266).
    pub(super) const fn binding(&self) -> &[u8; 32] {
        &self.binding
    }

    /// The next frame's kind and length.
    pub(super) async fn kind(&mut self) -> Result<(Kind, usize), Stop> {
        let mut header = [0; HEADER];
        let read = self.stream.read_exact(&mut header);
        timeout(self.patience, read).await.map_err(io::Error::from)??;
        Ok(protocol::read_header(header)?)
    }

    /// The rest of a frame whose header was read: the message, and its bytes as they came. Another
    /// kind is refused before its bytes are read.
    pub(super) async fn rest<M: Message>(
        &mut self,
        (observed, length): (Kind, usize),
    ) -> Result<(M, Vec<u8>), Stop> {
        if observed != M::KIND {
            return Err(BadFrame::Unexpected { observed, required: M::KIND }.into());
        }
        let mut body = Vec::new();
        let mut limited = (&mut self.stream).take(u64::try_from(length).unwrap_or(0));
        timeout(self.patience, limited.read_to_end(&mut body)).await.map_err(io::Error::from)??;
        if body.len() < length {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let message = protocol::read(observed, &body)?;
        Ok((message, body))
    }

    /// The next frame, which must be an `M`.
    pub(super) async fn receive<M: Message>(&mut self) -> Result<(M, Vec<u8>), Stop> {
        let header = self.kind().await?;
        self.rest(header).await
    }

    /// Sends a message and returns its bytes.
    pub(super) async fn send<M: Message>(&mut self, message: &M) -> Result<Vec<u8>, Stop> {
        let body = protocol::encode(message);
        self.write(&protocol::frame(M::KIND, &body)).await?;
        Ok(body)
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        let patience = self.patience;
        let write = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        Ok(timeout(patience, write).await.map_err(io::Error::from)??)
    }

    /// Says no, and nothing more.
    pub(super) async fn refuse(mut self, answer: Answer) {
        let body = protocol::encode(&Refused { answer });
        // The peer may be gone by now.
        let _ = timeout(FAREWELL, self.write(&protocol::frame(Kind::Refused, &body))).await;
        self.close().await;
    }

    /// Ends the connection in TLS's way.
    pub(super) async fn close(mut self) {
        let _ = timeout(FAREWELL, self.stream.shutdown()).await;
    }
}

/// RFC 9266. A connection that exports nothing is bound to nothing, and ends.
fn exporter(connection: &ServerConnection) -> Result<[u8; 32], Denial> {
    connection.export_keying_material([0; 32], EXPORTER_LABEL, None).map_err(|_| Denial::Exporter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_without_exporter_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let identity = Identity::create(folder.path(), "a").unwrap();
        let fresh = ServerConnection::new(Arc::new(config(&identity).unwrap())).unwrap();
        assert_eq!(exporter(&fresh), Err(Denial::Exporter));
    }

    #[test]
    fn nothing_of_a_session_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(&Identity::create(folder.path(), "a").unwrap()).unwrap();
        assert_eq!((config.send_tls13_tickets, config.max_early_data_size), (0, 0));
        assert!(!config.session_storage.can_cache() && !config.ticketer.enabled());
        assert_eq!(config.alpn_protocols, [ALPN]);
    }
}
