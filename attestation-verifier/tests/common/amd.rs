//! A simulated AMD hierarchy: ARK, ASK and VCEK, a revocation list, and reports it signs. The two
//! RSA keys under `keys/` exist for these tests only
//! (`openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048`).

use std::sync::OnceLock;

use base64ct::{Base64, Encoding};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PSS_SHA384, RsaKeyPair,
};

pub const NOW: u64 = 1_780_000_000;
pub const LAUNCH_BLOB: &[u8] = b"launch blob";

pub const PSS: &str = "304106092a864886f70d01010a3034a00f300d06096086480165030402020500a11c301a06092a\
                   864886f70d010108300d06096086480165030402020500a203020130";
/// The same with 32 bytes of salt.
pub const PSS_SHORT_SALT: &str = "304106092a864886f70d01010a3034a00f300d06096086480165030402020500\
                                  a11c301a06092a864886f70d010108300d06096086480165030402020500a2\
                                  03020120";
const RSA: &str = "300d06092a864886f70d0101010500";
const P384: &str = "301006072a8648ce3d020106052b81040022";
const CHIP: [u8; 64] = [0x5a; 64];

/// What a certificate or revocation list of the hierarchy says. One thing is changed per test.
#[derive(Clone)]
pub struct Shape {
    pub ark_name: &'static str,
    pub ask_name: &'static str,
    pub key_name: &'static str,
    pub ask_dates: (u64, u64),
    pub key_dates: (u64, u64),
    pub ask_is_authority: bool,
    /// What the intermediate certificate, the key's and the list say they are signed with.
    pub algorithms: [&'static str; 3],
    /// Further extensions of the intermediate certificate, the key's and the list, in DER.
    pub further: [Vec<u8>; 3],
    /// OID arcs after 1.3.6.1.4.1.3704.1 (in hex) and extension values.
    pub extensions: Vec<(&'static str, Vec<u8>)>,
    pub crl: Option<(u64, u64, Vec<u8>)>,
    pub crl_by_ask: bool,
    pub ask_signed_by_itself: bool,
}

impl Default for Shape {
    fn default() -> Self {
        let number = |value: u8| vec![0x02, 0x01, value];
        Self {
            ark_name: "ARK-Genoa",
            ask_name: "SEV-Genoa",
            key_name: "SEV-VCEK",
            ask_dates: (NOW - 1000, NOW + 1000),
            key_dates: (NOW - 1000, NOW + 1000),
            ask_is_authority: true,
            algorithms: [PSS; 3],
            further: [const { Vec::new() }; 3],
            extensions: vec![
                ("01", number(0)),
                ("02", [&[0x16, 5][..], b"Genoa"].concat()),
                ("0301", number(10)),
                ("0302", number(0)),
                ("0303", number(23)),
                ("0308", number(84)),
                ("04", CHIP.to_vec()),
            ],
            crl: Some((NOW - 10, NOW + 10, Vec::new())),
            crl_by_ask: false,
            ask_signed_by_itself: false,
        }
    }
}

pub struct Hierarchy {
    pub ark: Vec<u8>,
    pub ask: Vec<u8>,
    pub vcek: Vec<u8>,
    pub crl: Option<Vec<u8>>,
    key: EcdsaKeyPair,
}

impl Hierarchy {
    pub fn new(shape: &Shape) -> Self {
        let (ark_key, ask_key) = (rsa(0), rsa(1));
        let key = ecdsa();
        let decade = (NOW - 1_000_000, NOW + 1_000_000);
        let ark = certificate(
            (shape.ark_name, shape.ark_name),
            1,
            decade,
            &rsa_spki(ark_key),
            &authority(true),
            (ark_key, PSS),
        );
        let [ask_algorithm, key_algorithm, crl_algorithm] = shape.algorithms;
        let [ask_further, key_further, crl_further] = &shape.further;
        let ask_signer = if shape.ask_signed_by_itself { ask_key } else { ark_key };
        let ask = certificate(
            (shape.ark_name, shape.ask_name),
            2,
            shape.ask_dates,
            &rsa_spki(ask_key),
            &[authority(shape.ask_is_authority), ask_further.clone()].concat(),
            (ask_signer, ask_algorithm),
        );
        let spki = seq(&[&hex(P384), &bits(key.public_key().as_ref())]);
        let extensions: Vec<u8> = shape
            .extensions
            .iter()
            .flat_map(|(arcs, value)| {
                let id = [&hex("2b060104019c7801")[..], &hex(arcs)].concat();
                seq(&[&tlv(0x06, &id), &tlv(0x04, value)])
            })
            .collect();
        let extensions = [extensions, key_further.clone()].concat();
        let names = (shape.ask_name, shape.key_name);
        let signer = (ask_key, key_algorithm);
        let vcek = certificate(names, 0, shape.key_dates, &spki, &extensions, signer);
        let crl_signer = if shape.crl_by_ask { ask_key } else { ark_key };
        let crl = shape.crl.as_ref().map(|(this, next, serials)| {
            let signer = (crl_signer, crl_algorithm);
            revocation_list(shape.ark_name, (*this, *next), serials, crl_further, signer)
        });
        Self { ark, ask, vcek, crl, key }
    }

    pub fn endorsements(&self) -> Vec<Vec<u8>> {
        let mut all = vec![self.vcek.clone(), self.ask.clone(), self.ark.clone()];
        all.extend(self.crl.clone());
        all
    }

    /// The strict policy, believing this hierarchy as a simulated root.
    pub fn policy(&self) -> String {
        self.policy_from(attestation_verifier::policy::STRICT)
    }

    pub fn policy_from(&self, policy: &str) -> String {
        let pem = format!(
            "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----",
            Base64::encode_string(&self.ark)
        );
        attestation_verifier::policy::with_root(policy, "test", "simulated", "snp", &pem)
    }

    /// Signs the golden report after `change`.
    pub fn report(&self, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
        let mut report = golden();
        change(&mut report[..0x2a0]);
        self.sign(&mut report);
        report
    }

    pub fn sign(&self, report: &mut [u8]) {
        let signature = self.key.sign(&SystemRandom::new(), &report[..0x2a0]).unwrap();
        for (at, half) in [(0x2a0, 0..48), (0x2e8, 48..96)] {
            for (index, byte) in signature.as_ref()[half].iter().rev().enumerate() {
                report[at + index] = *byte;
            }
        }
    }
}

/// A version 5 report of a Genoa that the strict policy accepts, not signed yet.
fn golden() -> Vec<u8> {
    let mut report = vec![0; 1184];
    let mut put = |at: usize, bytes: &[u8]| report[at..at + bytes.len()].copy_from_slice(bytes);
    let tcb = [10, 0, 0, 0, 0, 0, 23, 84];
    put(0x000, &[5]);
    put(0x008, &0x3_0000_u64.to_le_bytes());
    put(0x034, &[1]);
    put(0x038, &tcb);
    put(0x040, &[0x25]);
    put(0x050, &[0x77; 64]);
    put(0x090, &[0x11; 48]);
    put(0x0c0, &measurement::digest::sha256(LAUNCH_BLOB));
    put(0x160, &[0xff; 32]);
    put(0x180, &tcb);
    put(0x188, &[0x19, 0x11, 1]);
    put(0x1a0, &CHIP);
    put(0x1e0, &tcb);
    put(0x1e8, &[49, 55, 1, 0, 49, 55, 1, 0]);
    put(0x1f0, &tcb);
    put(0x1f8, &[2]);
    put(0x200, &[2]);
    report
}

fn rsa(index: usize) -> &'static RsaKeyPair {
    static KEYS: OnceLock<[RsaKeyPair; 2]> = OnceLock::new();
    &KEYS.get_or_init(|| {
        let files: [&[u8]; 2] =
            [include_bytes!("../keys/ark.pk8"), include_bytes!("../keys/ask.pk8")];
        files.map(|der| RsaKeyPair::from_pkcs8(der).unwrap())
    })[index]
}

fn ecdsa() -> EcdsaKeyPair {
    let random = SystemRandom::new();
    let algorithm = &ECDSA_P384_SHA384_FIXED_SIGNING;
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
    EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).unwrap()
}

