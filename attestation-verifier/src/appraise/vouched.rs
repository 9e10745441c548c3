//! What NVIDIA vouches for: everything about a machine's devices that does not change from one session
//! to the next, so that a cache may hold it.

use alloc::sync::Arc;
use alloc::vec::Vec;

use measurement::digest::sha256;

use super::{Rejection, Verifier};
use crate::cache::{Cache, Held, Key};
use crate::endorsement::chain::Survey;
use crate::endorsement::device::DeviceEndorsements;
use crate::endorsement::manifest::{self, Reference};
use crate::endorsement::nvidia::{self, endorse};
use crate::endorsement::revocation::{Revocations, Standing, Windows};
use crate::endorsement::{Certificate, Role};
use crate::evidence::device::Device;
use crate::evidence::{Inauthentic, Place};
use crate::root::Root;

/// Chains, manifests, and what is known about revocation.
pub(crate) struct Vouched {
    /// Of each device: the root, and what speaks for its certificates.
    pub(super) devices: Vec<(Root, Covered)>,
    /// Each with what speaks for its signer's certificates.
    pub(super) references: Vec<(Reference, Covered)>,
    /// When all of the certificates are valid: seconds since 1970, both ends included.
    valid: (u64, u64),
}

/// Certificates by their place, and what speaks for each.
pub(super) struct Covered(Vec<(Role, Windows)>);

impl Covered {
    pub(super) fn standing(&self, now: u64) -> impl Iterator<Item = (Role, Standing)> {
        self.0.iter().map(move |(role, windows)| (*role, windows.standing(now)))
    }
}

impl Verifier {
    /// From the cache, if the same devices came with the same endorsements before.
    pub(super) fn vouched(
        &self,
        devices: &[Device<'_>],
        endorsements: &[&[u8]],
        now: u64,
        mut cache: Option<&mut Cache>,
    ) -> Result<Arc<Vouched>, Rejection> {
        let chains = || devices.iter().flat_map(|device| sha256(device.chain)).collect::<Vec<_>>();
        let key = cache.as_ref().map(|_| Key::of(&self.policy, endorsements, &chains()));
        if let (Some(cache), Some(key)) = (&cache, &key)
            && let Some(Held::Devices(vouched)) = cache.find(key, now)
        {
            return Ok(vouched.clone());
        }
        let endorsements = DeviceEndorsements::read(endorsements)?;
        let vouched = Arc::new(self.vouch(devices, endorsements, now)?);
        if let (Some(cache), Some(key)) = (&mut cache, key) {
            cache.keep(key, vouched.valid, Held::Devices(vouched.clone()));
        }
        Ok(vouched)
    }

    fn vouch(
        &self,
        devices: &[Device<'_>],
        endorsements: DeviceEndorsements,
        now: u64,
    ) -> Result<Vouched, Inauthentic> {
        let anchors = &self.policy.anchors;
        let revocations = endorsements.revocations;
        for (index, root) in &endorsements.roots {
            let known = anchors.iter().any(|anchor| anchor.certificate.der == root.der);
            if !known {
                return Err(in_place(Place::Endorsement(*index))(Inauthentic::UnknownRoot));
            }
        }
        let mut survey = Survey::new();
        let mut vouched = Vouched { devices: Vec::new(), references: Vec::new(), valid: (0, 0) };
        for (index, device) in devices.iter().enumerate() {
            let within = in_place(Place::Device(index));
            let root = endorse(device, anchors, now, &mut survey).map_err(within)?;
            // The device key's certificate is the device's own: no one revokes it.
            let judged = device.certificates.get(1..).unwrap_or_default();
            let roles = nvidia::ROLES.get(1..).unwrap_or_default();
            let covered = cover(&revocations, judged, roles, now, &mut survey).map_err(within)?;
            vouched.devices.push((root, covered));
        }
        for (index, manifest) in endorsements.manifests {
            let within = in_place(Place::Endorsement(index));
            let reference = manifest.authenticate(anchors, now, &mut survey).map_err(within)?;
            let (judged, roles) = (&reference.certificates, &manifest::ROLES);
            let covered = cover(&revocations, judged, roles, now, &mut survey).map_err(within)?;
            vouched.references.push((reference, covered));
        }
        Ok(Vouched { valid: survey.valid, ..vouched })
    }
}

pub(super) fn in_place(place: Place) -> impl Fn(Inauthentic) -> Inauthentic + Copy {
    move |flaw| Inauthentic::In { place, flaw: flaw.into() }
}

/// What speaks for each certificate below the root.
fn cover(
    revocations: &Revocations,
    certificates: &[Certificate],
    roles: &[Role],
    now: u64,
    survey: &mut Survey,
) -> Result<Covered, Inauthentic> {
    let mut covered = Vec::new();
    let issuers = certificates.iter().skip(1);
    for ((certificate, issuer), role) in certificates.iter().zip(issuers).zip(roles) {
        let windows = revocations.windows(*role, certificate, issuer, now, survey)?;
        covered.push((*role, windows));
    }
    Ok(Covered(covered))
}
