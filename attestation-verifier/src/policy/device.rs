//! What a policy can ask of NVIDIA's devices.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Deserialize as DeriveDeserialize};

use super::{Check, Crl, Describe, Known, Listed, On, OneOf, Require, Waived, Word, word};
use crate::wire::opaque::Mode;

word!(
    /// All devices that belong together, and no others.
    Complete = "complete"
);
word!(
    /// Every value one of those that a genuine manifest gives.
    Matched = "matched"
);
word!(
    /// There at all.
    Present = "present"
);
word!(
    /// Nothing but zero bytes.
    Zero = "zero"
);

checks! {
    /// What is asked of a GPU. Always checked: NVIDIA's chain, dates, that the firmware named is the
    /// one certified, manifests' signatures, that nothing is revoked as far as is known.
    Gpu "gpu" {
        /// The device is one of the job's.
        chip: Word<Listed>,
        /// The least driver version, by branch.
        driver: DriverFloor,
        /// The report names the firmware that signed it.
        fwid: Word<Present>,
        /// The certificates of the manifests' signers are known not to be revoked.
        manifest_revocation: Crl,
        /// Driver and VBIOS measure to what their manifests give.
        measurements: Word<Matched>,
        /// Modes of operation.
        modes: OneOf<Mode>,
        /// No opaque field that this verifier does not know.
        opaque: Word<Known>,
        /// Chips.
        products: OneOf<String>,
        /// The device's certificates are known not to be revoked.
        revocation: Crl,
        /// Measurements that no manifest gives a value for.
        uncovered: Word<Zero>,
        /// The least VBIOS version, by line.
        vbios: VbiosFloor,
    }
}

checks! {
    /// What is asked of an NVSwitch. Always checked: as for a GPU, and that it gives the id it is
    /// certified for.
    NvSwitch "nvswitch" {
        /// The least BIOS version, by line.
        bios: VbiosFloor,
        /// The device is one of the job's.
        chip: Word<Listed>,
        /// Its configuration is locked.
        locked: Word<On>,
        /// The certificates of the manifest's signer are known not to be revoked.
        manifest_revocation: Crl,
        /// The BIOS measures to what its manifest gives.
        measurements: Word<Matched>,
        /// No opaque field that this verifier does not know.
        opaque: Word<Known>,
        /// Chips.
        products: OneOf<String>,
        /// The device's certificates are known not to be revoked.
        revocation: Crl,
        /// GPUs and switches name each other, and there are no others.
        topology: Word<Complete>,
        /// Measurements that no manifest gives a value for.
        uncovered: Word<Zero>,
    }
}

/// The least driver version of each branch, which is the first number: `"550.90.07"`. Branches newer
/// than all listed are accepted, others that are not listed are not.
#[derive(Clone, Debug)]
pub(crate) struct DriverFloor(Vec<Vec<u16>>);

impl DriverFloor {
    pub(crate) fn met_by(&self, version: &str) -> bool {
        let Some(version) = decimal(version) else {
            return false;
        };
        let branch = self.0.iter().find(|floor| floor.first() == version.first());
        match branch {
            Some(floor) => version >= *floor,
            None => self.0.iter().all(|floor| version > *floor),
        }
    }
}

impl Describe for DriverFloor {
    fn describe(&self) -> String {
        let text = |floor: &Vec<u16>| {
            let numbers: Vec<_> = floor.iter().map(|number| format!("{number:02}")).collect();
            numbers.join(".")
        };
        let floors: Vec<_> = self.0.iter().map(text).collect();
        format!("at least {}, by branch", floors.join(", "))
    }
}

impl<'de> Deserialize<'de> for DriverFloor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let list = Vec::<String>::deserialize(deserializer)?;
        let floors: Option<Vec<_>> = list.iter().map(|text| decimal(text)).collect();
        match floors {
            Some(floors) if !floors.is_empty() => Ok(Self(floors)),
            _ => Err(D::Error::custom("expected driver versions such as \"550.90.07\"")),
        }
    }
}

/// `550.90.07`: two or three decimal numbers.
fn decimal(text: &str) -> Option<Vec<u16>> {
    let digits = |part: &str| {
        let plain = part.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| part.parse().ok())?
    };
    let numbers: Vec<u16> = text.split('.').map(digits).collect::<Option<_>>()?;
    (2..=3).contains(&numbers.len()).then_some(numbers)
}

/// The least VBIOS version of each line, which is the first two numbers: `"96.00.9F.00.01"`. Lines
/// that are not listed are refused.
#[derive(Clone, Debug)]
pub(crate) struct VbiosFloor(Vec<[u8; 5]>);

impl VbiosFloor {
    pub(crate) fn met_by(&self, version: &str) -> bool {
        let Some(version) = vbios(version) else {
            return false;
        };
        self.0
            .iter()
            .any(|floor| floor.first_chunk::<2>() == version.first_chunk() && version >= *floor)
    }
}

impl Describe for VbiosFloor {
    fn describe(&self) -> String {
        let text = |[a, b, c, d, e]: &[u8; 5]| format!("{a:02X}.{b:02X}.{c:02X}.{d:02X}.{e:02X}");
        let floors: Vec<_> = self.0.iter().map(text).collect();
        format!("at least {}, by line", floors.join(", "))
    }
}

impl<'de> Deserialize<'de> for VbiosFloor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let list = Vec::<String>::deserialize(deserializer)?;
        let floors: Option<Vec<_>> = list.iter().map(|text| vbios(text)).collect();
        match floors {
            Some(floors) if !floors.is_empty() => Ok(Self(floors)),
            _ => Err(D::Error::custom("expected vbios versions such as \"96.00.9F.00.01\"")),
        }
    }
}

/// `96.00.9F.00.01`: five bytes in hexadecimal.
fn vbios(text: &str) -> Option<[u8; 5]> {
    let byte = |part: &str| {
        let plain = part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
        plain.then(|| u8::from_str_radix(part, 16).ok())?
    };
    let bytes: Vec<u8> = text.split('.').map(byte).collect::<Option<_>>()?;
    bytes.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_drivers_against_the_floor_of_their_branch() {
        let floor =
            DriverFloor(["550.90.07", "570.124.03"].iter().map(|v| decimal(v).unwrap()).collect());
        for accepted in ["550.90.07", "550.144.03", "570.124.03", "580.95.05", "571.1"] {
            assert!(floor.met_by(accepted), "{accepted}");
        }
        for refused in [
            "550.90.06",
            "550.54",
            "535.104.05",
            "560.35.03",
            "570.124",
            "580",
            "",
            "x.1",
            "580.+1",
        ] {
            assert!(!floor.met_by(refused), "{refused}");
        }
    }

    #[test]
    fn holds_a_vbios_against_the_floor_of_its_line() {
        let floor = VbiosFloor(
            ["96.00.5E.00.01", "97.00.88.00.0F"].iter().map(|v| vbios(v).unwrap()).collect(),
        );
        for accepted in ["96.00.5E.00.01", "96.00.9f.00.01", "97.00.88.00.0F"] {
            assert!(floor.met_by(accepted), "{accepted}");
        }
        for refused in [
            "96.00.5E.00.00",
            "96.00.30.00.01",
            "96.10.55.00.01",
            "98.00.00.00.00",
            "",
            "96.00.9F.00",
        ] {
            assert!(!floor.met_by(refused), "{refused}");
        }
    }
}
