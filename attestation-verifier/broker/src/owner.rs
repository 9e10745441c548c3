//! The data owner's half: from plain records to a manifest that others can approve.

pub mod files;
pub mod job;
pub mod keys;
pub mod records;
pub mod source;
pub mod synthetic;
