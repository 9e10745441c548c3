//! Whether GPUs and switches in Protected PCIe mode are one machine: eight GPUs and four switches that
//! name each other, and nothing else on the links.
//!
//! A switch's id, and the ids of GPUs it lists, are compared with the ids in the devices' identity
//! certificates. A GPU lists switches by their ids reversed.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::endorsement::nvidia::Claims;
use crate::evidence::device::{Kind, Mode};
use crate::wire::opaque::{GpuFields, SwitchFields};

const GPUS: usize = 8;
const SWITCHES: usize = 4;

/// Whether links leave any GPU, or switches are there beside GPUs.
pub(crate) fn applies(claims: &[Claims]) -> bool {
    let (gpus, switches) = split(claims);
    let linked = gpus.iter().any(|(_, _, fields)| fields.mode() == Ok(Mode::Ppcie));
    linked || (!gpus.is_empty() && !switches.is_empty())
}

/// A device with its position.
type Gpu<'a> = (usize, &'a Claims, &'a GpuFields);
type Switch<'a> = (usize, &'a Claims, &'a SwitchFields);

fn split(claims: &[Claims]) -> (Vec<Gpu<'_>>, Vec<Switch<'_>>) {
    let (mut gpus, mut switches) = (Vec::new(), Vec::new());
    for (index, one) in claims.iter().enumerate() {
        match &one.kind {
            Kind::Gpu(fields) => gpus.push((index, one, fields)),
            Kind::Switch(fields) => switches.push((index, one, fields)),
        }
    }
    (gpus, switches)
}

/// All that keeps the devices from being such a machine.
pub(crate) fn problems(claims: &[Claims]) -> Vec<String> {
    let (gpus, switches) = split(claims);
    let mut problems = Vec::new();
    if (gpus.len(), switches.len()) != (GPUS, SWITCHES) {
        problems.push(format!("{} gpus and {} switches", gpus.len(), switches.len()));
    }
    let switch_ids = set(switches.iter().map(|(_, claims, _)| claims.pdi));
    let gpu_ids = set(gpus.iter().map(|(_, claims, _)| claims.pdi));
    for (index, _, fields) in &gpus {
        if fields.mode() != Ok(Mode::Ppcie) {
            problems.push(format!("device {index} is not in ppcie mode"));
        }
        let named = fields.switch_pdis.iter().filter(|id| **id != [0; 8]).map(|id| {
            let mut id = *id;
            id.reverse();
            id
        });
        if set(named) != switch_ids {
            problems.push(format!("device {index} names other switches"));
        }
    }
    for (index, _, fields) in &switches {
        let named = set(fields.gpu_pdis.iter().copied());
        if named.len() != fields.gpu_pdis.len() || named != gpu_ids {
            problems.push(format!("device {index} names other gpus"));
        }
    }
    problems
}

fn set(ids: impl Iterator<Item = [u8; 8]>) -> Vec<[u8; 8]> {
    let mut ids: Vec<_> = ids.collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}
