#![doc = include_str!("../README.md")]
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod blob;
pub mod container;
pub mod floe;
pub mod key;
pub mod share;
pub mod wrap;

#[cfg(test)]
mod golden;

pub use blob::{blob_len, open_blob, seal_blob};
pub use container::{ContainerError, Header, IndexError, Reader, Records, Writer};
pub use floe::{FloeError, SegmentSize};
pub use key::DataKey;
pub use share::{Share, ShareError, Threshold, combine, recover, split};
pub use wrap::{Kem, RecipientKey, Sealed, WrapError, seal, unwrap_share, wrap_share};
