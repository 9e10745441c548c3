#![doc = include_str!("../README.md")]
#![no_std]

extern crate alloc;

pub mod carrier;
pub mod cbor;
pub mod dataset;
pub mod digest;
pub mod octets;
pub mod privacy;
