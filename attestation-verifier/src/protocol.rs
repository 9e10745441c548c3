//! AKR/1, attested key release: the messages, and the frames they travel in.
//!
//! ```text
//! E ── 1 HELLO ──────► B    public keys, the job, which shares are wanted
//! E ◄─ 2 CHALLENGE ─── B    nonce, chosen KEM, the attempt that would be debited
//! E ── 3 EVIDENCE ───► B    evidence over the session, launch blob, approvals
//! E ◄─ 5 RELEASE ───── B    the share, sealed to the session; debit and release, proven in the log
//! E ── 6 CONFIRM ────► B    the release was opened
//! E ── 8 RECEIPT ────► B    the signed statement, closing evidence, shares of the adapter's key
//! E ◄─ 9 LOGGED ────── B    countersignature, and the receipt proven in the log
//! R ── 10 UNWRAP ────► B    on a connection of its own: a recipient asks for the adapter's key
//! R ◄─ 11 UNWRAPPED ── B    the share, sealed to the recipient; once per job
//!   ◄─ 0 REFUSED ───── B    retry, denied or busy; the reason is in the custodian's log
//! ```
//!
//! Frames are `u32be length ‖ u8 kind ‖ dCBOR`; the length counts the CBOR only, and is capped per
//! kind before anything is allocated. The protocol runs over TLS 1.3 with the broker's key pinned in
//! the manifest (ALPN `akr/1`), without resumption and without early data; every message is
//! protected by itself as well, so neither the pipe nor TLS alone is trusted with a key.

use alloc::string::String;
use alloc::vec::Vec;

use measurement::cbor::{self, Blob, Malformed};
use measurement::digest::{Digest, Hash32, of};
use measurement::manifest::{Manifest, Tee};
use measurement::octets::Octets;
use measurement::receipt::{CpuEvidence, ProvenRecord, ReleaseProof};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The protocol's version.
pub const VERSION: u8 = 1;
/// HPKE DHKEM(X25519, HKDF-SHA256) (RFC 9180 §7.1).
pub const KEM_X25519: u16 = 0x0020;
/// HPKE X-Wing: ML-KEM-768 with X25519.
pub const KEM_X_WING: u16 = 0x647a;
/// Bytes before a frame's CBOR.
pub const HEADER: usize = 5;

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// [`Challenge`].
    Challenge,
    /// [`Confirm`].
    Confirm,
    /// [`Evidence`].
    Evidence,
    /// [`Hello`].
    Hello,
    /// [`Logged`].
    Logged,
    /// [`Receipt`].
    Receipt,
    /// [`Refused`].
    Refused,
    /// [`Release`].
    Release,
    /// [`Unwrap`].
    Unwrap,
    /// [`Unwrapped`].
    Unwrapped,
}

impl Kind {
    /// The byte that stands for this, and the most bytes its message has.
    const TABLE: [(Self, u8, usize); 10] = [
        (Self::Refused, 0, 256),
        (Self::Hello, 1, 8 << 10),
        (Self::Challenge, 2, 8 << 10),
        (Self::Evidence, 3, 1 << 20),
        (Self::Release, 5, 64 << 10),
        (Self::Confirm, 6, 1 << 10),
        (Self::Receipt, 8, 1 << 20),
        (Self::Logged, 9, 64 << 10),
        (Self::Unwrap, 10, 8 << 10),
        (Self::Unwrapped, 11, 64 << 10),
    ];

    fn row(self) -> (u8, usize) {
        let row = Self::TABLE.iter().find(|(kind, ..)| *kind == self);
        row.map_or((0, 0), |(_, code, cap)| (*code, *cap))
    }

    /// The most bytes a message of this kind has.
    #[must_use]
    pub fn cap(self) -> usize {
        self.row().1
    }
}

/// A message with its place in the protocol.
pub trait Message: Serialize + DeserializeOwned {
    /// What its frame says.
    const KIND: Kind;
}

