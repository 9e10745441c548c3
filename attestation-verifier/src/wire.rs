//! The shapes of evidence, byte by byte.
//!
//! One file per format, and each is the specification of what it reads: the table in the source is
//! checked against its own offsets by the compiler. Nothing here knows whether bytes are genuine.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

use thiserror::Error;

use crate::appraise::Finding;

pub(crate) mod asn1;
pub(crate) mod hcl;
pub(crate) mod opaque;
pub(crate) mod rim;
pub(crate) mod snp;
pub(crate) mod spdm;
pub(crate) mod tdx;
pub(crate) mod xml;

/// Why bytes are not evidence, or not an endorsement.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum Malformed {
    /// The body of a version 5 quote declares a size that its type does not have.
    #[error("body of type {body_type} declares {observed} bytes, its type has {required}")]
    BodySize {
        /// The type declared.
        body_type: u16,
        /// The size declared, in bytes.
        observed: u32,
        /// The size of that type, in bytes.
        required: u32,
    },
    /// One of several devices.
    #[error("device {index}: {flaw}")]
    Device {
        /// Position in the list of devices, from zero.
        index: usize,
        /// What is wrong with its evidence.
        flaw: Box<Malformed>,
    },
    /// An endorsement is not what it appears to be.
    #[error("endorsement {index}: {problem}")]
    Endorsement {
        /// Position in the list of endorsements, from zero.
        index: usize,
        /// What is wrong.
        problem: &'static str,
    },
    /// A part has another length than its format gives it.
    #[error("{part} is {observed} bytes, required {required}")]
    Length {
        /// The part.
        part: &'static str,
        /// Bytes seen.
        observed: usize,
        /// Bytes required.
        required: usize,
    },
    /// Bytes that the format reserves are not zero.
    #[error("reserved {field} is not zero")]
    Reserved {
        /// The field.
        field: &'static str,
    },
    /// A text does not say what its format asks for.
    #[error("{part} {problem}")]
    Text {
        /// The part.
        part: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// More bytes than any honest instance has.
    #[error("{part} is {observed} bytes, at most {limit} are read")]
    TooLong {
        /// The part.
        part: &'static str,
        /// Bytes seen.
        observed: usize,
        /// The most that is read.
        limit: usize,
    },
    /// Bytes after the end, zero or not.
    #[error("{observed} bytes after the end of the {part}")]
    TrailingBytes {
        /// What ended.
        part: &'static str,
        /// How many bytes follow.
        observed: usize,
    },
    /// The bytes end inside a part.
    #[error("{part} is cut short")]
    Truncated {
        /// The part.
        part: &'static str,
    },
    /// A part is not the one whose digest the report carries.
    #[error("the report does not carry the digest of the {part}")]
    Unbound {
        /// The part.
        part: &'static str,
    },
    /// A field holds a value that this verifier does not know.
    #[error("{field} {observed:#x} is not known")]
    Unknown {
        /// The field.
        field: &'static str,
        /// The value seen.
        observed: u64,
    },
}

impl Malformed {
    /// This flaw as a finding, whose id begins with `shape.`.
    pub(crate) fn finding(&self) -> Finding {
        let (id, observed, required) = match self {
            Self::BodySize { observed, required, .. } => {
                ("shape.body_size", observed.to_string(), required.to_string())
            }
            Self::Device { index, flaw } => {
                let inner = flaw.finding();
                let observed = format!("device {index}: {}", inner.observed());
                return Finding::new(inner.id(), observed, inner.required().into());
            }
            Self::Endorsement { .. } => {
                ("shape.endorsement", self.to_string(), "a known endorsement".to_string())
            }
            Self::Length { observed, required, .. } => {
                ("shape.length", observed.to_string(), required.to_string())
            }
            Self::Reserved { field } => {
                ("shape.reserved", format!("{field} set"), "zero".to_string())
            }
            Self::Text { part, problem } => {
                ("shape.text", format!("{part} {problem}"), "as its format asks".to_string())
            }
            Self::TooLong { observed, limit, .. } => {
                ("shape.too_long", observed.to_string(), format!("at most {limit}"))
            }
            Self::TrailingBytes { observed, part } => {
                ("shape.trailing_bytes", format!("{observed} after the {part}"), "none".to_string())
            }
            Self::Truncated { part } => {
                ("shape.truncated", format!("{part} cut short"), "all of it".to_string())
            }
            Self::Unbound { part } => {
                ("shape.unbound", format!("another {part}"), "the one the report names".to_string())
            }
            Self::Unknown { field, observed } => {
                ("shape.unknown", format!("{field} {observed:#x}"), "a known value".to_string())
            }
        };
        Finding::new(id, observed, required)
    }
}

