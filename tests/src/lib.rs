#![doc = include_str!("../README.md")]

pub mod guest;
pub mod sim;
