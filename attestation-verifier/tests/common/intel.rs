//! A simulated Intel hierarchy: root, PCK CA, PCK, TCB signer, revocation lists, collateral, and the quotes
//! of one platform. All keys are drawn anew; one thing is changed per test.

use base64ct::{Base64, Encoding};
use measurement::digest::sha256;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
};
use serde_json::{Value, json};

use super::amd::{LAUNCH_BLOB, NOW, bits, hex, seq, time, tlv};

pub const FMSPC: [u8; 6] = [0x54, 0x45, 0x53, 0x54, 0, 0];
pub const PPID: [u8; 16] = [0x70; 16];
pub const INSTANCE: [u8; 16] = [0x71; 16];
const QE_SIGNER: [u8; 32] = [0xdc; 32];
const VENDOR: [u8; 16] = [
    0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07,
];

/// Who signs something.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum By {
    Root,
    Ca,
    Pck,
    Signer,
    Stranger,
}

type Edit<T> = Vec<Box<dyn Fn(&mut T)>>;

/// What the hierarchy, its collateral and the quote say.
pub struct Shape {
    pub version: u16,
    pub body_type: u16,
    pub pck_name: &'static str,
    pub ca_name: &'static str,
    pub signer_name: &'static str,
    pub pck_dates: (u64, u64),
    pub ca_dates: (u64, u64),
    pub signer_dates: (u64, u64),
    pub root_dates: (u64, u64),
    pub ca_is_authority: bool,
    pub pck_by: By,
    pub fmspc: [u8; 6],
    pub pce_id: [u8; 2],
    pub pce_svn: u8,
    pub cpu_svn: [u8; 16],
    pub root_list: (u64, u64, Vec<u8>),
    pub ca_list: (u64, u64, Vec<u8>),
    pub root_list_by: By,
    pub ca_list_by: By,
    pub tcb_info_by: By,
    pub qe_identity_by: By,
    pub quote_by: By,
    pub qe_by: By,
    /// Header and body before the signature.
    pub header: Edit<Vec<u8>>,
    pub body: Edit<Vec<u8>>,
    /// The quoting enclave's report before the signature.
    pub qe: Edit<Vec<u8>>,
    /// The documents before the signature.
    pub tcb_info: Edit<String>,
    pub qe_identity: Edit<String>,
    /// The PEM inside the quote.
    pub pem: Edit<String>,
    /// The whole quote, and the collateral, when all is signed.
    pub quote: Edit<Vec<u8>>,
    pub collateral: Edit<Value>,
}

impl Default for Shape {
    fn default() -> Self {
        let dates = (NOW - 1000, NOW + 1000);
        Self {
            version: 4,
            body_type: 2,
            pck_name: "Intel SGX PCK Certificate",
            ca_name: "Intel SGX PCK Platform CA",
            signer_name: "Intel SGX TCB Signing",
            pck_dates: dates,
            ca_dates: dates,
            signer_dates: dates,
            root_dates: (NOW - 1_000_000, NOW + 1_000_000),
            ca_is_authority: true,
            pck_by: By::Ca,
            fmspc: FMSPC,
            pce_id: [0, 0],
            pce_svn: 13,
            cpu_svn: [4, 4, 2, 2, 4, 1, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0],
            root_list: (NOW - 10, NOW + 10, Vec::new()),
            ca_list: (NOW - 10, NOW + 10, Vec::new()),
            root_list_by: By::Root,
            ca_list_by: By::Ca,
            tcb_info_by: By::Signer,
            qe_identity_by: By::Signer,
            quote_by: By::Signer,
            qe_by: By::Pck,
            header: Vec::new(),
            body: Vec::new(),
            qe: Vec::new(),
            tcb_info: Vec::new(),
            qe_identity: Vec::new(),
            pem: Vec::new(),
            quote: Vec::new(),
            collateral: Vec::new(),
        }
    }
}

/// A quote and its collateral.
pub struct Platform {
    pub root: Vec<u8>,
    pub quote: Vec<u8>,
    pub collateral: Vec<u8>,
}

