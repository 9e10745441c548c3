//! DSSE envelopes (v1.0.2): a payload, its type, and who signed the two.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::Serialize;

use crate::binding::pre_authentication_encoding;
use crate::cbor::Blob;
use crate::octets::Octets;

/// The most bytes an envelope has.
pub const MAX_BYTES: usize = 1 << 20;

/// A signed payload.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Envelope {
    /// What is signed.
    pub payload: Blob,
    /// What the payload is.
    pub payload_type: String,
    /// Who signed.
    pub signatures: Vec<Signature>,
}

/// One signature of an envelope: Ed25519 over the pre-authentication encoding.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// The Ed25519 public key in hex. A hint: who may sign is decided elsewhere.
    pub keyid: String,
    /// 64 bytes.
    pub sig: Blob,
}

impl Signature {
    /// A signature by `key`.
    #[must_use]
    pub fn new(key: &Octets<32>, signature: &[u8]) -> Self {
        Self { keyid: key.to_string(), sig: Blob(signature.to_vec()) }
    }
}

/// Why text is not an envelope, or not the one expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// Not the JSON of an envelope.
    #[error("not a dsse envelope")]
    Malformed,
    /// Signed as something else.
    #[error("payload type is {observed}, expected {required}")]
    PayloadType {
        /// The type observed.
        observed: String,
        /// The type required.
        required: &'static str,
    },
    /// Over the cap.
    #[error("envelope of {observed} bytes, at most {MAX_BYTES} are accepted")]
    TooLong {
        /// The length observed.
        observed: usize,
    },
}

impl Envelope {
    /// An envelope without signatures.
    #[must_use]
    pub fn new(payload_type: &str, payload: &[u8]) -> Self {
        Self {
            payload: Blob(payload.to_vec()),
            payload_type: payload_type.to_string(),
            signatures: Vec::new(),
        }
    }

    /// Parses JSON text that must hold a payload of type `required`.
    ///
    /// # Errors
    /// [`EnvelopeError`].
    pub fn parse(json: &[u8], required: &'static str) -> Result<Self, EnvelopeError> {
        if json.len() > MAX_BYTES {
            return Err(EnvelopeError::TooLong { observed: json.len() });
        }
        let envelope: Self = serde_json::from_slice(json).map_err(|_| EnvelopeError::Malformed)?;
        if envelope.payload_type == required {
            Ok(envelope)
        } else {
            Err(EnvelopeError::PayloadType { observed: envelope.payload_type, required })
        }
    }

    /// The bytes that every signature covers.
    #[must_use]
    pub fn signed_bytes(&self) -> Vec<u8> {
        pre_authentication_encoding(&self.payload_type, &self.payload.0)
    }

    /// The envelope as JSON text, with a newline at its end.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        print(self)
    }
}

/// Prints a document the one way that [`parse_printed`] accepts: indented, one newline at the end.
#[must_use]
pub fn print<T: Serialize>(value: &T) -> Vec<u8> {
    // Documents are plain data with text keys: printing cannot fail.
    let mut json = serde_json::to_vec_pretty(value).unwrap_or_default();
    json.push(b'\n');
    json
}

/// Parses a document and requires that it prints back to the same bytes.
///
/// # Errors
/// [`EnvelopeError::Malformed`] or [`EnvelopeError::TooLong`].
pub fn parse_printed<T>(json: &[u8], cap: usize) -> Result<T, EnvelopeError>
where
    T: Serialize + serde::de::DeserializeOwned,
{
    if json.len() > cap {
        return Err(EnvelopeError::TooLong { observed: json.len() });
    }
    let value: T = serde_json::from_slice(json).map_err(|_| EnvelopeError::Malformed)?;
    if print(&value) == json { Ok(value) } else { Err(EnvelopeError::Malformed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: &str = "text/plain";

    fn golden() -> Envelope {
        let mut envelope = Envelope::new(TYPE, b"hello");
        envelope.signatures.push(Signature::new(&Octets([7; 32]), &[1; 64]));
        envelope
    }

    #[test]
    fn comes_back() {
        assert_eq!(Envelope::parse(&golden().to_json(), TYPE), Ok(golden()));
        assert_eq!(parse_printed(&golden().to_json(), MAX_BYTES), Ok(golden()));
    }

    #[test]
    fn refuses_another_type_and_another_spelling() {
        let json = golden().to_json();
        let other = Envelope::parse(&json, "text/html");
        let observed = TYPE.to_string();
        assert_eq!(other, Err(EnvelopeError::PayloadType { observed, required: "text/html" }));
        let mut spaced = json.clone();
        spaced.push(b' ');
        assert_eq!(parse_printed::<Envelope>(&spaced, 9999), Err(EnvelopeError::Malformed));
        for end in 0..json.len() - 1 {
            assert!(parse_printed::<Envelope>(&json[..end], 9999).is_err());
        }
    }

    #[test]
    fn refuses_unpadded_base64_and_unknown_fields() {
        for json in [
            r#"{"payload":"aGVsbG8","payloadType":"text/plain","signatures":[]}"#,
            r#"{"payload":"","payloadType":"text/plain","signatures":[],"more":1}"#,
        ] {
            assert_eq!(Envelope::parse(json.as_bytes(), TYPE), Err(EnvelopeError::Malformed));
        }
    }
}
