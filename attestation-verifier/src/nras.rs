//! A second opinion: what NVIDIA's remote attestation service says of devices, as a signed token.
//!
//! A token is a list: `["JWT", overall]`, and an object with one JWT per device. All are signed with
//! ES384 by keys that the service publishes and changes every other day; they are an argument. A
//! token of NVIDIA's local tool, which has `alg: none`, is proof of nothing and refused. An opinion
//! never takes the place of [`Verifier::appraise_devices`]: it can only be held against its result.
//!
//! In order, for the overall token and then for each device's: signature, issuer, times, nonce; the
//! digest of each device's token in the overall one, none more and none less; every check the service
//! reports, passed.
//!
//! [`Verifier::appraise_devices`]: crate::appraise::Verifier::appraise_devices

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::marker::PhantomData;

use base64ct::{Base64UrlUnpadded, Encoding};
use measurement::digest::sha256;
use ring::signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};
use thiserror::Error;

use crate::appraise::{DeviceResult, DevicesResult};
use crate::evidence::device::DEVICE_LIMIT;

/// The service that must have issued a token.
pub const ISSUER: &str = "https://nras.attestation.nvidia.com";
/// Most bytes of a token or of a key set.
const BYTE_LIMIT: usize = 1 << 20;
/// Most keys of a set: 60 have been seen.
const KEY_LIMIT: usize = 1024;

/// Why a token is no opinion, or no agreement.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum NrasError {
    /// Not the algorithm of the service.
    #[error("{token} is signed with {observed}, required ES384")]
    Algorithm {
        /// Which token.
        token: String,
        /// The header's algorithm.
        observed: String,
    },
    /// A claim is missing or does not say what it must.
    #[error("{token}: {claim} is {observed}, required {required}")]
    Claim {
        /// Which token.
        token: String,
        /// Its claim.
        claim: String,
        /// What it says.
        observed: String,
        /// What it must say.
        required: String,
    },
    /// A device's token is not the one that the overall token names.
    #[error("the digest of {token} is not the one in the overall token")]
    Digest {
        /// Which token.
        token: String,
    },
    /// The opinion is about other devices.
    #[error("the token speaks of {observed} devices, {required} were judged, and {missing} lacks")]
    Devices {
        /// Devices of the token.
        observed: usize,
        /// Devices of the result.
        required: usize,
        /// A device of the result that the token does not speak of, by its UEID.
        missing: String,
    },
    /// The key set does not hold the key.
    #[error("no key {kid:?} in the key set")]
    Key {
        /// The key's id.
        kid: String,
    },
    /// Not a token, or not a key set.
    #[error("{part} {problem}")]
    Malformed {
        /// Which part.
        part: &'static str,
        /// What is wrong.
        problem: &'static str,
    },
    /// A signature does not verify.
    #[error("the signature of {token} does not verify")]
    Signature {
        /// Which token.
        token: String,
    },
}

/// The service's keys, as it publishes them (RFC 7517). Whoever passes them vouches for them.
pub struct Keys(Vec<(String, Vec<u8>)>);

impl Keys {
    /// Reads a key set. Keys of other kinds than P-384 are left out.
    ///
    /// # Errors
    /// When it is not a key set, or a key of that kind is malformed.
    pub fn read(jwks: &[u8]) -> Result<Self, NrasError> {
        let malformed = |problem| NrasError::Malformed { part: "key set", problem };
        if jwks.len() > BYTE_LIMIT {
            return Err(malformed("is longer than any honest one"));
        }
        let set: KeySet = serde_json::from_slice(jwks).map_err(|_| malformed("is none"))?;
        if set.keys.len() > KEY_LIMIT {
            return Err(malformed("holds more keys than any honest one"));
        }
        let ours = set.keys.into_iter().filter(|key| key.kty == "EC" && key.crv == "P-384");
        let keys: Option<Vec<_>> = ours.map(PublicKey::read).collect();
        keys.map(Self).ok_or(malformed("holds a key that is none"))
    }

    fn find(&self, kid: &str) -> Option<&[u8]> {
        let mut found = self.0.iter().filter(|(id, _)| id == kid);
        match (found.next(), found.next()) {
            (Some((_, key)), None) => Some(key),
            _ => None,
        }
    }
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<PublicKey>,
}

