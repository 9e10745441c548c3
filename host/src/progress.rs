//! What an operator sees while a job runs: the closed vocabulary of events, and nothing else.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use measurement::carrier::{Event, Stage};
use serde_json::json;

/// Where events go: a bar on a terminal, lines elsewhere, JSON lines where asked for. All of it on
/// standard error.
#[derive(Debug)]
pub enum Progress {
    /// A terminal.
    Bar(ProgressBar),
    /// JSON lines, with the time since the launch.
    Json(Instant),
    /// Plain lines, about ten of them for the steps.
    Lines,
}

impl Progress {
    /// JSON lines where `json` asks for them, else what suits standard error.
    #[must_use]
    pub fn new(json: bool) -> Self {
        if json {
            return Self::Json(Instant::now());
        }
        if !std::io::stderr().is_terminal() {
            return Self::Lines;
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.enable_steady_tick(Duration::from_millis(200));
        bar.set_style(style("{spinner} {elapsed:>4} {msg}"));
        bar.set_message("starting the machine");
        Self::Bar(bar)
    }

    /// Shows one event.
    pub fn hear(&self, event: Event) {
        match self {
            Self::Bar(bar) => draw(bar, event),
            Self::Json(start) => eprintln!("{}", line(event, start.elapsed())),
            Self::Lines => {
                if let Some(text) = plain(event) {
                    eprintln!("{text}");
                }
            }
        }
    }

    /// Takes the bar off the screen.
    pub fn end(&self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn draw(bar: &ProgressBar, event: Event) {
    if event.stage == Stage::Stepped {
        if bar.length().is_none() {
            bar.set_style(style("{bar:32} {pos}/{len} steps, {per_sec}, {eta} left"));
            bar.set_length(event.steps.into());
            bar.reset_eta();
        }
        bar.set_position(event.step.into());
        return;
    }
    bar.set_message(label(event.stage));
    if event.stage == Stage::Trained {
        bar.set_style(style("{spinner} {elapsed:>4} {msg}"));
    } else {
        bar.println(label(event.stage));
    }
}

fn line(event: Event, since: Duration) -> String {
    let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    let Event { stage, step, steps } = event;
    json!({ "event": name(stage), "step": step, "steps": steps, "milliseconds": millis })
        .to_string()
}

fn plain(event: Event) -> Option<String> {
    let Event { stage, step, steps } = event;
    if stage != Stage::Stepped {
        return Some(label(stage).to_owned());
    }
    let every = steps.div_ceil(10).max(1);
    (step == steps || step.is_multiple_of(every)).then(|| format!("step {step} of {steps}"))
}

/// An event's name in JSON.
#[must_use]
pub const fn name(stage: Stage) -> &'static str {
    match stage {
        Stage::Booted => "booted",
        Stage::Accepted => "accepted",
        Stage::Attested => "attested",
        Stage::Released => "released",
        Stage::Loaded => "loaded",
        Stage::Stepped => "stepped",
        Stage::Trained => "trained",
        Stage::Sealed => "sealed",
        Stage::Done => "done",
        Stage::HaltedCarrier => "halted-carrier",
        Stage::HaltedManifest => "halted-manifest",
        Stage::HaltedPlatform => "halted-platform",
        Stage::HaltedRelease => "halted-release",
        Stage::HaltedBase => "halted-base",
        Stage::HaltedDataset => "halted-dataset",
        Stage::HaltedTraining => "halted-training",
        Stage::HaltedReceipt => "halted-receipt",
        Stage::HaltedLease => "halted-lease",
    }
}

const fn label(stage: Stage) -> &'static str {
    match stage {
        Stage::Booted => "booted the enclave",
        Stage::Accepted => "accepted the manifest",
        Stage::Attested => "sent evidence to the brokers",
        Stage::Released => "received the key shares",
        Stage::Loaded => "loaded the data set into protected memory",
        Stage::Stepped => "spent a step",
        Stage::Trained => "spent every step",
        Stage::Sealed => "sealed the adapter and logged its receipt",
        Stage::Done => "handed out the adapter and the receipt",
        _ => "halted",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_ten_lines_however_many_steps() {
        for steps in [10, 100, 1000] {
            let shown = (1..=steps)
                .filter(|&step| plain(Event { stage: Stage::Stepped, step, steps }).is_some());
            assert_eq!(shown.count(), 10);
        }
        let one = Event { stage: Stage::Stepped, step: 1, steps: 1 };
        assert_eq!(plain(one), Some("step 1 of 1".to_owned()));
    }

    #[test]
    fn a_json_line_holds_the_event_and_the_time() {
        let event = Event { stage: Stage::HaltedBase, step: 2, steps: 9 };
        let golden = json!({ "event": "halted-base", "step": 2, "steps": 9, "milliseconds": 1500 });
        let line: serde_json::Value =
            serde_json::from_str(&line(event, Duration::from_millis(1500))).unwrap();
        assert_eq!(line, golden);
    }
}
