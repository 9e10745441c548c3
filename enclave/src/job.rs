//! The job, from boot to receipt: a sequence the compiler knows.
//!
//! ```text
//! Job<Booted> ─ attest ─► Job<Attested> ─ train ─► Job<Trained> ─ receipt ─► done
//! ```
//!
//! Blocking calls, one thread of control. Each state holds what the next one needs and no more: the
//! data key is gone when training ends, and the records are gone before the receipt is written.

use std::collections::BTreeMap;
use std::time::Instant;

use attestation_verifier::evidence::Evidence;
use attestation_verifier::pin::launched_with;
use attestation_verifier::protocol::{Receipt, WrappedShare};
use measurement::binding;
use measurement::carrier::{HOST_PORT, Item, RELAY_PORT, Stage};
use measurement::cbor::{self, Blob};
use measurement::digest::{Digest, Hash32, of};
use measurement::dsse::{Envelope, Signature};
use measurement::launch::blob;
use measurement::manifest::Manifest;
use measurement::octets::Octets;
use measurement::privacy::Mechanism;
use measurement::privacy::accountant::Accountant;
use measurement::receipt::{self as claims, Bundle, Statement};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng as _, SeedableRng as _};
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::Ed25519KeyPair;
use sealed::{DataKey, Kem, Reader, Share, Threshold, recover, seal, seal_blob, split};
use serde::{Deserialize, Serialize};
use trainer::dp::AttemptSecret;
use trainer::engine::{CpuEngine, Engine as _};
use trainer::lora::Adapter;
use trainer::model::Model;
use trainer::record::{Record, Tokeniser};
use trainer::train::{Attempt, Units, initial_adapter};
use zeroize::Zeroizing;

use crate::broker::{Attester, Opened, public_key};
use crate::gate::Gated;
use crate::halt::Halt;
use crate::pipe::{HostPipe, RelayPipe};
use crate::platform::Platform;

const MAX_BLOB: usize = 256 << 10;
const MAX_APPROVALS: usize = 1 << 20;
const MAX_ENDORSEMENTS: usize = 1 << 20;
const MAX_CONFIG: usize = 1 << 20;
const MAX_TOKENIZER: usize = 64 << 20;
const MAX_TEMPLATE: usize = 1 << 18;
const MAX_WEIGHTS: usize = 1 << 40;
/// Plaintext the data set may take in memory, padding included.
const MAX_DATASET: u64 = 1 << 38;

/// Runs a job to its end, and tells the host how it ended.
pub fn run(platform: &mut dyn Platform) -> Result<(), Halt> {
    let host = platform.pipe(HOST_PORT).map_err(|_| Halt::Carrier)?;
    let relay = platform.pipe(RELAY_PORT).map_err(|_| Halt::Carrier)?;
    let mut host = HostPipe::new(host);
    let outcome = all(platform, &mut host, &mut RelayPipe::new(relay));
    match outcome {
        Ok(()) => host.event(Stage::Done, 0, 0),
        Err(halt) => host.event(halt.stage(), 0, 0),
    }
    outcome
}

fn all(
    platform: &mut dyn Platform,
    host: &mut HostPipe,
    relay: &mut RelayPipe,
) -> Result<(), Halt> {
    Job::boot(platform, host)?
        .attest(platform, host, relay)?
        .train(host)?
        .receipt(platform, host, relay)
}

/// A job in one of its states.
pub struct Job<S> {
    manifest: Manifest,
    launch_blob: Vec<u8>,
    approvals: Envelope,
    endorsements: Vec<Blob>,
    signer: Ed25519KeyPair,
    rng: ChaCha20Rng,
    state: S,
}

/// The hardware was launched with this manifest.
pub struct Booted;

/// Enough custodians released their shares.
pub struct Attested {
    key: DataKey,
    releases: Releases,
}

/// All steps are spent.
pub struct Trained {
    adapter: Adapter,
    engine: String,
    secret_commitment: Octets<32>,
    releases: Releases,
}

struct Releases {
    attempt: u32,
    lease: Instant,
    claims: Vec<claims::ReleaseClaim>,
    proofs: Vec<claims::ReleaseProof>,
    root: String,
    sessions: Vec<Octets<64>>,
}

/// What the host brings of endorsements.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Endorsements {
    items: Vec<Blob>,
}

