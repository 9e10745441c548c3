//! What a TD says was recorded in its run-time registers: the event log of its firmware.
//!
//! TCG PC Client Platform Firmware Profile (crypto-agile log, "Spec ID Event03") in the log area that
//! ACPI's CCEL table names, with SHA-384 alone; or a list of events in JSON, as dstack writes it. Only
//! digests are read. A log is believed as far as it replays to the registers of the quote, and the text
//! of an event proves nothing until its digest was computed from it, which this module does not do:
//! what was launched is judged by the registers themselves.

use alloc::string::String;
use alloc::vec::Vec;

use measurement::digest::sha384;
use serde::Deserialize;

use super::budget;
use crate::wire::{Reader, layout};

/// Most events: the largest log seen has 43.
const EVENT_LIMIT: usize = 4096;
const NO_ACTION: u32 = 3;
const SHA384: u16 = 0x000c;

layout! {
    /// The first event, in the format of TPM 1.2, as far as its size is fixed.
    First, 0x40 {
        0x00 _register: u32,
        0x04 kind: u32,
        0x08 digest: [u8; 20],
        0x1c size: u32,
        0x20 signature: [u8; 16],
        0x30 _platform: u32,
        0x34 _minor: u8,
        0x35 _major: u8,
        0x36 _errata: u8,
        0x37 _uintn: u8,
        0x38 algorithms: u32,
        0x3c algorithm: u16,
        0x3e digest_size: u16,
    }
}

const SIGNATURE: [u8; 16] = *b"Spec ID Event03\0";

/// Whether `item` claims to be an event log. Unjudged.
pub fn is_event_log(item: &[u8]) -> bool {
    EventLog::is_one(item)
}

/// What the registers would hold if the log were true.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct EventLog {
    /// RTMR0 to RTMR3; none where the log has no event.
    pub(crate) registers: [Option<[u8; 48]>; 4],
}

impl EventLog {
    /// The logs among `items`.
    pub(crate) fn among(items: &[&[u8]]) -> Vec<Self> {
        items
            .iter()
            .filter(|item| Self::is_one(item))
            .filter_map(|item| Self::read(item).ok())
            .collect()
    }

    /// Whether `item` claims to be an event log.
    pub(super) fn is_one(item: &[u8]) -> bool {
        // dstack's JSON begins with the quote or with the log.
        let json = item.strip_prefix(b"{").map(<[u8]>::trim_ascii_start).is_some_and(|rest| {
            rest.starts_with(b"\"quote\"") || rest.starts_with(b"\"event_log\"")
        });
        json || item.get(0x20..0x30) == Some(&SIGNATURE)
    }

    pub(super) fn read(item: &[u8]) -> Result<Self, &'static str> {
        if item.starts_with(b"{") { Self::read_json(item) } else { Self::read_area(item) }
    }

    fn read_json(item: &[u8]) -> Result<Self, &'static str> {
        #[derive(Deserialize)]
        struct Report {
            event_log: String,
        }

        #[derive(Deserialize)]
        struct Event {
            imr: usize,
            digest: String,
        }

        let problem = "not an event log in JSON";
        let text = core::str::from_utf8(item).map_err(|_| problem)?;
        budget::check(text)?;
        let report: Report = serde_json::from_str(text).map_err(|_| problem)?;
        budget::check(&report.event_log)?;
        let events: Vec<Event> = serde_json::from_str(&report.event_log).map_err(|_| problem)?;
        let mut log = Self { registers: [None; 4] };
        for event in events {
            let mut digest = [0; 48];
            hex::decode_to_slice(&event.digest, &mut digest).map_err(|_| problem)?;
            log.extend(event.imr, &digest)?;
        }
        Ok(log)
    }

    fn read_area(item: &[u8]) -> Result<Self, &'static str> {
        let problem = "an event log cut short";
        let mut reader = Reader::new(item);
        read_first(&mut reader)?;
        let mut log = Self { registers: [None; 4] };
        for _ in 0..EVENT_LIMIT {
            if is_filling(reader.rest()) {
                return Ok(log);
            }
            let register: u32 = reader.field("").map_err(|_| problem)?;
            let kind: u32 = reader.field("").map_err(|_| problem)?;
            let digests: u32 = reader.field("").map_err(|_| problem)?;
            let algorithm: u16 = reader.field("").map_err(|_| problem)?;
            if (digests, algorithm) != (1, SHA384) {
                return Err("an event with other digests than one of SHA-384");
            }
            let digest: [u8; 48] = reader.field("").map_err(|_| problem)?;
            reader.sized("").map_err(|_| problem)?;
            if kind != NO_ACTION {
                // Measurement registers count from 1, which is RTMR0.
                let index = usize::try_from(register).ok().and_then(|index| index.checked_sub(1));
                log.extend(index.unwrap_or(usize::MAX), &digest)?;
            }
        }
        Err("more events than any honest log has")
    }

    fn extend(&mut self, index: usize, digest: &[u8; 48]) -> Result<(), &'static str> {
        let register = self.registers.get_mut(index).ok_or("an event of no register")?;
        let mut both = [0; 96];
        let (old, new) = both.split_at_mut(48);
        old.copy_from_slice(&register.unwrap_or([0; 48]));
        new.copy_from_slice(digest);
        *register = Some(sha384(&both));
        Ok(())
    }
}

