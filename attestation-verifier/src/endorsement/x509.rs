//! X.509 read by its raw bytes (RFC 5280): no more of it than is judged, in its only encoding.
//!
//! Names stay as they came: two are the same when their bytes are. What is not read here, as the
//! inside of a name, is covered by the signature and decides nothing.

use alloc::vec::Vec;
use core::fmt;

use der::Decode;
use der::asn1::ObjectIdentifier;
use x509_cert::time::Time;

use crate::wire::asn1::{
    BIT_STRING, BOOLEAN, INTEGER, OBJECT_ID, OCTET_STRING, SEQUENCE, Walker, only,
};

const SET: u8 = 0x31;
const VERSION: u8 = 0xa0;
const LIST_EXTENSIONS: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
/// Version 3 of certificates with its header, and version 2 of lists without.
const CERTIFICATE_V3: &[u8] = &[INTEGER, 1, 2];
const LIST_V2: &[u8] = &[1];
/// 2.5.4.3.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// The next SEQUENCE with its header.
fn sequence<'a>(fields: &mut Walker<'a>) -> Option<&'a [u8]> {
    fields.any().filter(|found| found.tag == SEQUENCE).map(|found| found.whole)
}

/// A distinguished name, as it came.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Name(Vec<u8>);

impl Name {
    /// The name as it came.
    pub(super) fn as_der(&self) -> &[u8] {
        &self.0
    }

    /// The common name, if there is exactly one.
    pub(super) fn common_name(&self) -> Option<&str> {
        core::str::from_utf8(self.attribute(COMMON_NAME)?).ok()
    }

    /// The text of an attribute (the bytes of its OBJECT IDENTIFIER), if there is exactly one.
    pub(super) fn attribute(&self, id: &[u8]) -> Option<&[u8]> {
        let mut parts = only(SEQUENCE, &self.0)?;
        let mut found = None;
        while !parts.is_empty() {
            let mut attributes = Walker::new(parts.expect(SET)?);
            while !attributes.is_empty() {
                let mut attribute = Walker::new(attributes.expect(SEQUENCE)?);
                let name = attribute.expect(OBJECT_ID)?;
                let value = attribute.any()?;
                attribute.end()?;
                if name == id && found.replace(value.value).is_some() {
                    return None;
                }
            }
        }
        found
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match x509_cert::name::Name::from_der(&self.0) {
            Ok(name) => name.fmt(f),
            Err(_) => f.write_str(&hex::encode(&self.0)),
        }
    }
}

/// One extension.
#[derive(Clone, Debug)]
pub(super) struct Extension {
    pub(super) id: ObjectIdentifier,
    pub(super) critical: bool,
    /// The bytes inside its OCTET STRING.
    pub(super) value: Vec<u8>,
}

/// What is read of a TBSCertificate.
pub(super) struct Certificate<'a> {
    /// Without the zero byte that keeps it positive.
    pub(super) serial: &'a [u8],
    pub(super) algorithm: &'a [u8],
    pub(super) issuer: Name,
    pub(super) not_before: u64,
    pub(super) not_after: u64,
    pub(super) subject: Name,
    pub(super) key_algorithm: &'a [u8],
    pub(super) key: &'a [u8],
    pub(super) extensions: Vec<Extension>,
}

impl<'a> Certificate<'a> {
    pub(super) fn read(tbs: &'a [u8]) -> Option<Self> {
        let mut fields = only(SEQUENCE, tbs)?;
        if fields.expect(VERSION)? != CERTIFICATE_V3 {
            return None;
        }
        let serial = serial(&mut fields)?;
        let algorithm = sequence(&mut fields)?;
        let issuer = name(&mut fields)?;
        let mut validity = Walker::new(fields.expect(SEQUENCE)?);
        let (not_before, not_after) = (time(&mut validity)?, time(&mut validity)?);
        validity.end()?;
        let subject = name(&mut fields)?;
        let mut info = Walker::new(fields.expect(SEQUENCE)?);
        let key_algorithm = sequence(&mut info)?;
        // Whole bytes: no unused bits.
        let [0, key @ ..] = info.expect(BIT_STRING)? else { return None };
        info.end()?;
        let extensions = match fields.optional(EXTENSIONS) {
            Some(wrapped) => extensions(wrapped)?,
            None => Vec::new(),
        };
        fields.end()?;
        Some(Self {
            serial,
            algorithm,
            issuer,
            not_before,
            not_after,
            subject,
            key_algorithm,
            key,
            extensions,
        })
    }
}

