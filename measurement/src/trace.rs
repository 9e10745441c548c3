//! What the host can see of a job: a function of the manifest alone.
//!
//! Steps, their shape and the events between them follow from public constants. What the host
//! also sees, and no manifest says, is when each event comes: no ε is claimed against that.

use alloc::vec::Vec;
use core::fmt;

use serde::Serialize;

use crate::carrier::{Event, Stage};
use crate::manifest;
use crate::receipt::NOT_CLAIMED;

/// What the host can see of a job that ends well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Trace {
    /// Values of the adapter, whose file has a size that follows from them.
    pub adapter_values: u64,
    /// A sealed checkpoint every so many steps; 0 for none.
    pub checkpoint: u32,
    /// ε for the host.
    pub epsilon_host: &'static str,
    /// An event every so many steps.
    pub heartbeat: u32,
    /// Sequences computed in every step, whoever is drawn.
    pub sequences: u64,
    /// Steps.
    pub steps: u32,
    /// Tokens of every sequence.
    pub tokens: u32,
}

impl Trace {
    /// The trace of a manifest.
    #[must_use]
    pub fn of(manifest: &manifest::Terms) -> Self {
        let manifest::Terms { privacy, training, .. } = manifest;
        let values = |tensor: &manifest::Tensor| {
            let [rows, columns] = tensor.shape.map(u64::from);
            rows.saturating_mul(columns)
        };
        let (slots, records) = (privacy.physical_batch, privacy.records_per_unit);
        Self {
            adapter_values: training.adapter.tensors.iter().map(values).sum(),
            checkpoint: training.checkpoint,
            epsilon_host: NOT_CLAIMED,
            heartbeat: training.heartbeat,
            sequences: u64::from(slots) * u64::from(records),
            steps: privacy.steps,
            tokens: training.sequence,
        }
    }

    /// Every event, in order.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        let Self { heartbeat, steps, .. } = *self;
        let event = |stage, step, steps| Event { stage, step, steps };
        let stepped = (1..=steps).filter(|step| step.checked_rem(heartbeat) == Some(0));
        let mut events = [event(Stage::Booted, 0, 0)].to_vec();
        events.extend(
            [Stage::Accepted, Stage::Attested, Stage::Released, Stage::Loaded]
                .map(|stage| event(stage, 0, steps)),
        );
        events.extend(stepped.map(|step| event(Stage::Stepped, step, steps)));
        events.extend([Stage::Trained, Stage::Sealed].map(|stage| event(stage, steps, steps)));
        events.push(event(Stage::Done, 0, 0));
        events
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { adapter_values, checkpoint, epsilon_host, heartbeat, sequences, steps, tokens } =
            self;
        writeln!(f, "the operator sees {} events of {} bytes", self.events().len(), Event::BYTES)?;
        writeln!(f, "  steps        {steps}, an event every {heartbeat}")?;
        writeln!(f, "  every step   {sequences} sequences of {tokens} tokens, whoever is drawn")?;
        if *checkpoint == 0 {
            writeln!(f, "  checkpoints  none")?;
        } else {
            writeln!(f, "  checkpoints  one of constant size every {checkpoint} steps")?;
        }
        writeln!(f, "  adapter      {adapter_values} values")?;
        writeln!(f, "  epsilon      {epsilon_host} for the operator, who sees when events come")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: Trace = Trace {
        adapter_values: 96,
        checkpoint: 0,
        epsilon_host: NOT_CLAIMED,
        heartbeat: 3,
        sequences: 128,
        steps: 7,
        tokens: 64,
    };

    #[test]
    fn events_come_at_the_heartbeats_and_nowhere_else() {
        let events = TRACE.events();
        let stepped = events.iter().filter(|event| event.stage == Stage::Stepped);
        assert_eq!(stepped.map(|event| event.step).collect::<Vec<_>>(), [3, 6]);
        assert_eq!(events.len(), 10);
        assert!(events.windows(2).all(|pair| {
            pair[0].stage.code() < pair[1].stage.code()
                || (pair[0].stage == Stage::Stepped && pair[1].stage == Stage::Stepped)
        }));
    }

    #[test]
    fn says_what_is_seen_and_that_nothing_is_claimed_of_time() {
        let text = alloc::format!("{TRACE}");
        assert!(text.starts_with("the operator sees 10 events of 16 bytes\n"), "{text}");
        assert!(text.contains("128 sequences of 64 tokens"), "{text}");
        assert!(text.contains("not claimed"), "{text}");
    }
}
