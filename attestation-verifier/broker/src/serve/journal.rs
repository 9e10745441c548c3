//! What the custodian's side may know: one line per event, on standard error.

use std::io::Write as _;
use std::net::SocketAddr;

use serde::Serialize;

use super::Stop;

/// How events are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Journal {
    /// One JSON object per line.
    Json,
    /// Not at all.
    Silent,
    /// One line of text each.
    Text,
}

/// One event. Fields that do not apply are left out.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Line {
    /// What happened, in one word.
    pub event: &'static str,
    /// The other end, which relays may hide.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<SocketAddr>,
    /// The job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// The manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifest: Option<String>,
    /// The attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// The release.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// The root the evidence was judged under.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
    /// The codes of all findings.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub codes: Vec<&'static str>,
    /// The reason in full.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Line {
    /// An event at a connection.
    #[must_use]
    pub fn at(event: &'static str, peer: SocketAddr) -> Self {
        Self { event, peer: Some(peer), ..Self::default() }
    }

    /// Something is wrong here, not at the peer.
    #[must_use]
    pub fn problem(reason: &str) -> Self {
        Self { event: "problem", reason: Some(reason.to_owned()), ..Self::default() }
    }

    pub(super) fn because(mut self, stop: &Stop) -> Self {
        self.event = match stop {
            Stop::Denied(_) => "denied",
            Stop::Gone(_) => "gone",
            Stop::Unable(_) => "problem",
        };
        if let Stop::Denied(denials) = stop {
            self.codes = denials.iter().map(|denial| denial.name()).collect();
        }
        self.reason = Some(stop.to_string());
        self
    }

    fn text(&self) -> String {
        let mut text = self.event.to_owned();
        let peer = self.peer.map(|peer| peer.to_string());
        let attempt = self.attempt.map(|attempt| attempt.to_string());
        let codes = (!self.codes.is_empty()).then(|| self.codes.join(","));
        for (name, value) in [
            ("peer", &peer),
            ("codes", &codes),
            ("job", &self.job),
            ("attempt", &attempt),
            ("root", &self.root),
            ("release", &self.release),
            ("manifest", &self.manifest),
            ("reason", &self.reason),
        ] {
            if let Some(value) = value {
                // What a peer sent may be in a reason: it gets no line of its own.
                let value = value.replace(char::is_control, " ");
                text.push_str(&format!(" {name}={value}"));
            }
        }
        text
    }
}

impl Journal {
    pub(super) fn write(self, line: &Line) {
        let text = match self {
            Self::Silent => return,
            Self::Text => line.text(),
            Self::Json => serde_json::to_string(line).unwrap_or_default(),
        };
        // A journal that cannot be written stops nobody: the log is elsewhere.
        let _ = writeln!(std::io::stderr().lock(), "{text}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::Denial;

    #[test]
    fn a_line_is_one_line_and_names_every_code() {
        let stop = Stop::Denied(vec![Denial::Busy, Denial::Receipt { what: "a\nb" }]);
        let line = Line::at("refused", ([127, 0, 0, 1], 9).into()).because(&stop);
        let text = line.text();
        assert!(text.starts_with("denied peer=127.0.0.1:9 codes=busy,receipt-mismatch reason="));
        assert!(!text.contains('\n'));
        let json = serde_json::to_string(&line).unwrap();
        assert!(json.contains(r#""codes":["busy","receipt-mismatch"]"#), "{json}");
        assert!(!json.contains("attempt"));
    }
}
