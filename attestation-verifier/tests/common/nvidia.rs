//! A simulated NVIDIA: two roots, devices with their keys and reports, reference manifests, revocation
//! lists and OCSP answers. Manifests are written in canonical form, so that signing them needs no
//! canonicaliser: what is signed is the text.

use attestation_verifier::evidence::device::DeviceEvidence;
use base64ct::{Base64, Encoding};
use measurement::digest::{sha256, sha384};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
};

use super::amd::{bits, hex, seq, time, tlv};

pub const NOW: u64 = 1_780_000_000;
pub const NONCE: [u8; 32] = [0x4e; 32];
pub const DRIVER: &str = "580.95.05";
pub const VBIOS: &str = "96.00.9F.00.01";

const P384: &str = "301006072a8648ce3d020106052b81040022";
const ECDSA_SHA384: &str = "300a06082a8648ce3d040303";

#[derive(Clone)]
pub struct Key {
    pkcs8: Vec<u8>,
}

impl Key {
    pub fn new() -> Self {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_ASN1_SIGNING, &random);
        Self { pkcs8: pkcs8.unwrap().as_ref().to_vec() }
    }

    pub fn public(&self) -> Vec<u8> {
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_ASN1_SIGNING, &self.pkcs8, &random);
        pair.unwrap().public_key().as_ref().to_vec()
    }

    pub fn spki(&self) -> Vec<u8> {
        seq(&[&hex(P384), &bits(&self.public())])
    }

    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_ASN1_SIGNING, &self.pkcs8, &random);
        pair.unwrap().sign(&random, message).unwrap().as_ref().to_vec()
    }

    /// `r || s`.
    pub fn sign_fixed(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &self.pkcs8, &random);
        pair.unwrap().sign(&random, message).unwrap().as_ref().to_vec()
    }
}

/// What a certificate says. One thing is changed per test.
#[derive(Clone)]
pub struct Spec {
    pub issuer: Vec<u8>,
    pub subject: Vec<u8>,
    pub serial: Vec<u8>,
    pub dates: (u64, u64),
    pub algorithm: &'static str,
    /// BasicConstraints, in hex; none leaves the extension out.
    pub constraints: Option<&'static str>,
    /// KeyUsage, in hex.
    pub usage: &'static str,
    /// Further extensions, in DER.
    pub extensions: Vec<u8>,
    /// Signed by a key that is no one's.
    pub forged: bool,
}

pub type Change<'a> = &'a dyn Fn(&str, &mut Spec);

/// A certificate with its key.
#[derive(Clone)]
pub struct Party {
    pub key: Key,
    pub name: Vec<u8>,
    pub der: Vec<u8>,
    pub serial: Vec<u8>,
}

impl Party {
    /// `place` is what the change knows it by; without an issuer it issues itself.
    fn new(
        place: &str,
        subject: Vec<u8>,
        issuer: Option<&Party>,
        leaf: bool,
        extensions: Vec<u8>,
        key: Key,
        change: Change<'_>,
    ) -> Self {
        let mut spec = Spec {
            issuer: issuer.map_or(subject.clone(), |issuer| issuer.name.clone()),
            serial: sha256(&subject)[..9].iter().map(|byte| byte & 0x7f | 1).collect(),
            subject,
            dates: (NOW - 1000, NOW + 1000),
            algorithm: ECDSA_SHA384,
            constraints: (!leaf).then_some("30030101ff"),
            usage: if leaf { "03020780" } else { "03020106" },
            extensions,
            forged: false,
        };
        change(place, &mut spec);
        let stranger = Key::new();
        let signer = match issuer {
            _ if spec.forged => &stranger,
            Some(issuer) => &issuer.key,
            None => &key,
        };
        let der = certificate(&spec, &key.spki(), signer);
        Self { name: spec.subject, serial: spec.serial, key, der }
    }

    fn pem(&self) -> String {
        format!(
            "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
            Base64::encode_string(&self.der)
        )
    }
}

