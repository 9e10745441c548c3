//! What binds evidence to a session, and a session to a release: AKR/1's hashes.
//!
//! Attester and verifier call the same functions, each with its own view of the connection. Every
//! hashed value is a labelled, deterministic CBOR array, so no two bindings share an encoding.

use alloc::vec::Vec;

use serde::Serialize;

use crate::cbor::{Blob, encode};
use crate::digest::{Digest, Hash32, of, sha256, sha512};
use crate::manifest::Manifest;
use crate::octets::Octets;

/// The label of the exported keying material that binds a TLS channel (RFC 9266).
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-Channel-Binding";
/// The application protocol (ALPN) of a broker's data plane.
pub const ALPN: &[u8] = b"akr/1";

/// The 64 bytes a report signs.
pub type ReportData = [u8; 64];

/// Everything both ends of a session know.
#[derive(Debug, Clone, Copy)]
pub struct Session<'a> {
    /// The broker's nonce, taken once.
    pub nonce: &'a Octets<32>,
    /// The TLS exporter's 32 bytes (RFC 9266).
    pub channel: &'a [u8; 32],
    /// The broker's TLS key, as pinned in the manifest.
    pub broker: &'a Hash32<of::Spki>,
    /// The HPKE key encapsulation chosen (RFC 9180 identifier).
    pub kem: u16,
    /// The enclave's public key for it.
    pub recipient: &'a [u8],
    /// The enclave's Ed25519 key, which signs its receipt.
    pub signer: &'a Octets<32>,
    /// The manifest.
    pub manifest: &'a Digest<Manifest>,
    /// The enclave's own 16 random bytes.
    pub instance: &'a Octets<16>,
    /// The HELLO's bytes as they travelled.
    pub hello: &'a [u8],
    /// The CHALLENGE's bytes as they travelled.
    pub challenge: &'a [u8],
}

/// One session, hashed: what evidence and release are bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding(Octets<64>);

impl Session<'_> {
    /// `SHA-512(dCBOR["akr/1 session", nonce, channel, broker, kem, SHA-256(recipient),
    /// SHA-256(signer), manifest, instance, SHA-256(hello), SHA-256(challenge)])`.
    #[must_use]
    pub fn binding(&self) -> Binding {
        let fields = (
            "akr/1 session",
            self.nonce,
            Octets(*self.channel),
            self.broker,
            self.kem,
            Hash32::<of::KemKey>::of(self.recipient),
            Hash32::<of::Signer>::of(self.signer.as_bytes()),
            self.manifest,
            self.instance,
            Hash32::<of::Message>::of(self.hello),
            Hash32::<of::Message>::of(self.challenge),
        );
        Binding(Octets(sha512(&encode(&fields))))
    }
}

impl Binding {
    /// Takes a binding that was read from a record or a statement.
    #[must_use]
    pub const fn from_octets(octets: Octets<64>) -> Self {
        Self(octets)
    }

    /// The hash.
    #[must_use]
    pub const fn octets(&self) -> Octets<64> {
        self.0
    }

    /// The 32 bytes every GPU of the session signs: `SHA-256("akr/1 gpu-nonce" ‖ 0 ‖ binding)`.
    #[must_use]
    pub fn gpu_nonce(&self) -> [u8; 32] {
        let mut bytes = b"akr/1 gpu-nonce\0".to_vec();
        bytes.extend_from_slice(self.0.as_bytes());
        sha256(&bytes)
    }

    /// What the CPU's report signs: the session, and the evidence of `gpus` GPUs.
    #[must_use]
    pub fn report_data(&self, gpus: u8, evidence: Option<&Digest<of::GpuSet>>) -> ReportData {
        sha512(&encode(&("akr/1 cpu", self.0, gpus, evidence)))
    }

    /// HPKE's `info` for a share that is released in this session.
    #[must_use]
    pub fn release_info(&self, release: &Release<'_>) -> Vec<u8> {
        encode(&(
            "akr/1 release",
            self.0,
            Octets(*release.report_data),
            release.manifest,
            release.key,
            (release.index, release.threshold, release.custodians),
            release.id,
            release.not_after,
        ))
    }

    /// What the enclave signs to confirm a release it opened.
    #[must_use]
    pub fn confirmation(id: &Octets<16>, release: &[u8]) -> Vec<u8> {
        encode(&("akr/1 confirm", id, Hash32::<of::Message>::of(release)))
    }
}

