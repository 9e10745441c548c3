#![doc = include_str!("../README.md")]

pub mod dp;
pub mod engine;
#[cfg(test)]
mod golden;
pub mod lora;
pub mod model;
mod real;
pub mod record;
