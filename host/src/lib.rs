#![doc = include_str!("../README.md")]

pub mod front;
pub mod image;
pub mod initrd;
pub mod pipe;
pub mod progress;
pub mod relay;
pub mod session;
pub mod supply;
pub mod vm;
