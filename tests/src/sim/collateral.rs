//! Intel's collateral for the simulated platform: TCB info (version 3, TDX), QE identity (version
//! 2, TD_QE), two revocation lists and their chains, in the JSON shape of `QuoteCollateralV3`.
//!
//! Both documents are signed as the text they are. They come compact, in Intel's order of keys.

use crate::sim::certificate::Span;
use crate::sim::root::Intel;
use crate::sim::tdx;
use serde::Serialize;
use std::time::Duration;

/// Collateral that is not signed yet.
pub struct Collateral<'a> {
    platform: &'a Intel,
    tcb_info: String,
    qe_identity: String,
    root_ca_crl: Vec<u8>,
    pck_crl: Vec<u8>,
}

impl<'a> Collateral<'a> {
    /// What the service would answer around `now`, in seconds since 1970: valid from a day before
    /// until thirty days after.
    pub fn new(platform: &'a Intel, now: u64) -> Self {
        let validity = Span::around(now, 30);
        let (root_ca_crl, pck_crl) = platform.revocation_lists(validity, &[], &[]);
        let fill = |template: &str| {
            template
                .lines()
                .map(str::trim)
                .collect::<String>()
                .replace("@issued", &instant(validity.from))
                .replace("@until", &instant(validity.until))
                .replace("@evaluation", &EVALUATION.to_string())
                .replace("@fmspc", &hex::encode(tdx::FMSPC))
                .replace("@signer", &hex::encode_upper(tdx::QE_SIGNER))
                .replace("@zero8", &"0".repeat(16))
                .replace("@zero48", &"0".repeat(96))
                .replace("@rest", &",{\"svn\":0}".repeat(8))
        };
        Self {
            platform,
            tcb_info: fill(TCB_INFO),
            qe_identity: fill(QE_IDENTITY),
            root_ca_crl,
            pck_crl,
        }
    }

    /// The same collateral with another TCB info.
    pub fn with_tcb_info(mut self, change: impl FnOnce(String) -> String) -> Self {
        self.tcb_info = change(self.tcb_info);
        self
    }

    /// The same collateral with another QE identity.
    pub fn with_qe_identity(mut self, change: impl FnOnce(String) -> String) -> Self {
        self.qe_identity = change(self.qe_identity);
        self
    }

    /// The same collateral with other revocation lists: the root's and the platform CA's.
    pub fn with_revocation_lists(mut self, (root, platform): (Vec<u8>, Vec<u8>)) -> Self {
        (self.root_ca_crl, self.pck_crl) = (root, platform);
        self
    }

    /// Signs both documents and packs everything as JSON.
    pub fn sign(&self) -> Vec<u8> {
        let sign = |text: &str| hex::encode(self.platform.tcb_signing.sign(text.as_bytes()));
        let file = File {
            pck_crl_issuer_chain: self.platform.platform_ca_chain(),
            root_ca_crl: hex::encode(&self.root_ca_crl),
            pck_crl: hex::encode(&self.pck_crl),
            tcb_info_issuer_chain: self.platform.tcb_signing_chain(),
            tcb_info_signature: sign(&self.tcb_info),
            tcb_info: &self.tcb_info,
            qe_identity_issuer_chain: self.platform.tcb_signing_chain(),
            qe_identity_signature: sign(&self.qe_identity),
            qe_identity: &self.qe_identity,
        };
        serde_json::to_vec(&file).expect("text encodes as JSON")
    }
}

/// `QuoteCollateralV3` as files and services pass it: bytes in hexadecimal.
#[derive(Serialize)]
struct File<'a> {
    pck_crl_issuer_chain: String,
    root_ca_crl: String,
    pck_crl: String,
    tcb_info_issuer_chain: String,
    tcb_info: &'a str,
    tcb_info_signature: String,
    qe_identity_issuer_chain: String,
    qe_identity: &'a str,
    qe_identity_signature: String,
}

fn instant(seconds: u64) -> String {
    let date = der::DateTime::from_unix_duration(Duration::from_secs(seconds));
    date.expect("before 9999").to_string()
}