impl Platform {
    #[expect(
        clippy::too_many_lines,
        reason = "it makes one certificate, list and document after another"
    )]
    pub fn new(shape: &Shape) -> Self {
        let keys = Keys::draw();
        let authority = |yes: bool| {
            let constraints = if yes { "30030101ff" } else { "3000" };
            let usage = if yes { "03020106" } else { "030206c0" };
            let critical = hex("0101ff");
            [
                seq(&[&hex("0603551d0f"), &critical, &tlv(0x04, &hex(usage))]),
                seq(&[&hex("0603551d13"), &critical, &tlv(0x04, &hex(constraints))]),
            ]
            .concat()
        };
        let root_name = "Intel SGX Root CA";
        let certify = |subject, serial, dates, key: &Key, extensions: &[u8], issuer, by: By| {
            certificate((issuer, subject), serial, dates, key, extensions, keys.of(by))
        };
        let root = certify(
            root_name,
            1,
            shape.root_dates,
            &keys.root,
            &authority(true),
            root_name,
            By::Root,
        );
        let ca = certify(
            shape.ca_name,
            2,
            shape.ca_dates,
            &keys.ca,
            &authority(shape.ca_is_authority),
            root_name,
            By::Root,
        );
        let signer = certify(
            shape.signer_name,
            3,
            shape.signer_dates,
            &keys.signer,
            &authority(false),
            root_name,
            By::Root,
        );
        let extensions = [authority(false), sgx_extension(shape)].concat();
        let pck = certify(
            shape.pck_name,
            4,
            shape.pck_dates,
            &keys.pck,
            &extensions,
            shape.ca_name,
            shape.pck_by,
        );

        let mut chain = pem(&pck) + &pem(&ca) + &pem(&root);
        apply(&shape.pem, &mut chain);
        let mut quote = quote(shape, &keys, &chain);
        apply(&shape.quote, &mut quote);
        let list = |issuer, (this, next, serials): &(u64, u64, Vec<u8>), by| {
            hex::encode(revocation_list(issuer, (*this, *next), serials, keys.of(by)))
        };
        let (mut tcb_info, mut qe_identity) = (tcb_info(), qe_identity());
        apply(&shape.tcb_info, &mut tcb_info);
        apply(&shape.qe_identity, &mut qe_identity);
        let sign = |by, text: &str| hex::encode(keys.of(by).sign(text.as_bytes()));
        let mut collateral = json!({
            "pck_crl_issuer_chain": pem(&ca) + &pem(&root),
            "root_ca_crl": list(root_name, &shape.root_list, shape.root_list_by),
            "pck_crl": list(shape.ca_name, &shape.ca_list, shape.ca_list_by),
            "tcb_info_issuer_chain": pem(&signer) + &pem(&root),
            "tcb_info_signature": sign(shape.tcb_info_by, &tcb_info),
            "tcb_info": tcb_info,
            "qe_identity_issuer_chain": pem(&signer) + &pem(&root),
            "qe_identity_signature": sign(shape.qe_identity_by, &qe_identity),
            "qe_identity": qe_identity,
        });
        apply(&shape.collateral, &mut collateral);
        Self { root, quote, collateral: serde_json::to_vec(&collateral).unwrap() }
    }

    /// The strict policy, believing this hierarchy as a simulated root.
    pub fn policy(&self) -> String {
        let strict = attestation_verifier::policy::STRICT;
        attestation_verifier::policy::with_root(
            strict,
            "test",
            "simulated",
            "tdx",
            &pem(&self.root),
        )
    }
}

fn apply<T>(edits: &Edit<T>, value: &mut T) {
    edits.iter().for_each(|edit| edit(value));
}

struct Key {
    fixed: EcdsaKeyPair,
    asn1: EcdsaKeyPair,
}

impl Key {
    fn draw() -> Self {
        let random = SystemRandom::new();
        let pkcs8 =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let pair =
            |algorithm| EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).unwrap();
        Self {
            fixed: pair(&ECDSA_P256_SHA256_FIXED_SIGNING),
            asn1: pair(&ECDSA_P256_SHA256_ASN1_SIGNING),
        }
    }

    /// `r || s`.
    fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.fixed.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
    }

    fn sign_der(&self, message: &[u8]) -> Vec<u8> {
        self.asn1.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
    }

    fn point(&self) -> &[u8] {
        self.fixed.public_key().as_ref()
    }
}

struct Keys {
    root: Key,
    ca: Key,
    pck: Key,
    signer: Key,
    attestation: Key,
    stranger: Key,
}

impl Keys {
    fn draw() -> Self {
        Self {
            root: Key::draw(),
            ca: Key::draw(),
            pck: Key::draw(),
            signer: Key::draw(),
            attestation: Key::draw(),
            stranger: Key::draw(),
        }
    }

    fn of(&self, by: By) -> &Key {
        match by {
            By::Root => &self.root,
            By::Ca => &self.ca,
            By::Pck => &self.pck,
            By::Signer => &self.signer,
            By::Stranger => &self.stranger,
        }
    }
}

