//! What a check can require.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::marker::PhantomData;

use der::DateTime;
use measurement::octets::Octets;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

use crate::endorsement::amd::SnpTcb;

/// What is required, for a person.
pub(crate) trait Describe {
    fn describe(&self) -> String;
}

impl Describe for u32 {
    fn describe(&self) -> String {
        format!("at least {self}")
    }
}

/// A requirement that has only one form. Spelling it out keeps a policy readable by itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Word<T>(PhantomData<T>);

/// What a [`Word`] is.
pub(crate) trait Spelling {
    const SPELLING: &'static str;
}

impl<T: Spelling> Describe for Word<T> {
    fn describe(&self) -> String {
        T::SPELLING.to_string()
    }
}

impl<'de, T: Spelling> Deserialize<'de> for Word<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == T::SPELLING {
            return Ok(Self(PhantomData));
        }
        Err(D::Error::custom(format!("expected \"{}\", found \"{text}\"", T::SPELLING)))
    }
}

macro_rules! word {
    ($(#[$about:meta])* $name:ident = $spelling:literal) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug)]
        pub(crate) struct $name;

        impl $crate::policy::value::Spelling for $name {
            const SPELLING: &'static str = $spelling;
        }
    };
}

pub(crate) use word;

/// A list, one of which must be seen. An empty list accepts nothing.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub(crate) struct OneOf<T>(Vec<T>);

impl<T: PartialEq> OneOf<T> {
    pub(crate) fn has(&self, seen: &T) -> bool {
        self.0.contains(seen)
    }
}

impl OneOf<String> {
    pub(crate) fn has_text(&self, seen: &str) -> bool {
        self.0.iter().any(|accepted| accepted == seen)
    }
}

impl<T: fmt::Display> Describe for OneOf<T> {
    fn describe(&self) -> String {
        let items: Vec<_> = self.0.iter().map(T::to_string).collect();
        format!("one of [{}]", items.join(", "))
    }
}

/// What a register or digest must hold: `"zero"`, or one of a list.
#[derive(Clone, Debug)]
pub(crate) struct Pinned<const N: usize>(Vec<Octets<N>>);

impl<const N: usize> Pinned<N> {
    /// What was seen instead.
    pub(crate) fn differs(&self, seen: &[u8; N]) -> Option<String> {
        (!self.0.contains(&Octets(*seen))).then(|| Octets(*seen).to_string())
    }
}

impl<const N: usize> Describe for Pinned<N> {
    fn describe(&self) -> String {
        if self.0 == [Octets([0; N])] {
            return "zero".to_string();
        }
        let items: Vec<_> = self.0.iter().map(Octets::to_string).collect();
        format!("one of [{}]", items.join(", "))
    }
}

impl<'de, const N: usize> Deserialize<'de> for Pinned<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Raw {
            List(Vec<String>),
            Word(String),
        }

        let expected = || D::Error::custom(format!("expected \"zero\" or a list of {N} bytes"));
        match Raw::deserialize(deserializer).map_err(|_| expected())? {
            Raw::Word(word) if word == "zero" => Ok(Self(Vec::from([Octets([0; N])]))),
            Raw::Word(_) => Err(expected()),
            Raw::List(items) => {
                let items = items.iter().map(|item| item.parse().map_err(|_| expected()));
                items.collect::<Result<_, _>>().map(Self)
            }
        }
    }
}

/// What evidence must speak for.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Challenge {
    /// A session: the report data is not zero.
    Answered,
    /// A session, or a launch: the report data or else HOST_DATA or MRCONFIGID is not zero.
    AnsweredOrLaunched,
}

impl Describe for Challenge {
    fn describe(&self) -> String {
        match self {
            Self::Answered => "answered",
            Self::AnsweredOrLaunched => "answered or launched",
        }
        .to_string()
    }
}

/// What is asked of a revocation list.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Crl {
    /// It must come, and be of today.
    Fresh,
    /// If one comes it must be of today.
    FreshIfGiven,
}

impl Describe for Crl {
    fn describe(&self) -> String {
        match self {
            Self::Fresh => "fresh",
            Self::FreshIfGiven => "fresh if given",
        }
        .to_string()
    }
}

/// Intel's words for the state of a TCB. `Revoked` is not among them: no policy can accept it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
pub(crate) enum Status {
    ConfigurationAndSWHardeningNeeded,
    ConfigurationNeeded,
    OutOfDate,
    OutOfDateConfigurationNeeded,
    SWHardeningNeeded,
    TDRelaunchAdvised,
    TDRelaunchAdvisedConfigurationNeeded,
    UpToDate,
}

impl OneOf<Status> {
    pub(crate) fn has_status(&self, seen: &str) -> bool {
        self.0.iter().any(|accepted| accepted.to_string() == seen)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A floor that may rise with time: a number, or a list of numbers each with the day it begins.
/// Evidence is judged by the floor of its time, so that an old record is not held to a newer one.
#[derive(Clone, Debug)]
pub(crate) struct DatedFloor(Vec<Dated>);

#[derive(Clone, Copy, Debug)]
struct Dated {
    /// Seconds since 1970.
    since: u64,
    least: u64,
}

impl DatedFloor {
    /// The floor at `now`: the one that began last.
    pub(crate) fn at(&self, now: u64) -> u64 {
        let begun = self.0.iter().filter(|dated| dated.since <= now);
        begun.max_by_key(|dated| dated.since).map_or(u64::MAX, |dated| dated.least)
    }
}

impl Describe for DatedFloor {
    fn describe(&self) -> String {
        let floors: Vec<_> = self
            .0
            .iter()
            .map(|Dated { since, least }| match since {
                0 => format!("at least {least}"),
                since => format!("at least {least} since {since}"),
            })
            .collect();
        floors.join(", ")
    }
}

impl<'de> Deserialize<'de> for DatedFloor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct RawDated {
            since: String,
            least: u64,
        }

        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Raw {
            Ever(u64),
            Dated(Vec<RawDated>),
        }

        let expected = || {
            D::Error::custom("expected a number or a list of { since = \"2026-01-31\", least = 1 }")
        };
        match Raw::deserialize(deserializer).map_err(|_| expected())? {
            Raw::Ever(least) => Ok(Self(Vec::from([Dated { since: 0, least }]))),
            Raw::Dated(floors) if !floors.is_empty() => floors
                .iter()
                .map(|raw| Some(Dated { since: midnight(&raw.since)?, least: raw.least }))
                .collect::<Option<_>>()
                .map(Self)
                .ok_or_else(expected),
            Raw::Dated(_) => Err(expected()),
        }
    }
}