impl Job<Booted> {
    /// Reads the launch blob from the untrusted host and accepts it only if the hardware says that
    /// this very blob was given at launch.
    ///
    /// # Errors
    /// [`Halt::Manifest`], [`Halt::Platform`], [`Halt::Carrier`].
    pub fn boot(platform: &mut dyn Platform, host: &mut HostPipe) -> Result<Self, Halt> {
        host.event(Stage::Booted, 0, 0);
        let launch_blob = host.item(Item::LaunchBlob, MAX_BLOB)?.ok_or(Halt::Manifest)?;
        let mut rng = entropy()?;
        let mut challenge = [0; 64];
        rng.fill_bytes(&mut challenge);
        let own = platform.evidence(&challenge).map_err(|_| Halt::Platform)?;
        let evidence = Evidence { tee: own.tee, report: &own.report.0 };
        if !launched_with(&evidence, &launch_blob).map_err(|_| Halt::Platform)? {
            return Err(Halt::Platform);
        }
        let (_, bytes) = blob::read(&launch_blob).map_err(|_| Halt::Manifest)?;
        let manifest = Manifest::parse(&bytes).map_err(|_| Halt::Manifest)?;
        // What this build cannot do is refused, not left out: GPUs, checkpoints, a canary audit.
        let beyond =
            manifest.gpus != 0 || manifest.training.checkpoint != 0 || manifest.audit.canaries != 0;
        if beyond {
            return Err(Halt::Manifest);
        }
        let approvals = host.item(Item::Approvals, MAX_APPROVALS)?.ok_or(Halt::Manifest)?;
        let approvals = Envelope::parse(&approvals, measurement::manifest::PAYLOAD_TYPE)
            .map_err(|_| Halt::Manifest)?;
        let endorsements = match host.item(Item::Endorsements, MAX_ENDORSEMENTS)? {
            Some(bytes) => {
                let parsed = cbor::decode::<Endorsements>(&bytes, MAX_ENDORSEMENTS);
                parsed.map_err(|_| Halt::Carrier)?.items
            }
            None => Vec::new(),
        };
        let signer = signer()?;
        host.event(Stage::Accepted, 0, manifest.privacy.steps);
        let state = Booted;
        Ok(Self { manifest, launch_blob, approvals, endorsements, signer, rng, state })
    }

    /// Attests to the custodians, in the manifest's order, until enough have released their share.
    ///
    /// # Errors
    /// [`Halt::Release`] when too few do.
    pub fn attest(
        mut self,
        platform: &mut dyn Platform,
        host: &mut HostPipe,
        relay: &mut RelayPipe,
    ) -> Result<Job<Attested>, Halt> {
        let mut opened: Vec<Opened> = Vec::new();
        let custodians =
            u8::try_from(self.manifest.custodians.len()).map_err(|_| Halt::Manifest)?;
        host.event(Stage::Attested, 0, self.manifest.privacy.steps);
        let approvals = self.approvals.to_json();
        for index in 1..=custodians {
            if opened.len() >= usize::from(self.manifest.threshold) {
                break;
            }
            let attester = Attester {
                manifest: &self.manifest,
                launch_blob: &self.launch_blob,
                approvals: &approvals,
                signer: &self.signer,
                endorsements: &self.endorsements,
            };
            let session = relay
                .open(index - 1)
                .ok()
                .and_then(|stream| attester.release(stream, index, platform, &mut self.rng).ok());
            opened.extend(session);
        }
        let (shares, releases) = Releases::collect(opened).ok_or(Halt::Release)?;
        let key = recover(&shares, self.manifest.threshold, &self.manifest.dataset.key)
            .map_err(|_| Halt::Release)?;
        host.event(Stage::Released, 0, self.manifest.privacy.steps);
        Ok(self.with(Attested { key, releases }))
    }
}

impl Releases {
    /// All of them are for one attempt and judged under one root, or none counts.
    fn collect(opened: Vec<Opened>) -> Option<(Vec<Share>, Self)> {
        let first = opened.first()?;
        let (attempt, root) = (first.attempt, first.root.clone());
        let lease = opened.iter().map(|one| one.lease).min()?;
        let mut all =
            Self { attempt, lease, claims: vec![], proofs: vec![], root, sessions: vec![] };
        let mut shares = Vec::new();
        for one in opened {
            if one.attempt != all.attempt || one.root != all.root {
                return None;
            }
            shares.push(one.share);
            all.claims.push(one.claim);
            all.proofs.push(one.proof);
            all.sessions.push(one.session);
        }
        Some((shares, all))
    }