fn quote(shape: &Shape, keys: &Keys, chain: &str) -> Vec<u8> {
    let mut header = vec![0; 48];
    header[0] = shape.version as u8;
    header[2] = 2;
    header[4] = 0x81;
    header[12..28].copy_from_slice(&VENDOR);
    apply(&shape.header, &mut header);
    let size = match shape.body_type {
        2 => 584,
        3 => 648,
        _ => 885,
    };
    let mut body = vec![0; size];
    body[0..3].copy_from_slice(&[11, 1, 4]);
    body[0x10..0x40].fill(0x5e);
    body[0x78..0x80].copy_from_slice(&0x1000_0000_u64.to_le_bytes());
    body[0x80..0x88].copy_from_slice(&0x0006_02e7_u64.to_le_bytes());
    body[0x88..0xb8].fill(0x11);
    body[0xb8..0xe8].copy_from_slice(&measurement::launch::blob::mr_config_id(LAUNCH_BLOB));
    body[0x148..0x178].fill(0x20);
    body[0x178..0x1a8].fill(0x21);
    body[0x1a8..0x1d8].fill(0x22);
    body[0x208..0x248].fill(0x77);
    if size > 584 {
        body[0x248..0x24b].copy_from_slice(&[11, 1, 4]);
    }
    apply(&shape.body, &mut body);
    let mut signed = header;
    if shape.version == 5 {
        signed.extend(shape.body_type.to_le_bytes());
        signed.extend((size as u32).to_le_bytes());
    }
    signed.extend(body);

    let point = &keys.attestation.point()[1..];
    let authentication = [0x0a; 32];
    let mut qe = vec![0; 384];
    qe[0..16].copy_from_slice(&shape.cpu_svn);
    qe[48..57].copy_from_slice(&[0x15, 0, 0, 0, 0, 0, 0, 0, 0xe7]);
    qe[64..96].fill(0x51);
    qe[128..160].copy_from_slice(&QE_SIGNER);
    qe[256] = 2;
    qe[258] = 6;
    qe[320..352].copy_from_slice(&sha256(&[point, &authentication].concat()));
    apply(&shape.qe, &mut qe);
    let quote_key = match shape.quote_by {
        By::Stranger => &keys.stranger,
        _ => &keys.attestation,
    };
    let certification = [
        &qe[..],
        &keys.of(shape.qe_by).sign(&qe),
        &32_u16.to_le_bytes(),
        &authentication,
        &typed(5, chain.as_bytes()),
    ]
    .concat();
    let rest = [&quote_key.sign(&signed)[..], point, &typed(6, &certification)].concat();
    [&signed[..], &(rest.len() as u32).to_le_bytes(), &rest].concat()
}

fn typed(kind: u16, data: &[u8]) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &(data.len() as u32).to_le_bytes(), data].concat()
}

const SGX: &str = "2a864886f84d010d01";

fn sgx_extension(shape: &Shape) -> Vec<u8> {
    let field = |arc: &str, value: &[u8]| seq(&[&tlv(0x06, &hex(&format!("{SGX}{arc}"))), value]);
    let number = |value: u8| tlv(0x02, &[value]);
    let mut tcb: Vec<u8> = shape
        .cpu_svn
        .iter()
        .zip(1_u8..)
        .flat_map(|(svn, at)| field(&format!("02{at:02x}"), &number(*svn)))
        .collect();
    tcb.extend(field("0211", &number(shape.pce_svn)));
    tcb.extend(field("0212", &tlv(0x04, &shape.cpu_svn)));
    let yes = tlv(0x01, &[0xff]);
    let flags: Vec<u8> = (1..=3).flat_map(|at: u8| field(&format!("07{at:02x}"), &yes)).collect();
    let value = seq(&[
        &field("01", &tlv(0x04, &PPID)),
        &field("02", &seq(&[&tcb])),
        &field("03", &tlv(0x04, &shape.pce_id)),
        &field("04", &tlv(0x04, &shape.fmspc)),
        &field("05", &tlv(0x0a, &[1])),
        &field("06", &tlv(0x04, &INSTANCE)),
        &field("07", &seq(&[&flags])),
    ]);
    seq(&[&tlv(0x06, &hex(SGX)), &tlv(0x04, &value)])
}

const ECDSA_WITH_SHA256: &str = "300a06082a8648ce3d040302";
const P256: &str = "301306072a8648ce3d020106082a8648ce3d030107";

fn certificate(
    (issuer, subject): (&str, &str),
    serial: u8,
    (from, until): (u64, u64),
    key: &Key,
    extensions: &[u8],
    signer: &Key,
) -> Vec<u8> {
    let tbs = seq(&[
        &tlv(0xa0, &tlv(0x02, &[2])),
        &tlv(0x02, &[serial]),
        &hex(ECDSA_WITH_SHA256),
        &name(issuer),
        &seq(&[&time(from), &time(until)]),
        &name(subject),
        &seq(&[&hex(P256), &bits(key.point())]),
        &tlv(0xa3, &seq(&[extensions])),
    ]);
    signed(&tbs, signer)
}

