//! The data owner's half: from plain records to a manifest that others can approve.

pub mod dataset;
pub mod files;
pub mod job;
pub mod keys;
pub mod records;
pub mod seal;
pub mod source;
pub mod synthetic;
