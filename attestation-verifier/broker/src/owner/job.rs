//! `job.toml`: what the owner asks for, in public numbers.
//!
//! Every field is required unless it says otherwise, and an unknown one is refused. Paths are
//! relative to the file's folder. All findings are reported at once, each under its setting.

use core::fmt;
use std::path::{Path, PathBuf};

use measurement::cbor::Real;
use measurement::manifest::{self, AdamW, AuditPlan, Schedule, Sgd, Shape};
use measurement::privacy::{self, Adaptive, Adjacency, Sampler, Terms, Unit};
use serde::Deserialize;
use thiserror::Error;

use super::files::{self, FileError};
use crate::envelope::Budget;

const MAX_BYTES: u64 = 64 * 1024;

/// The linear layers of a Llama block, in the order of the forward pass.
pub const LAYERS: [&str; 7] =
    ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

/// All of `job.toml`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// Who approves.
    pub approval: Approval,
    /// What is tested before the adapter leaves.
    pub audit: AuditPlan,
    /// The base model.
    pub base: BaseName,
    /// What all jobs on the data set may cost.
    pub budget: Cost,
    /// The data set's public bounds.
    pub data: Data,
    /// The job's name and term.
    pub job: About,
    /// The data set's ledger.
    pub ledger: LedgerAt,
    /// Who receives the adapter.
    pub output: Output,
    /// What this job may cost.
    pub privacy: Privacy,
    /// The shape of training.
    pub train: Train,
    /// The folder that paths are relative to.
    #[serde(skip)]
    pub folder: PathBuf,
}

/// `[job]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// A name for people.
    pub name: String,
    /// What the adapter is for.
    pub purpose: String,
    /// Rises with every manifest for the data set.
    pub sequence: u64,
    /// The threat model's file.
    pub threat: PathBuf,
    /// How long the manifest holds, in days.
    pub valid_days: u32,
}

/// `[approval]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// Public key files of those who may approve.
    pub approvers: Vec<PathBuf>,
    /// How many of them must.
    pub required: u8,
}

/// `[base]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaseName {
    /// A name for people.
    pub name: String,
}

/// `[budget]`
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cost {
    /// δ.
    pub delta: f64,
    /// ε.
    pub epsilon: f64,
}

/// `[data]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// The most bytes of records.
    pub capacity: u64,
    /// The most records.
    pub max_records: u64,
    /// How many of a drawn unit's records one step looks at.
    pub max_records_per_unit: u32,
    /// The most privacy units.
    pub max_units: u64,
    /// The field that names a record's privacy unit; absent: each record is its own.
    pub unit: Option<String>,
}

/// `[ledger]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LedgerAt {
    /// The custodian who keeps it; absent: the first.
    pub custodian: Option<String>,
}

/// `[output]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// Public key files of those who may open the adapter.
    pub recipients: Vec<PathBuf>,
}

/// `[privacy]`
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Privacy {
    /// How ε is computed.
    pub accountant: AccountantName,
    /// The norm a unit's gradient is clipped to.
    pub clip: f64,
    /// How; absent: scaled down to `clip` where it is longer.
    pub clipping: Option<Clipping>,
    /// δ.
    pub delta: f64,
    /// ε that the noise is solved for.
    pub epsilon: f64,
}

/// How a unit's gradient is clipped, as [`measurement::privacy::Clipping`].
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Clipping {
    /// The norm follows a quantile, from `clip` on.
    Adaptive {
        /// The deviation of the noise on the count of unclipped units.
        noise: f64,
        /// The share of units that is not to be clipped.
        quantile: f64,
        /// The rate of the norm's logarithm.
        rate: f64,
    },
    /// Scaled down to `clip` where it is longer.
    Flat,
    /// Scaled to nearly `clip`, whatever its norm.
    Normalised {
        /// The norm that is scaled to half of `clip`.
        gamma: f64,
    },
    /// Each layer by itself.
    PerLayer,
}

impl From<Clipping> for privacy::Clipping {
    fn from(clipping: Clipping) -> Self {
        match clipping {
            Clipping::Adaptive { noise, quantile, rate } => Self::Adaptive(Adaptive {
                noise: Real(noise),
                quantile: Real(quantile),
                rate: Real(rate),
            }),
            Clipping::Flat => Self::Flat,
            Clipping::Normalised { gamma } => Self::Normalised { gamma: Real(gamma) },
            Clipping::PerLayer => Self::PerLayer,
        }
    }
}

/// The accountants there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccountantName {
    /// The privacy loss distribution.
    Pld,
}

