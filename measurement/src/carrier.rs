//! The frames between the enclave and the host that carries its bytes.
//!
//! The carrier is not trusted: an attacker who controls it can at most stop the job. What it brings
//! is checked against the manifest, what it takes is sealed, and what passes through it to a broker
//! is TLS.
//!
//! A frame is `u8 kind ‖ u32be length ‖ payload`, of at most [`MAX_FRAME`] bytes of payload.

/// The most payload a frame carries.
pub const MAX_FRAME: usize = 1 << 20;
/// Bytes before a frame's payload.
pub const HEADER: usize = 5;
/// The port that brings items and takes events and outputs.
pub const HOST_PORT: &str = "cloister.host";
/// The port that is relayed to the brokers.
pub const RELAY_PORT: &str = "cloister.relay";

macro_rules! codes {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $code:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub enum $name { $($(#[$vdoc])* $variant = $code),* }

        impl $name {
            /// The byte that stands for this.
            #[must_use]
            pub const fn code(self) -> u8 {
                match self { $(Self::$variant => $code),* }
            }

            /// What a byte stands for.
            #[must_use]
            pub const fn from_code(code: u8) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

codes! {
    /// What a frame is.
    Kind {
        /// Enclave: send me this item (payload: one [`Item`]).
        Want = 1,
        /// Either: the next bytes of an item.
        Piece = 2,
        /// Either: the item is complete.
        End = 3,
        /// Host: there is no such item.
        Absent = 4,
        /// Enclave: an [`Event`].
        Event = 5,
        /// Enclave: an output follows (payload: one [`Item`]).
        Output = 6,
        /// Enclave: connect to a broker (payload: its index in the manifest).
        Open = 7,
        /// Host: connected.
        Opened = 8,
        /// Host: not connected.
        Refused = 9,
        /// Either: bytes of the connection.
        Data = 10,
        /// Either: the connection is closed.
        Close = 11,
    }
}

codes! {
    /// What the host brings and takes.
    Item {
        /// The launch blob, which holds the manifest.
        LaunchBlob = 1,
        /// The approvals of the manifest, a DSSE envelope.
        Approvals = 2,
        /// The sealed data set.
        Dataset = 3,
        /// The base model's `config.json`.
        BaseConfig = 4,
        /// The base model's `model.safetensors`.
        BaseWeights = 5,
        /// The base model's `tokenizer.json`.
        Tokenizer = 6,
        /// Certificates or collateral the guest could not get by itself.
        Endorsements = 7,
        /// The base model's `chat_template.jinja`, where the manifest names one.
        Template = 8,
        /// Out: the sealed adapter.
        SealedAdapter = 32,
        /// Out: the receipt's bundle.
        Receipt = 33,
    }
}

/// The enclave's whole vocabulary: a code and two public counters, always [`Event::BYTES`] long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub stage: Stage,
    /// Steps spent, a function of the manifest's schedule.
    pub step: u32,
    /// Steps in all.
    pub steps: u32,
}

codes! {
    /// How far the job has come. A halt's reason depends on no record.
    Stage {
        /// The program runs.
        Booted = 1,
        /// The manifest is the one the hardware was launched with.
        Accepted = 2,
        /// Evidence was sent.
        Attested = 3,
        /// Enough custodians released their shares.
        Released = 4,
        /// The data set is in protected memory.
        Loaded = 5,
        /// A step was spent.
        Stepped = 6,
        /// All steps were spent.
        Trained = 7,
        /// The adapter is sealed and its receipt is logged.
        Sealed = 8,
        /// The outputs are out.
        Done = 9,
        /// Halted: the host brought no item, or broke the pipe.
        HaltedCarrier = 64,
        /// Halted: the launch blob or the manifest is not acceptable.
        HaltedManifest = 65,
        /// Halted: the platform gave no evidence.
        HaltedPlatform = 66,
        /// Halted: a broker refused, or answered what cannot be accepted.
        HaltedRelease = 67,
        /// Halted: the base model is not the manifest's.
        HaltedBase = 68,
        /// Halted: the sealed data set is not the manifest's.
        HaltedDataset = 69,
        /// Halted: training cannot be done as the manifest says.
        HaltedTraining = 70,
        /// Halted: the receipt was not logged.
        HaltedReceipt = 71,
        /// Halted: the lease of the released shares has ended.
        HaltedLease = 72,
    }
}

impl Stage {
    /// Whether the job is over without a result.
    #[must_use]
    pub const fn halted(self) -> bool {
        self.code() >= Self::HaltedCarrier.code()
    }
}

impl Event {
    /// The constant size of an event.
    pub const BYTES: usize = 16;

    /// `u8 stage ‖ 3 zero ‖ u32be step ‖ u32be steps ‖ 4 zero`.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let [s0, s1, s2, s3] = self.step.to_be_bytes();
        let [t0, t1, t2, t3] = self.steps.to_be_bytes();
        [self.stage.code(), 0, 0, 0, s0, s1, s2, s3, t0, t1, t2, t3, 0, 0, 0, 0]
    }

    /// Reads what [`Event::to_bytes`] wrote, and nothing else.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let [stage, 0, 0, 0, s0, s1, s2, s3, t0, t1, t2, t3, 0, 0, 0, 0] = *bytes else {
            return None;
        };
        Some(Self {
            stage: Stage::from_code(stage)?,
            step: u32::from_be_bytes([s0, s1, s2, s3]),
            steps: u32::from_be_bytes([t0, t1, t2, t3]),
        })
    }
}

/// Why bytes do not begin a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadFrame {
    /// No such kind.
    #[error("frame kind {observed} is unknown")]
    Kind {
        /// The byte observed.
        observed: u8,
    },
    /// Over the cap.
    #[error("frame of {observed} bytes, at most {MAX_FRAME} are accepted")]
    TooLong {
        /// The length observed.
        observed: u32,
    },
}

