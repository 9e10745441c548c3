//! Intel's chain: root → PCK CA → PCK → quoting enclave → attestation key → quote; and what the TCB
//! info and the QE identity, signed under the same root, say about the platform.
//!
//! `dcap-qvl` verifies signatures, chains, revocation lists, dates, FMSPC, QE and module identity,
//! and finds the TCB level. Around it stand the checks it does not make:
//! 1. The root at the end of the quote's own chain is an anchor, to the byte.
//! 2. The attestation key is the one the QE's report vouches for, whose tail is zero.
//! 3. The names in the chains are those of their places.
//! 4. Both revocation lists come from the issuers they must, and are of today.
//! 5. TCB info and QE identity are of the one kind and version that is known, and within budget.
//! 6. PCE id, evaluation numbers, and the dates of everything.
//!
//! A PCK chain inside the collateral is never used: the quote carries its own. The collateral may also
//! come in the pieces that Intel's service hands out.

use alloc::string::String;
use alloc::vec::Vec;

use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

use crate::evidence::Inauthentic;
use crate::root::Root;
use crate::wire::tdx::Quote;

/// What Intel says about the platform behind a quote.
#[derive(Clone)]
pub(crate) struct Verdict {
    /// Intel's word, as in "UpToDate".
    pub(crate) status: String,
    pub(crate) advisories: Vec<String>,
    /// Intel's word for what runs now, where the module was replaced under the running TD. It says
    /// nothing in `status` unless it is better.
    pub(crate) current_status: Option<String>,
    pub(crate) evaluation_number: u64,
    pub(crate) ppid: Vec<u8>,
    /// The platform instance id; empty for a platform of one package.
    pub(crate) instance: Vec<u8>,
    pub(crate) cached_keys: bool,
    pub(crate) dynamic_platform: bool,
    pub(crate) smt: bool,
    /// When all of the collateral and all certificates are valid, in seconds since 1970, both ends
    /// included.
    pub(crate) valid: (u64, u64),
}

/// The quote's own signature, by the attestation key that was judged with it.
pub(crate) fn verify_quote(quote: &Quote<'_>) -> Result<(), Inauthentic> {
    let mut key = Vec::from([0x04]);
    key.extend_from_slice(&quote.attestation_key);
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key)
        .verify(quote.signed, &quote.signature)
        .map_err(|_| Inauthentic::Signature { over: "quote" })
}

/// The outcome for a quote that is genuine.
#[cfg_attr(not(feature = "tdx-collateral"), expect(dead_code, reason = "made by the feature"))]
pub(crate) enum Judged {
    /// And Intel's rules say what its platform is worth.
    Genuine(Root, Verdict),
    /// But Intel's rules refuse the TD's attributes, whatever the policy. The policy's findings,
    /// if it has any, say more than this error.
    AttributesRefused(Inauthentic),
}

#[cfg(not(feature = "tdx-collateral"))]
pub(crate) use unjudged::authenticate;

#[cfg(not(feature = "tdx-collateral"))]
mod unjudged {
    use super::Judged;
    use crate::endorsement::Endorsements;
    use crate::evidence::Inauthentic;
    use crate::root::Anchor;
    use crate::wire::tdx::Quote;

    pub(crate) fn authenticate(
        _: &Quote<'_>,
        _: &Endorsements,
        _: &[Anchor],
        _: u64,
    ) -> Result<Judged, Inauthentic> {
        Err(Inauthentic::CouldNotJudge { feature: "tdx-collateral" })
    }
}

#[cfg(feature = "tdx-collateral")]
pub(crate) use collateral::authenticate;

#[cfg(feature = "tdx-collateral")]
mod collateral {
    use alloc::borrow::Cow;
    use alloc::format;
    use alloc::string::{String, ToString};
    use alloc::vec::Vec;

    use dcap_qvl::tcb_info::TcbLevel;
    use dcap_qvl::verify::QuoteVerifier;
    use dcap_qvl::{QuoteCollateralV3, QuotePolicy};
    use der::DateTime;
    use der::asn1::ObjectIdentifier;
    use measurement::digest::sha256;
    use serde::Deserialize;

    use super::{Judged, Verdict};
    use crate::endorsement::amd::check_dates;
    use crate::endorsement::pieces;
    use crate::endorsement::{
        Certificate, Collateral, Endorsements, RevocationList, Role, budget, is_canonical_pem,
        read_pem,
    };
    use crate::evidence::Inauthentic;
    use crate::root::{Anchor, Platform};
    use crate::wire::asn1::{OBJECT_ID, SEQUENCE, Walker, only};
    use crate::wire::tdx::Quote;