#[derive(Deserialize)]
struct PublicKey {
    kty: String,
    #[serde(default)]
    crv: String,
    #[serde(default)]
    kid: String,
    #[serde(default)]
    x: String,
    #[serde(default)]
    y: String,
}

impl PublicKey {
    /// The key's id, and its point without compression.
    fn read(self) -> Option<(String, Vec<u8>)> {
        let coordinate =
            |text: &str| Base64UrlUnpadded::decode_vec(text).ok().filter(|bytes| bytes.len() == 48);
        let mut point = Vec::from([4]);
        point.extend(coordinate(&self.x)?);
        point.extend(coordinate(&self.y)?);
        Some((self.kid, point))
    }
}

/// What the service says, verified in full. Only [`verify`] makes one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Opinion {
    devices: Vec<Judged>,
    nonce: [u8; 32],
    /// Seconds since 1970.
    expires: u64,
}

/// A device that the service accepted.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Judged {
    /// Decimal.
    ueid: String,
    hardware_model: String,
    driver: Option<String>,
    vbios: Option<String>,
}

/// Verifies a token for `nonce` at `now_unix` (seconds since 1970).
///
/// # Errors
/// At the first thing that is wrong.
pub fn verify(
    token: &[u8],
    keys: &Keys,
    nonce: &[u8; 32],
    now_unix: u64,
) -> Result<Opinion, NrasError> {
    let malformed = |problem| NrasError::Malformed { part: "token", problem };
    if token.len() > BYTE_LIMIT {
        return Err(malformed("is longer than any honest one"));
    }
    let (Tagged(kind, overall), Unique(submodules)): (Tagged<String>, Unique<String>) =
        serde_json::from_slice(token).map_err(|_| malformed("is none"))?;
    if kind != "JWT" || submodules.is_empty() || submodules.len() > DEVICE_LIMIT {
        return Err(malformed("is of another shape"));
    }
    let session = Session { keys, nonce: hex::encode(nonce), now: now_unix };
    let overall = session.open("overall token", &overall)?;
    overall.is("sub", "NVIDIA-PLATFORM-ATTESTATION")?;
    overall.is("x-nvidia-ver", "3.0")?;
    overall.check("x-nvidia-overall-att-result", &Value::Bool(true))?;
    let digests = overall.digests()?;
    if digests.len() != submodules.len() {
        return Err(malformed("has other submodules than its overall token"));
    }
    let mut expires = overall.number("exp")?;
    let mut devices = Vec::new();
    for (name, jwt) in &submodules {
        let digest = digests.iter().find(|(other, _)| other == name).map(|(_, digest)| digest);
        if digest != Some(&hex::encode(sha256(jwt.as_bytes()))) {
            return Err(NrasError::Digest { token: name.clone() });
        }
        let claims = session.open(name, jwt)?;
        expires = expires.min(claims.number("exp")?);
        devices.push(claims.judged()?);
    }
    Ok(Opinion { devices, nonce: *nonce, expires })
}

impl Opinion {
    /// When the first of its tokens expires, in seconds since 1970.
    pub fn expires(&self) -> u64 {
        self.expires
    }

    /// Whether the service accepted the very devices of `result`, for the same nonce, with the same
    /// versions.
    ///
    /// # Errors
    /// When it speaks of other devices, another session, or says something else of a device.
    pub fn agrees_with(&self, result: &DevicesResult) -> Result<(), NrasError> {
        if self.nonce != *result.nonce() {
            return Err(NrasError::Claim {
                token: "overall token".into(),
                claim: "eat_nonce".into(),
                observed: hex::encode(self.nonce),
                required: hex::encode(result.nonce()),
            });
        }
        for device in result.devices() {
            let ueid = decimal(device.ueid());
            let judged = self.devices.iter().find(|judged| judged.ueid == ueid);
            judged.ok_or(self.other_devices(result, ueid))?.agrees_with(device)?;
        }
        if self.devices.len() == result.devices().len() {
            Ok(())
        } else {
            Err(self.other_devices(result, "none".into()))
        }
    }

    fn other_devices(&self, result: &DevicesResult, missing: String) -> NrasError {
        let (observed, required) = (self.devices.len(), result.devices().len());
        NrasError::Devices { observed, required, missing }
    }
}