    /// The first lease that ends ends the job: what it holds goes with it.
    fn running(&self) -> Result<(), Halt> {
        if Instant::now() <= self.lease { Ok(()) } else { Err(Halt::Lease) }
    }
}

impl<S> Job<S> {
    fn with<T>(self, state: T) -> Job<T> {
        let Self { manifest, launch_blob, approvals, endorsements, signer, rng, .. } = self;
        Job { manifest, launch_blob, approvals, endorsements, signer, rng, state }
    }
}

impl Job<Attested> {
    /// Reads the sealed data once, in order, into protected memory, and trains.
    ///
    /// # Errors
    /// [`Halt::Dataset`], [`Halt::Base`], [`Halt::Training`], [`Halt::Carrier`], [`Halt::Lease`].
    pub fn train(mut self, host: &mut HostPipe) -> Result<Job<Trained>, Halt> {
        let model = self.base(host)?;
        let training = self.manifest.training.clone();
        let positions = usize::try_from(training.sequence).map_err(|_| Halt::Training)?;
        let units = self.units(host, &model, positions)?;
        let steps = self.manifest.privacy.steps;
        host.event(Stage::Loaded, 0, steps);
        let mut secret = Zeroizing::new([0; 32]);
        SystemRandom::new().fill(secret.as_mut_slice()).map_err(|_| Halt::Platform)?;
        let mut salt = Octets([0; 32]);
        self.rng.fill_bytes(&mut salt.0);
        let secret_commitment = binding::commitment("attempt secret", &salt, secret.as_slice());
        let digest = self.manifest.digest();
        let start = initial_adapter(&model, &training, &digest).map_err(|_| Halt::Training)?;
        let engine = CpuEngine::new(&model, &start, positions).map_err(|_| Halt::Training)?;
        let mechanism: &Mechanism = &self.manifest.privacy;
        let secret = AttemptSecret::new(secret);
        let mut attempt =
            Attempt::begin(&engine, start.clone(), &training, mechanism, secret, digest)
                .map_err(|_| Halt::Training)?;
        for done in 1..=steps {
            self.state.releases.running()?;
            attempt.step(&units).map_err(|_| Halt::Training)?;
            if done % training.heartbeat == 0 {
                host.event(Stage::Stepped, done, steps);
            }
        }
        let adapter = attempt.finish(&start).map_err(|_| Halt::Training)?;
        let engine = engine.identity().to_owned();
        host.event(Stage::Trained, steps, steps);
        let Job { manifest, launch_blob, approvals, endorsements, signer, rng, state } = self;
        let Attested { key, releases } = state;
        drop(key);
        let state = Trained { adapter, engine, secret_commitment, releases };
        Ok(Job { manifest, launch_blob, approvals, endorsements, signer, rng, state })
    }

    fn base(&self, host: &mut HostPipe) -> Result<Model, Halt> {
        let base = &self.manifest.base;
        let config = fetch(host, Item::BaseConfig, MAX_CONFIG, &base.config)?;
        let weights = fetch(host, Item::BaseWeights, MAX_WEIGHTS, &base.weights)?;
        Model::load(&config, &[&weights]).map_err(|_| Halt::Base)
    }

    fn units(&self, host: &mut HostPipe, model: &Model, positions: usize) -> Result<Units, Halt> {
        let base = &self.manifest.base;
        let tokenizer = fetch(host, Item::Tokenizer, MAX_TOKENIZER, &base.tokenizer)?;
        let mut tokeniser =
            Tokeniser::read(&tokenizer, model.config(), positions).map_err(|_| Halt::Base)?;
        if let Some(digest) = &base.template {
            let template = fetch(host, Item::Template, MAX_TEMPLATE, digest)?;
            tokeniser = tokeniser.with_template(&template).map_err(|_| Halt::Base)?;
        }
        let mut reader = Reader::new(&self.state.key, self.manifest.dataset.root, MAX_DATASET);
        let there =
            host.stream(Item::Dataset, &mut |piece| reader.feed(piece).map_err(|_| Halt::Dataset))?;
        if !there {
            return Err(Halt::Dataset);
        }
        let records = reader.finish().map_err(|_| Halt::Dataset)?;
        let mut units = BTreeMap::<u64, Vec<_>>::new();
        for (unit, payload) in records.iter() {
            let example = tokeniser.example_or_blank(&Record::new(payload.to_vec()));
            units.entry(unit).or_default().push(example);
        }
        Ok(Units::new(units.into_values().collect(), positions))
    }
}

