#![doc = include_str!("../README.md")]

pub mod audit;
pub mod dp;
pub mod engine;
pub mod evaluate;
#[cfg(test)]
mod golden;
pub mod lora;
pub mod model;
pub mod optimiser;
#[cfg(feature = "tool")]
pub mod pretrain;
mod real;
pub mod record;
pub mod train;
