//! NVIDIA's reference integrity manifest: a SWID tag with the values a firmware should measure to,
//! under an enveloped XML signature.
//!
//! One shape is accepted, that of every genuine manifest seen: `SoftwareIdentity` holding `Entity`,
//! `Meta`, `Payload` and, last, `Signature`; XML Signature with Canonical XML 1.1, ECDSA with SHA-384,
//! one reference to the whole document with the enveloped transform, SHA-384, and certificates alone.
//! Nothing is looked up by name anywhere else in the document.

use alloc::string::String;
use alloc::vec::Vec;

use base64ct::{Base64, Encoding};
use measurement::digest::sha384;

use crate::wire::xml::{Document, Node, Spacing};

const SWID: &str = "http://standards.iso.org/iso/19770/-2/2015/schema.xsd";
const TCG: &str = "https://trustedcomputinggroup.org/resource/tcg-reference-integrity-manifest-rim-information-model/";
const HASH: &str = "http://www.w3.org/2001/04/xmlenc#sha384";
const DSIG: &str = "http://www.w3.org/2000/09/xmldsig#";
const C14N: &str = "http://www.w3.org/2006/12/xml-c14n11";
const ENVELOPED: &str = "http://www.w3.org/2000/09/xmldsig#enveloped-signature";
const ECDSA_SHA384: &str = "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384";
const SHA384: &str = "http://www.w3.org/2001/04/xmldsig-more#sha384";

/// Most values that one index may have: the most seen is 4.
pub(crate) const ALTERNATIVE_LIMIT: usize = 16;
/// Most certificates of a signer; its chain has four.
const CERTIFICATE_LIMIT: usize = 8;
/// NVIDIA's enterprise number.
const MANUFACTURER: &str = "5703";

/// A manifest whose shape is right. Whether it is genuine is another question.
#[derive(Debug)]
pub(crate) struct Manifest {
    pub(crate) edition: Edition,
    /// As in `GH100`.
    pub(crate) product: String,
    /// The driver's version as it is, a VBIOS's in upper case.
    pub(crate) version: String,
    pub(crate) golden: Vec<Golden>,
    /// SHA-384 of the canonical document without its signature.
    pub(crate) digest: [u8; 48],
    /// The digest that the signature is about.
    pub(crate) signed_digest: Vec<u8>,
    /// Canonical `SignedInfo`.
    pub(crate) signed: Vec<u8>,
    /// `r || s`.
    pub(crate) signature: Vec<u8>,
    /// DER, the signer's first.
    pub(crate) certificates: Vec<Vec<u8>>,
}

/// What kind of device a manifest is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Edition {
    Gpu,
    Switch,
}

/// The values that one active index may have.
#[derive(Debug)]
pub(crate) struct Golden {
    pub(crate) index: u8,
    pub(crate) alternatives: Vec<[u8; 48]>,
}

type Problem = &'static str;

impl Manifest {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Problem> {
        let document = Document::parse(bytes)?;
        let root = document.root()?;
        if !root.is(SWID, "SoftwareIdentity") {
            return Err("is not a reference manifest");
        }
        let children = root.elements(Spacing::Lines)?;
        let [entity, meta, payload, signature] = children.as_slice() else {
            return Err("does not hold exactly entity, meta, payload and signature");
        };
        let parts = [(entity, SWID, "Entity"), (meta, SWID, "Meta"), (payload, SWID, "Payload")];
        if !parts.iter().all(|(node, space, name)| node.is(space, name))
            || !signature.is(DSIG, "Signature")
        {
            return Err("does not hold exactly entity, meta, payload and signature");
        }
        if !root.ends_with(*signature) {
            return Err("has something after its signature");
        }
        entity.elements(Spacing::None).and_then(none)?;
        let (edition, product, version) = read_meta(meta)?;
        let sealed = Signature::read(signature)?;
        Ok(Self {
            edition,
            product,
            version,
            golden: read_payload(payload)?,
            digest: sha384(&root.canonical(Some(*signature))),
            signed_digest: sealed.digest,
            signed: sealed.info,
            signature: sealed.value,
            certificates: sealed.certificates,
        })
    }
}

