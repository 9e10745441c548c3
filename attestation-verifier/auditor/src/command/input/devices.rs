//! Evidence of devices in JSON, in the shapes that tools write, and tokens about devices.

use attestation_verifier::evidence::device::DeviceEvidence;
use attestation_verifier::wire::Malformed;
use base64ct::{Base64, Encoding};
use serde_json::{Map, Value, json};

use super::text;

/// Members that hold a list of devices.
const LISTS: [&str; 3] = ["evidences", "evidence_list", "device_evidence_list"];
/// A report and its certificates, as different tools name them.
const NAMES: [[&str; 2]; 2] =
    [["evidence", "certificate"], ["attestationReportHexStr", "certChainBase64Encoded"]];
/// What may be said beside them, and is held against the report.
const LABELS: [&str; 5] = ["arch", "nonce", "driver_version", "vbios_version", "version"];

/// The devices in `bytes`; none if it is other JSON, or none at all.
pub fn read(bytes: &[u8]) -> Option<Result<Vec<DeviceEvidence>, Malformed>> {
    if !matches!(bytes.first(), Some(b'{' | b'[')) {
        return None;
    }
    let value: Value = serde_json::from_slice(bytes).ok()?;
    let nothing = Map::new();
    let (outer, items) = match &value {
        Value::Array(items) => (&nothing, items.as_slice()),
        Value::Object(object) => {
            let list = LISTS.iter().find_map(|name| object.get(*name)?.as_array());
            match list {
                Some(items) => (object, items.as_slice()),
                None => (&nothing, std::slice::from_ref(&value)),
            }
        }
        _ => return None,
    };
    let items: Option<Vec<_>> = items.iter().map(|item| Item::read(item, outer)).collect();
    let items = items.filter(|items| !items.is_empty())?;
    Some(items.into_iter().map(Item::evidence).collect())
}

/// One device.
struct Item {
    report: Vec<u8>,
    chain: Vec<u8>,
    /// Its own labels, and those that the list has for all.
    labels: Map<String, Value>,
}

impl Item {
    fn read(item: &Value, outer: &Map<String, Value>) -> Option<Self> {
        let item = item.as_object()?;
        let bytes = |name: &str| {
            let value = item.get(name)?.as_str()?;
            if value.starts_with("-----") { Some(value.into()) } else { text::decode(value) }
        };
        let [report, chain] =
            NAMES.iter().find_map(|[report, chain]| Some([bytes(report)?, bytes(chain)?]))?;
        let label = |name: &&str| {
            let value = item.get(*name).or_else(|| outer.get(*name))?;
            Some(((*name).to_owned(), value.clone()))
        };
        Some(Self { report, chain, labels: LABELS.iter().filter_map(label).collect() })
    }

    fn evidence(self) -> Result<DeviceEvidence, Malformed> {
        let Self { report, chain, mut labels } = self;
        if !["arch", "nonce"].iter().all(|name| labels.contains_key(*name)) {
            return Ok(DeviceEvidence::new(report, chain));
        }
        if let Some(Value::String(arch)) = labels.get_mut("arch") {
            arch.make_ascii_uppercase();
        }
        labels.insert("evidence".into(), Base64::encode_string(&report).into());
        labels.insert("certificate".into(), Base64::encode_string(&chain).into());
        let strict = DeviceEvidence::read_json(json!([labels]).to_string().as_bytes())?;
        Ok(strict.into_iter().next().unwrap_or_else(|| DeviceEvidence::new(report, chain)))
    }
}

/// The token of NVIDIA's service in `bytes`, bare or as its tool wraps it.
pub fn opinion(bytes: &[u8]) -> Option<Vec<u8>> {
    if bytes.starts_with(b"eyJ") && bytes.iter().filter(|byte| **byte == b'.').count() == 2 {
        return Some(bytes.trim_ascii().to_vec());
    }
    if !matches!(bytes.first(), Some(b'{' | b'[')) {
        return None;
    }
    let value: Value = serde_json::from_slice(bytes).ok()?;
    let token = value.get("detached_eat").unwrap_or(&value);
    (token.get(0)?.get(0)? == "JWT").then(|| token.to_string().into_bytes())
}