/// What a released share is for.
#[derive(Debug, Clone, Copy)]
pub struct Release<'a> {
    /// The report data of the evidence it was released for.
    pub report_data: &'a ReportData,
    /// The manifest.
    pub manifest: &'a Digest<Manifest>,
    /// The data key's identity.
    pub key: &'a Octets<32>,
    /// The share's index, from 1.
    pub index: u8,
    /// m.
    pub threshold: u8,
    /// n.
    pub custodians: u8,
    /// The release's identity.
    pub id: &'a Octets<16>,
    /// When the lease ends, in seconds since 1970.
    pub not_after: u64,
}

/// The closing evidence's report data: the receipt's statement verifies to the hardware root without
/// trusting any broker. `sessions` are the bindings of the sessions that released a share, in order.
#[must_use]
pub fn closing_report_data(
    statement: &[u8],
    signer: &Octets<32>,
    sessions: &[Octets<64>],
) -> ReportData {
    sha512(&encode(&(
        "akr/1 receipt",
        Digest::<of::Statement>::of(statement),
        Hash32::<of::Signer>::of(signer.as_bytes()),
        sessions,
    )))
}

/// What the sealed adapter is bound to.
#[must_use]
pub fn adapter_aad(manifest: &Digest<Manifest>, attempt: u32) -> Vec<u8> {
    encode(&("cloister adapter", manifest, attempt))
}

/// HPKE's `info` for a share of the adapter's one-time key, wrapped to custodian `index`.
#[must_use]
pub fn adapter_share_info(manifest: &Digest<Manifest>, attempt: u32, index: u8) -> Vec<u8> {
    encode(&("akr/1 adapter share", manifest, attempt, index))
}

/// HPKE's `info` for a share of the adapter's key, handed to a recipient.
#[must_use]
pub fn unwrap_info(
    manifest: &Digest<Manifest>,
    attempt: u32,
    index: u8,
    recipient: &Octets<32>,
) -> Vec<u8> {
    encode(&("akr/1 unwrap", manifest, attempt, index, recipient))
}

/// A salted commitment: `SHA-256(dCBOR["cloister commitment", label, salt, bytes])`. It says nothing
/// of `bytes` to whoever does not have the salt.
#[must_use]
pub fn commitment(label: &str, salt: &Octets<32>, bytes: &[u8]) -> Octets<32> {
    Octets(sha256(&encode(&("cloister commitment", label, salt, Blob::from(bytes)))))
}

/// The bytes a DSSE signature covers: the pre-authentication encoding (DSSE v1.0.2).
#[must_use]
pub fn pre_authentication_encoding(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes =
        alloc::format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len())
            .into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

const _: () = {
    const fn serialises<T: Serialize>() {}
    serialises::<Octets<64>>();
};

#[cfg(test)]
mod tests {
    use super::*;

    fn session_with<R>(change: impl FnOnce(&mut Session<'_>) -> R) -> Binding {
        let broker = Hash32::from_bytes([3; 32]);
        let manifest = Digest::from_bytes([4; 48]);
        let mut session = Session {
            nonce: &Octets([1; 32]),
            channel: &[2; 32],
            broker: &broker,
            kem: 0x20,
            recipient: &[5; 32],
            signer: &Octets([6; 32]),
            manifest: &manifest,
            instance: &Octets([7; 16]),
            hello: b"hello",
            challenge: b"challenge",
        };
        change(&mut session);
        session.binding()
    }

    #[test]
    fn every_field_changes_the_binding() {
        let golden = session_with(|_| ());
        let changed = [
            session_with(|s| s.nonce = &Octets([0; 32])),
            session_with(|s| s.channel = &[0; 32]),
            session_with(|s| s.kem = 0x647a),
            session_with(|s| s.recipient = &[5; 31]),
            session_with(|s| s.signer = &Octets([0; 32])),
            session_with(|s| s.instance = &Octets([0; 16])),
            session_with(|s| s.hello = b"hellO"),
            session_with(|s| s.challenge = b"challengE"),
        ];
        assert!(changed.iter().all(|other| *other != golden));
        assert_eq!(session_with(|_| ()), golden);
    }

    #[test]
    fn report_data_commits_to_the_gpus() {
        let binding = session_with(|_| ());
        let set = Digest::of(b"gpus");
        assert_ne!(binding.report_data(0, None), binding.report_data(1, Some(&set)));
        assert_ne!(binding.report_data(1, Some(&set)), binding.report_data(2, Some(&set)));
    }

    #[test]
    fn encodes_dsse_as_its_specification_shows() {
        let pae = pre_authentication_encoding("http://example.com/HelloWorld", b"hello world");
        assert_eq!(pae, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
    }
}