/// Why bytes are not the expected message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadFrame {
    /// Not the message's one encoding.
    #[error("malformed {kind:?}: {why}")]
    Malformed {
        /// The message expected.
        kind: Kind,
        /// Why.
        why: Malformed,
    },
    /// Over the kind's cap.
    #[error("{kind:?} of {observed} bytes, at most {cap} are accepted")]
    TooLong {
        /// The kind.
        kind: Kind,
        /// The length observed.
        observed: u32,
        /// The cap.
        cap: usize,
    },
    /// Another message than the protocol has here.
    #[error("expected {required:?}, found {observed:?}")]
    Unexpected {
        /// The kind observed.
        observed: Kind,
        /// The kind required.
        required: Kind,
    },
    /// No such kind.
    #[error("frame kind {observed} is unknown")]
    UnknownKind {
        /// The byte observed.
        observed: u8,
    },
}

/// Writes a message's CBOR, which is what the session's hashes cover.
#[must_use]
pub fn encode<M: Message>(message: &M) -> Vec<u8> {
    cbor::encode(message)
}

/// Frames a message's CBOR.
#[must_use]
pub fn frame(kind: Kind, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.push(kind.row().0);
    bytes.extend_from_slice(body);
    bytes
}

/// Reads a frame's header: its kind, and the length of the CBOR that follows.
///
/// # Errors
/// [`BadFrame`] before anything is allocated.
pub fn read_header(header: [u8; HEADER]) -> Result<(Kind, usize), BadFrame> {
    let [a, b, c, d, code] = header;
    let row = Kind::TABLE.iter().find(|(_, known, _)| *known == code);
    let (kind, _, cap) = *row.ok_or(BadFrame::UnknownKind { observed: code })?;
    let observed = u32::from_be_bytes([a, b, c, d]);
    match usize::try_from(observed) {
        Ok(length) if length <= cap => Ok((kind, length)),
        _ => Err(BadFrame::TooLong { kind, observed, cap }),
    }
}

/// Reads a message of the kind the protocol has here.
///
/// # Errors
/// [`BadFrame`].
pub fn read<M: Message>(kind: Kind, body: &[u8]) -> Result<M, BadFrame> {
    if kind != M::KIND {
        return Err(BadFrame::Unexpected { observed: kind, required: M::KIND });
    }
    cbor::decode(body, M::KIND.cap()).map_err(|why| BadFrame::Malformed { kind, why })
}

macro_rules! messages {
    ($($name:ident),* $(,)?) => {
        $(impl Message for $name { const KIND: Kind = Kind::$name; })*
    };
}

messages! {
    Challenge, Confirm, Evidence, Hello, Logged, Receipt, Refused, Release, Unwrap, Unwrapped,
}

/// M1: who asks, for what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// 16 bytes the enclave drew for this session.
    pub instance: Octets<16>,
    /// The job.
    pub job: Octets<16>,
    /// One public key for each key encapsulation it can do.
    pub kems: Vec<KemKey>,
    /// The data keys whose shares are wanted.
    pub keys: Vec<Octets<32>>,
    /// The manifest.
    pub manifest: Digest<Manifest>,
    /// The Ed25519 key that will sign the receipt.
    pub signer: Octets<32>,
    /// What kind of evidence will follow.
    pub tee: Tee,
    /// [`VERSION`].
    pub version: u8,
}

/// A public key for one key encapsulation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KemKey {
    /// RFC 9180 identifier.
    pub kem: u16,
    /// The key as encoded.
    pub key: Blob,
}

/// M2: prove it, now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Challenge {
    /// The attempt that a release would debit, from 1.
    pub attempt: u32,
    /// The signed checkpoint of the custodian's log as it stands.
    pub checkpoint: String,
    /// The key encapsulation chosen.
    pub kem: u16,
    /// 32 random bytes, taken once.
    pub nonce: Octets<32>,
    /// The appraisal policy that will be applied.
    pub policy: Digest<of::Policy>,
    /// The custodian's clock, seconds since 1970.
    pub time: u64,
    /// Seconds until the nonce is worth nothing.
    pub ttl: u32,
}

/// M3: the proof.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// The approvals of the manifest, a DSSE envelope.
    pub approvals: Blob,
    /// The CPU's evidence over the session.
    pub cpu: CpuEvidence,
    /// The evidence of each GPU, none where the manifest asks for none.
    pub gpus: Vec<Blob>,
    /// The launch blob, which holds the manifest.
    pub launch_blob: Blob,
}

