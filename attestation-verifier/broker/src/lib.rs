#![doc = include_str!("../README.md")]

pub mod custodian;
pub mod envelope;
pub mod identity;
pub mod owner;
pub mod random;
pub mod release;
pub mod serve;
pub mod store;
