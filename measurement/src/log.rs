//! The audit log: an append-only Merkle tree of leaves that say nothing, over records that stay
//! private.
//!
//! [`Record`] is what happened, [`Leaf`] its public 128 bytes, [`Tree`] the RFC 6962 tree over them,
//! [`Checkpoint`] and [`Note`] what the log and its witnesses sign, [`tiles`] the log as files, and
//! [`State`] the ledger that the records add up to. Everything here is bytes and arithmetic:
//! signatures are made and checked upstairs.

mod leaf;
mod merkle;
mod note;
mod record;
mod state;
pub mod tiles;

pub use self::leaf::{LEAF_LEN, Leaf};
pub use self::merkle::{
    ProofError, Tree, empty_root, leaf_hash, verify_consistency, verify_inclusion,
};
pub use self::note::{
    COSIGNATURE, Checkpoint, ED25519, MAX_NOTE, MAX_SIGNATURES, Note, NoteError, NoteSignature,
    key_id, origin,
};
pub use self::record::{
    Accepted, Code, Commit, Confirm, Debit, Deny, Event, MAX_CODE, MAX_RECORD, NotACode, Receipt,
    Record, Release, Unwrap,
};
pub use self::state::{FoldError, Job, Refusal, State};

#[cfg(test)]
mod tests;
