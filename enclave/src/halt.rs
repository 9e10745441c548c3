//! Why a job ends without a result: a reason that depends on no record.

use measurement::carrier::Stage;

/// The enclave's whole vocabulary of failure. What was seen inside stays inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Halt {
    /// The base model is not the manifest's.
    #[error("the base model is not the manifest's")]
    Base,
    /// The host brought no item, or broke the pipe.
    #[error("the host brought no item or broke the pipe")]
    Carrier,
    /// The sealed data set is not the manifest's.
    #[error("the sealed data set is not the manifest's")]
    Dataset,
    /// The lease of the released shares has ended.
    #[error("the lease of the released shares has ended")]
    Lease,
    /// The launch blob or the manifest is not acceptable.
    #[error("the launch blob or its manifest is not acceptable")]
    Manifest,
    /// The platform gave no evidence, or evidence of another launch.
    #[error("the platform gave no evidence of this launch")]
    Platform,
    /// The receipt was not logged by enough custodians.
    #[error("the receipt was not logged by enough custodians")]
    Receipt,
    /// Too few custodians released a share.
    #[error("too few custodians released a share that can be accepted")]
    Release,
    /// Training cannot be done as the manifest says.
    #[error("training cannot be done as the manifest says")]
    Training,
}

impl Halt {
    /// The code the host sees.
    #[must_use]
    pub const fn stage(self) -> Stage {
        match self {
            Self::Base => Stage::HaltedBase,
            Self::Carrier => Stage::HaltedCarrier,
            Self::Dataset => Stage::HaltedDataset,
            Self::Lease => Stage::HaltedLease,
            Self::Manifest => Stage::HaltedManifest,
            Self::Platform => Stage::HaltedPlatform,
            Self::Receipt => Stage::HaltedReceipt,
            Self::Release => Stage::HaltedRelease,
            Self::Training => Stage::HaltedTraining,
        }
    }
}