/// TCB evaluation data number of both documents.
pub const EVALUATION: u32 = 21;

/// The newest level is [`tdx::CPU_SVN`], [`tdx::PCE_SVN`] and [`tdx::TEE_TCB_SVN`].
const TCB_INFO: &str = r#"
    {"id":"TDX","version":3,"issueDate":"@issued","nextUpdate":"@until",
    "fmspc":"@fmspc","pceId":"0000","tcbType":0,"tcbEvaluationDataNumber":@evaluation,
    "tdxModule":{"mrsigner":"@zero48","attributes":"@zero8","attributesMask":"FFFFFFFFFFFFFFFF"},
    "tdxModuleIdentities":[
    {"id":"TDX_01","mrsigner":"@zero48","attributes":"@zero8","attributesMask":"FFFFFFFFFFFFFFFF",
    "tcbLevels":[
    {"tcb":{"isvsvn":11},"tcbDate":"2026-02-11T00:00:00Z","tcbStatus":"UpToDate"},
    {"tcb":{"isvsvn":6},"tcbDate":"2024-11-13T00:00:00Z","tcbStatus":"OutOfDate",
    "advisoryIDs":["INTEL-SA-01397"]}]}],
    "tcbLevels":[
    {"tcb":{"sgxtcbcomponents":[
    {"svn":4,"category":"BIOS","type":"Early Microcode Update"},
    {"svn":4,"category":"OS/VMM","type":"SGX Late Microcode Update"},
    {"svn":2,"category":"OS/VMM","type":"TXT SINIT"},
    {"svn":2,"category":"BIOS"},{"svn":4,"category":"BIOS"},{"svn":1,"category":"BIOS"},{"svn":0},
    {"svn":5,"category":"OS/VMM","type":"SEAMLDR ACM"}@rest],"pcesvn":13,
    "tdxtcbcomponents":[
    {"svn":5,"category":"OS/VMM","type":"TDX Module"},
    {"svn":0,"category":"OS/VMM","type":"TDX Module"},
    {"svn":4,"category":"OS/VMM","type":"TDX Late Microcode Update"},
    {"svn":0},{"svn":0},{"svn":0},{"svn":0},{"svn":0}@rest]},
    "tcbDate":"2026-02-11T00:00:00Z","tcbStatus":"UpToDate"},
    {"tcb":{"sgxtcbcomponents":[
    {"svn":3,"category":"BIOS","type":"Early Microcode Update"},
    {"svn":3,"category":"OS/VMM","type":"SGX Late Microcode Update"},
    {"svn":2,"category":"OS/VMM","type":"TXT SINIT"},
    {"svn":2,"category":"BIOS"},{"svn":4,"category":"BIOS"},{"svn":1,"category":"BIOS"},{"svn":0},
    {"svn":5,"category":"OS/VMM","type":"SEAMLDR ACM"}@rest],"pcesvn":13,
    "tdxtcbcomponents":[
    {"svn":5,"category":"OS/VMM","type":"TDX Module"},
    {"svn":0,"category":"OS/VMM","type":"TDX Module"},
    {"svn":3,"category":"OS/VMM","type":"TDX Late Microcode Update"},
    {"svn":0},{"svn":0},{"svn":0},{"svn":0},{"svn":0}@rest]},
    "tcbDate":"2024-11-13T00:00:00Z","tcbStatus":"OutOfDate","advisoryIDs":["INTEL-SA-01397"]}]}"#;

const QE_IDENTITY: &str = r#"
    {"id":"TD_QE","version":2,"issueDate":"@issued","nextUpdate":"@until",
    "tcbEvaluationDataNumber":@evaluation,"miscselect":"00000000","miscselectMask":"FFFFFFFF",
    "attributes":"11000000000000000000000000000000",
    "attributesMask":"FBFFFFFFFFFFFFFF0000000000000000",
    "mrsigner":"@signer","isvprodid":2,
    "tcbLevels":[{"tcb":{"isvsvn":6},"tcbDate":"2026-02-11T00:00:00Z","tcbStatus":"UpToDate"}]}"#;
