//! Intel's chain: root → PCK CA → PCK → quoting enclave → attestation key → quote; and what the TCB
//! info and the QE identity, signed under the same root, say about the platform.
//!
//! `dcap-qvl` verifies signatures, chains, revocation lists, dates, FMSPC, QE and module identity,
//! and finds the TCB level. Around it stand the checks it does not make:
//! 1. The root at the end of the quote's own chain is an anchor, to the byte.
//! 2. The attestation key is the one the QE's report vouches for, whose tail is zero.
//! 3. The names in the chains are those of their places.
//! 4. Both revocation lists come from the issuers they must, and are of today.
//! 5. PCE id, evaluation numbers, and the dates of everything.
//!
//! A PCK chain inside the collateral is never used: the quote carries its own.

use alloc::string::String;
use alloc::vec::Vec;

use crate::evidence::Inauthentic;
use crate::root::Root;

/// What Intel says about the platform behind a quote.
pub(crate) struct Verdict {
    /// Intel's word, as in "UpToDate".
    pub(crate) status: String,
    pub(crate) advisories: Vec<String>,
    pub(crate) evaluation_number: u64,
    pub(crate) ppid: Vec<u8>,
    pub(crate) cached_keys: bool,
    pub(crate) dynamic_platform: bool,
    pub(crate) smt: bool,
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
    use alloc::format;
    use alloc::string::ToString;

    use dcap_qvl::verify::QuoteVerifier;
    use dcap_qvl::{PckCertFlag, QuoteClaims, QuoteCollateralV3, QuotePolicy};
    use measurement::digest::sha256;
    use serde::Deserialize;

    use super::{Judged, Verdict};
    use crate::endorsement::amd::check_dates;
    use crate::endorsement::{
        Certificate, Collateral, Endorsements, RevocationList, Role, read_pem,
    };
    use crate::evidence::Inauthentic;
    use crate::root::{Anchor, Platform};
    use crate::wire::tdx::Quote;

    /// What `dcap-qvl` says last, when all else about a quote has been verified.
    const ATTRIBUTE_REFUSALS: [&str; 3] = [
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
        let role = Role::TcbSigner;
        let collateral = match endorsements.collateral.as_slice() {
            [] => return Err(Inauthentic::Missing { role }),
            [collateral] => collateral,
            _ => return Err(Inauthentic::Surplus { role }),
        };
        if !endorsements.certificates.is_empty() {
            return Err(Inauthentic::Surplus { role: Role::Key });
        }
        if !endorsements.revocation_lists.is_empty() {
            return Err(Inauthentic::Surplus { role: Role::RevocationList });
        }
        let chain = PckChain::read(quote.pck_chain)?;
        let anchor = chain.anchor(anchors)?;
        check_attestation_key(quote)?;
        chain.check(now)?;
        check_tcb_signers(collateral, now)?;
        check_revocation_lists(collateral, &chain, now)?;
        let evaluation_number = check_evaluation_numbers(collateral)?;

        let verifier = QuoteVerifier::new(anchor.certificate.der.clone())
            .allow_debug(true)
            .allow_service_td(true);
        let policy = QuotePolicy::claims_only(now);
        match verifier.verify_with_policy(quote.bytes, qvl(collateral), now, &policy) {
            Ok(claims) => {
                check_claims(&claims, collateral, now)?;
                let verdict = verdict(claims, evaluation_number);
                Ok(Judged::Genuine(anchor.root.clone(), verdict))
            }
            Err(error) => {
                let last = error.root_cause().to_string();
                let refusal = Inauthentic::Collateral { reason: format!("{error:#}") };
                if ATTRIBUTE_REFUSALS.contains(&last.as_str()) {
                    Ok(Judged::AttributesRefused(refusal))
                } else {
                    Err(refusal)
                }
            }
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
            // Intel's quoting library counts the C string's NUL in.
            let blocks = read_pem(pem.strip_suffix(b"\0").unwrap_or(pem)).map_err(unusable)?;
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

        fn check(&self, now: u64) -> Result<(), Inauthentic> {
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
            check_dates(Role::Root, &self.root, now)
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
    fn check_tcb_signers(collateral: &Collateral, now: u64) -> Result<(), Inauthentic> {
        let role = Role::TcbSigner;
        let chains = [&collateral.tcb_info_issuer_chain, &collateral.qe_identity_issuer_chain];
        for chain in chains {
            let unusable = |problem| Inauthentic::Unusable { role, problem };
            let blocks = read_pem(chain.as_bytes()).map_err(unusable)?;
            let leaf = blocks.first().ok_or(Inauthentic::Missing { role })?;
            let leaf = Certificate::read(leaf).map_err(unusable)?;
            check_name(role, &leaf, &["Intel SGX TCB Signing"])?;
            check_dates(role, &leaf, now)?;
        }
        Ok(())
    }

    fn check_revocation_lists(
        collateral: &Collateral,
        chain: &PckChain,
        now: u64,
    ) -> Result<(), Inauthentic> {
        let role = Role::RevocationList;
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
        }
        Ok(())
    }

    /// What we read from both documents of the collateral beside what `dcap-qvl` reads.
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Evaluation {
        tcb_evaluation_data_number: u64,
        /// Only in the TCB info.
        pce_id: Option<alloc::string::String>,
    }

    fn evaluation(json: &str) -> Result<Evaluation, Inauthentic> {
        serde_json::from_str(json).map_err(|_| Inauthentic::Unusable {
            role: Role::TcbSigner,
            problem: "signs a document without tcbEvaluationDataNumber",
        })
    }

    /// Of one evaluation: an old but unexpired half must not be mixed with a new one.
    fn check_evaluation_numbers(collateral: &Collateral) -> Result<u64, Inauthentic> {
        let tcb_info = evaluation(&collateral.tcb_info)?.tcb_evaluation_data_number;
        let qe_identity = evaluation(&collateral.qe_identity)?.tcb_evaluation_data_number;
        if tcb_info == qe_identity {
            Ok(tcb_info)
        } else {
            Err(Inauthentic::EvaluationNumbers { tcb_info, qe_identity })
        }
    }

    fn check_claims(
        claims: &QuoteClaims,
        collateral: &Collateral,
        now: u64,
    ) -> Result<(), Inauthentic> {
        let expected = evaluation(&collateral.tcb_info)?.pce_id;
        let expected = expected.and_then(|text| hex::decode(text).ok());
        if expected.as_deref() != Some(claims.platform.pck.pce_id.as_slice()) {
            return Err(Inauthentic::PceId);
        }
        // Over TCB info, QE identity, revocation lists and all certificates.
        let role = Role::TcbSigner;
        if now < claims.latest_issue_date {
            return Err(Inauthentic::NotYetValid { role, from: claims.latest_issue_date, now });
        }
        if now > claims.earliest_expiration_date {
            return Err(Inauthentic::Expired { role, now, until: claims.earliest_expiration_date });
        }
        Ok(())
    }

    fn verdict(claims: QuoteClaims, evaluation_number: u64) -> Verdict {
        let pck = claims.platform.pck;
        // A certificate of the processor CA has no flags: such a platform is of one package.
        let on = |flag| flag == PckCertFlag::True;
        Verdict {
            status: claims.tcb.status.to_string(),
            advisories: claims.tcb.advisory_ids,
            evaluation_number,
            ppid: pck.ppid,
            cached_keys: on(pck.cached_keys),
            dynamic_platform: on(pck.dynamic_platform),
            smt: on(pck.smt_enabled),
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
