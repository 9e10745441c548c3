//! Frames over a byte pipe, as `measurement::carrier` defines them.
//!
//! A guest is no more trusted than a stranger: a header is judged before its payload is allocated,
//! and a frame that cannot be one ends the pipe.

use measurement::carrier::{self, BadFrame, HEADER, Kind};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes of a file or of a connection that go into one frame.
pub const PIECE: usize = 64 * 1024;

/// One frame: what it is, and at most [`carrier::MAX_FRAME`] bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What the frame is.
    pub kind: Kind,
    /// Its bytes.
    pub payload: Vec<u8>,
}

/// Why a pipe ended before its time.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PipeError {
    /// The bytes are no frame.
    #[error(transparent)]
    Frame(#[from] BadFrame),
    /// The pipe itself failed, or ended inside a frame.
    #[error("pipe broke: {0}")]
    Io(#[from] std::io::Error),
    /// A frame that must not come here, or not with this payload.
    #[error("frame {observed:?} of {length} bytes is out of place")]
    OutOfPlace {
        /// The frame's kind.
        observed: Kind,
        /// The length of its payload, in bytes.
        length: usize,
    },
}

impl Frame {
    /// The refusal of this frame where it stands.
    #[must_use]
    pub fn out_of_place(&self) -> PipeError {
        PipeError::OutOfPlace { observed: self.kind, length: self.payload.len() }
    }
}

/// Reads the next frame; `None` where the pipe ends between two frames.
///
/// # Errors
/// [`PipeError::Frame`] before anything is allocated; [`PipeError::Io`] inside a frame.
pub async fn read<R: AsyncRead + Unpin>(pipe: &mut R) -> Result<Option<Frame>, PipeError> {
    let mut header = [0; HEADER];
    let (first, rest) = header.split_at_mut(1);
    if pipe.read(first).await? == 0 {
        return Ok(None);
    }
    pipe.read_exact(rest).await?;
    let (kind, length) = carrier::read_header(header)?;
    let mut payload = vec![0; length];
    pipe.read_exact(&mut payload).await?;
    Ok(Some(Frame { kind, payload }))
}

/// Writes one frame of at most [`PIECE`] bytes, and waits until the pipe has taken it.
///
/// # Errors
/// [`PipeError::Io`] where the other side is gone.
pub async fn write<W: AsyncWrite + Unpin>(
    pipe: &mut W,
    kind: Kind,
    payload: &[u8],
) -> Result<(), PipeError> {
    pipe.write_all(&carrier::header(kind, payload.len())).await?;
    pipe.write_all(payload).await?;
    Ok(pipe.flush().await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: Kind, payload: &[u8]) -> Vec<u8> {
        [&carrier::header(kind, payload.len())[..], payload].concat()
    }

    #[tokio::test]
    async fn a_frame_comes_back() {
        let mut bytes = Vec::new();
        write(&mut bytes, Kind::Piece, b"abc").await.unwrap();
        assert_eq!(bytes, frame(Kind::Piece, b"abc"));
        let mut rest = &bytes[..];
        let expected = Frame { kind: Kind::Piece, payload: b"abc".to_vec() };
        assert_eq!(read(&mut rest).await.unwrap(), Some(expected));
        assert_eq!(read(&mut rest).await.unwrap(), None);
    }

    #[tokio::test]
    async fn never_takes_a_prefix_for_a_frame() {
        let bytes = frame(Kind::Data, b"abc");
        for end in 1..bytes.len() {
            let error = read(&mut &bytes[..end]).await.unwrap_err();
            assert!(matches!(error, PipeError::Io(_)), "{end}: {error}");
        }
    }

    #[tokio::test]
    async fn refuses_an_oversize_and_an_unknown_frame() {
        let oversize = [10, 0, 0x10, 0, 1];
        let error = read(&mut &oversize[..]).await.unwrap_err();
        assert!(matches!(error, PipeError::Frame(BadFrame::TooLong { observed: 1_048_577 })));
        let error = read(&mut &[99, 0, 0, 0, 0][..]).await.unwrap_err();
        assert!(matches!(error, PipeError::Frame(BadFrame::Kind { observed: 99 })));
    }
}