/// The first second of a day such as `2026-01-31`, in UTC.
fn midnight(day: &str) -> Option<u64> {
    let date: DateTime = format!("{day}T00:00:00Z").parse().ok()?;
    Some(date.unix_duration().as_secs())
}

/// Off or on.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Switch {
    Off,
    On,
}

impl From<bool> for Switch {
    fn from(on: bool) -> Self {
        if on { Self::On } else { Self::Off }
    }
}

impl fmt::Display for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::On => "on",
        })
    }
}

/// Bits of a 64-bit field that may be set, written as `"0x…"`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bits(u64);

impl Bits {
    /// The bits of `seen` that are not allowed.
    pub(crate) fn beyond(self, seen: u64) -> u64 {
        seen & !self.0
    }
}

impl Describe for Bits {
    fn describe(&self) -> String {
        format!("within {:#018x}", self.0)
    }
}

impl<'de> Deserialize<'de> for Bits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.strip_prefix("0x")
            .filter(|digits| digits.len() == 16)
            .and_then(|digits| u64::from_str_radix(digits, 16).ok())
            .map(Self)
            .ok_or_else(|| D::Error::custom("expected \"0x\" and 16 hexadecimal digits"))
    }
}

/// A firmware version, written as `"1.55.39"`: major, minor, build.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Firmware {
    pub(crate) major: u8,
    pub(crate) minor: u8,
    pub(crate) build: u8,
}

impl fmt::Display for Firmware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.build)
    }
}

impl Describe for Firmware {
    fn describe(&self) -> String {
        format!("at least {self}")
    }
}

impl<'de> Deserialize<'de> for Firmware {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let parts: Option<Vec<u8>> = text.split('.').map(|part| part.parse().ok()).collect();
        match parts.as_deref() {
            Some(&[major, minor, build]) => Ok(Self { major, minor, build }),
            _ => Err(D::Error::custom("expected a version such as \"1.55.39\"")),
        }
    }
}

/// Bits of the mitigation vectors, which version 5 reports carry.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mitigations {
    /// Numbers of the bits that must be set in both vectors.
    pub(crate) bits: Vec<u8>,
    /// What becomes of reports of a version that carries no vectors.
    pub(crate) reports_without: Without,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Without {
    Accepted,
    Refused,
}

impl Mitigations {
    /// The required bits that `vector` lacks.
    pub(crate) fn missing(&self, vector: u64) -> Vec<u8> {
        let lacks = |bit: &u8| vector.checked_shr((*bit).into()).unwrap_or(0) & 1 == 0;
        self.bits.iter().copied().filter(lacks).collect()
    }

    pub(crate) fn accepts_reports_without(&self) -> bool {
        self.reports_without == Without::Accepted
    }
}

impl Describe for Mitigations {
    fn describe(&self) -> String {
        format!("bits {:?}", self.bits)
    }
}

/// The least TCB of each CPUID model. Microcode is numbered per model, so a product has several.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub(crate) struct TcbFloor(Vec<ModelFloor>);

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelFloor {
    /// Family and model in hexadecimal, as in `"19/11"`.
    cpu: Cpu,
    #[serde(default)]
    fmc: u8,
    bootloader: u8,
    tee: u8,
    snp: u8,
    microcode: u8,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Cpu {
    family: u8,
    model: u8,
}

impl TcbFloor {
    pub(crate) fn of_cpu(&self, family: u8, model: u8) -> Option<SnpTcb> {
        let floor = self.0.iter().find(|floor| floor.cpu == Cpu { family, model })?;
        Some(SnpTcb {
            fmc: floor.fmc,
            bootloader: floor.bootloader,
            tee: floor.tee,
            snp: floor.snp,
            microcode: floor.microcode,
        })
    }
}

impl Describe for TcbFloor {
    fn describe(&self) -> String {
        "at least the floor of its cpu model".to_string()
    }
}

impl<'de> Deserialize<'de> for Cpu {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let byte = |digits: &str| match digits.len() {
            2 => u8::from_str_radix(digits, 16).ok(),
            _ => None,
        };
        text.split_once('/')
            .and_then(|(family, model)| Some(Self { family: byte(family)?, model: byte(model)? }))
            .ok_or_else(|| D::Error::custom("expected a cpu such as \"19/11\""))
    }
}

/// Security version numbers, byte by byte.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(transparent)]
pub(crate) struct Svn(Octets<16>);

impl Svn {
    pub(crate) fn met_by(self, seen: &[u8; 16]) -> bool {
        let Octets(floor) = self.0;
        seen.iter().zip(floor).all(|(seen, least)| *seen >= least)
    }
}

impl Describe for Svn {
    fn describe(&self) -> String {
        format!("at least {}, byte by byte", self.0)
    }
}
