#![doc = include_str!("../README.md")]
#![no_std]

extern crate alloc;

pub mod binding;
pub mod carrier;
pub mod cbor;
pub mod dataset;
pub mod digest;
pub mod dsse;
pub mod launch;
pub mod log;
pub mod manifest;
pub mod octets;
pub mod privacy;
pub mod receipt;
pub mod trace;