    /// What `dcap-qvl` says last, when all else about a quote has been verified.
    const ATTRIBUTE_REFUSALS: [&str; 4] = [
        "SERVTD_EXT is enabled",
        "Reserved bits in TD attributes are set",
        "SEPT_VE_DISABLE is not enabled",
        "TD migration is enabled",
    ];

    pub(crate) fn authenticate(
        quote: &Quote<'_>,
        endorsements: &Endorsements,
        anchors: &[Anchor],
        now: u64,
    ) -> Result<Judged, Inauthentic> {
        let chain = PckChain::read(quote.pck_chain)?;
        let anchor = chain.anchor(anchors)?;
        let collateral = &match pieces::whole(endorsements)? {
            Some(collateral) => Cow::Borrowed(collateral),
            None => Cow::Owned(pieces::assemble(endorsements, &chain.pck.issuer, anchor)?),
        };
        check_attestation_key(quote)?;
        let mut window = chain.check(now)?;
        window.narrow(check_tcb_signers(collateral, now)?);
        window.narrow(check_revocation_lists(collateral, &chain, now)?);
        let (tcb_info, documents) = check_documents(collateral)?;
        window.narrow(documents);

        let verifier = QuoteVerifier::new(anchor.certificate.der.clone())
            .allow_debug(true)
            .allow_service_td(true);
        match judge(&verifier, quote, &qvl(collateral), now) {
            Ok(judgement) => {
                let platform = PckFacts::read(&chain.pck)?;
                platform.check(&tcb_info)?;
                let number = tcb_info.tcb_evaluation_data_number;
                let verdict = platform.verdict(judgement, number, window);
                Ok(Judged::Genuine(anchor.root.clone(), verdict))
            }
            Err(Refusal { last, reason }) => {
                if last == "Fmspc mismatch" {
                    return Err(PckFacts::read(&chain.pck)?.of_other_fmspc(&tcb_info));
                }
                let refusal = Inauthentic::Collateral { reason };
                if ATTRIBUTE_REFUSALS.contains(&last.as_str()) {
                    Ok(Judged::AttributesRefused(refusal))
                } else {
                    Err(refusal)
                }
            }
        }
    }

    /// What `dcap-qvl` says of the TCB.
    struct Judgement {
        status: String,
        advisories: Vec<String>,
        /// Of what runs now, where that is not what ran at launch.
        current: Option<TcbLevel>,
    }

    /// Why `dcap-qvl` refused: its last words, and all of them.
    struct Refusal {
        last: String,
        reason: String,
    }

    /// Their error type is of a package that is not ours to name.
    macro_rules! refusal {
        ($error:ident) => {
            Refusal { last: $error.root_cause().to_string(), reason: format!("{:#}", $error) }
        };
    }

    /// The longer way through `dcap-qvl` is for TDs whose module was replaced while they ran: only there
    /// it says what the module of now is worth.
    fn judge(
        verifier: &QuoteVerifier,
        quote: &Quote<'_>,
        collateral: &QuoteCollateralV3,
        now: u64,
    ) -> Result<Judgement, Refusal> {
        let launched = quote.report.tee_tcb_svn;
        if quote.relaunch.as_ref().is_none_or(|now| now.tee_tcb_svn2 == launched) {
            let report = verifier.verify(quote.bytes, collateral, now);
            let report = report.map_err(|error| refusal!(error))?;
            let (status, advisories) = (report.status, report.advisory_ids);
            return Ok(Judgement { status, advisories, current: None });
        }
        let policy = QuotePolicy::claims_only(now);
        let claims = verifier.verify_with_policy(quote.bytes, collateral.clone(), now, &policy);
        let claims = claims.map_err(|error| refusal!(error))?;
        let current = claims.platform.current_tcb_level;
        let (status, mut advisories) = (claims.tcb.status.to_string(), claims.tcb.advisory_ids);
        for advisory in current.iter().flat_map(|level| &level.advisory_ids) {
            if !advisories.contains(advisory) {
                advisories.push(advisory.clone());
            }
        }
        Ok(Judgement { status, advisories, current })
    }

    /// When something is valid, in seconds since 1970, both ends included.
    #[derive(Clone, Copy)]
    struct Window {
        from: u64,
        until: u64,
    }

    impl Window {
        fn of(certificate: &Certificate) -> Self {
            Self { from: certificate.not_before, until: certificate.not_after }
        }

        fn narrow(&mut self, other: Self) {
            self.from = self.from.max(other.from);
            self.until = self.until.min(other.until);
        }
    }

