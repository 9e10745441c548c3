#![doc = include_str!("../README.md")]

pub mod case;
pub mod dataset;
pub mod page;
pub mod verdict;
