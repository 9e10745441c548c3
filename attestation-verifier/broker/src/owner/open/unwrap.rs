//! M10 of AKR/1, the recipient's side: one share of an adapter's key from one custodian.
//!
//! Nothing a custodian says is believed before it is proven: that it handed out this share, to this
//! recipient, must be in its log.

use std::io::{self, Read, Write};

use attestation_verifier::proof::{self, Unproven};
use attestation_verifier::protocol::{
    self, Answer, BadFrame, HEADER, Kind, Message, Refused, Unwrap, Unwrapped,
};
use measurement::binding::unwrap_info;
use measurement::log::Event;
use measurement::manifest::{Custodian, Manifest};
use measurement::octets::Octets;
use measurement::receipt::Statement;
use sealed::{RecipientKey, Sealed, Share, ShareError, WrapError};
use thiserror::Error;

use super::channel::Channel;

/// Why a custodian gave no share.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum UnwrapError {
    /// A frame is not the one expected.
    #[error(transparent)]
    Frame(#[from] BadFrame),
    /// The share is another custodian's.
    #[error("the custodian of share {required} sent share {observed}")]
    Index {
        /// The index sent.
        observed: u8,
        /// The custodian's.
        required: u8,
    },
    /// The network or TLS.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The record is proven, but says something else.
    #[error("the logged record is not of this unwrapping")]
    OtherRecord,
    /// The custodian refused; its reason is in its log.
    #[error("the custodian says {0:?}; its log holds the reason")]
    Refused(Answer),
    /// The share.
    #[error(transparent)]
    Share(#[from] ShareError),
    /// The log proves nothing.
    #[error(transparent)]
    Unproven(#[from] Unproven),
    /// The share does not open.
    #[error(transparent)]
    Wrap(#[from] WrapError),
}

/// The adapter whose key is wanted.
pub(super) struct Wanted<'a> {
    manifest: &'a Manifest,
    statement: &'a Statement,
}

impl<'a> Wanted<'a> {
    pub(super) const fn new(manifest: &'a Manifest, statement: &'a Statement) -> Self {
        Self { manifest, statement }
    }

    fn request(&self, recipient: Octets<32>) -> Unwrap {
        Unwrap {
            attempt: self.statement.predicate.attempt,
            job: self.manifest.job,
            manifest: self.manifest.digest(),
            recipient,
            sealed_adapter: self.statement.predicate.outputs.sealed_adapter_sha256,
        }
    }
}

/// Asks the custodian at `address` for its share.
pub(super) fn share(
    address: &str,
    wanted: &Wanted<'_>,
    key: &RecipientKey,
) -> Result<Share, UnwrapError> {
    let custodians = &wanted.manifest.custodians;
    let pins: Vec<_> = custodians.iter().map(|custodian| custodian.tls).collect();
    let mut channel = Channel::connect(address, &pins)?;
    let peer = channel.peer();
    let known = (1_u8..).zip(custodians).find(|(_, custodian)| custodian.tls == peer);
    let (index, custodian) = known.ok_or_else(|| io::Error::other("the broker is not pinned"))?;
    let recipient = Octets::from_slice(key.public()).unwrap_or(Octets([0; 32]));
    let request = wanted.request(recipient);
    channel.write_all(&protocol::frame(Unwrap::KIND, &protocol::encode(&request)))?;
    channel.flush()?;
    let answer = receive(&mut channel)?;
    check(&answer, &request, wanted, (index, custodian))?;
    let info = unwrap_info(&request.manifest, request.attempt, index, &recipient);
    let value = key.open(&info, &Sealed { enc: answer.enc, ct: answer.ct })?;
    Ok(Share::from_secret(index, value)?)
}

fn receive(channel: &mut impl Read) -> Result<Unwrapped, UnwrapError> {
    let mut header = [0; HEADER];
    channel.read_exact(&mut header)?;
    let (kind, length) = protocol::read_header(header)?;
    let mut body = vec![0; length];
    channel.read_exact(&mut body)?;
    if kind == Kind::Refused {
        let refused: Refused = protocol::read(kind, &body)?;
        return Err(UnwrapError::Refused(refused.answer));
    }
    Ok(protocol::read(kind, &body)?)
}

/// The record of this very unwrapping is in the custodian's log.
fn check(
    answer: &Unwrapped,
    request: &Unwrap,
    wanted: &Wanted<'_>,
    (index, custodian): (u8, &Custodian),
) -> Result<(), UnwrapError> {
    if answer.index != index {
        return Err(UnwrapError::Index { observed: answer.index, required: index });
    }
    let ledger = &wanted.manifest.ledger;
    let logged = proof::record(&answer.unwrap, &custodian.log, &custodian.decision, ledger)?;
    match logged.event {
        Event::Unwrap(record)
            if record.job == request.job
                && record.attempt == request.attempt
                && record.recipient == request.recipient =>
        {
            Ok(())
        }
        _ => Err(UnwrapError::OtherRecord),
    }
}