/// M5: one share, sealed to the session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// HPKE's encapsulated key.
    pub enc: Blob,
    /// HPKE's ciphertext of the 32 bytes.
    pub ct: Blob,
    /// The release's identity.
    pub id: Octets<16>,
    /// The share's index, from 1.
    pub index: u8,
    /// When the lease ends, seconds since 1970.
    pub not_after: u64,
    /// Debit and release, proven in the log.
    pub proof: ReleaseProof,
}

/// M6: the release was opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confirm {
    /// The release.
    pub id: Octets<16>,
    /// Ed25519 by the session's signer over `measurement::binding::Binding::confirmation`.
    pub signature: Octets<64>,
}

/// M8: the job's outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// Evidence over the finished statement.
    pub closing: CpuEvidence,
    /// The statement, signed: a DSSE envelope.
    pub envelope: Blob,
    /// This custodian's share of the adapter's one-time key.
    pub share: WrappedShare,
}

/// A share of the adapter's one-time key, HPKE to a custodian's unwrap key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrappedShare {
    /// HPKE's ciphertext.
    pub ct: Blob,
    /// HPKE's encapsulated key.
    pub enc: Blob,
    /// The share's index, from 1.
    pub index: u8,
}

/// M8's answer: the receipt is logged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Logged {
    /// The custodian's decision key over the envelope (DSSE).
    pub countersignature: Octets<64>,
    /// The receipt's record.
    pub receipt: ProvenRecord,
}

/// M10: a recipient asks for a share of the adapter's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unwrap {
    /// The attempt whose adapter it is.
    pub attempt: u32,
    /// The job.
    pub job: Octets<16>,
    /// The manifest.
    pub manifest: Digest<Manifest>,
    /// The X25519 key to seal to; the manifest must name it.
    pub recipient: Octets<32>,
    /// The sealed adapter, as the receipt names it.
    pub sealed_adapter: Hash32<of::SealedAdapter>,
}

/// M10's answer: the share, sealed to the recipient, and the swap proven in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unwrapped {
    /// HPKE's ciphertext.
    pub ct: Blob,
    /// HPKE's encapsulated key.
    pub enc: Blob,
    /// The share's index, from 1.
    pub index: u8,
    /// The unwrap's record.
    pub unwrap: ProvenRecord,
}

/// No, without the reason, which is in the custodian's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refused {
    /// What to do about it.
    pub answer: Answer,
}

/// What a refused party can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// Come back later.
    Busy,
    /// Nothing.
    Denied,
    /// Try again with a new session.
    Retry,
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    fn hello() -> Hello {
        Hello {
            instance: Octets([1; 16]),
            job: Octets([2; 16]),
            kems: vec![KemKey { kem: KEM_X25519, key: Blob(vec![3; 32]) }],
            keys: vec![Octets([4; 32])],
            manifest: Digest::from_bytes([5; 48]),
            signer: Octets([6; 32]),
            tee: Tee::Snp,
            version: VERSION,
        }
    }

    #[test]
    fn a_message_comes_back_from_its_frame() {
        let bytes = frame(Kind::Hello, &encode(&hello()));
        let (kind, length) = read_header(bytes[..HEADER].try_into().unwrap()).unwrap();
        assert_eq!((kind, length), (Kind::Hello, bytes.len() - HEADER));
        assert_eq!(read::<Hello>(kind, &bytes[HEADER..]), Ok(hello()));
    }

    #[test]
    fn refuses_another_message_than_the_protocol_has_here() {
        let refused = read::<Challenge>(Kind::Hello, &encode(&hello()));
        let required = Kind::Challenge;
        assert_eq!(refused, Err(BadFrame::Unexpected { observed: Kind::Hello, required }));
    }

    #[test]
    fn refuses_unknown_kinds_and_lengths_over_the_cap() {
        assert_eq!(read_header([0, 0, 0, 1, 4]), Err(BadFrame::UnknownKind { observed: 4 }));
        let expected = BadFrame::TooLong { kind: Kind::Hello, observed: 8193, cap: 8192 };
        assert_eq!(read_header([0, 0, 0x20, 1, 1]), Err(expected));
    }

    #[test]
    fn never_panics_on_a_prefix() {
        let body = encode(&hello());
        for end in 0..body.len() {
            assert!(read::<Hello>(Kind::Hello, &body[..end]).is_err());
        }
    }
}
