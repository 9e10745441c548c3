//! What evidence says, field by field, in words. Nothing is judged: whoever wants to know whether it
//! is true appraises it.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use measurement::manifest::Tee;
use measurement::octets::Octets;
use serde::Serialize;

use crate::evidence::Evidence;
use crate::wire::Malformed;

mod device;
mod snp;
mod tdx;

pub use device::explain_device;

/// One field of a piece of evidence.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Field {
    /// Where it begins, in bytes from the start.
    pub at: usize,
    /// Its name in the vendor's specification.
    pub name: &'static str,
    /// Its value: hexadecimal, a number, or words.
    pub value: String,
    /// What that means for one who would hand a key to this guest.
    pub meaning: String,
}

/// Every field of `evidence`, in its order.
///
/// # Errors
/// When it has not the shape of evidence.
pub fn explain(evidence: &Evidence<'_>) -> Result<Vec<Field>, Malformed> {
    match evidence.tee {
        Tee::Snp => snp::explain(evidence.report),
        Tee::Tdx => tdx::explain(evidence.report),
    }
}

/// Collects fields.
#[derive(Default)]
struct Page(Vec<Field>);

impl Page {
    fn add(&mut self, at: usize, name: &'static str, value: impl ToString, meaning: &str) {
        self.0.push(Field { at, name, value: value.to_string(), meaning: meaning.to_string() });
    }

    fn digest<const N: usize>(
        &mut self,
        at: usize,
        name: &'static str,
        value: &[u8; N],
        (set, zero): (&str, &str),
    ) {
        let meaning = if *value == [0; N] { zero } else { set };
        self.add(at, name, Octets(*value), meaning);
    }

    /// One line per known bit of a field, whether set or not.
    fn bits(&mut self, at: usize, value: u64, known: &[Bit]) {
        for bit in known {
            let set = value.checked_shr(bit.number).unwrap_or(0) & 1 == 1;
            let (word, meaning) = if set { ("set", bit.set) } else { ("clear", bit.clear) };
            let value = format!("bit {} {word}", bit.number);
            self.add(at, bit.name, value, meaning);
        }
        let mask =
            known.iter().fold(0_u64, |mask, bit| mask | 1_u64.checked_shl(bit.number).unwrap_or(0));
        if value & !mask != 0 {
            let value = format!("{:#x}", value & !mask);
            self.add(at, "bits without a name here", value, "this verifier does not know them");
        }
    }
}

/// What one bit means.
struct Bit {
    number: u32,
    name: &'static str,
    set: &'static str,
    clear: &'static str,
}