fn revocation_list(
    issuer: &str,
    (this, next): (u64, u64),
    serials: &[u8],
    signer: &Key,
) -> Vec<u8> {
    let entries: Vec<u8> =
        serials.iter().flat_map(|serial| seq(&[&tlv(0x02, &[*serial]), &time(this)])).collect();
    let entries = if entries.is_empty() { Vec::new() } else { seq(&[&entries]) };
    let number = seq(&[&hex("0603551d14"), &tlv(0x04, &tlv(0x02, &[1]))]);
    let tbs = seq(&[
        &tlv(0x02, &[1]),
        &hex(ECDSA_WITH_SHA256),
        &name(issuer),
        &time(this),
        &time(next),
        &entries,
        &tlv(0xa0, &seq(&[&number])),
    ]);
    signed(&tbs, signer)
}

fn signed(tbs: &[u8], signer: &Key) -> Vec<u8> {
    seq(&[tbs, &hex(ECDSA_WITH_SHA256), &bits(&signer.sign_der(tbs))])
}

fn name(common: &str) -> Vec<u8> {
    seq(&[&tlv(0x31, &seq(&[&hex("0603550403"), &tlv(0x0c, common.as_bytes())]))])
}

pub fn pem(der: &[u8]) -> String {
    let text = Base64::encode_string(der);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).map(|line| core::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

fn instant(seconds: u64) -> String {
    der::DateTime::from_unix_duration(std::time::Duration::from_secs(seconds)).unwrap().to_string()
}

fn tcb_info() -> String {
    let level = |svns: [u8; 8], tdx: [u8; 3], pce: u8, status: &str, advisories: &[&str]| {
        let component = |svn: &u8| json!({ "svn": svn });
        let sgx: Vec<_> = svns.iter().chain(&[0; 8]).map(component).collect();
        let tdx: Vec<_> = tdx.iter().chain(&[0; 13]).map(component).collect();
        json!({
            "tcb": { "sgxtcbcomponents": sgx, "pcesvn": pce, "tdxtcbcomponents": tdx },
            "tcbDate": "2026-02-11T00:00:00Z", "tcbStatus": status, "advisoryIDs": advisories,
        })
    };
    let module = |svn: u8, status: &str| {
        json!({
            "tcb": { "isvsvn": svn }, "tcbDate": "2026-02-11T00:00:00Z", "tcbStatus": status,
        })
    };
    json!({
        "id": "TDX", "version": 3, "issueDate": instant(NOW - 20), "nextUpdate": instant(NOW + 20),
        "fmspc": hex::encode(FMSPC), "pceId": "0000", "tcbType": 0,
        "tcbEvaluationDataNumber": 20,
        "tdxModule": {
            "mrsigner": "00".repeat(48), "attributes": "00".repeat(8),
            "attributesMask": "FF".repeat(8),
        },
        "tdxModuleIdentities": [{
            "id": "TDX_01", "mrsigner": "00".repeat(48), "attributes": "00".repeat(8),
            "attributesMask": "FF".repeat(8),
            "tcbLevels": [module(11, "UpToDate"), module(6, "OutOfDate"), module(5, "Revoked")],
        }],
        "tcbLevels": [
            level([4, 4, 2, 2, 4, 1, 0, 5], [5, 0, 4], 13, "UpToDate", &[]),
            level([3, 4, 2, 2, 4, 1, 0, 5], [5, 0, 4], 13, "SWHardeningNeeded", &["INTEL-SA-00001"]),
            level([3, 3, 2, 2, 4, 1, 0, 5], [5, 0, 3], 13, "OutOfDate", &["INTEL-SA-01397"]),
            level([2, 2, 2, 2, 4, 1, 0, 5], [5, 0, 2], 11, "Revoked", &["INTEL-SA-01397"]),
        ],
    })
    .to_string()
}

fn qe_identity() -> String {
    json!({
        "id": "TD_QE", "version": 2, "issueDate": instant(NOW - 20),
        "nextUpdate": instant(NOW + 20), "tcbEvaluationDataNumber": 20,
        "miscselect": "00000000", "miscselectMask": "FFFFFFFF",
        "attributes": "11000000000000000000000000000000",
        "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000",
        "mrsigner": hex::encode_upper(QE_SIGNER), "isvprodid": 2,
        "tcbLevels": [
            {
                "tcb": { "isvsvn": 6 }, "tcbDate": "2026-02-11T00:00:00Z", "tcbStatus": "UpToDate",
            },
            {
                "tcb": { "isvsvn": 5 }, "tcbDate": "2024-02-11T00:00:00Z", "tcbStatus": "OutOfDate",
                "advisoryIDs": ["INTEL-SA-00615"],
            },
            {
                "tcb": { "isvsvn": 4 }, "tcbDate": "2023-02-11T00:00:00Z", "tcbStatus": "Revoked",
            },
        ],
    })
    .to_string()
}