fn certificate(
    (issuer, subject): (&str, &str),
    serial: u8,
    (from, until): (u64, u64),
    spki: &[u8],
    extensions: &[u8],
    (signer, algorithm): (&RsaKeyPair, &str),
) -> Vec<u8> {
    let tbs = seq(&[
        &tlv(0xa0, &tlv(0x02, &[2])),
        &tlv(0x02, &[serial]),
        &hex(algorithm),
        &name(issuer),
        &seq(&[&time(from), &time(until)]),
        &name(subject),
        spki,
        &tlv(0xa3, &seq(&[extensions])),
    ]);
    signed(&tbs, signer, algorithm)
}

fn revocation_list(
    issuer: &str,
    (this, next): (u64, u64),
    serials: &[u8],
    extensions: &[u8],
    (signer, algorithm): (&RsaKeyPair, &str),
) -> Vec<u8> {
    let entries: Vec<u8> =
        serials.iter().flat_map(|serial| seq(&[&tlv(0x02, &[*serial]), &time(this)])).collect();
    let entries = if entries.is_empty() { Vec::new() } else { seq(&[&entries]) };
    let extensions =
        if extensions.is_empty() { Vec::new() } else { tlv(0xa0, &seq(&[extensions])) };
    let tbs = seq(&[
        &tlv(0x02, &[1]),
        &hex(algorithm),
        &name(issuer),
        &time(this),
        &time(next),
        &entries,
        &extensions,
    ]);
    signed(&tbs, signer, algorithm)
}

