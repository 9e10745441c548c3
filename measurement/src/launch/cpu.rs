//! CPU models by QEMU's names, and the signature that reaches the launch digest.

use core::fmt;
use core::str::FromStr;

/// A CPU model as the guest's registers show it: CPUID leaf 1, EAX.
///
/// Written as QEMU's `-cpu` name (`EPYC`, `EPYC-IBPB`, `EPYC-Rome`, `EPYC-Milan`, `EPYC-Genoa`,
/// `EPYC-Turin`, each with or without a version such as `-v2`, which changes features but not the
/// signature), or as `family:model:stepping` in decimal, for a host's own CPU.
///
/// ```
/// use measurement::launch::CpuModel;
/// let genoa: CpuModel = "EPYC-Genoa-v1".parse()?;
/// assert_eq!(genoa, CpuModel::new(25, 17, 0)?);
/// assert_eq!(genoa.signature(), 0x00a1_0f10);
/// # Ok::<(), measurement::launch::UnknownCpu>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuModel {
    family: u16,
    model: u8,
    stepping: u8,
}

/// Why a text or three numbers are no CPU model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown cpu model, expected EPYC, EPYC-IBPB, EPYC-Rome, EPYC-Milan, EPYC-Genoa or EPYC-Turin, \
     with or without -v1 to -v9, or family:model:stepping in decimal"
)]
pub struct UnknownCpu;

/// Names without versions (QEMU, `target/i386/cpu.c`).
const NAMES: [(&str, CpuModel); 6] = [
    ("EPYC", CpuModel { family: 23, model: 1, stepping: 2 }),
    ("EPYC-IBPB", CpuModel { family: 23, model: 1, stepping: 2 }),
    ("EPYC-Rome", CpuModel { family: 23, model: 49, stepping: 0 }),
    ("EPYC-Milan", CpuModel { family: 25, model: 1, stepping: 1 }),
    ("EPYC-Genoa", CpuModel { family: 25, model: 17, stepping: 0 }),
    ("EPYC-Turin", CpuModel { family: 26, model: 0, stepping: 0 }),
];

impl CpuModel {
    /// Accepts what a signature can hold: family 0 to 270, model 0 to 255 (0 to 15 below family
    /// 6), stepping 0 to 15.
    pub fn new(family: u16, model: u8, stepping: u8) -> Result<Self, UnknownCpu> {
        if family > 0xf + 0xff || stepping > 0xf || (family < 6 && model > 0xf) {
            return Err(UnknownCpu);
        }
        Ok(Self { family, model, stepping })
    }

    /// CPUID leaf 1, EAX (AMD64 Architecture Programmer's Manual, volume 3, appendix E.3.2).
    pub fn signature(self) -> u32 {
        let base = self.family.min(0xf);
        let extended = u32::from(self.family.saturating_sub(base));
        let (high, low) = (u32::from(self.model >> 4), u32::from(self.model & 0xf));
        (extended << 20)
            | (high << 16)
            | (u32::from(base) << 8)
            | (low << 4)
            | u32::from(self.stepping)
    }
}

impl FromStr for CpuModel {
    type Err = UnknownCpu;

    fn from_str(text: &str) -> Result<Self, UnknownCpu> {
        let name = match text.rsplit_once("-v") {
            Some((name, version)) if is_version(version) => name,
            _ => text,
        };
        let named = NAMES.iter().find(|(known, _)| *known == name).map(|(_, model)| *model);
        named.map_or_else(|| from_numbers(text), Ok)
    }
}

fn is_version(text: &str) -> bool {
    matches!(text.as_bytes(), [b'1'..=b'9'])
}

fn from_numbers(text: &str) -> Result<CpuModel, UnknownCpu> {
    let mut numbers = text.split(':').map(decimal);
    match (numbers.next(), numbers.next(), numbers.next(), numbers.next()) {
        (Some(Some(family)), Some(Some(model)), Some(Some(stepping)), None) => CpuModel::new(
            family,
            model.try_into().map_err(|_| UnknownCpu)?,
            stepping.try_into().map_err(|_| UnknownCpu)?,
        ),
        _ => Err(UnknownCpu),
    }
}

/// A number in its one decimal form: no sign, no leading zero.
fn decimal(text: &str) -> Option<u16> {
    let canonical = text == "0" || !text.starts_with(['0', '+']);
    text.parse().ok().filter(|_| canonical)
}

/// `family:model:stepping`, which parses back.
impl fmt::Display for CpuModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.family, self.model, self.stepping)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn names_give_the_signatures_of_qemu() {
        for (name, signature) in [
            ("EPYC", 0x0080_0f12),
            ("EPYC-v4", 0x0080_0f12),
            ("EPYC-IBPB", 0x0080_0f12),
            ("EPYC-Rome-v2", 0x0083_0f10),
            ("EPYC-Milan", 0x00a0_0f11),
            ("EPYC-Genoa", 0x00a1_0f10),
            ("EPYC-Turin", 0x00b0_0f00),
        ] {
            assert_eq!(name.parse::<CpuModel>().unwrap().signature(), signature, "{name}");
        }
    }

    #[test]
    fn numbers_print_what_they_parse() {
        for text in ["25:17:0", "26:2:1", "6:143:8", "270:255:15", "0:0:0"] {
            assert_eq!(text.parse::<CpuModel>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn rejects_other_texts() {
        for text in [
            "",
            "host",
            "max",
            "epyc",
            "EPYC-",
            "EPYC-v",
            "EPYC-v0",
            "EPYC-v10",
            "EPYC-v1-v1",
            " EPYC",
            "EPYC-Naples",
            "25:17",
            "25:17:0:0",
            "025:17:0",
            "+25:17:0",
            "271:0:0",
            "25:256:0",
            "25:17:16",
            "5:16:0",
            "25:17:-1",
            "25::0",
        ] {
            assert_eq!(text.parse::<CpuModel>(), Err(UnknownCpu), "{text}");
        }
    }
}