/// A fixed-size piece of a layout, little-endian where it is a number.
pub(crate) trait Field: Sized {
    const SIZE: usize;

    fn take(rest: &mut &[u8]) -> Option<Self>;
}

impl<const N: usize> Field for [u8; N] {
    const SIZE: usize = N;

    fn take(rest: &mut &[u8]) -> Option<Self> {
        let (head, tail) = rest.split_first_chunk::<N>()?;
        *rest = tail;
        Some(*head)
    }
}

macro_rules! number {
    ($($kind:ty)*) => {$(
        impl Field for $kind {
            const SIZE: usize = size_of::<$kind>();

            fn take(rest: &mut &[u8]) -> Option<Self> {
                <[u8; size_of::<$kind>()]>::take(rest).map(<$kind>::from_le_bytes)
            }
        }
    )*};
}

number!(u8 u16 u32 u64);

/// Declares a structure as its table: offset, field, type. The compiler holds that the fields tile
/// the structure, so an offset that is wrong does not build.
macro_rules! layout {
    ($(#[$about:meta])* $name:ident, $size:literal {
        $($(#[$note:meta])* $offset:literal $field:ident: $kind:ty,)*
    }) => {
        $(#[$about])*
        #[derive(Clone, Debug)]
        pub(crate) struct $name {
            $($(#[$note])* pub(crate) $field: $kind,)*
        }

        impl $name {
            pub(crate) const SIZE: usize = $size;

            /// Reads exactly `SIZE` bytes.
            pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
                let mut rest = bytes;
                $(let $field = <$kind as crate::wire::Field>::take(&mut rest)?;)*
                rest.is_empty().then_some(Self { $($field,)* })
            }
        }

        const _: () = {
            let mut end = 0;
            $(
                assert!(end == $offset, "a field is not where the specification puts it");
                end += <$kind as crate::wire::Field>::SIZE;
            )*
            assert!(end == $size, "the fields do not fill the structure");
        };
    };
}

pub(crate) use layout;

/// Walks a variable-length format. Every read names what it reads, for the error.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn bytes(&mut self, part: &'static str, len: usize) -> Result<&'a [u8], Malformed> {
        let (head, tail) = self.rest.split_at_checked(len).ok_or(Malformed::Truncated { part })?;
        self.rest = tail;
        Ok(head)
    }

    pub(crate) fn field<F: Field>(&mut self, part: &'static str) -> Result<F, Malformed> {
        F::take(&mut self.rest).ok_or(Malformed::Truncated { part })
    }

    /// Reads a `u32` length and that many bytes.
    pub(crate) fn sized(&mut self, part: &'static str) -> Result<&'a [u8], Malformed> {
        let len: u32 = self.field(part)?;
        let len = usize::try_from(len).map_err(|_| Malformed::Truncated { part })?;
        self.bytes(part, len)
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn end(self, part: &'static str) -> Result<(), Malformed> {
        match self.rest.len() {
            0 => Ok(()),
            observed => Err(Malformed::TrailingBytes { part, observed }),
        }
    }
}

/// Refuses anything but zero bytes.
pub(crate) fn zero(field: &'static str, bytes: &[u8]) -> Result<(), Malformed> {
    if bytes.iter().all(|byte| *byte == 0) { Ok(()) } else { Err(Malformed::Reserved { field }) }
}

/// Reverses a little-endian number into big-endian bytes.
pub(crate) fn reversed(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().rev().copied().collect()
}