/// `[train]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Train {
    /// The adapter's branch is scaled by `alpha / rank`.
    pub alpha: u32,
    /// Units expected in a step.
    pub batch: u32,
    /// Steps between checkpoints, or 0.
    pub checkpoint: u32,
    /// Steps between events.
    pub heartbeat: u32,
    /// The linear layers that get a branch.
    pub layers: Vec<String>,
    /// The optimiser and its schedule.
    pub optimiser: Optimiser,
    /// Slots of a step; absent: the fewest that cost almost nothing of δ.
    pub physical_batch: Option<u32>,
    /// The adapter's inner dimension.
    pub rank: u32,
    /// Tokens of an example.
    pub sequence: u32,
    /// Steps.
    pub steps: u32,
    /// What is trained.
    pub target: Target,
}

/// What can be trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// A low-rank adapter.
    Lora,
}

/// `[train.optimiser]`: the fields of its kind, and no others.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Optimiser {
    /// Decay of the first moment (AdamW).
    pub beta1: Option<f64>,
    /// Decay of the second moment (AdamW).
    pub beta2: Option<f64>,
    /// Added to the root of the second moment (AdamW).
    pub epsilon: Option<f64>,
    /// The least second moment (DP-AdamW).
    pub floor: Option<f64>,
    /// Which; absent: AdamW.
    pub kind: Option<OptimiserKind>,
    /// The peak learning rate.
    pub learning_rate: f64,
    /// What stays of the last update (SGD).
    pub momentum: Option<f64>,
    /// The learning rate's shape after warm-up.
    pub schedule: Shape,
    /// Steps over which the rate rises.
    pub warmup: u32,
    /// Decoupled weight decay.
    pub weight_decay: f64,
}

/// The optimisers there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OptimiserKind {
    /// AdamW.
    Adamw,
    /// AdamW without the noise's share of the second moment.
    DpAdamw,
    /// Stochastic gradient descent with momentum.
    Sgd,
}

impl Optimiser {
    /// As the manifest holds it; `None` where a field of its kind is missing, or another is there.
    #[must_use]
    pub fn settings(&self) -> Option<manifest::Optimiser> {
        let Self { beta1, beta2, epsilon, floor, momentum, .. } = *self;
        let (learning_rate, weight_decay) = (Real(self.learning_rate), Real(self.weight_decay));
        let adamw = || {
            let (beta1, beta2, epsilon) = (Real(beta1?), Real(beta2?), Real(epsilon?));
            Some(AdamW { beta1, beta2, epsilon, learning_rate, weight_decay })
        };
        match (self.kind.unwrap_or(OptimiserKind::Adamw), floor, momentum) {
            (OptimiserKind::Adamw, None, None) => adamw().map(manifest::Optimiser::Adamw),
            (OptimiserKind::DpAdamw, Some(floor), None) => {
                Some(manifest::Optimiser::DpAdamw { adamw: adamw()?, floor: Real(floor) })
            }
            (OptimiserKind::Sgd, None, Some(momentum))
                if (beta1, beta2, epsilon) == (None, None, None) =>
            {
                let momentum = Real(momentum);
                Some(manifest::Optimiser::Sgd(Sgd { learning_rate, momentum, weight_decay }))
            }
            _ => None,
        }
    }
}

/// A setting and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Section and field.
    pub setting: &'static str,
    /// What is wrong.
    pub problem: &'static str,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.setting, self.problem)
    }
}

/// Why a file is not a job.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum JobError {
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
    /// Not TOML, or not in the terms of a job.
    #[error("{}: {problem}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The parser's words, with line and column.
        problem: String,
    },
    /// Numbers that cannot be; all of them.
    #[error("{}: {}", path.display(), list(findings))]
    Unlawful {
        /// The file.
        path: PathBuf,
        /// All findings.
        findings: Vec<Finding>,
    },
}

