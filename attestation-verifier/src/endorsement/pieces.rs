//! Intel's collateral in the pieces that its provisioning service hands out: two documents, two
//! revocation lists, and the certificates of their signers.

#![cfg(feature = "tdx-collateral")]

use alloc::string::String;

use super::{
    Certificate, Collateral, Document, Endorsements, Kind, Name, RevocationList, Role, write_pem,
};
use crate::evidence::Inauthentic;
use crate::root::Anchor;

/// The collateral, if it came in one piece; then nothing else may come.
pub(super) fn whole(endorsements: &Endorsements) -> Result<Option<&Collateral>, Inauthentic> {
    let surplus = |role| Err(Inauthentic::Surplus { role });
    let collateral = match endorsements.collateral.as_slice() {
        [] => return Ok(None),
        [collateral] => collateral,
        _ => return surplus(Role::TcbSigner),
    };
    if !endorsements.documents.is_empty() {
        return surplus(Role::TcbSigner);
    }
    if !endorsements.certificates.is_empty() {
        return surplus(Role::Key);
    }
    if !endorsements.revocation_lists.is_empty() {
        return surplus(Role::RevocationList);
    }
    Ok(Some(collateral))
}

/// Puts the pieces together for a platform whose PCK certificate `ca` issued. Which is which is told
/// by names; whether it is genuine is judged afterwards, as if it had come in one piece. A root that
/// came along is only compared.
pub(super) fn assemble(
    endorsements: &Endorsements,
    ca: &Name,
    anchor: &Anchor,
) -> Result<Collateral, Inauthentic> {
    let root = &anchor.certificate;
    let signer = signer(endorsements, ca, root)?;
    let tcb_info = document(endorsements, Kind::TcbInfo)?;
    let qe_identity = document(endorsements, Kind::QeIdentity)?;
    let chain = [signer, root].map(|certificate| write_pem(&certificate.der)).concat();
    if endorsements.revocation_lists.len() > 2 {
        return Err(Inauthentic::Surplus { role: Role::RevocationList });
    }
    Ok(Collateral {
        pck_crl_issuer_chain: String::new(),
        root_ca_crl: list(endorsements, &root.subject)?.der.clone(),
        pck_crl: list(endorsements, ca)?.der.clone(),
        tcb_info_issuer_chain: chain.clone(),
        tcb_info: tcb_info.text.clone(),
        tcb_info_signature: tcb_info.signature.clone(),
        qe_identity_issuer_chain: chain,
        qe_identity: qe_identity.text.clone(),
        qe_identity_signature: qe_identity.signature.clone(),
        _pck_certificate_chain: None,
    })
}

/// The certificate that signs both documents. Chains repeat certificates: the same one twice is one.
/// The root and the PCK CA may come along, as they do in Intel's chains.
fn signer<'a>(
    endorsements: &'a Endorsements,
    ca: &Name,
    root: &Certificate,
) -> Result<&'a Certificate, Inauthentic> {
    let role = Role::TcbSigner;
    let mut found: Option<&Certificate> = None;
    for certificate in &endorsements.certificates {
        if certificate.is_self_issued() {
            if certificate.der != root.der {
                return Err(Inauthentic::UnknownRoot);
            }
        } else if certificate.subject != *ca
            && found.replace(certificate).is_some_and(|other| other.der != certificate.der)
        {
            return Err(Inauthentic::Surplus { role });
        }
    }
    found.ok_or(Inauthentic::Missing { role })
}

fn document(endorsements: &Endorsements, kind: Kind) -> Result<&Document, Inauthentic> {
    let role = Role::TcbSigner;
    let mut found = endorsements.documents.iter().filter(|document| document.kind == kind);
    match (found.next(), found.next()) {
        (Some(document), None) => Ok(document),
        (None, _) => Err(Inauthentic::Missing { role }),
        _ => Err(Inauthentic::Surplus { role }),
    }
}

fn list<'a>(
    endorsements: &'a Endorsements,
    issuer: &Name,
) -> Result<&'a RevocationList, Inauthentic> {
    let role = Role::RevocationList;
    let mut found = endorsements.revocation_lists.iter().filter(|list| list.issuer == *issuer);
    match (found.next(), found.next()) {
        (Some(list), None) => Ok(list),
        (None, _) => Err(Inauthentic::Missing { role }),
        _ => Err(Inauthentic::Surplus { role }),
    }
}