impl Judged {
    fn agrees_with(&self, device: &DeviceResult) -> Result<(), NrasError> {
        let same = |claim: &str, says: Option<&str>, ours: Option<&str>| match (says, ours) {
            (Some(says), Some(ours)) if !says.eq_ignore_ascii_case(ours) => Err(NrasError::Claim {
                token: self.ueid.clone(),
                claim: claim.into(),
                observed: says.into(),
                required: ours.into(),
            }),
            _ => Ok(()),
        };
        same("hwmodel", Some(&self.hardware_model), Some(device.hardware_model()))?;
        same("driver version", self.driver.as_deref(), device.driver())?;
        same("vbios version", self.vbios.as_deref(), device.vbios())
    }
}

/// What all tokens of one answer are judged by.
struct Session<'a> {
    keys: &'a Keys,
    nonce: String,
    now: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: String,
    #[serde(rename = "typ")]
    _typ: Option<String>,
}

impl Session<'_> {
    /// The claims of a token whose signature, issuer, times and nonce are right.
    fn open(&self, name: &str, jwt: &str) -> Result<Claims, NrasError> {
        let malformed = NrasError::Malformed { part: "token", problem: "is not a signed jwt" };
        let decode =
            |text: &str| Base64UrlUnpadded::decode_vec(text).map_err(|_| malformed.clone());
        let (signed, signature) = jwt.rsplit_once('.').ok_or(malformed.clone())?;
        let (header, payload) = signed.split_once('.').ok_or(malformed.clone())?;
        let header: Header =
            serde_json::from_slice(&decode(header)?).map_err(|_| malformed.clone())?;
        let token = name.to_string();
        if header.alg != "ES384" {
            return Err(NrasError::Algorithm { token, observed: header.alg });
        }
        let key = self.keys.find(&header.kid).ok_or(NrasError::Key { kid: header.kid })?;
        UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, key)
            .verify(signed.as_bytes(), &decode(signature)?)
            .map_err(|_| NrasError::Signature { token: token.clone() })?;
        let Unique(claims) =
            serde_json::from_slice(&decode(payload)?).map_err(|_| malformed.clone())?;
        let claims = Claims { token, claims: claims.into_iter().collect() };
        claims.is("iss", ISSUER)?;
        claims.is("eat_nonce", &self.nonce)?;
        let (from, until) = (claims.number("nbf")?, claims.number("exp")?);
        if self.now < from || self.now >= until {
            let window = alloc::format!("{from} to {until}");
            return Err(claims.error("exp", window, self.now.to_string()));
        }
        Ok(claims)
    }
}

/// The claims of one token.
struct Claims {
    token: String,
    claims: Map<String, Value>,
}

impl Claims {
    fn error(&self, claim: &str, observed: String, required: String) -> NrasError {
        NrasError::Claim { token: self.token.clone(), claim: claim.into(), observed, required }
    }

    fn value(&self, claim: &str) -> &Value {
        self.claims.get(claim).unwrap_or(&Value::Null)
    }

    fn check(&self, claim: &str, required: &Value) -> Result<(), NrasError> {
        let observed = self.value(claim);
        if observed == required {
            return Ok(());
        }
        Err(self.error(claim, observed.to_string(), required.to_string()))
    }

    fn is(&self, claim: &str, required: &str) -> Result<(), NrasError> {
        self.check(claim, &required.into())
    }

    fn number(&self, claim: &str) -> Result<u64, NrasError> {
        let value = self.value(claim);
        value.as_u64().ok_or_else(|| self.error(claim, value.to_string(), "a number".into()))
    }

    fn text(&self, claim: &str) -> Result<String, NrasError> {
        let value = self.value(claim);
        let text = value.as_str().map(String::from);
        text.ok_or_else(|| self.error(claim, value.to_string(), "a text".into()))
    }