fn certificate(spec: &Spec, spki: &[u8], signer: &Key) -> Vec<u8> {
    let critical = hex("0101ff");
    let constraints = spec
        .constraints
        .map(|value| seq(&[&hex("0603551d13"), &critical, &tlv(0x04, &hex(value))]));
    let usage = seq(&[&hex("0603551d0f"), &critical, &tlv(0x04, &hex(spec.usage))]);
    let extensions = seq(&[&constraints.unwrap_or_default(), &usage, &spec.extensions]);
    let tbs = seq(&[
        &tlv(0xa0, &tlv(0x02, &[2])),
        &tlv(0x02, &spec.serial),
        &hex(spec.algorithm),
        &spec.issuer,
        &seq(&[&time(spec.dates.0), &time(spec.dates.1)]),
        &spec.subject,
        spki,
        &tlv(0xa3, &extensions),
    ]);
    seq(&[&tbs, &hex(spec.algorithm), &bits(&signer.sign(&tbs))])
}

/// A name of a common name, and a serial number before it if there is one.
pub fn name(common: &str, serial: Option<&str>) -> Vec<u8> {
    let part =
        |id: &str, tag: u8, text: &str| tlv(0x31, &seq(&[&hex(id), &tlv(tag, text.as_bytes())]));
    let serial = serial.map(|serial| part("0603550405", 0x13, serial)).unwrap_or_default();
    seq(&[
        &serial,
        &part("060355040a", 0x0c, "NVIDIA Corporation"),
        &part("0603550403", 0x0c, common),
    ])
}

/// An extension that is not critical.
pub fn extension(id: &str, value: &[u8]) -> Vec<u8> {
    seq(&[&tlv(0x06, &hex(id)), &tlv(0x04, value)])
}

pub fn critical_extension(id: &str, value: &[u8]) -> Vec<u8> {
    seq(&[&tlv(0x06, &hex(id)), &hex("0101ff"), &tlv(0x04, value)])
}

/// 2.23.133.5.4
pub const DICE: &str = "6781050504";

fn dice_id(tail: &str) -> String {
    format!("{DICE}{tail}")
}

pub fn fwid(digest: &[u8; 48]) -> Vec<u8> {
    seq(&[&hex("0609608648016503040202"), &tlv(0x04, digest)])
}

pub fn composite(spki: &[u8], digest: &[u8; 48]) -> Vec<u8> {
    extension(&dice_id("01"), &seq(&[&tlv(0x02, &[1]), spki, &fwid(digest)]))
}

pub fn tcb_info(digests: &[[u8; 48]]) -> Vec<u8> {
    let list: Vec<u8> = digests.iter().flat_map(fwid).collect();
    let value = seq(&[&tlv(0x80, b"NVIDIA"), &tlv(0x81, b"GB100 A01 GSP"), &tlv(0xa6, &list)]);
    extension(&dice_id("0101"), &value)
}

/// Everything above the devices and the manifests.
#[derive(Clone)]
pub struct Lab {
    pub root: Party,
    pub family: Party,
    pub provisioner: Party,
    pub manifest_root: Party,
    pub manifest_authority: Party,
    pub manifest_issuer: Party,
    pub manifest_signer: Party,
}

pub fn unchanged(_: &str, _: &mut Spec) {}

impl Lab {
    pub fn new(change: Change<'_>) -> Self {
        let party = |place: &str, common: &str, issuer: Option<&Party>, leaf| {
            Party::new(place, name(common, None), issuer, leaf, Vec::new(), Key::new(), change)
        };
        let root = party("root", "NVIDIA Device Identity CA", None, false);
        let family = party("family", "NVIDIA GH100 Identity", Some(&root), false);
        let provisioner =
            party("provisioner", "NVIDIA GH100 Provisioner ICA 1", Some(&family), false);
        let manifest_root = party("manifest root", "NVIDIA CoRIM signing Root CA", None, false);
        let authority = party(
            "manifest authority",
            "NVIDIA Reference Value GH100 CA",
            Some(&manifest_root),
            false,
        );
        let issuer = party(
            "manifest issuer",
            "NVIDIA Reference Value L3 GH100 001",
            Some(&authority),
            false,
        );
        let signer = party("manifest signer", "HCC RIM L4 Signer", Some(&issuer), true);
        Self {
            root,
            family,
            provisioner,
            manifest_root,
            manifest_authority: authority,
            manifest_issuer: issuer,
            manifest_signer: signer,
        }
    }

    /// `policy`, believing both roots as simulated.
    pub fn policy_from(&self, policy: &str) -> String {
        use attestation_verifier::policy::with_root;
        let policy = with_root(policy, "test", "simulated", "nvidia", &self.root.pem());
        let pem = self.manifest_root.pem();
        with_root(&policy, "test manifests", "simulated", "nvidia-manifest", &pem)
    }