fn list(findings: &[Finding]) -> String {
    findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl Job {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// [`JobError`], with every setting that cannot be.
    pub fn read(path: &Path) -> Result<Self, JobError> {
        let text = files::read_text(path, MAX_BYTES)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let job = Self::parse(&text, folder).map_err(|problem| JobError::Syntax {
            path: path.to_owned(),
            problem: problem.trim_end().to_owned(),
        })?;
        let findings = job.findings();
        if findings.is_empty() {
            return Ok(job);
        }
        Err(JobError::Unlawful { path: path.to_owned(), findings })
    }

    fn parse(text: &str, folder: &Path) -> Result<Self, String> {
        let job: Self = toml::from_str(text).map_err(|e| e.to_string())?;
        Ok(Self { folder: folder.to_owned(), ..job })
    }

    /// A path of the file, seen from here.
    #[must_use]
    pub fn path(&self, path: &Path) -> PathBuf {
        self.folder.join(path)
    }

    /// Every setting that cannot be. What the manifest checks itself is left to it.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        let Self { budget, data, privacy, train, .. } = self;
        let positive = |number: f64| number > 0.0 && number.is_finite();
        let unit = data.unit.as_deref();
        let taken = ["messages", "prompt", "completion", "text", ""];
        let known = |layer: &String| LAYERS.contains(&layer.as_str());
        [
            ("approval.approvers", !self.approval.approvers.is_empty(), "is empty"),
            ("budget.delta", positive(budget.delta) && budget.delta < 1.0, "is not in (0, 1)"),
            ("budget.epsilon", positive(budget.epsilon), "is not above 0 and finite"),
            ("data.capacity", data.capacity > 0, "is 0"),
            ("data.max_records", data.max_records > 0, "is 0"),
            ("data.max_units", data.max_units > 0, "is 0"),
            (
                "data.max_units",
                data.max_units <= data.max_records,
                "is above data.max_records, and every unit has a record",
            ),
            (
                "data.unit",
                unit.is_none_or(|name| !taken.contains(&name)),
                "is blank or names a text of the record",
            ),
            ("job.valid_days", (1..=3660).contains(&self.job.valid_days), "is not in 1 to 3660"),
            ("output.recipients", !self.output.recipients.is_empty(), "is empty"),
            ("privacy.clip", positive(privacy.clip), "is not above 0 and finite"),
            ("privacy.delta", positive(privacy.delta) && privacy.delta < 1.0, "is not in (0, 1)"),
            ("privacy.epsilon", positive(privacy.epsilon), "is not above 0 and finite"),
            ("train.batch", train.batch > 0, "is 0"),
            ("train.batch", u64::from(train.batch) <= data.max_units, "is above data.max_units"),
            ("train.checkpoint", train.checkpoint == 0, "is not 0, and no image writes one yet"),
            ("train.layers", train.layers.iter().all(known), "names a layer that is none"),
            (
                "train.optimiser",
                train.optimiser.settings().is_some(),
                "has not the fields of its kind: adamw has beta1, beta2 and epsilon, dp-adamw \
                 floor besides, sgd momentum alone",
            ),
            ("train.steps", train.steps > 0, "is 0"),
        ]
        .into_iter()
        .filter(|(_, fine, _)| !fine)
        .map(|(setting, _, problem)| Finding { setting, problem })
        .collect()
    }

    /// The owner's cap, as the custodians keep it.
    #[must_use]
    pub fn cap(&self) -> Budget {
        Budget { delta: Real(self.budget.delta), epsilon: Real(self.budget.epsilon) }
    }

    /// The mechanism with noise and physical batch still open (both 1 where nothing is set).
    #[must_use]
    pub fn open_terms(&self) -> Terms {
        let Self { data, privacy, train, .. } = self;
        let unit = data.unit.clone().map_or(Unit::Record, Unit::Field);
        Terms {
            adjacency: Adjacency::AddOrRemoveOne,
            clipping: privacy.clipping.map_or(privacy::Clipping::Flat, Into::into),
            delta: Real(privacy.delta),
            expected_batch: train.batch,
            max_grad_norm: Real(privacy.clip),
            max_units: data.max_units,
            noise_multiplier: Real(1.0),
            physical_batch: train.physical_batch.unwrap_or(train.batch),
            records_per_unit: data.max_records_per_unit,
            sample_rate: Real((f64::from(train.batch) / real(data.max_units)).min(1.0)),
            sampler: Sampler::TruncatedPoisson,
            steps: train.steps,
            unit,
        }
    }

    /// The optimiser and its schedule, as the manifest holds them; `None` for one of
    /// [`Job::findings`].
    #[must_use]
    pub fn optimiser(&self) -> Option<(manifest::Optimiser, Schedule)> {
        let optimiser = &self.train.optimiser;
        let Optimiser { schedule: shape, warmup, .. } = *optimiser;
        Some((optimiser.settings()?, Schedule { shape, warmup }))
    }
}

fn real(count: u64) -> f64 {
    #[expect(clippy::as_conversions, reason = "no lossless conversion exists; rounds at 2^53")]
    let value = count as f64;
    value
}

