//! The two pipes to the host. Neither is trusted: who controls them can at most stop the job.

use std::io::{self, Read, Write};

use measurement::carrier::{Event, HEADER, Item, Kind, MAX_FRAME, Stage, header, read_header};

use crate::halt::Halt;

/// A byte pipe, opened by the platform.
pub trait Pipe: Read + Write + Send {}

impl<T: Read + Write + Send> Pipe for T {}

/// Bytes a frame carries at most when we write it.
const PIECE: usize = 64 * 1024;

fn send(pipe: &mut dyn Pipe, kind: Kind, payload: &[u8]) -> io::Result<()> {
    debug_assert!(payload.len() <= MAX_FRAME, "frames are cut by their writers");
    pipe.write_all(&header(kind, payload.len()))?;
    pipe.write_all(payload)?;
    pipe.flush()
}

fn receive(pipe: &mut dyn Pipe) -> io::Result<(Kind, Vec<u8>)> {
    let mut bytes = [0; HEADER];
    pipe.read_exact(&mut bytes)?;
    let (kind, length) = read_header(bytes).map_err(|_| invalid())?;
    let mut payload = vec![0; length];
    pipe.read_exact(&mut payload)?;
    Ok((kind, payload))
}

fn invalid() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

/// The pipe that brings items and takes events and outputs.
pub struct HostPipe {
    pipe: Box<dyn Pipe>,
}

impl HostPipe {
    /// Speaks over `pipe`.
    #[must_use]
    pub fn new(pipe: Box<dyn Pipe>) -> Self {
        Self { pipe }
    }

    /// Asks for an item and hands its bytes to `take` as they come, in order, once. False when the
    /// host has no such item.
    ///
    /// # Errors
    /// [`Halt::Carrier`] when the pipe breaks, or what `take` returns.
    pub fn stream(
        &mut self,
        item: Item,
        take: &mut dyn FnMut(&[u8]) -> Result<(), Halt>,
    ) -> Result<bool, Halt> {
        let pipe = self.pipe.as_mut();
        send(pipe, Kind::Want, &[item.code()]).map_err(|_| Halt::Carrier)?;
        loop {
            match receive(pipe).map_err(|_| Halt::Carrier)? {
                (Kind::Piece, piece) => take(&piece)?,
                (Kind::End, _) => return Ok(true),
                (Kind::Absent, _) => return Ok(false),
                _ => return Err(Halt::Carrier),
            }
        }
    }

    /// An item of at most `cap` bytes, whole; none when the host has no such item.
    ///
    /// # Errors
    /// [`Halt::Carrier`] when the pipe breaks or the item is longer.
    pub fn item(&mut self, item: Item, cap: usize) -> Result<Option<Vec<u8>>, Halt> {
        let mut bytes = Vec::new();
        let there = self.stream(item, &mut |piece| {
            if bytes.len().saturating_add(piece.len()) > cap {
                return Err(Halt::Carrier);
            }
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(there.then_some(bytes))
    }

    /// Says how far the job has come. An event that does not get through changes nothing.
    pub fn event(&mut self, stage: Stage, step: u32, steps: u32) {
        let event = Event { stage, step, steps };
        let _ = send(self.pipe.as_mut(), Kind::Event, &event.to_bytes());
    }

    /// Hands an output out. The only way out, and called with gated outputs only.
    ///
    /// # Errors
    /// [`Halt::Carrier`] when the pipe breaks.
    pub(crate) fn output(&mut self, item: Item, bytes: &[u8]) -> Result<(), Halt> {
        let pipe = self.pipe.as_mut();
        let mut put = || -> io::Result<()> {
            send(pipe, Kind::Output, &[item.code()])?;
            for piece in bytes.chunks(PIECE) {
                send(pipe, Kind::Piece, piece)?;
            }
            send(pipe, Kind::End, &[])
        };
        put().map_err(|_| Halt::Carrier)
    }
}

/// The pipe that is relayed to the brokers, one connection at a time.
pub struct RelayPipe {
    pipe: Box<dyn Pipe>,
}

impl RelayPipe {
    /// Speaks over `pipe`.
    #[must_use]
    pub fn new(pipe: Box<dyn Pipe>) -> Self {
        Self { pipe }
    }

    /// Connects to the broker at `index` in the manifest's list of custodians.
    ///
    /// # Errors
    /// When the host does not, or the pipe breaks.
    pub fn open(&mut self, index: u8) -> io::Result<Connection<'_>> {
        send(self.pipe.as_mut(), Kind::Open, &[index])?;
        loop {
            match receive(self.pipe.as_mut())?.0 {
                Kind::Opened => break,
                Kind::Refused => return Err(io::ErrorKind::ConnectionRefused.into()),
                // The end of the connection before, which crossed our own.
                Kind::Data | Kind::Close => {}
                _ => return Err(invalid()),
            }
        }
        Ok(Connection { pipe: self.pipe.as_mut(), buffer: Vec::new(), at: 0, open: true })
    }
}

/// A byte stream to one broker. Closed when dropped.
pub struct Connection<'p> {
    pipe: &'p mut dyn Pipe,
    buffer: Vec<u8>,
    at: usize,
    open: bool,
}

