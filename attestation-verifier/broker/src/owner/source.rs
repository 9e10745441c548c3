//! Lines from files: plain, gzip or Zstandard, with a cap on the line and none on the file.
//!
//! Memory is one line, one buffer and the decompressor's window, however long the file is. The
//! owner decompresses its own files on its own machine; nothing decompresses what came sealed.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use indicatif::ProgressBar;
use measurement::octets::Octets;
use ring::digest::{Context, SHA256};
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use thiserror::Error;

use super::records::MAX_LINE;

const BUFFER: usize = 1 << 18;

/// Why a file cannot be read as lines.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The operating system or the decompressor refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// Parquet is not read yet.
    #[error("{}: parquet is not supported yet: convert it to jsonl first", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
    },
    /// The ending says nothing that is known.
    #[error("{}: unknown ending: .jsonl, .ndjson or .json, with .gz or .zst behind it", path.display())]
    UnknownEnding {
        /// The file.
        path: PathBuf,
    },
}

/// One file, as lines.
pub struct Lines {
    path: PathBuf,
    reader: Box<dyn BufRead>,
    digest: Context,
    number: u64,
}

/// One line of a file, in the caller's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// The file is at its end.
    End,
    /// The line is longer than [`MAX_LINE`] bytes; the buffer holds its beginning.
    Long,
    /// The buffer holds the line without its line end.
    Whole,
}

impl Lines {
    /// Opens `path`; the bytes read from the disk are counted on `bar`.
    ///
    /// # Errors
    /// [`SourceError`]: an ending that is not known, or the operating system's refusal.
    pub fn open(path: &Path, bar: &ProgressBar) -> Result<Self, SourceError> {
        let ending = Ending::of(path)?;
        let io = |source| SourceError::Io { path: path.to_owned(), source };
        let file = bar.wrap_read(File::open(path).map_err(io)?);
        let file = BufReader::with_capacity(BUFFER, file);
        let reader: Box<dyn BufRead> = match ending {
            Ending::Gzip => Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(file))),
            Ending::Plain => Box::new(file),
            Ending::Zstandard => Box::new(BufReader::with_capacity(BUFFER, Frames::new(file))),
        };
        Ok(Self { path: path.to_owned(), reader, digest: Context::new(&SHA256), number: 0 })
    }

    /// Replaces `line` by the next line.
    ///
    /// # Errors
    /// [`SourceError::Io`] from the disk or the decompressor.
    pub fn next(&mut self, line: &mut Vec<u8>) -> Result<Line, SourceError> {
        let io = |source| SourceError::Io { path: self.path.clone(), source };
        line.clear();
        // Room for the line end, which does not count.
        let room = u64::try_from(MAX_LINE).unwrap_or(u64::MAX).saturating_add(2);
        let mut part = self.reader.by_ref().take(room);
        if part.read_until(b'\n', line).map_err(io)? == 0 {
            return Ok(Line::End);
        }
        let full = part.limit() == 0 && line.last() != Some(&b'\n');
        self.digest.update(line);
        self.number = self.number.saturating_add(1);
        if full {
            skip(&mut *self.reader, &mut self.digest).map_err(io)?;
            return Ok(Line::Long);
        }
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let length = text.strip_suffix(b"\r").unwrap_or(text).len();
        line.truncate(length);
        Ok(if length > MAX_LINE { Line::Long } else { Line::Whole })
    }

    /// Number of the line that was read last, from 1.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// SHA-256 of all bytes of all lines that were read.
    #[must_use]
    pub fn digest(self) -> Octets<32> {
        let digest = self.digest.finish();
        Octets::from_slice(digest.as_ref()).unwrap_or(Octets([0; 32]))
    }
}

/// Goes on to the end of the line.
fn skip(reader: &mut dyn BufRead, digest: &mut Context) -> io::Result<()> {
    loop {
        let buffer = reader.fill_buf()?;
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let used = end.map_or(buffer.len(), |at| at.saturating_add(1));
        digest.update(buffer.get(..used).unwrap_or_default());
        let last = end.is_some() || buffer.is_empty();
        reader.consume(used);
        if last {
            return Ok(());
        }
    }
}

enum Ending {
    Gzip,
    Plain,
    Zstandard,
}

impl Ending {
    fn of(path: &Path) -> Result<Self, SourceError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        let plain =
            |stem: &str| [".jsonl", ".ndjson", ".json"].iter().any(|ending| stem.ends_with(ending));
        if name.ends_with(".parquet") {
            return Err(SourceError::Parquet { path: path.to_owned() });
        }
        match (name.strip_suffix(".gz"), name.strip_suffix(".zst")) {
            (Some(stem), _) if plain(stem) => Ok(Self::Gzip),
            (_, Some(stem)) if plain(stem) => Ok(Self::Zstandard),
            _ if plain(&name) => Ok(Self::Plain),
            _ => Err(SourceError::UnknownEnding { path: path.to_owned() }),
        }
    }
}