/// The text that `init` writes: room for `units` customers and `records` records.
#[must_use]
pub fn template(units: u32, records: u32) -> String {
    let units = u64::from(units.max(32)).next_power_of_two();
    let records = u64::from(records).next_power_of_two().max(units);
    include_str!("job.toml")
        .replace("@MAX_UNITS@", &units.to_string())
        .replace("@MAX_RECORDS@", &records.to_string())
        .replace("@CAPACITY@", &records.saturating_mul(512).to_string())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::owner) fn golden() -> Job {
        Job::parse(&template(200, 400), Path::new("")).unwrap()
    }

    fn settings(change: impl FnOnce(&mut Job)) -> Vec<&'static str> {
        let mut job = golden();
        change(&mut job);
        job.findings().into_iter().map(|finding| finding.setting).collect()
    }

    #[test]
    fn accepts_the_template_and_gives_it_room() {
        let job = golden();
        assert_eq!(job.findings(), []);
        assert_eq!((job.data.max_units, job.data.max_records), (256, 512));
        assert_eq!(job.open_terms().findings(), []);
        assert_eq!(job.open_terms().sample_rate, Real(0.125));
    }

    #[test]
    fn names_every_setting_that_cannot_be_at_once() {
        let all = settings(|job| {
            job.budget.epsilon = 0.0;
            job.privacy.delta = f64::NAN;
            job.train.steps = 0;
            job.data.unit = Some("prompt".into());
        });
        assert_eq!(all, ["budget.epsilon", "data.unit", "privacy.delta", "train.steps"]);
    }

    #[test]
    fn refuses_an_optimiser_without_the_fields_of_its_kind() {
        let refused = |change: fn(&mut Optimiser)| {
            settings(|job| change(&mut job.train.optimiser)) == ["train.optimiser"]
        };
        assert!(refused(|o| o.beta1 = None));
        assert!(refused(|o| o.momentum = Some(0.9)));
        assert!(refused(|o| o.floor = Some(1e-6)));
        assert!(refused(|o| o.kind = Some(OptimiserKind::DpAdamw)));
        assert!(refused(|o| o.kind = Some(OptimiserKind::Sgd)));
    }

    #[test]
    fn reads_every_optimiser_schedule_and_clipping() {
        let plain = "beta1 = 0.9\nbeta2 = 0.999\nepsilon = 1e-8\n";
        let read = |changes: &[(&str, &str)]| {
            let text =
                changes.iter().fold(template(200, 400), |text, (from, to)| text.replace(from, to));
            let job = Job::parse(&text, Path::new("")).unwrap();
            assert_eq!(job.findings(), [], "{text}");
            job
        };
        let sgd = read(&[(plain, "kind = \"sgd\"\nmomentum = 0.9\n")]);
        assert!(matches!(sgd.optimiser().unwrap().0, manifest::Optimiser::Sgd(_)));
        let dp = format!("{plain}kind = \"dp-adamw\"\nfloor = 1e-6\n");
        let dp = read(&[(plain, &dp), ("\"cosine\"", "{ wsd = { decay = 5 } }")]);
        let (optimiser, schedule) = dp.optimiser().unwrap();
        assert!(matches!(optimiser, manifest::Optimiser::DpAdamw { floor: Real(1e-6), .. }));
        assert_eq!(schedule.shape, Shape::Wsd { decay: 5 });
        let clip = "clip = 1.0\n";
        for (words, rule) in [
            ("\"per-layer\"", privacy::Clipping::PerLayer),
            ("{ normalised = { gamma = 0.01 } }", {
                privacy::Clipping::Normalised { gamma: Real(0.01) }
            }),
            ("{ adaptive = { noise = 2.0, quantile = 0.5, rate = 0.2 } }", {
                let (noise, quantile, rate) = (Real(2.0), Real(0.5), Real(0.2));
                privacy::Clipping::Adaptive(Adaptive { noise, quantile, rate })
            }),
        ] {
            let job = read(&[(clip, &format!("{clip}clipping = {words}\n"))]);
            assert_eq!(job.open_terms().clipping, rule);
        }
    }

    #[test]
    fn refuses_bounds_that_contradict_each_other() {
        assert_eq!(settings(|job| job.data.max_units = 513), ["data.max_units"]);
        assert_eq!(settings(|job| job.data.unit = None), [""; 0]);
        assert_eq!(settings(|job| job.train.batch = 257), ["train.batch"]);
        assert_eq!(settings(|job| job.train.layers.push("lm_head".into())), ["train.layers"]);
    }

    #[test]
    fn refuses_an_unknown_and_a_missing_setting_with_its_line() {
        let unknown = template(200, 400).replace("[job]", "[job]\nsandbox = false");
        let problem = Job::parse(&unknown, Path::new("")).unwrap_err();
        assert!(problem.contains("line 5"), "{problem}");
        assert!(problem.contains("unknown field `sandbox`"), "{problem}");
        let missing = template(200, 400).replace("clip = 1.0\n", "");
        let problem = Job::parse(&missing, Path::new("")).unwrap_err();
        assert!(problem.contains("missing field `clip`"), "{problem}");
    }

    #[test]
    fn finds_paths_beside_the_file() {
        let job = Job { folder: "there".into(), ..golden() };
        assert_eq!(job.path(&job.job.threat), Path::new("there/threat.toml"));
        assert_eq!(job.path(Path::new("/else/where")), Path::new("/else/where"));
    }
}