    pub fn gpu(&self, id: u64) -> Device {
        self.device("GH100 A01 GSP", "41", id, &unchanged)
    }

    pub fn switch(&self, id: u64) -> Device {
        self.device("LS_10 A01 FSP", "50", id, &unchanged)
    }

    pub fn device(&self, model: &str, kind: &str, id: u64, change: Change<'_>) -> Device {
        let serial = format!("{kind}{}", hex::encode_upper(id.to_be_bytes()));
        let identity = Party::new(
            "identity",
            name(&format!("{model} BROM"), Some(&serial)),
            Some(&self.provisioner),
            false,
            Vec::new(),
            Key::new(),
            change,
        );
        let firmware = [0xf0; 48];
        let dice = if model.starts_with("GB") {
            tcb_info(&[firmware, [0; 48]])
        } else {
            composite(&identity.key.spki(), &firmware)
        };
        let key = Party::new(
            "key",
            name(
                &format!("{model} FMC LF"),
                Some(&hex::encode_upper(&sha256(serial.as_bytes())[..20])),
            ),
            Some(&identity),
            true,
            dice,
            Key::new(),
            change,
        );
        let chain = [&key, &identity, &self.provisioner, &self.family, &self.root];
        let chain = chain.map(Party::pem).concat();
        Device { key, identity, chain }
    }

    /// The manifests of [`Report::gpu`], in canonical form, signed.
    pub fn manifests(&self) -> Vec<Vec<u8>> {
        vec![self.sign(&Manifest::driver()), self.sign(&Manifest::vbios())]
    }

    pub fn sign(&self, manifest: &Manifest) -> Vec<u8> {
        self.sign_by(manifest, &self.manifest_signer.key)
    }

    pub fn sign_by(&self, manifest: &Manifest, key: &Key) -> Vec<u8> {
        let body = manifest.body();
        let digest = Base64::encode_string(&sha384(body.replace(SIGNATURE, "").as_bytes()));
        let info = manifest.signed_info.replace("{digest}", &digest);
        let scope = format!(
            "<ds:SignedInfo xmlns=\"{SWID}\" xmlns:ds=\"{DSIG}\" xmlns:ns0=\"{SWID}\" \
             xmlns:ns2=\"{HASH}\">"
        );
        let signature = key.sign_fixed(info.replacen("<ds:SignedInfo>", &scope, 1).as_bytes());
        let chain = [
            &self.manifest_signer,
            &self.manifest_issuer,
            &self.manifest_authority,
            &self.manifest_root,
        ];
        let certificates: String = chain
            .iter()
            .map(|party| {
                let text = Base64::encode_string(&party.der);
                format!("<ds:X509Certificate>{text}</ds:X509Certificate>")
            })
            .collect();
        let key_info = manifest.key_info.replace("{certificates}", &certificates);
        let signature = format!(
            "<ds:Signature xmlns:ds=\"{DSIG}\">{info}<ds:SignatureValue>{}</ds:SignatureValue>\
             {key_info}</ds:Signature>",
            Base64::encode_string(&signature)
        );
        body.replace(SIGNATURE, &signature).into_bytes()
    }

    /// Lists of the root and the family, and answers about `devices` and the manifests' signers.
    pub fn revocations(&self, devices: &[&Device]) -> Vec<Vec<u8>> {
        let window = (NOW - 10, NOW + 10);
        let mut items = vec![
            revocation_list(&self.root, window, &[]),
            revocation_list(&self.family, window, &[]),
            revocation_list(&self.manifest_root, window, &[]),
            Ocsp::good(&self.manifest_issuer, &self.manifest_authority).answer(),
            Ocsp::good(&self.manifest_signer, &self.manifest_issuer).answer(),
        ];
        let answer = |device: &&Device| Ocsp::good(&device.identity, &self.provisioner).answer();
        items.extend(devices.iter().map(answer));
        items
    }
}

#[derive(Clone)]
pub struct Device {
    pub key: Party,
    pub identity: Party,
    /// PEM.
    pub chain: String,
}

impl Device {
    pub fn evidence(&self, report: &Report) -> DeviceEvidence {
        DeviceEvidence::new(report.signed_by(&self.key.key), self.chain.clone())
    }

    pub fn pdi(&self) -> [u8; 8] {
        // The last eight bytes of the nine in the name's serial number.
        let name = &self.identity.name;
        let text = name.windows(18).find_map(|w| hex::decode(w).ok()).unwrap();
        text[1..].try_into().unwrap()
    }
}

