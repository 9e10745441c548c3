//! The pipe to the brokers: bytes in, bytes out, and none of them readable here.
//!
//! The relay is not trusted: an attacker who controls it can at most stop the job. What passes is
//! TLS 1.3 between the enclave and a broker whose key the manifest pins.
//!
//! OPEN names a broker by its index; the relay dials the address its operator gave for that index
//! and no other. A new OPEN ends the connection before it, so there is never more than one, and
//! after OPENED no byte of an older connection follows. Nothing is buffered beyond a few frames:
//! whoever writes faster than the other side reads, waits.

use std::time::Duration;

use measurement::carrier::Kind;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::pipe::{self, Frame, PIECE, PipeError};

/// How long a broker may take to accept a connection.
pub const DIAL: Duration = Duration::from_secs(10);
/// Frames that may wait for the pipe to take them.
const QUEUE: usize = 4;

/// What the relay has moved: public facts, since it can see nothing else.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Moved {
    /// Connections that a broker accepted.
    pub connections: u32,
    /// Bytes from the enclave to the brokers.
    pub to_brokers: u64,
}

/// Serves a relay pipe until it ends.
///
/// `brokers[i]` is the TCP address, `host:port`, of the manifest's broker `i`.
///
/// # Errors
/// The first frame that has no place here; the pipe is closed and so is any connection.
pub async fn serve<P>(pipe: P, brokers: &[String]) -> Result<Moved, PipeError>
where
    P: AsyncRead + AsyncWrite + Send + 'static,
{
    let (mut from_enclave, to_enclave) = tokio::io::split(pipe);
    let (queue, frames) = mpsc::channel(QUEUE);
    let writer = tokio::spawn(write_frames(to_enclave, frames));
    let mut relay = Relay { brokers, queue, connection: None, moved: Moved::default() };
    let result = relay.run(&mut from_enclave).await;
    relay.hang_up().await;
    let moved = relay.moved;
    drop(relay);
    if result.is_err() {
        writer.abort();
    }
    let _ = writer.await;
    result.map(|()| moved)
}

struct Relay<'a> {
    brokers: &'a [String],
    queue: mpsc::Sender<Frame>,
    connection: Option<Connection>,
    moved: Moved,
}

struct Connection {
    writer: OwnedWriteHalf,
    reader: JoinHandle<()>,
}

impl Relay<'_> {
    async fn run<R: AsyncRead + Unpin>(&mut self, pipe: &mut R) -> Result<(), PipeError> {
        while let Some(frame) = pipe::read(pipe).await? {
            match (frame.kind, frame.payload.as_slice()) {
                (Kind::Open, &[broker]) => self.open(usize::from(broker)).await,
                (Kind::Data, bytes) => self.forward(bytes).await,
                (Kind::Close, []) => self.hang_up().await,
                _ => return Err(frame.out_of_place()),
            }
        }
        Ok(())
    }

    async fn open(&mut self, broker: usize) {
        self.hang_up().await;
        let answer = match self.dial(broker).await {
            Some(stream) => {
                self.moved.connections = self.moved.connections.saturating_add(1);
                let (reader, writer) = stream.into_split();
                // OPENED goes into the queue before the reader can put DATA behind it.
                self.answer(Kind::Opened).await;
                let reader = tokio::spawn(read_connection(reader, self.queue.clone()));
                self.connection = Some(Connection { writer, reader });
                return;
            }
            None => Kind::Refused,
        };
        self.answer(answer).await;
    }

    async fn dial(&self, broker: usize) -> Option<TcpStream> {
        let address = self.brokers.get(broker)?;
        let stream = tokio::time::timeout(DIAL, TcpStream::connect(address)).await.ok()?.ok()?;
        // Frames are small and answers are awaited: Nagle would only add latency.
        let _ = stream.set_nodelay(true);
        Some(stream)
    }

    async fn answer(&self, kind: Kind) {
        let _ = self.queue.send(Frame { kind, payload: Vec::new() }).await;
    }

    /// Bytes for a connection that is gone are dropped: the CLOSE that says so is on its way.
    async fn forward(&mut self, bytes: &[u8]) {
        let Some(connection) = &mut self.connection else { return };
        if connection.writer.write_all(bytes).await.is_ok() {
            let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            self.moved.to_brokers = self.moved.to_brokers.saturating_add(length);
        }
    }

    async fn hang_up(&mut self) {
        if let Some(mut connection) = self.connection.take() {
            let _ = connection.writer.shutdown().await;
            // A frame enters the queue whole or not at all, so stopping the reader tears none.
            connection.reader.abort();
            let _ = connection.reader.await;
        }
    }
}

async fn read_connection(mut connection: OwnedReadHalf, queue: mpsc::Sender<Frame>) {
    let mut bytes = vec![0; PIECE];
    while let Ok(length @ 1..) = connection.read(&mut bytes).await {
        let payload = bytes.get(..length).unwrap_or_default().to_vec();
        if queue.send(Frame { kind: Kind::Data, payload }).await.is_err() {
            return;
        }
    }
    let _ = queue.send(Frame { kind: Kind::Close, payload: Vec::new() }).await;
}

async fn write_frames<W: AsyncWrite + Unpin>(mut pipe: W, mut frames: mpsc::Receiver<Frame>) {
    while let Some(frame) = frames.recv().await {
        if pipe::write(&mut pipe, frame.kind, &frame.payload).await.is_err() {
            return;
        }
    }
}