/// A frame's header: `payload` must not be longer than [`MAX_FRAME`].
#[must_use]
pub fn header(kind: Kind, payload: usize) -> [u8; HEADER] {
    let length = u32::try_from(payload).unwrap_or(u32::MAX);
    let [a, b, c, d] = length.to_be_bytes();
    [kind.code(), a, b, c, d]
}

/// Reads a frame's header: its kind and the length of its payload.
///
/// # Errors
/// [`BadFrame`] before anything is allocated.
pub fn read_header(bytes: [u8; HEADER]) -> Result<(Kind, usize), BadFrame> {
    let [kind, a, b, c, d] = bytes;
    let kind = Kind::from_code(kind).ok_or(BadFrame::Kind { observed: kind })?;
    let observed = u32::from_be_bytes([a, b, c, d]);
    match usize::try_from(observed) {
        Ok(length) if length <= MAX_FRAME => Ok((kind, length)),
        _ => Err(BadFrame::TooLong { observed }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_stands_for_one_thing() {
        for code in 0..=u8::MAX {
            assert!(Kind::from_code(code).is_none_or(|kind| kind.code() == code));
            assert!(Item::from_code(code).is_none_or(|item| item.code() == code));
            assert!(Stage::from_code(code).is_none_or(|stage| stage.code() == code));
        }
    }

    #[test]
    fn an_event_comes_back_and_nothing_else_is_one() {
        let event = Event { stage: Stage::Stepped, step: 7, steps: 20 };
        let bytes = event.to_bytes();
        assert_eq!(Event::from_bytes(&bytes), Some(event));
        for at in [1, 2, 3, 12, 15] {
            let mut other = bytes;
            other[at] = 1;
            assert_eq!(Event::from_bytes(&other), None);
        }
        for end in 0..bytes.len() {
            assert_eq!(Event::from_bytes(&bytes[..end]), None);
        }
    }

    #[test]
    fn refuses_an_unknown_kind_and_a_frame_over_the_cap() {
        assert_eq!(read_header([0, 0, 0, 0, 0]), Err(BadFrame::Kind { observed: 0 }));
        let observed = 1 << 20 | 1;
        assert_eq!(read_header([1, 0, 0x10, 0, 1]), Err(BadFrame::TooLong { observed }));
        assert_eq!(read_header(header(Kind::Data, 9)), Ok((Kind::Data, 9)));
    }
}