    /// The digest of each submodule, in hexadecimal.
    fn digests(&self) -> Result<Vec<(String, String)>, NrasError> {
        let claim = "submods";
        let error = || self.error(claim, self.value(claim).to_string(), "digests".into());
        let submodules = self.value(claim).as_object().ok_or_else(error)?;
        submodules
            .iter()
            .map(|(name, value)| {
                let Tagged(kind, Tagged(algorithm, digest)): Tagged<Tagged<String>> =
                    Deserialize::deserialize(value).map_err(|_| error())?;
                // The service says SHA-256, NVIDIA's own tool SHA256.
                let known = kind == "DIGEST" && (algorithm == "SHA-256" || algorithm == "SHA256");
                known.then(|| (name.clone(), digest.to_ascii_lowercase())).ok_or_else(error)
            })
            .collect()
    }

    /// A device of which the service reports nothing but passed checks.
    fn judged(&self) -> Result<Judged, NrasError> {
        self.is("measres", "success")?;
        self.is("dbgstat", "disabled")?;
        self.is("oemid", "5703")?;
        self.check("secboot", &Value::Bool(true))?;
        for (claim, value) in &self.claims {
            self.check_passed(claim, value)?;
        }
        let version = |kinds: [&str; 2]| {
            let claims = kinds.map(|kind| alloc::format!("x-nvidia-{kind}-version"));
            claims.iter().find_map(|claim| self.value(claim).as_str().map(String::from))
        };
        Ok(Judged {
            ueid: self.text("ueid")?,
            hardware_model: self.text("hwmodel")?,
            driver: version(["gpu-driver", "gpu-driver"]),
            vbios: version(["gpu-vbios", "switch-bios"]),
        })
    }

    /// Whatever the service checked has passed: no check is false, no certificate is but valid and
    /// good, no measurement differs, no error is told.
    fn check_passed(&self, claim: &str, value: &Value) -> Result<(), NrasError> {
        match value {
            Value::Bool(false) => self.check(claim, &Value::Bool(true)),
            Value::Object(chain) if claim.ends_with("-cert-chain") => {
                for (name, required) in [
                    ("x-nvidia-cert-status", "valid".into()),
                    ("x-nvidia-cert-ocsp-status", "good".into()),
                    ("x-nvidia-cert-revocation-reason", Value::Null),
                ] {
                    let observed = chain.get(name).unwrap_or(&Value::Null);
                    if *observed != required {
                        let claim = alloc::format!("{claim}.{name}");
                        return Err(self.error(&claim, observed.to_string(), required.to_string()));
                    }
                }
                Ok(())
            }
            _ if claim.ends_with("-mismatch-measurement-records")
                || claim.ends_with("-error-details") =>
            {
                self.check(claim, &Value::Null)
            }
            _ => Ok(()),
        }
    }
}

/// A list of a kind and a value.
#[derive(Deserialize)]
struct Tagged<T>(String, T);

/// An object none of whose members comes twice.
struct Unique<T>(Vec<(String, T)>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Unique<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = Unique<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unique<T>, A::Error> {
                let mut members: Vec<(String, T)> = Vec::new();
                while let Some((name, value)) = map.next_entry()? {
                    if members.iter().any(|(other, _)| *other == name) {
                        return Err(serde::de::Error::custom("a member comes twice"));
                    }
                    if members.len() == KEY_LIMIT {
                        return Err(serde::de::Error::custom("too many members"));
                    }
                    members.push((name, value));
                }
                Ok(Unique(members))
            }
        }

        deserializer.deserialize_map(Members(PhantomData))
    }
}

/// The decimal form of a hexadecimal number.
fn decimal(hexadecimal: &str) -> String {
    // Least digit first.
    let mut digits: Vec<u32> = Vec::from([0]);
    for nibble in hexadecimal.chars().filter_map(|c| c.to_digit(16)) {
        let mut carry = nibble;
        for digit in &mut digits {
            let value = *digit * 16 + carry;
            (*digit, carry) = (value % 10, value / 10);
        }
        while carry > 0 {
            digits.push(carry % 10);
            carry /= 10;
        }
    }
    digits.iter().rev().filter_map(|digit| char::from_digit(*digit, 10)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_serial_numbers_in_decimal() {
        assert_eq!(
            decimal("53C22BA15E5D68088282DA074ED9FB37AA585771"),
            "478176379286082186618948445787393647364802107249"
        );
        assert_eq!(decimal("0"), "0");
        assert_eq!(decimal("ff"), "255");
        assert_eq!(decimal("0100"), "256");
    }
}