/// The event that says which digests the others have.
fn read_first(reader: &mut Reader<'_>) -> Result<(), &'static str> {
    let problem = "an event log with another head than one of SHA-384 alone";
    let fixed = reader.bytes("", First::SIZE).map_err(|_| problem)?;
    let first = First::read(fixed).ok_or(problem)?;
    let lawful = first.kind == NO_ACTION
        && first.digest == [0; 20]
        && first.signature == SIGNATURE
        && (first.algorithms, first.algorithm, first.digest_size) == (1, SHA384, 48);
    // The fixed part of the event's data is 32 bytes; vendor information follows it.
    let rest = usize::try_from(first.size).ok().and_then(|size| size.checked_sub(32));
    let rest = rest.filter(|_| lawful).ok_or(problem)?;
    reader.bytes("", rest).map(|_| ()).map_err(|_| problem)
}

/// The area behind the last event is filled with ones or zeros.
fn is_filling(rest: &[u8]) -> bool {
    rest.iter().all(|byte| *byte == 0xff) || rest.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::path::PathBuf;
    use std::{eprintln, fs};

    use serde_json::Value;

    use super::*;

    fn vectors() -> Option<PathBuf> {
        let root =
            PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/vectors/cpu/ccel"));
        if root.is_dir() {
            return Some(root);
        }
        assert!(std::env::var_os("CI").is_none(), "the vectors are missing");
        eprintln!("skipped: the vectors are missing");
        None
    }

    #[test]
    fn replays_every_recorded_log_to_its_registers() {
        let Some(root) = vectors() else { return };
        let expected = fs::read(root.join("expected_replay.json")).unwrap();
        let expected: Value = serde_json::from_slice(&expected).unwrap();
        for (name, expected) in expected.as_object().unwrap() {
            let Ok(area) = fs::read(root.join(alloc::format!("{name}.ccel.bin"))) else { continue };
            assert!(EventLog::is_one(&area));
            let log = EventLog::read(&area).unwrap();
            for (index, register) in log.registers.iter().enumerate() {
                let key = alloc::format!("mr{}", index + 1);
                let register = hex::encode(register.unwrap_or([0; 48]));
                assert_eq!(expected["replay"][&key], register, "{name} {key}");
            }
        }
        let report = fs::read(root.join("dstack-quote-report.json")).unwrap();
        assert!(EventLog::read(&report).unwrap().registers.iter().all(Option::is_some));
    }

    #[test]
    fn refuses_logs_cut_short_and_never_panics() {
        let Some(root) = vectors() else { return };
        let area = fs::read(root.join("attrs-live.ccel.bin")).unwrap();
        let golden = EventLog::read(&area).unwrap();
        let end = area.iter().rposition(|byte| ![0, 0xff].contains(byte)).unwrap();
        for len in 0..end {
            assert_ne!(EventLog::read(&area[..len]).ok().as_ref(), Some(&golden), "{len}");
        }
        for at in 0..area.len().min(4096) {
            let mut changed = area.clone();
            changed[at] ^= 0xff;
            let read = EventLog::read(&changed);
            let problem = "an event log with another head than one of SHA-384 alone";
            // The head, but for its register and what its data says of the firmware.
            let data = (0x20..0x30).contains(&at) || (0x38..0x40).contains(&at);
            if (0x04..0x1c).contains(&at) || data {
                assert_eq!(read, Err(problem), "{at:#x}");
            }
        }
        let mut events = area[..First::SIZE].to_vec();
        events[0x1c] = 33;
        events.push(0);
        let mut event = [0; 66];
        (event[0], event[4], event[8], event[12]) = (1, 4, 1, 0x0c);
        let log = |count: usize| {
            let log = [&events[..], &event.repeat(count)].concat();
            EventLog::read(&log).map(|_| ())
        };
        for (filling, read) in [
            (&[0; 8][..], Ok(())),
            (&[0xff; 8], Ok(())),
            (&[0, 0xff], Err("an event log cut short")),
            (&[1; 8], Err("an event log cut short")),
        ] {
            let area = [&events[..], filling].concat();
            assert_eq!(EventLog::read(&area).map(|_| ()), read, "{filling:x?}");
        }
        assert_eq!(log(EVENT_LIMIT - 1), Ok(()));
        assert_eq!(log(EVENT_LIMIT), Err("more events than any honest log has"));
    }
}
