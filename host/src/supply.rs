//! The pipe to the host: what the enclave asks for, what it says, and what it hands out.
//!
//! The supply is not trusted: every item it brings is checked in the enclave against the manifest.
//! The enclave is not trusted here either: it may ask only for the items its operator named, its
//! outputs are capped, and an output appears under its name only when it is complete and on disk.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use measurement::carrier::{Event, Item, Kind, Stage};
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::pipe::{self, Frame, PIECE, PipeError};

/// The most bytes a sealed adapter may have.
pub const MAX_ADAPTER: u64 = 8 << 30;
/// The most bytes a receipt's bundle may have.
pub const MAX_RECEIPT: u64 = 64 << 20;

/// Why serving the host pipe ended before the job did.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SupplyError {
    /// An event that is none.
    #[error("event of {length} bytes is malformed")]
    Event {
        /// Bytes observed.
        length: usize,
    },
    /// A file of the operator cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The pipe ended although the enclave had not said that it was done.
    #[error("the enclave ended without a word")]
    Lost,
    /// The same output came twice.
    #[error("output {0:?} came twice")]
    Repeated(Item),
    /// The pipe broke, or carried what it must not.
    #[error(transparent)]
    Pipe(#[from] PipeError),
    /// An output is longer than its cap.
    #[error("output {item:?} has more than {required} bytes")]
    TooLong {
        /// The output.
        item: Item,
        /// The cap, in bytes.
        required: u64,
    },
}

/// The files an enclave may ask for, and where its outputs go.
#[derive(Debug, Clone, Default)]
pub struct Stock {
    /// What is served, by the item's name. An item that is not here is answered ABSENT.
    pub items: BTreeMap<u8, PathBuf>,
    /// The folder of the outputs.
    pub out: PathBuf,
}

/// How the enclave's job ended, in its own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// [`Stage::Done`], or the halt.
    pub stage: Stage,
    /// Steps spent, as last heard.
    pub steps: u32,
    /// The outputs that are complete, by name.
    pub outputs: BTreeMap<u8, PathBuf>,
}

impl Stock {
    /// Names the file behind an item.
    pub fn insert(&mut self, item: Item, path: PathBuf) {
        self.items.insert(item.code(), path);
    }

    /// Where an output goes; `None` for what is no output.
    #[must_use]
    pub fn output(&self, item: Item) -> Option<PathBuf> {
        Some(self.out.join(output_name(item)?))
    }
}

/// The file name of an output.
#[must_use]
pub const fn output_name(item: Item) -> Option<&'static str> {
    match item {
        Item::SealedAdapter => Some("adapter.sealed"),
        Item::Receipt => Some("job.receipt"),
        _ => None,
    }
}

const fn cap(item: Item) -> u64 {
    match item {
        Item::SealedAdapter => MAX_ADAPTER,
        _ => MAX_RECEIPT,
    }
}

/// Serves a host pipe until the enclave is done or halts; `watch` hears every event.
///
/// # Errors
/// [`SupplyError`] at the first frame, file or output that cannot be accepted.
pub async fn serve<P>(
    mut pipe: P,
    stock: &Stock,
    mut watch: impl FnMut(Event),
) -> Result<Ending, SupplyError>
where
    P: AsyncRead + AsyncWrite + Unpin,
{
    let mut steps = 0;
    let mut outputs = BTreeMap::new();
    while let Some(frame) = pipe::read(&mut pipe).await? {
        match (frame.kind, frame.payload.as_slice()) {
            (Kind::Want, &[item]) => match bring(&mut pipe, stock.items.get(&item)).await {
                // Whoever refuses an item hangs up in its middle; why is still to be read.
                Err(SupplyError::Pipe(_)) => (),
                brought => brought?,
            },
            (Kind::Output, &[item]) => {
                let item = Item::from_code(item).ok_or_else(|| frame.out_of_place())?;
                let path = stock.output(item).ok_or_else(|| frame.out_of_place())?;
                if outputs.contains_key(&item.code()) {
                    return Err(SupplyError::Repeated(item));
                }
                take(&mut pipe, item, &path, cap(item)).await?;
                outputs.insert(item.code(), path);
            }
            (Kind::Event, bytes) => {
                let length = bytes.len();
                let event = Event::from_bytes(bytes).ok_or(SupplyError::Event { length })?;
                steps = steps.max(event.step);
                watch(event);
                if event.stage == Stage::Done || event.stage.halted() {
                    return Ok(Ending { stage: event.stage, steps, outputs });
                }
            }
            _ => return Err(frame.out_of_place().into()),
        }
    }
    Err(SupplyError::Lost)
}

/// Streams one file, or says that there is none.
async fn bring<W>(pipe: &mut W, path: Option<&PathBuf>) -> Result<(), SupplyError>
where
    W: AsyncWrite + Unpin,
{
    let Some(path) = path else { return Ok(pipe::write(pipe, Kind::Absent, &[]).await?) };
    let failed = |source| SupplyError::File { path: path.clone(), source };
    let mut file = File::open(path).await.map_err(failed)?;
    let mut bytes = vec![0; PIECE];
    loop {
        let length = file.read(&mut bytes).await.map_err(failed)?;
        let Some(piece @ [_, ..]) = bytes.get(..length) else { break };
        pipe::write(pipe, Kind::Piece, piece).await?;
    }
    Ok(pipe::write(pipe, Kind::End, &[]).await?)
}

/// Receives one output beside its place, and moves it there once it is complete and on disk.
async fn take<R>(pipe: &mut R, item: Item, path: &Path, cap: u64) -> Result<(), SupplyError>
where
    R: AsyncRead + Unpin,
{
    let part = path.with_extension("part");
    let failed = |source| SupplyError::File { path: path.to_owned(), source };
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(&part).await.map_err(failed)?;
    if let Err(error) = receive(pipe, &mut file, item, path, cap).await {
        let _ = tokio::fs::remove_file(&part).await;
        return Err(error);
    }
    file.sync_all().await.map_err(failed)?;
    tokio::fs::rename(&part, path).await.map_err(failed)?;
    // The name is on disk only when its folder is.
    let folder = path.parent().unwrap_or(Path::new("."));
    File::open(folder).await.map_err(failed)?.sync_all().await.map_err(failed)
}

async fn receive<R>(
    pipe: &mut R,
    file: &mut File,
    item: Item,
    path: &Path,
    cap: u64,
) -> Result<(), SupplyError>
where
    R: AsyncRead + Unpin,
{
    let failed = |source| SupplyError::File { path: path.to_owned(), source };
    let mut room = cap;
    loop {
        match pipe::read(pipe).await?.ok_or(SupplyError::Lost)? {
            Frame { kind: Kind::Piece, payload } => {
                let length = u64::try_from(payload.len()).unwrap_or(u64::MAX);
                room =
                    room.checked_sub(length).ok_or(SupplyError::TooLong { item, required: cap })?;
                file.write_all(&payload).await.map_err(failed)?;
            }
            Frame { kind: Kind::End, payload } if payload.is_empty() => {
                return file.flush().await.map_err(failed);
            }
            frame => return Err(frame.out_of_place().into()),
        }
    }
}