fn fetch(
    host: &mut HostPipe,
    item: Item,
    cap: usize,
    digest: &Digest<of::BaseFile>,
) -> Result<Vec<u8>, Halt> {
    let bytes = host.item(item, cap)?.ok_or(Halt::Base)?;
    if Digest::of(&bytes) == *digest { Ok(bytes) } else { Err(Halt::Base) }
}

impl Job<Trained> {
    /// Seals the adapter, signs the statement, has the hardware vouch for it, and hands both out once
    /// enough custodians have logged it.
    ///
    /// # Errors
    /// [`Halt::Training`] from the gate, [`Halt::Platform`], [`Halt::Receipt`], [`Halt::Carrier`],
    /// [`Halt::Lease`].
    pub fn receipt(
        mut self,
        platform: &mut dyn Platform,
        host: &mut HostPipe,
        relay: &mut RelayPipe,
    ) -> Result<(), Halt> {
        self.state.releases.running()?;
        let simulated = self.state.releases.root == claims::SIMULATED;
        let gated = Gated::adapter(&self.manifest, &self.state.adapter, simulated)?;
        let (sealed_adapter, shares) = self.seal(&gated)?;
        let image = self.image(platform)?;
        let statement = self.statement(&gated, &sealed_adapter, image, simulated)?;
        let payload = statement.to_json();
        let mut envelope = Envelope::new(claims::PAYLOAD_TYPE, &payload);
        let signed = envelope.signed_bytes();
        let own = self.signer.sign(&signed);
        envelope.signatures.push(Signature::new(&public_key(&self.signer), own.as_ref()));
        let sessions = &self.state.releases.sessions;
        let report_data =
            binding::closing_report_data(&payload, &public_key(&self.signer), sessions);
        let mut closing = platform.evidence(&report_data).map_err(|_| Halt::Platform)?;
        closing.endorsements.extend_from_slice(&self.endorsements);
        let expected = measurement::log::Receipt {
            attempt: self.state.releases.attempt,
            closing: closing.digest(),
            job: self.manifest.job,
            sealed_adapter: Hash32::of(&sealed_adapter),
            statement: Digest::of(&payload),
        };
        let custodians: Vec<_> = (1_u8..).zip(&self.manifest.custodians).collect();
        let approvals = self.approvals.to_json();
        let attester = Attester {
            manifest: &self.manifest,
            launch_blob: &self.launch_blob,
            approvals: &approvals,
            signer: &self.signer,
            endorsements: &self.endorsements,
        };
        let body = Blob(envelope.to_json());
        let mut countersigned = 0_u8;
        for ((index, custodian), share) in custodians.into_iter().zip(shares) {
            let message = Receipt { closing: closing.clone(), envelope: body.clone(), share };
            let logged = relay.open(index - 1).ok().and_then(|stream| {
                attester.hand_in(stream, index, &message, &signed, &expected).ok()
            });
            if let Some(signature) = logged {
                let line = Signature::new(&custodian.decision, signature.as_bytes());
                envelope.signatures.push(line);
                countersigned += 1;
            }
        }
        if countersigned < self.manifest.threshold {
            return Err(Halt::Receipt);
        }
        host.event(Stage::Sealed, self.manifest.privacy.steps, self.manifest.privacy.steps);
        let bundle = Bundle {
            approvals: self.approvals,
            closing,
            envelope,
            launch_blob: Blob(self.launch_blob),
            releases: self.state.releases.proofs,
        };
        host.output(Item::SealedAdapter, &sealed_adapter)?;
        host.output(Item::Receipt, &bundle.to_json())
    }

