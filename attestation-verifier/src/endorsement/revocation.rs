//! Who has been revoked, from lists and stapled answers, whichever came.

use alloc::vec::Vec;

use super::chain::verify_statement;
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
    /// Some list or answer of its issuer covers it until then, in seconds since 1970.
    Good { until: u64 },
    /// Those that cover it are of another time.
    Stale,
    /// Nothing covers it.
    Unknown,
}

impl Revocations {
    /// How `certificate` stands at `now`. Revocation is for ever: old lists and answers count too.
    pub(crate) fn standing(
        &self,
        role: Role,
        certificate: &Certificate,
        issuer: &Certificate,
        now: u64,
    ) -> Result<Standing, Inauthentic> {
        let mut standing = Standing::Unknown;
        let mut note = |this_update: u64, next_update: Option<u64>| match (standing, next_update) {
            (Standing::Unknown | Standing::Stale, Some(until))
                if this_update <= now && now < until =>
            {
                standing = Standing::Good { until };
            }
            (Standing::Good { until: before }, Some(until))
                if this_update <= now && before < until =>
            {
                standing = Standing::Good { until };
            }
            (Standing::Unknown, _) => standing = Standing::Stale,
            _ => {}
        };
        for list in self.lists.iter().filter(|list| list.issuer == issuer.subject) {
            verify_list(list, issuer)?;
            if list.lists(certificate) {
                return Err(Inauthentic::Revoked { role });
            }
            note(list.this_update, Some(list.next_update));
        }
        for answer in &self.answers {
            match answer.about(certificate, issuer, now)? {
                Some(single) if single.status == Status::Good => {
                    note(single.this_update, single.next_update);
                }
                Some(single) if single.status == Status::Revoked => {
                    return Err(Inauthentic::Revoked { role });
                }
                _ => {}
            }
        }
        Ok(standing)
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