/// What is read of a TBSCertList.
pub(super) struct List<'a> {
    pub(super) algorithm: &'a [u8],
    pub(super) issuer: Name,
    pub(super) this_update: u64,
    pub(super) next_update: u64,
    pub(super) revoked: Vec<&'a [u8]>,
    /// Whether an extension of the list or of an entry is critical: it would narrow what the list says.
    pub(super) critical: bool,
}

impl<'a> List<'a> {
    pub(super) fn read(tbs: &'a [u8]) -> Option<Self> {
        let mut fields = only(SEQUENCE, tbs)?;
        if fields.expect(INTEGER)? != LIST_V2 {
            return None;
        }
        let algorithm = sequence(&mut fields)?;
        let issuer = name(&mut fields)?;
        let (this_update, next_update) = (time(&mut fields)?, time(&mut fields)?);
        let (mut revoked, mut critical) = (Vec::new(), false);
        if let Some(entries) = fields.optional(SEQUENCE) {
            let mut entries = Walker::new(entries);
            while !entries.is_empty() {
                let mut entry = Walker::new(entries.expect(SEQUENCE)?);
                revoked.push(serial(&mut entry)?);
                time(&mut entry)?;
                if !entry.is_empty() {
                    let list = sequence(&mut entry)?;
                    critical |= extensions(list)?.iter().any(|one| one.critical);
                }
                entry.end()?;
            }
        }
        if let Some(wrapped) = fields.optional(LIST_EXTENSIONS) {
            critical |= extensions(wrapped)?.iter().any(|one| one.critical);
        }
        fields.end()?;
        Some(Self { algorithm, issuer, this_update, next_update, revoked, critical })
    }
}

fn name(fields: &mut Walker<'_>) -> Option<Name> {
    Some(Name(sequence(fields)?.to_vec()))
}

/// An INTEGER in its only encoding, without the zero byte that keeps it positive.
fn serial<'a>(fields: &mut Walker<'a>) -> Option<&'a [u8]> {
    match fields.expect(INTEGER)? {
        [] | [0, 0..=0x7f, ..] | [0xff, 0x80..=0xff, ..] => None,
        serial => Some(minimal(serial)),
    }
}

/// A serial number without the zero byte that keeps it positive.
pub(super) fn minimal(serial: &[u8]) -> &[u8] {
    match serial {
        [0, rest @ ..] if !rest.is_empty() => rest,
        _ => serial,
    }
}

/// Seconds since 1970.
fn time(fields: &mut Walker<'_>) -> Option<u64> {
    Some(Time::from_der(fields.any()?.whole).ok()?.to_unix_duration().as_secs())
}

/// SEQUENCE OF Extension.
fn extensions(der: &[u8]) -> Option<Vec<Extension>> {
    let mut list = only(SEQUENCE, der)?;
    let mut all = Vec::new();
    while !list.is_empty() {
        let mut fields = Walker::new(list.expect(SEQUENCE)?);
        let id = ObjectIdentifier::from_bytes(fields.expect(OBJECT_ID)?).ok()?;
        let critical = match fields.optional(BOOLEAN) {
            None => false,
            Some([0xff]) => true,
            // FALSE is the default, which DER leaves out.
            Some(_) => return None,
        };
        let value = fields.expect(OCTET_STRING)?.to_vec();
        fields.end()?;
        all.push(Extension { id, critical, value });
    }
    Some(all)
}

/// What a character of base64 stands for: a value, [`PAD`], [`SPACE`] or [`BAD`].
#[expect(clippy::as_conversions, clippy::indexing_slicing, reason = "a constant has no `From`")]
const BASE64: [u8; 256] = {
    let mut table = [BAD; 256];
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut value = 0_u8;
    while value < 64 {
        table[alphabet[value as usize] as usize] = value;
        value += 1;
    }
    table[b'=' as usize] = PAD;
    let spaces = [b' ', b'\t', b'\n', 0x0c, b'\r'];
    let mut index = 0;
    while index < spaces.len() {
        table[spaces[index] as usize] = SPACE;
        index += 1;
    }
    table
};
const PAD: u8 = 64;
const SPACE: u8 = 65;
const BAD: u8 = 66;