    /// Seals the adapter under a one-time key and wraps a share of that key to each custodian.
    fn seal(&mut self, gated: &Gated) -> Result<(Vec<u8>, Vec<WrappedShare>), Halt> {
        let manifest = self.manifest.digest();
        let attempt = self.state.releases.attempt;
        let custodians =
            u8::try_from(self.manifest.custodians.len()).map_err(|_| Halt::Manifest)?;
        let threshold =
            Threshold::new(self.manifest.threshold, custodians).map_err(|_| Halt::Manifest)?;
        let key = DataKey::generate(&mut self.rng);
        let aad = binding::adapter_aad(&manifest, attempt);
        let package = Zeroizing::new(gated.package());
        let sealed = seal_blob(&key, &aad, &package, &mut self.rng).map_err(|_| Halt::Training)?;
        let shares = split(&key, threshold, &mut self.rng);
        let mut wrapped = Vec::new();
        for (share, custodian) in shares.iter().zip(&self.manifest.custodians) {
            let index = share.index();
            let info = binding::adapter_share_info(&manifest, attempt, index);
            let unwrap = custodian.unwrap.as_bytes();
            let sealed = share.expose(|s| seal(Kem::X25519, unwrap, &info, s, &mut self.rng));
            let sealed = sealed.map_err(|_| Halt::Manifest)?;
            wrapped.push(WrappedShare { ct: sealed.ct, enc: sealed.enc, index });
        }
        Ok((sealed, wrapped))
    }

    /// The image this is, out of the manifest's list, by the hardware's own word.
    fn image(&self, platform: &mut dyn Platform) -> Result<measurement::launch::Measured, Halt> {
        let own = platform.evidence(&[0; 64]).map_err(|_| Halt::Platform)?;
        let evidence = Evidence { tee: own.tee, report: &own.report.0 };
        let measured =
            attestation_verifier::pin::measured(&evidence).map_err(|_| Halt::Platform)?;
        let listed = self.manifest.images.iter().any(|image| image.measured == measured);
        if listed { Ok(measured) } else { Err(Halt::Platform) }
    }

    fn statement(
        &self,
        gated: &Gated,
        sealed_adapter: &[u8],
        image: measurement::launch::Measured,
        simulated: bool,
    ) -> Result<Statement, Halt> {
        let manifest = &self.manifest;
        let releases = &self.state.releases;
        let mut accountant = Accountant::new();
        accountant.compose(&manifest.privacy).map_err(|_| Halt::Manifest)?;
        let epsilon = accountant.epsilon(manifest.privacy.delta.0).map_err(|_| Halt::Manifest)?;
        let tee = match image {
            measurement::launch::Measured::Snp { .. } => measurement::manifest::Tee::Snp,
            measurement::launch::Measured::Tdx { .. } => measurement::manifest::Tee::Tdx,
        };
        let predicate = claims::Predicate {
            attempt: releases.attempt,
            base_model: manifest.base.clone(),
            canary_audit: None,
            dataset: claims::DatasetClaim {
                ciphertext_root: manifest.dataset.root,
                id: manifest.dataset.id,
                version: manifest.dataset.version,
            },
            dp: claims::DpClaim {
                accountant: claims::ACCOUNTANT.to_owned(),
                epsilon: cbor::Real(epsilon),
                epsilon_host: claims::NOT_CLAIMED.to_owned(),
                mechanism: manifest.privacy.clone(),
            },
            evidence: claims::EvidenceClaim {
                root: releases.root.clone(),
                sessions: releases.sessions.clone(),
                tee,
            },
            image,
            job_manifest: claims::ManifestClaim {
                job: manifest.job,
                sequence: manifest.sequence,
                sha384: manifest.digest(),
            },
            outputs: claims::OutputsClaim { sealed_adapter_sha256: Hash32::of(sealed_adapter) },
            releases: releases.claims.clone(),
            run: claims::RunClaim {
                engine: self.state.engine.clone(),
                secret_commitment: self.state.secret_commitment,
                steps: manifest.privacy.steps,
            },
            signer: public_key(&self.signer),
            simulated,
        };
        Ok(Statement::new(gated.subjects(), predicate))
    }
}

fn entropy() -> Result<ChaCha20Rng, Halt> {
    let mut seed = Zeroizing::new([0; 32]);
    SystemRandom::new().fill(seed.as_mut_slice()).map_err(|_| Halt::Platform)?;
    Ok(ChaCha20Rng::from_seed(*seed))
}

fn signer() -> Result<Ed25519KeyPair, Halt> {
    let mut seed = Zeroizing::new([0; 32]);
    SystemRandom::new().fill(seed.as_mut_slice()).map_err(|_| Halt::Platform)?;
    Ed25519KeyPair::from_seed_unchecked(seed.as_slice()).map_err(|_| Halt::Platform)
}
