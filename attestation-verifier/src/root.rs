//! Where trust begins: the vendors' root certificates, and further roots a policy names.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use measurement::digest::sha256;
use measurement::manifest::Tee;
use serde::{Deserialize, Serialize};

use crate::endorsement::Certificate;

/// The root a piece of evidence was judged under. It travels with the result for ever.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Root {
    /// The vendor's own, built into this verifier.
    BuiltIn,
    /// Another genuine root, which a policy named.
    Private(String),
    /// The root of a simulator, which a policy named.
    Simulated(String),
}

impl Root {
    /// [`Root::word`] for NVIDIA's devices and reference manifests.
    pub fn device_word(&self) -> String {
        match self {
            Self::BuiltIn => "NVIDIA".into(),
            other => other.word(Tee::Snp),
        }
    }

    /// Whether what was judged under this root was only simulated.
    pub fn simulated(&self) -> bool {
        matches!(self, Self::Simulated(_))
    }

    /// The root in one word for records and receipts: a vendor, a private root's name, or
    /// `SIMULATED`. A private root cannot pass for either.
    pub fn word(&self, tee: Tee) -> String {
        match (self, tee) {
            (Self::BuiltIn, Tee::Snp) => "AMD".into(),
            (Self::BuiltIn, Tee::Tdx) => "Intel".into(),
            (Self::Private(name), _) => alloc::format!("private: {name}"),
            (Self::Simulated(_), _) => measurement::receipt::SIMULATED.into(),
        }
    }
}

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn => f.write_str("built-in vendor root"),
            Self::Private(name) => write!(f, "private root {name}"),
            Self::Simulated(name) => write!(f, "SIMULATED root {name}"),
        }
    }
}

/// A root certificate that is believed because it is this one.
#[derive(Clone)]
pub(crate) struct Anchor {
    pub(crate) root: Root,
    pub(crate) platform: Platform,
    pub(crate) certificate: Certificate,
}

/// What a root certificate vouches for.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Platform {
    /// NVIDIA's GPUs and switches.
    Nvidia,
    /// NVIDIA's reference manifests.
    NvidiaManifest,
    Snp,
    Tdx,
}

/// A vendor's root: its certificate, and what its SHA-256 must be.
struct Pinned {
    platform: Platform,
    sha256: &'static str,
    der: &'static [u8],
}

const PINNED: [Pinned; 6] = [
    Pinned {
        platform: Platform::Snp,
        sha256: "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd",
        der: include_bytes!("roots/amd-milan-ark.der"),
    },
    Pinned {
        platform: Platform::Snp,
        sha256: "4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1",
        der: include_bytes!("roots/amd-genoa-ark.der"),
    },
    Pinned {
        platform: Platform::Snp,
        sha256: "1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a",
        der: include_bytes!("roots/amd-turin-ark.der"),
    },
    Pinned {
        platform: Platform::Tdx,
        sha256: "44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3",
        der: include_bytes!("roots/intel-sgx-root.der"),
    },
    Pinned {
        platform: Platform::Nvidia,
        sha256: "102bf659d5419614c9d8e6aecebc80454eb26b1df6a769ac720b9a690b167b48",
        der: include_bytes!("roots/nvidia-device-root.der"),
    },
    Pinned {
        platform: Platform::NvidiaManifest,
        sha256: "12977b5115acb0381179279fffeb5a8c4d264971ebb32298023a465fa41df5d1",
        der: include_bytes!("roots/nvidia-rim-root.der"),
    },
];

/// The vendors' roots. `Err` only if this build's certificates are not the pinned ones.
pub(crate) fn built_in() -> Result<Vec<Anchor>, &'static str> {
    PINNED.iter().map(Pinned::anchor).collect()
}

impl Pinned {
    fn anchor(&self) -> Result<Anchor, &'static str> {
        if hex::encode(sha256(self.der)) != self.sha256 {
            return Err("a built-in root is not the pinned one");
        }
        let certificate = Certificate::read(self.der)?;
        Ok(Anchor { root: Root::BuiltIn, platform: self.platform, certificate })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_roots_are_the_pinned_ones() {
        let anchors = built_in().unwrap();
        let names: Vec<_> = anchors.iter().map(|a| a.certificate.common_name().unwrap()).collect();
        assert_eq!(
            names,
            [
                "ARK-Milan",
                "ARK-Genoa",
                "ARK-Turin",
                "Intel SGX Root CA",
                "NVIDIA Device Identity CA",
                "NVIDIA CoRIM signing Root CA"
            ]
        );
    }

    #[test]
    fn rejects_a_built_in_root_with_a_flipped_bit() {
        let mut der = PINNED[1].der.to_vec();
        der[200] ^= 1;
        let pinned = Pinned { platform: Platform::Snp, sha256: PINNED[1].sha256, der: der.leak() };
        assert_eq!(pinned.anchor().err(), Some("a built-in root is not the pinned one"));
    }
}