/// Base64 (RFC 4648 §4) in its only encoding, between any white space. The text is public: nothing is
/// gained by decoding it in constant time.
pub(super) fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len().checked_mul(3)?.checked_div(4)?);
    let value = |byte: u8| BASE64.get(usize::from(byte)).copied().unwrap_or(BAD);
    let (mut bits, mut count, mut padding) = (0_u32, 0_u32, 0_u32);
    let mut rest = text.as_bytes();
    while let Some((byte, tail)) = rest.split_first() {
        // Four at a time, which is all of it but line ends and the last few.
        if let Some((four, tail)) = rest.split_first_chunk::<4>()
            && (count, padding) == (0, 0)
            && let [a @ 0..=63, b @ 0..=63, c @ 0..=63, d @ 0..=63] = four.map(value)
        {
            let bits = u32::from(a) << 18 | u32::from(b) << 12 | u32::from(c) << 6 | u32::from(d);
            let [_, a, b, c] = bits.to_be_bytes();
            out.extend_from_slice(&[a, b, c]);
            rest = tail;
            continue;
        }
        rest = tail;
        match value(*byte) {
            value @ 0..=63 if padding == 0 => {
                bits = (bits << 6) | u32::from(value);
                count = (count + 1) & 3;
                if count == 0 {
                    let [_, a, b, c] = bits.to_be_bytes();
                    out.extend_from_slice(&[a, b, c]);
                    bits = 0;
                }
            }
            SPACE => {}
            PAD => padding = padding.checked_add(1)?,
            _ => return None,
        }
    }
    let [_, a, b, c] = (bits << (6 * ((4 - count) & 3))).to_be_bytes();
    match (count, padding) {
        (0, 0) => {}
        (2, 2) if b == 0 && c == 0 => out.push(a),
        (3, 1) if c == 0 => out.extend_from_slice(&[a, b]),
        _ => return None,
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use alloc::string::{String, ToString};

    use base64ct::{Base64, Encoding};

    use super::*;

    #[test]
    fn decodes_base64_as_another_library_does_and_only_in_one_way() {
        for len in 0..70_u8 {
            let bytes: Vec<u8> = (0..len).map(|byte| byte.wrapping_mul(37)).collect();
            let text = Base64::encode_string(&bytes);
            assert_eq!(decode_base64(&text).as_deref(), Some(bytes.as_slice()));
            let spaced = text.chars().map(|c| alloc::format!("{c}\n")).collect::<String>();
            assert_eq!(decode_base64(&spaced).as_deref(), Some(bytes.as_slice()));
        }
        for text in
            ["A", "AA", "AAA", "AA=", "AAA==", "AAAA=", "AB==", "AAB=", "AA==AA==", "A-==", "=AAA"]
        {
            assert_eq!(decode_base64(text), None, "{text}");
        }
    }

    #[test]
    fn reads_what_the_other_library_reads_of_every_root() {
        use der::Encode;
        use x509_cert::Certificate as Other;

        for der in [
            &include_bytes!("../roots/amd-genoa-ark.der")[..],
            include_bytes!("../roots/amd-turin-ark.der"),
            include_bytes!("../roots/intel-sgx-root.der"),
        ] {
            let other = Other::from_der(der).unwrap().tbs_certificate;
            let tbs = other.to_der().unwrap();
            let ours = Certificate::read(&tbs).unwrap();
            assert_eq!(ours.subject.to_string(), other.subject.to_string());
            assert_eq!(ours.issuer.0, other.issuer.to_der().unwrap());
            assert_eq!(ours.not_after, other.validity.not_after.to_unix_duration().as_secs());
            assert_eq!(ours.extensions.len(), other.extensions.unwrap().len());
            for len in 0..tbs.len() {
                assert!(Certificate::read(&tbs[..len]).is_none());
            }
        }
    }
}
