//! Who has been revoked, from lists and stapled answers, whichever came.

use alloc::vec::Vec;

use super::chain::{Survey, verify_statement};
use super::ocsp::{Answer, Status};
use super::{Certificate, KEY_USAGE, RevocationList, Role};
use crate::evidence::Inauthentic;

/// The lists and answers that came with evidence.
#[derive(Default)]
pub(crate) struct Revocations {
    pub(crate) lists: Vec<RevocationList>,
    pub(crate) answers: Vec<Answer>,
}

/// What is known about a certificate that nothing says is revoked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Standing {
    /// Some list or answer of its issuer, of now, covers it.
    Good,
    /// Those that cover it are of another time.
    Stale,
    /// Nothing covers it.
    Unknown,
}

/// When lists and answers that do not name a certificate as revoked are of: from, and until, if they
/// end at all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Windows(Vec<(u64, Option<u64>)>);

impl Windows {
    pub(crate) fn standing(&self, now: u64) -> Standing {
        let current = |(from, until): &(u64, Option<u64>)| {
            *from <= now && until.is_some_and(|until| now < until)
        };
        match self.0.as_slice() {
            [] => Standing::Unknown,
            all if all.iter().any(current) => Standing::Good,
            _ => Standing::Stale,
        }
    }
}

impl Revocations {
    /// What speaks for `certificate`. Revocation is for ever: old lists and answers count too.
    pub(crate) fn windows(
        &self,
        role: Role,
        certificate: &Certificate,
        issuer: &Certificate,
        now: u64,
        survey: &mut Survey,
    ) -> Result<Windows, Inauthentic> {
        let mut windows = Windows::default();
        for list in self.lists.iter().filter(|list| list.issuer == issuer.subject) {
            verify_list(list, issuer)?;
            if list.lists(certificate) {
                return Err(Inauthentic::Revoked { role });
            }
            windows.0.push((list.this_update, Some(list.next_update)));
        }
        for answer in &self.answers {
            let singles = answer.about(certificate, issuer);
            if singles.is_empty() {
                continue;
            }
            answer.verify(issuer, now, survey)?;
            for single in singles {
                match single.status {
                    Status::Good => windows.0.push((single.this_update, single.next_update)),
                    Status::Revoked => return Err(Inauthentic::Revoked { role }),
                    Status::Unknown => {}
                }
            }
        }
        Ok(windows)
    }
}

fn verify_list(list: &RevocationList, issuer: &Certificate) -> Result<(), Inauthentic> {
    let role = Role::RevocationList;
    // BIT STRING, bit 6: cRLSign
    if !matches!(issuer.extension(KEY_USAGE), Some([0x03, _, _, bits, ..]) if bits & 0x02 != 0) {
        return Err(Inauthentic::Unusable {
            role,
            problem: "is of an authority without the right",
        });
    }
    verify_statement(&list.algorithm, issuer, &list.tbs, &list.signature)
        .ok_or(Inauthentic::Signature { over: role.name() })
}
