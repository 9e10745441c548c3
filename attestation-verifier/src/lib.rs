#![doc = include_str!("../README.md")]
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod advice;
pub mod appraise;
pub mod cache;
pub mod ear;
pub mod endorsement;
pub mod evidence;
pub mod explain;
pub mod nras;
pub mod pin;
pub mod policy;
pub mod proof;
pub mod protocol;
pub mod receipt;
pub mod root;
pub mod transcript;
pub mod wire;
