#![doc = include_str!("../README.md")]

pub mod envelope;
pub mod owner;
pub mod random;