fn none(nodes: Vec<Node<'_, '_>>) -> Result<(), Problem> {
    if nodes.is_empty() { Ok(()) } else { Err("has an element where none belongs") }
}

fn read_meta(meta: &Node<'_, '_>) -> Result<(Edition, String, String), Problem> {
    meta.elements(Spacing::None).and_then(none)?;
    let value = |name| meta.attribute("", name).ok_or("lacks its version, edition or product");
    let (version, product) = (value("colloquialVersion")?, value("product")?);
    let plain = |text: &str| {
        (1..=32).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
    };
    if !plain(version) || !plain(product) {
        return Err("has a version or product of unusual form");
    }
    let edition = match value("edition")? {
        "GPU" => Edition::Gpu,
        "SWITCH" => Edition::Switch,
        _ => return Err("is of neither gpu nor switch"),
    };
    if meta.attribute(TCG, "FirmwareManufacturerId") != Some(MANUFACTURER) {
        return Err("is of another manufacturer");
    }
    Ok((edition, product.into(), version.to_ascii_uppercase()))
}

/// Every resource, to have each checked; only the active ones are kept.
fn read_payload(payload: &Node<'_, '_>) -> Result<Vec<Golden>, Problem> {
    let mut seen = Vec::new();
    let mut golden = Vec::new();
    for resource in payload.elements(Spacing::Lines)? {
        if !resource.is(SWID, "Resource") {
            return Err("has something but resources in its payload");
        }
        let (entry, active) = read_resource(&resource)?;
        if seen.contains(&entry.index) {
            return Err("gives an index twice");
        }
        seen.push(entry.index);
        if active {
            golden.push(entry);
        }
    }
    Ok(golden)
}

fn read_resource(resource: &Node<'_, '_>) -> Result<(Golden, bool), Problem> {
    resource.elements(Spacing::None).and_then(none)?;
    let value = |name| resource.attribute("", name).ok_or("has a resource without an attribute");
    if value("type")? != "Measurement" || value("size")? != "48" {
        return Err("has a resource that is not a measurement of 48 bytes");
    }
    value("name")?;
    let index = number(value("index")?).filter(|index| *index < 254);
    let index = index.ok_or("has a resource with an unusual index")?;
    let active = match value("active")? {
        "True" => true,
        "False" => false,
        _ => return Err("has a resource that is neither active nor inactive"),
    };
    let count = number(value("alternatives")?).map(usize::from);
    let count = count
        .filter(|count| (1..=ALTERNATIVE_LIMIT).contains(count))
        .ok_or("has a resource with an unusual number of alternatives")?;
    let alternatives: Vec<_> = (0..count)
        .map_while(|at| resource.attribute(HASH, &alloc::format!("Hash{at}")))
        .map_while(octets)
        .collect();
    // type, index, active, alternatives, name and size; nothing else, and no hash beyond.
    if alternatives.len() != count || resource.attributes().len() != count + 6 {
        return Err("has a resource whose hashes are not as many as it says");
    }
    Ok((Golden { index, alternatives }, active))
}

/// A decimal without leading zeros.
fn number(text: &str) -> Option<u8> {
    let number: u8 = text.parse().ok()?;
    (alloc::format!("{number}") == text).then_some(number)
}

fn octets(text: &str) -> Option<[u8; 48]> {
    let mut octets = [0; 48];
    hex::decode_to_slice(text, &mut octets).ok()?;
    Some(octets)
}

/// The parts of `ds:Signature`.
struct Signature {
    info: Vec<u8>,
    digest: Vec<u8>,
    value: Vec<u8>,
    certificates: Vec<Vec<u8>>,
}

