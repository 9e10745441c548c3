#![doc = include_str!("../README.md")]

pub mod broker;
pub mod gate;
pub mod halt;
pub mod job;
pub mod pipe;
pub mod platform;
pub mod tls;