fn signed(tbs: &[u8], signer: &RsaKeyPair, algorithm: &str) -> Vec<u8> {
    let mut signature = vec![0; signer.public().modulus_len()];
    signer.sign(&RSA_PSS_SHA384, &SystemRandom::new(), tbs, &mut signature).unwrap();
    seq(&[tbs, &hex(algorithm), &bits(&signature)])
}

fn authority(yes: bool) -> Vec<u8> {
    let constraints: &str = if yes { "30030101ff" } else { "3000" };
    let critical = hex("0101ff");
    [
        seq(&[&hex("0603551d13"), &critical, &tlv(0x04, &hex(constraints))]),
        seq(&[&hex("0603551d0f"), &critical, &tlv(0x04, &hex("03020106"))]),
    ]
    .concat()
}

fn rsa_spki(key: &RsaKeyPair) -> Vec<u8> {
    seq(&[&hex(RSA), &bits(key.public_key().as_ref())])
}

/// AMD's own distinguished name with another common name.
fn name(common: &str) -> Vec<u8> {
    let part = |id: &str, tag: u8, text: &str| {
        let attribute = seq(&[&hex(id), &tlv(tag, text.as_bytes())]);
        tlv(0x31, &attribute)
    };
    seq(&[
        &part("060355040b", 0x0c, "Engineering"),
        &part("0603550406", 0x13, "US"),
        &part("0603550407", 0x0c, "Santa Clara"),
        &part("0603550408", 0x0c, "CA"),
        &part("060355040a", 0x0c, "Advanced Micro Devices"),
        &part("0603550403", 0x0c, common),
    ])
}

pub fn time(unix: u64) -> Vec<u8> {
    let time =
        der::asn1::UtcTime::from_unix_duration(std::time::Duration::from_secs(unix)).unwrap();
    der::Encode::to_der(&time).unwrap()
}

pub fn bits(bytes: &[u8]) -> Vec<u8> {
    tlv(0x03, &[&[0], bytes].concat())
}

pub fn seq(parts: &[&[u8]]) -> Vec<u8> {
    tlv(0x30, &parts.concat())
}

pub fn tlv(tag: u8, value: &[u8]) -> Vec<u8> {
    let len = value.len();
    let header = match len {
        0..=0x7f => vec![tag, len as u8],
        0x80..=0xff => vec![tag, 0x81, len as u8],
        _ => vec![tag, 0x82, (len >> 8) as u8, len as u8],
    };
    [header, value.to_vec()].concat()
}

pub fn hex(text: &str) -> Vec<u8> {
    hex::decode(text.split_whitespace().collect::<String>()).unwrap()
}
