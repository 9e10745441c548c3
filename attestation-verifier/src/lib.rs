#![doc = include_str!("../README.md")]
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod appraise;
pub mod endorsement;
pub mod evidence;
pub mod nras;
pub mod pin;
pub mod policy;
pub mod proof;
pub mod protocol;
pub mod receipt;
pub mod root;
pub mod wire;
