#![doc = include_str!("../README.md")]

pub mod initrd;
pub mod pipe;
pub mod relay;
pub mod supply;
pub mod vm;
