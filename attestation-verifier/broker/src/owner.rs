//! The data owner's half: from plain records to a manifest that others can approve, and from a sealed
//! adapter to its files.
//!
//! One module per verb ([`init`], [`seal`], [`plan`], [`approve`], [`open`]), and what they share.

pub mod approve;
pub mod base;
pub mod dataset;
pub mod files;
pub mod image;
pub mod init;
pub mod job;
pub mod keys;
pub mod open;
pub mod plan;
pub mod records;
pub mod seal;
pub mod source;
pub mod synthetic;