impl Read for Connection<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.at == self.buffer.len() {
            if !self.open {
                return Ok(0);
            }
            match receive(self.pipe)? {
                (Kind::Data, bytes) => (self.buffer, self.at) = (bytes, 0),
                (Kind::Close, _) => self.open = false,
                _ => return Err(invalid()),
            }
        }
        let rest = self.buffer.get(self.at..).unwrap_or_default();
        let taken = rest.len().min(out.len());
        for (to, from) in out.iter_mut().zip(rest) {
            *to = *from;
        }
        self.at += taken;
        Ok(taken)
    }
}

impl Write for Connection<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.open {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let piece = bytes.get(..PIECE.min(bytes.len())).unwrap_or_default();
        if !piece.is_empty() {
            send(self.pipe, Kind::Data, piece)?;
        }
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.pipe.flush()
    }
}

impl Drop for Connection<'_> {
    fn drop(&mut self) {
        // A broken pipe is found by whoever uses it next.
        let _ = send(self.pipe, Kind::Close, &[]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives what the host would say, and keeps what it is told.
    struct Script {
        says: io::Cursor<Vec<u8>>,
        told: Vec<u8>,
    }

    impl Read for Script {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            self.says.read(out)
        }
    }

    impl Write for Script {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.told.write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn script(frames: &[(Kind, &[u8])]) -> Box<Script> {
        let mut says = Vec::new();
        for (kind, payload) in frames {
            says.extend(header(*kind, payload.len()));
            says.extend(*payload);
        }
        Box::new(Script { says: io::Cursor::new(says), told: Vec::new() })
    }

    #[test]
    fn an_item_comes_in_pieces_and_no_longer_than_its_cap() {
        let frames: [(Kind, &[u8]); 3] =
            [(Kind::Piece, b"ab"), (Kind::Piece, b"c"), (Kind::End, b"")];
        let item = HostPipe::new(script(&frames)).item(Item::Tokenizer, 3);
        assert_eq!(item, Ok(Some(b"abc".to_vec())));
        let item = HostPipe::new(script(&frames)).item(Item::Tokenizer, 2);
        assert_eq!(item, Err(Halt::Carrier));
    }

    #[test]
    fn an_absent_item_is_none_and_a_broken_pipe_halts() {
        let item = HostPipe::new(script(&[(Kind::Absent, b"")])).item(Item::Tokenizer, 2);
        assert_eq!(item, Ok(None));
        let item = HostPipe::new(script(&[(Kind::Piece, b"a")])).item(Item::Tokenizer, 2);
        assert_eq!(item, Err(Halt::Carrier));
        let item = HostPipe::new(script(&[(Kind::Opened, b"")])).item(Item::Tokenizer, 2);
        assert_eq!(item, Err(Halt::Carrier));
    }

    #[test]
    fn a_connection_reads_until_the_host_closes_it() {
        let frames: [(Kind, &[u8]); 5] = [
            (Kind::Data, b"late"),
            (Kind::Opened, b""),
            (Kind::Data, b"he"),
            (Kind::Data, b"llo"),
            (Kind::Close, b""),
        ];
        let mut relay = RelayPipe::new(script(&frames));
        let mut connection = relay.open(0).unwrap();
        let mut text = String::new();
        connection.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
        assert_eq!(connection.write(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_refused_connection_is_an_error() {
        let mut relay = RelayPipe::new(script(&[(Kind::Refused, b"")]));
        assert_eq!(relay.open(0).err().unwrap().kind(), io::ErrorKind::ConnectionRefused);
    }
}