impl Signature {
    fn read(signature: &Node<'_, '_>) -> Result<Self, Problem> {
        const SHAPE: Problem = "has a signature of another shape";
        plain(signature)?;
        let children = signature.elements(Spacing::None)?;
        let [info, value, key] = children.as_slice() else { return Err(SHAPE) };
        let names = [(info, "SignedInfo"), (value, "SignatureValue"), (key, "KeyInfo")];
        if !names.iter().all(|(node, name)| node.is(DSIG, name)) {
            return Err(SHAPE);
        }
        plain(value)?;
        Ok(Self {
            digest: read_signed_info(info)?,
            info: info.canonical(None),
            value: base64(value.text()?)?,
            certificates: read_key_info(key)?,
        })
    }
}

/// One accepted list of algorithms. What differs is refused, not interpreted.
fn read_signed_info(info: &Node<'_, '_>) -> Result<Vec<u8>, Problem> {
    plain(info)?;
    let children = info.elements(Spacing::None)?;
    let [canonicalisation, method, reference] = children.as_slice() else {
        return Err("signs not exactly one reference");
    };
    if !algorithm(canonicalisation, "CanonicalizationMethod", C14N)? {
        return Err("is canonicalised by another algorithm");
    }
    if !algorithm(method, "SignatureMethod", ECDSA_SHA384)? {
        return Err("is signed by another algorithm");
    }
    let whole = reference.attributes().len() == 1 && reference.attribute("", "URI") == Some("");
    if !reference.is(DSIG, "Reference") || !whole {
        return Err("signs something but the whole document");
    }
    let children = reference.elements(Spacing::None)?;
    let [transforms, digest_method, digest_value] = children.as_slice() else {
        return Err("has a reference of another shape");
    };
    if !transforms.is(DSIG, "Transforms") || !digest_value.is(DSIG, "DigestValue") {
        return Err("has a reference of another shape");
    }
    plain(transforms)?;
    plain(digest_value)?;
    let steps = transforms.elements(Spacing::None)?;
    let [first, second] = steps.as_slice() else {
        return Err("is transformed in another way");
    };
    if !algorithm(first, "Transform", ENVELOPED)? || !algorithm(second, "Transform", C14N)? {
        return Err("is transformed in another way");
    }
    if !algorithm(digest_method, "DigestMethod", SHA384)? {
        return Err("is digested by another algorithm");
    }
    base64(digest_value.text()?)
}

/// Whether `node` is the empty element `name` with this algorithm and nothing else.
fn algorithm(node: &Node<'_, '_>, name: &str, algorithm: &str) -> Result<bool, Problem> {
    node.elements(Spacing::None).and_then(none)?;
    Ok(node.is(DSIG, name)
        && node.attributes().len() == 1
        && node.attribute("", "Algorithm") == Some(algorithm))
}

/// Certificates and nothing else: no key by value, no name, no reference.
fn read_key_info(key: &Node<'_, '_>) -> Result<Vec<Vec<u8>>, Problem> {
    const SHAPE: Problem = "names its signer by something but certificates";
    plain(key)?;
    let children = key.elements(Spacing::None)?;
    let [data] = children.as_slice() else { return Err(SHAPE) };
    if !data.is(DSIG, "X509Data") {
        return Err(SHAPE);
    }
    plain(data)?;
    let certificates = data.elements(Spacing::None)?;
    if !(1..=CERTIFICATE_LIMIT).contains(&certificates.len()) {
        return Err(SHAPE);
    }
    certificates
        .iter()
        .map(|node| {
            if !node.is(DSIG, "X509Certificate") {
                return Err(SHAPE);
            }
            plain(node)?;
            let text: String = node.text()?.chars().filter(|c| *c != '\n').collect();
            base64(&text)
        })
        .collect()
}

fn plain(node: &Node<'_, '_>) -> Result<(), Problem> {
    let attributes = node.attributes();
    if attributes.is_empty() { Ok(()) } else { Err("has a signature with further attributes") }
}

fn base64(text: &str) -> Result<Vec<u8>, Problem> {
    Base64::decode_vec(text).map_err(|_| "has a signature that is not base64")
}