/// A Zstandard file is a sequence of frames (RFC 8878 §3.1), some of them skippable.
struct Frames<R> {
    source: R,
    decoder: FrameDecoder,
    open: bool,
}

impl<R: BufRead> Frames<R> {
    fn new(source: R) -> Self {
        Self { source, decoder: FrameDecoder::new(), open: false }
    }

    /// Begins the next frame; false at the end of the file.
    fn begin(&mut self) -> io::Result<bool> {
        while !self.source.fill_buf()?.is_empty() {
            let skipped = match self.decoder.init(&mut self.source) {
                Ok(()) => {
                    self.open = true;
                    return Ok(true);
                }
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => u64::from(length),
                Err(other) => return Err(io::Error::new(io::ErrorKind::InvalidData, other)),
            };
            let copied = io::copy(&mut self.source.by_ref().take(skipped), &mut io::sink())?;
            if copied < skipped {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(false)
    }

    fn check(&self) -> io::Result<()> {
        let stated = self.decoder.get_checksum_from_data();
        if stated.is_some() && stated != self.decoder.get_calculated_checksum() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "frame checksum does not match",
            ));
        }
        Ok(())
    }
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.open && !self.begin()? {
                return Ok(0);
            }
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                self.decoder
                    .decode_blocks(&mut self.source, BlockDecodingStrategy::UptoBlocks(1))
                    .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
            }
            let read = self.decoder.read(buffer)?;
            if read > 0 {
                return Ok(read);
            }
            self.check()?;
            self.open = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;

    fn lines(name: &str, content: &[u8]) -> Result<(Vec<Vec<u8>>, Octets<32>), SourceError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        let mut source = Lines::open(&path, &ProgressBar::hidden())?;
        let (mut all, mut line) = (Vec::new(), Vec::new());
        loop {
            match source.next(&mut line)? {
                Line::End => return Ok((all, source.digest())),
                Line::Long => all.push(b"long".to_vec()),
                Line::Whole => all.push(line.clone()),
            }
        }
    }

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn zstandard(content: &[u8]) -> Vec<u8> {
        compress_to_vec(content, CompressionLevel::Fastest)
    }

    #[test]
    fn reads_the_same_lines_from_plain_gzip_and_zstandard() {
        let content = b"one\r\ntwo\n\nfour";
        let plain = lines("a.jsonl", content).unwrap();
        assert_eq!(plain.0, [&b"one"[..], b"two", b"", b"four"]);
        assert_eq!(lines("a.jsonl.gz", &gzip(content)).unwrap(), plain);
        assert_eq!(lines("A.NDJSON.ZST", &zstandard(content)).unwrap(), plain);
    }

    #[test]
    fn reads_every_member_of_a_gzip_file_and_every_frame_of_a_zstandard_file() {
        let members = [gzip(b"one\ntw"), gzip(b"o\n")].concat();
        assert_eq!(lines("a.json.gz", &members).unwrap().0, [b"one", b"two"]);
        let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"xyz"].concat();
        let frames = [zstandard(b"one\ntw"), skippable, zstandard(b"o\n")].concat();
        assert_eq!(lines("a.json.zst", &frames).unwrap().0, [b"one", b"two"]);
    }

    #[test]
    fn rejects_a_truncated_or_altered_compressed_file() {
        let text = b"a line that is long enough to be cut\n".repeat(50);
        for (name, packed) in [("a.json.gz", gzip(&text)), ("a.json.zst", zstandard(&text))] {
            let cut = &packed[..packed.len() - 3];
            assert!(matches!(lines(name, cut), Err(SourceError::Io { .. })), "{name}");
            let tail = [&packed[..], b"tail"].concat();
            assert!(matches!(lines(name, &tail), Err(SourceError::Io { .. })), "{name}");
        }
    }

    #[test]
    fn goes_on_behind_a_line_over_the_cap() {
        let mut content = vec![b'a'; MAX_LINE * 3];
        content.extend_from_slice(b"\nb\n");
        assert_eq!(lines("a.json", &content).unwrap().0, [b"long".to_vec(), b"b".to_vec()]);
    }

    #[test]
    fn counts_the_cap_without_the_line_end() {
        let full = vec![b'a'; MAX_LINE];
        let content = [&full[..], b"\r\n", &full, b"a\n"].concat();
        assert_eq!(lines("a.json", &content).unwrap().0, [full, b"long".to_vec()]);
    }

    #[test]
    fn says_that_parquet_is_not_supported_yet() {
        assert!(matches!(lines("a.parquet", b"PAR1"), Err(SourceError::Parquet { .. })));
        assert!(matches!(lines("a.csv", b""), Err(SourceError::UnknownEnding { .. })));
        assert!(matches!(lines("a.gz", b""), Err(SourceError::UnknownEnding { .. })));
    }
}