    /// The certificates inside the quote.
    struct PckChain {
        pck: Certificate,
        ca: Certificate,
        root: Certificate,
    }

    impl PckChain {
        fn read(pem: &[u8]) -> Result<Self, Inauthentic> {
            let role = Role::Key;
            let unusable = |problem| Inauthentic::Unusable { role, problem };
            // Nothing signs this text: it has one accepted form, or a quote would have many. Intel's
            // quoting library counts the C string's NUL in.
            let text = pem.strip_suffix(b"\n\0").unwrap_or(pem.strip_suffix(b"\n").unwrap_or(pem));
            let blocks = read_pem(pem.strip_suffix(b"\0").unwrap_or(pem)).map_err(unusable)?;
            if !is_canonical_pem(text) {
                return Err(unusable("is not in the one accepted form of PEM"));
            }
            let [pck, ca, root] = blocks.as_slice() else {
                return Err(unusable("is not in a chain of three certificates"));
            };
            let read = |der: &[u8]| Certificate::read(der).map_err(unusable);
            Ok(Self { pck: read(pck)?, ca: read(ca)?, root: read(root)? })
        }

        fn anchor<'a>(&self, anchors: &'a [Anchor]) -> Result<&'a Anchor, Inauthentic> {
            anchors
                .iter()
                .filter(|anchor| anchor.platform == Platform::Tdx)
                .find(|anchor| anchor.certificate.der == self.root.der)
                .ok_or(Inauthentic::UnknownRoot)
        }

        fn check(&self, now: u64) -> Result<Window, Inauthentic> {
            const PCK: &[&str] = &["Intel SGX PCK Certificate"];
            const CA: &[&str] = &["Intel SGX PCK Platform CA", "Intel SGX PCK Processor CA"];
            check_name(Role::Key, &self.pck, PCK)?;
            check_name(Role::Intermediate, &self.ca, CA)?;
            if self.pck.issuer != self.ca.subject {
                return Err(Inauthentic::Issuer { role: Role::Key });
            }
            if self.ca.issuer != self.root.subject {
                return Err(Inauthentic::Issuer { role: Role::Intermediate });
            }
            check_dates(Role::Key, &self.pck, now)?;
            check_dates(Role::Intermediate, &self.ca, now)?;
            check_dates(Role::Root, &self.root, now)?;
            let mut window = Window::of(&self.pck);
            window.narrow(Window::of(&self.ca));
            window.narrow(Window::of(&self.root));
            Ok(window)
        }
    }

    fn check_name(
        role: Role,
        certificate: &Certificate,
        accepted: &[&str],
    ) -> Result<(), Inauthentic> {
        let name = certificate.common_name().unwrap_or_default();
        if accepted.contains(&name.as_str()) {
            return Ok(());
        }
        Err(Inauthentic::Unusable {
            role,
            problem: "has another name than its place in Intel's hierarchy",
        })
    }

    fn check_attestation_key(quote: &Quote<'_>) -> Result<(), Inauthentic> {
        let mut committed = quote.attestation_key.to_vec();
        committed.extend_from_slice(quote.qe_authentication);
        let report = &quote.qe_report;
        if sha256(&committed) == report.key_digest && report.key_digest_tail == [0; 32] {
            Ok(())
        } else {
            Err(Inauthentic::AttestationKey)
        }
    }

    /// The collateral's signers must be Intel's TCB signer, not some other certificate of the root.
    fn check_tcb_signers(collateral: &Collateral, now: u64) -> Result<Window, Inauthentic> {
        let (one, other) =
            (&collateral.tcb_info_issuer_chain, &collateral.qe_identity_issuer_chain);
        let mut window = check_tcb_signer(one, now)?;
        // Mostly it is one signer.
        if one != other {
            window.narrow(check_tcb_signer(other, now)?);
        }
        Ok(window)
    }

    fn check_tcb_signer(chain: &str, now: u64) -> Result<Window, Inauthentic> {
        let role = Role::TcbSigner;
        let unusable = |problem| Inauthentic::Unusable { role, problem };
        let blocks = read_pem(chain.as_bytes()).map_err(unusable)?;
        let leaf = blocks.first().ok_or(Inauthentic::Missing { role })?;
        let leaf = Certificate::read(leaf).map_err(unusable)?;
        check_name(role, &leaf, &["Intel SGX TCB Signing"])?;
        check_dates(role, &leaf, now)?;
        Ok(Window::of(&leaf))
    }

    fn check_revocation_lists(
        collateral: &Collateral,
        chain: &PckChain,
        now: u64,
    ) -> Result<Window, Inauthentic> {
        let role = Role::RevocationList;
        let mut window = Window { from: 0, until: u64::MAX };
        let lists = [
            (&collateral.root_ca_crl, &chain.root.subject),
            (&collateral.pck_crl, &chain.pck.issuer),
        ];
        for (der, issuer) in lists {
            let list = RevocationList::read(der)
                .map_err(|problem| Inauthentic::Unusable { role, problem })?;
            if list.issuer != *issuer {
                return Err(Inauthentic::Issuer { role });
            }
            if now < list.this_update {
                return Err(Inauthentic::NotYetValid { role, from: list.this_update, now });
            }
            if now >= list.next_update {
                return Err(Inauthentic::Expired { role, now, until: list.next_update });
            }
            let until = list.next_update.saturating_sub(1);
            window.narrow(Window { from: list.this_update, until });
        }
        Ok(window)
    }

    /// What both documents say of themselves beside what `dcap-qvl` reads, which takes further versions.
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Facts {
        id: String,
        version: u32,
        tcb_evaluation_data_number: u64,
        issue_date: String,
        next_update: String,
        /// Only in the TCB info, like the two that follow.
        fmspc: Option<String>,
        pce_id: Option<String>,
        /// How its components are compared.
        tcb_type: Option<u32>,
    }

    impl Facts {
        fn read(text: &str) -> Result<Self, Inauthentic> {
            let unusable = |problem| Inauthentic::Unusable { role: Role::TcbSigner, problem };
            budget::check(text).map_err(unusable)?;
            serde_json::from_str(text)
                .map_err(|_| unusable("signs a document without id, version and evaluation number"))
        }

        /// Of no time at all when a date has another form than Intel's: then nothing is kept.
        fn window(&self) -> Window {
            let seconds = |text: &str| {
                let date: Option<DateTime> = text.parse().ok();
                date.map(|date| date.unix_duration().as_secs())
            };
            Window {
                from: seconds(&self.issue_date).unwrap_or(u64::MAX),
                until: seconds(&self.next_update).unwrap_or(0),
            }
        }

        /// The one kind and version that is known: another may give the same fields other meanings.
        fn check(
            &self,
            document: &'static str,
            (id, version, tcb_type): (&'static str, (u32, &'static str), Option<u32>),
        ) -> Result<(), Inauthentic> {
            let differs = |field, observed: String, required| {
                Err(Inauthentic::Document { document, field, observed, required })
            };
            if self.id != id {
                return differs("id", self.id.clone(), id);
            }
            if self.version != version.0 {
                return differs("version", self.version.to_string(), version.1);
            }
            if self.tcb_type != tcb_type {
                let observed = self.tcb_type.map_or("absent".into(), |kind| kind.to_string());
                let required = if tcb_type.is_some() { "0" } else { "absent" };
                return differs("tcbType", observed, required);
            }
            Ok(())
        }
    }

    /// Both documents, of one evaluation: an old but unexpired half must not be mixed with a new one.
    /// Their dates are checked by `dcap-qvl`.
    fn check_documents(collateral: &Collateral) -> Result<(Facts, Window), Inauthentic> {
        let tcb_info = Facts::read(&collateral.tcb_info)?;
        let qe_identity = Facts::read(&collateral.qe_identity)?;
        tcb_info.check("tcb info", ("TDX", (3, "3"), Some(0)))?;
        qe_identity.check("qe identity", ("TD_QE", (2, "2"), None))?;
        if tcb_info.tcb_evaluation_data_number == qe_identity.tcb_evaluation_data_number {
            let mut window = tcb_info.window();
            window.narrow(qe_identity.window());
            return Ok((tcb_info, window));
        }
        Err(Inauthentic::EvaluationNumbers {
            tcb_info: tcb_info.tcb_evaluation_data_number,
            qe_identity: qe_identity.tcb_evaluation_data_number,
        })
    }

    /// What the PCK certificate says of the platform: "Intel SGX PCK Certificate and CRL Profile", 1.3.5.
    /// `dcap-qvl` reads the same extension for its TCB.
    struct PckFacts {
        ppid: [u8; 16],
        pce_id: [u8; 2],
        fmspc: [u8; 6],
        instance: Option<[u8; 16]>,
        /// A certificate of the processor CA has no flags: such a platform is of one package.
        dynamic: bool,
        cached_keys: bool,
        smt: bool,
    }

    impl PckFacts {
        fn read(pck: &Certificate) -> Result<Self, Inauthentic> {
            pck.extension(SGX_EXTENSIONS).and_then(Self::parse).ok_or(Inauthentic::Extension {
                role: Role::Key,
                extension: "sgxExtensions",
                problem: "cannot be read",
            })
        }

        fn parse(der: &[u8]) -> Option<Self> {
            let fields = Fields(der);
            let configuration = fields.find(&[7]);
            let flag = |arc| match configuration {
                None => Some(false),
                Some(list) => match Fields(list).find(&[7, arc]) {
                    Some([0x01, 0x01, 0x00]) | None => Some(false),
                    Some([0x01, 0x01, 0xff]) => Some(true),
                    Some(_) => None,
                },
            };
            Some(Self {
                ppid: octets(fields.find(&[1])?)?,
                pce_id: octets(fields.find(&[3])?)?,
                fmspc: octets(fields.find(&[4])?)?,
                instance: match fields.find(&[6]) {
                    Some(instance) => Some(octets(instance)?),
                    None => None,
                },
                dynamic: flag(1)?,
                cached_keys: flag(2)?,
                smt: flag(3)?,
            })
        }

        /// The PCE that certified the key is the one the TCB info is about.
        fn check(&self, tcb_info: &Facts) -> Result<(), Inauthentic> {
            let expected = tcb_info.pce_id.as_ref().and_then(|text| hex::decode(text).ok());
            if expected.as_deref() == Some(self.pce_id.as_slice()) {
                Ok(())
            } else {
                Err(Inauthentic::PceId)
            }
        }

        fn of_other_fmspc(&self, tcb_info: &Facts) -> Inauthentic {
            let required = tcb_info.fmspc.as_deref().unwrap_or_default();
            Inauthentic::Fmspc {
                observed: hex::encode(self.fmspc),
                required: required.to_ascii_lowercase(),
            }
        }

        fn verdict(self, judgement: Judgement, evaluation_number: u64, window: Window) -> Verdict {
            Verdict {
                status: judgement.status,
                advisories: judgement.advisories,
                current_status: judgement.current.map(|level| level.tcb_status.to_string()),
                evaluation_number,
                ppid: self.ppid.to_vec(),
                instance: self.instance.map(Vec::from).unwrap_or_default(),
                cached_keys: self.cached_keys,
                dynamic_platform: self.dynamic,
                smt: self.smt,
                valid: (window.from, window.until),
            }
        }
    }

    const SGX_EXTENSIONS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113741.1.13.1");
    /// The same, as every arc below it begins.
    const SGX_ARCS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf8, 0x4d, 0x01, 0x0d, 0x01];

    /// SEQUENCE OF SEQUENCE { OBJECT IDENTIFIER, any }.
    struct Fields<'a>(&'a [u8]);

    impl<'a> Fields<'a> {
        /// The value of the field with these arcs, with its header.
        fn find(&self, arcs: &[u8]) -> Option<&'a [u8]> {
            let mut list = only(SEQUENCE, self.0)?;
            loop {
                let mut field = Walker::new(list.expect(SEQUENCE)?);
                let id = field.expect(OBJECT_ID)?;
                let value = field.any()?;
                if id.strip_prefix(SGX_ARCS) == Some(arcs) {
                    return Some(value.whole);
                }
            }
        }
    }

    /// An OCTET STRING of exactly so many bytes.
    fn octets<const N: usize>(der: &[u8]) -> Option<[u8; N]> {
        match der {
            [0x04, len, value @ ..] if usize::from(*len) == value.len() => value.try_into().ok(),
            _ => None,
        }
    }

    fn qvl(collateral: &Collateral) -> QuoteCollateralV3 {
        let Collateral {
            pck_crl_issuer_chain,
            root_ca_crl,
            pck_crl,
            tcb_info_issuer_chain,
            tcb_info,
            tcb_info_signature,
            qe_identity_issuer_chain,
            qe_identity,
            qe_identity_signature,
            ..
        } = collateral;
        QuoteCollateralV3 {
            pck_crl_issuer_chain: pck_crl_issuer_chain.clone(),
            root_ca_crl: root_ca_crl.clone(),
            pck_crl: pck_crl.clone(),
            tcb_info_issuer_chain: tcb_info_issuer_chain.clone(),
            tcb_info: tcb_info.clone(),
            tcb_info_signature: tcb_info_signature.clone(),
            qe_identity_issuer_chain: qe_identity_issuer_chain.clone(),
            qe_identity: qe_identity.clone(),
            qe_identity_signature: qe_identity_signature.clone(),
            pck_certificate_chain: None,
        }
    }
}