/// What a report says.
#[derive(Clone)]
pub struct Report {
    pub nonce: [u8; 32],
    pub responder_nonce: [u8; 32],
    pub measurements: Vec<[u8; 48]>,
    pub opaque: Vec<(u16, Vec<u8>)>,
}

fn padded(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

impl Report {
    /// A GPU alone, that [`Lab::manifests`] describe.
    pub fn gpu() -> Self {
        let mut measurements = vec![[0; 48]; 64];
        for (index, value) in measurements.iter_mut().enumerate().take(9) {
            *value = [index as u8; 48];
        }
        measurements[40] = [40; 48];
        let opaque = vec![
            (6, hex("009f009601000000")),
            (15, padded("882")),
            (17, padded("1010")),
            (18, padded("0200")),
            (3, padded(DRIVER)),
            (11, vec![0x55]),
            (20, vec![0xf0; 48]),
            (21, vec![0x55]),
            (34, vec![1, 0]),
            (36, vec![0, 0]),
        ];
        let responder_nonce = sha256(&Key::new().public());
        Self { nonce: NONCE, responder_nonce, measurements, opaque }
    }

    pub fn switch(device: &Device, gpus: &[[u8; 8]]) -> Self {
        let mut ids = vec![0xff; 128];
        for (at, id) in gpus.iter().enumerate() {
            ids[at * 8..at * 8 + 8].copy_from_slice(id);
        }
        let mut measurements = vec![[0; 48]; 31];
        measurements[3] = [3; 48];
        let opaque = vec![
            (6, b"96.10.73.00.01".to_vec()),
            (22, device.pdi().to_vec()),
            (26, ids),
            (25, vec![1, 0]),
        ];
        let responder_nonce = sha256(&Key::new().public());
        Self { nonce: NONCE, responder_nonce, measurements, opaque }
    }

    /// The same with one opaque field set, or left out.
    pub fn with(mut self, kind: u16, value: Option<&[u8]>) -> Self {
        match (self.opaque.iter().position(|(other, _)| *other == kind), value) {
            (Some(at), Some(value)) => self.opaque[at].1 = value.to_vec(),
            (Some(at), None) => drop(self.opaque.remove(at)),
            (None, Some(value)) => self.opaque.push((kind, value.to_vec())),
            (None, None) => {}
        }
        self
    }

    pub fn measuring(mut self, index: usize, value: [u8; 48]) -> Self {
        self.measurements[index] = value;
        self
    }

    /// Everything before the signature.
    pub fn body(&self) -> Vec<u8> {
        let mut body = vec![0x11, 0xe0, 0x01, 0xff];
        body.extend(self.nonce);
        body.push(0);
        let count = self.measurements.len();
        body.extend([0x11, 0x60, 0, 0, count as u8]);
        body.extend(&((count * 55) as u32).to_le_bytes()[..3]);
        for (index, value) in self.measurements.iter().enumerate() {
            body.extend([index as u8 + 1, 1, 51, 0, 1, 48, 0]);
            body.extend(value);
        }
        body.extend(self.responder_nonce);
        let opaque: Vec<u8> = self
            .opaque
            .iter()
            .flat_map(|(kind, value)| {
                let len = value.len() as u16;
                [&kind.to_le_bytes()[..], &len.to_le_bytes(), value].concat()
            })
            .collect();
        body.extend((opaque.len() as u16).to_le_bytes());
        body.extend(opaque);
        body
    }

    pub fn signed_by(&self, key: &Key) -> Vec<u8> {
        sign(self.body(), key)
    }
}

pub fn sign(mut body: Vec<u8>, key: &Key) -> Vec<u8> {
    let signature = key.sign_fixed(&body);
    body.extend(signature);
    body
}

pub const SWID: &str = "http://standards.iso.org/iso/19770/-2/2015/schema.xsd";
pub const DSIG: &str = "http://www.w3.org/2000/09/xmldsig#";
pub const HASH: &str = "http://www.w3.org/2001/04/xmlenc#sha384";
const TCG: &str = "https://trustedcomputinggroup.org/resource/tcg-reference-integrity-manifest-rim-information-model/";
/// Where the signature goes.
pub const SIGNATURE: &str = "{signature}";

/// A manifest in canonical form.
#[derive(Clone)]
pub struct Manifest {
    pub product: &'static str,
    pub edition: &'static str,
    pub version: String,
    pub resources: Vec<String>,
    pub signed_info: String,
    pub key_info: String,
    /// From and to, in the whole text before it is signed.
    pub edits: Vec<(String, String)>,
}

impl Manifest {
    pub fn new(edition: &'static str, version: &str, active: &[usize]) -> Self {
        let resources = active
            .iter()
            .map(|index| resource(*index, "True", &[[*index as u8; 48]]))
            .chain([resource(60, "False", &[[0; 48]])])
            .collect();
        let signed_info = [
            "<ds:SignedInfo><ds:CanonicalizationMethod \
             Algorithm=\"http://www.w3.org/2006/12/xml-c14n11\"></ds:CanonicalizationMethod>",
            "<ds:SignatureMethod Algorithm=\"http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384\">\
             </ds:SignatureMethod><ds:Reference URI=\"\"><ds:Transforms>",
            "<ds:Transform Algorithm=\"http://www.w3.org/2000/09/xmldsig#enveloped-signature\">\
             </ds:Transform>",
            "<ds:Transform Algorithm=\"http://www.w3.org/2006/12/xml-c14n11\"></ds:Transform>",
            "</ds:Transforms><ds:DigestMethod \
             Algorithm=\"http://www.w3.org/2001/04/xmldsig-more#sha384\"></ds:DigestMethod>",
            "<ds:DigestValue>{digest}</ds:DigestValue></ds:Reference></ds:SignedInfo>",
        ]
        .concat();
        let key_info =
            "<ds:KeyInfo><ds:X509Data>{certificates}</ds:X509Data></ds:KeyInfo>".to_string();
        Self {
            product: "GH100",
            edition,
            version: version.to_string(),
            resources,
            signed_info,
            key_info,
            edits: Vec::new(),
        }
    }

    /// Of indexes 1 to 4 and of the video decoder, which is off.
    pub fn driver() -> Self {
        Self::new("GPU", DRIVER, &[1, 2, 3, 4, 35])
    }

    pub fn vbios() -> Self {
        Self::new("GPU", VBIOS, &[5, 6, 7, 8, 40])
    }

    pub fn switch() -> Self {
        Self { product: "LS10", ..Self::new("SWITCH", "96.10.73.00.01", &[3]) }
    }

    pub fn edit(mut self, from: &str, to: &str) -> Self {
        self.edits.push((from.to_string(), to.to_string()));
        self
    }

    /// The text, with [`SIGNATURE`] where the signature goes.
    fn body(&self) -> String {
        let Self { product, edition, version, .. } = self;
        let resources = self.resources.concat();
        let text = format!(
            "<SoftwareIdentity xmlns=\"{SWID}\" xmlns:ns0=\"{SWID}\" xmlns:ns2=\"{HASH}\" \
             name=\"{product}\">\n<ns0:Entity name=\"NVIDIA Corporation\"></ns0:Entity>\n\
             <ns0:Meta xmlns:ns1=\"{TCG}\" colloquialVersion=\"{version}\" edition=\"{edition}\" \
             product=\"{product}\" ns1:FirmwareManufacturerId=\"5703\"></ns0:Meta>\n\
             <ns0:Payload>\n{resources}</ns0:Payload>\n{SIGNATURE}</SoftwareIdentity>"
        );
        self.edits.iter().fold(text, |text, (from, to)| {
            assert!(text.contains(from), "{from}");
            text.replacen(from, to, 1)
        })
    }
}

pub fn resource(index: usize, active: &str, hashes: &[[u8; 48]]) -> String {
    let mut list: Vec<(String, String)> = hashes
        .iter()
        .enumerate()
        .map(|(at, hash)| (format!("Hash{at}"), hex::encode(hash)))
        .collect();
    // Canonical order is by name: Hash10 stands before Hash2.
    list.sort_unstable();
    let list: Vec<_> = list.iter().map(|(name, hash)| format!("ns2:{name}=\"{hash}\"")).collect();
    let list = list.join(" ");
    format!(
        "<ns0:Resource active=\"{active}\" alternatives=\"{}\" index=\"{index}\" \
         name=\"Measurement_{index}\" size=\"48\" type=\"Measurement\" {list}></ns0:Resource>\n",
        hashes.len()
    )
}

pub fn revocation_list(issuer: &Party, window: (u64, u64), serials: &[&[u8]]) -> Vec<u8> {
    revocation_list_by(&issuer.name, &issuer.key, window, serials)
}

pub fn revocation_list_by(
    issuer: &[u8],
    key: &Key,
    (this, next): (u64, u64),
    serials: &[&[u8]],
) -> Vec<u8> {
    let entries: Vec<u8> =
        serials.iter().flat_map(|serial| seq(&[&tlv(0x02, serial), &time(this)])).collect();
    let entries = if entries.is_empty() { Vec::new() } else { seq(&[&entries]) };
    let algorithm = hex(ECDSA_SHA384);
    let tbs = seq(&[&tlv(0x02, &[1]), &algorithm, issuer, &time(this), &time(next), &entries]);
    seq(&[&tbs, &algorithm, &bits(&key.sign(&tbs))])
}

/// An OCSP answer.
pub struct Ocsp<'a> {
    pub of: &'a Party,
    pub issuer: &'a Party,
    /// Signs instead of the issuer.
    pub responder: Option<&'a Party>,
    pub status: Vec<u8>,
    pub window: (u64, Option<u64>),
    /// Of the digest in the certificate's id.
    pub hash: &'static ring::digest::Algorithm,
    pub singles: usize,
    /// What it says of the same certificate after that, if it says more.
    pub then: Vec<u8>,
    pub forged: bool,
}

impl<'a> Ocsp<'a> {
    pub fn good(of: &'a Party, issuer: &'a Party) -> Self {
        Self {
            of,
            issuer,
            responder: None,
            status: vec![0x80, 0],
            window: (NOW - 10, Some(NOW + 10)),
            hash: &ring::digest::SHA384,
            singles: 1,
            then: Vec::new(),
            forged: false,
        }
    }

    pub fn revoked(reason: Option<u8>) -> Vec<u8> {
        let reason = reason.map(|code| tlv(0xa0, &tlv(0x0a, &[code]))).unwrap_or_default();
        tlv(0xa1, &[generalized(NOW - 5), reason].concat())
    }

    pub fn answer(&self) -> Vec<u8> {
        let hash = |bytes: &[u8]| tlv(0x04, ring::digest::digest(self.hash, bytes).as_ref());
        let oid = if *self.hash == ring::digest::SHA1_FOR_LEGACY_USE_ONLY {
            "300906052b0e03021a0500"
        } else if *self.hash == ring::digest::SHA256 {
            "300d06096086480165030402010500"
        } else {
            "300b0609608648016503040202"
        };
        let id = seq(&[
            &hex(oid),
            &hash(&self.issuer.name),
            &hash(&self.issuer.key.public()),
            &tlv(0x02, &self.of.serial),
        ]);
        let next = self.window.1.map(|next| tlv(0xa0, &generalized(next))).unwrap_or_default();
        let single = |status: &[u8]| seq(&[&id, status, &generalized(self.window.0), &next]);
        let then = if self.then.is_empty() { Vec::new() } else { single(&self.then) };
        let singles = [single(&self.status).repeat(self.singles), then].concat();
        let signer = self.responder.unwrap_or(self.issuer);
        let nonce = extension("2b0601050507300102", &tlv(0x04, &[7; 16]));
        let data = seq(&[
            &tlv(0xa1, &signer.name),
            &generalized(self.window.0),
            &seq(&[&singles]),
            &tlv(0xa1, &seq(&[&nonce])),
        ]);
        let stranger = Key::new();
        let key = if self.forged { &stranger } else { &signer.key };
        let certificates =
            self.responder.map(|responder| tlv(0xa0, &seq(&[&responder.der]))).unwrap_or_default();
        let basic = seq(&[&data, &hex(ECDSA_SHA384), &bits(&key.sign(&data)), &certificates]);
        let bytes = seq(&[&hex("06092b0601050507300101"), &tlv(0x04, &basic)]);
        seq(&[&tlv(0x0a, &[0]), &tlv(0xa0, &bytes)])
    }
}

/// A responder that `issuer` certified.
pub fn responder(issuer: &Party, change: Change<'_>) -> Party {
    let usage = extension("551d25", &hex("300a06082b06010505070309"));
    let name = name("NVIDIA OCSP Responder", None);
    Party::new("responder", name, Some(issuer), true, usage, Key::new(), change)
}

pub fn generalized(unix: u64) -> Vec<u8> {
    let time = der::asn1::GeneralizedTime::from_unix_duration(std::time::Duration::from_secs(unix));
    der::Encode::to_der(&time.unwrap()).unwrap()
}
