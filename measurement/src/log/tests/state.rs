extern crate std;

use std::prelude::v1::*;

use crate::digest::{Digest, Hash32};
use crate::log::{
    Accepted, Code, Commit, Confirm, Debit, Deny, Event, FoldError, Receipt, Record, Refusal,
    Release, State, Unwrap,
};
use crate::manifest::Manifest;
use crate::octets::Octets;
use crate::privacy::accountant::Accountant;
use crate::privacy::{Mechanism, Terms, Unit, tests::golden};

const DATASET: Octets<16> = Octets([1; 16]);
const JOB: Octets<16> = Octets([2; 16]);
const TIME: u64 = 1_800_000_000;

fn manifest() -> Digest<Manifest> {
    Digest::of(b"manifest")
}

fn accepted() -> Accepted {
    Accepted { dataset: DATASET, job: JOB, manifest: manifest(), sequence: 3 }
}

fn debit(attempt: u32) -> Debit {
    let terms = Terms { physical_batch: 128, ..golden() };
    Debit {
        attempt,
        dataset: DATASET,
        job: JOB,
        manifest: manifest(),
        mechanism: Mechanism::new(terms).unwrap(),
    }
}

fn release() -> Release {
    Release {
        attempt: 1,
        debit: 1,
        dek_id: Octets([3; 32]),
        manifest: manifest(),
        not_after: TIME + 60,
        release_id: Octets([4; 16]),
        report_data: Octets([5; 64]),
        root: "AMD".into(),
        sealed_share: Hash32::of(b"sealed"),
        session: Octets([6; 64]),
        share_index: 1,
        signer: Octets([11; 32]),
    }
}

fn confirm() -> Confirm {
    Confirm { release_id: Octets([4; 16]), signature: Octets([7; 64]) }
}

fn commit(step: u32) -> Commit {
    Commit { attempt: 1, head: Octets([8; 32]), job: JOB, step }
}

fn receipt() -> Receipt {
    Receipt {
        attempt: 1,
        closing: Hash32::of(b"evidence"),
        job: JOB,
        sealed_adapter: Hash32::of(b"adapter"),
        statement: Digest::of(b"statement"),
    }
}

fn unwrap() -> Unwrap {
    Unwrap { attempt: 1, job: JOB, recipient: Octets([9; 32]) }
}

fn salted(event: Event) -> Record {
    Record { event, salt: Octets([10; 32]), time: TIME }
}

/// A job that went well, and a request that was refused: one record of each kind.
pub(super) fn history() -> Vec<Record> {
    (0..8).map(record).collect()
}

pub(super) fn record(kind: usize) -> Record {
    let code = Code::try_from("stale-collateral".to_string()).unwrap();
    salted(match kind {
        0 => Event::Manifest(accepted()),
        1 => Event::Debit(debit(1)),
        2 => Event::Release(release()),
        3 => Event::Confirm(confirm()),
        4 => Event::Commit(commit(10)),
        5 => Event::Receipt(receipt()),
        6 => Event::Unwrap(unwrap()),
        _ => Event::Deny(Deny { code, manifest: manifest() }),
    })
}

/// The findings of `event` after the first `count` records of the history.
fn findings(count: usize, event: Event) -> Vec<Refusal> {
    let mut state = State::fold(&history()[..count]).unwrap();
    let before = state.clone();
    match state.apply(&salted(event)) {
        Ok(_) => Vec::new(),
        Err(FoldError { index, findings }) => {
            assert_eq!((index, &state), (before.size(), &before));
            findings
        }
    }
}

#[test]
fn folds_a_job_that_went_well() {
    let state = State::fold(&history()).unwrap();
    let job = state.job(&JOB).unwrap();
    assert_eq!(state.size(), 8);
    assert_eq!((job.attempts(&DATASET), state.next_attempt(&DATASET, &JOB)), (1, 2));
    assert!(job.released(1) && !job.released(2));
    assert_eq!(job.commit(1), Some(&commit(10)));
    assert_eq!(job.receipt(1), Some(&receipt()));
    assert_eq!(job.unwrapped(), Some(&unwrap()));
    assert_eq!(state.manifest(&DATASET), Some(&accepted()));
    assert_eq!(state.debit(1), Some(&debit(1)));
}

#[test]
fn an_empty_log_knows_nothing_and_has_spent_nothing() {
    let state = State::default();
    assert_eq!((state.size(), state.job(&JOB)), (0, None));
    assert_eq!(state.next_attempt(&DATASET, &JOB), 1);
    assert_eq!(state.spent(&DATASET), Ok(Accountant::new()));
}

#[test]
fn spends_every_attempt_in_full() {
    let mut records = history();
    records.push(salted(Event::Debit(debit(2))));
    let state = State::fold(&records).unwrap();
    let mut twice = Accountant::new();
    twice.compose(&debit(1).mechanism).unwrap();
    let once = twice.clone();
    twice.compose(&debit(2).mechanism).unwrap();
    assert_eq!(state.spent(&DATASET), Ok(twice.clone()));
    assert_eq!(state.mechanisms(&DATASET).len(), 2);
    assert!(twice.epsilon(1e-4).unwrap() > once.epsilon(1e-4).unwrap());
}

#[test]
fn refuses_attempts_that_do_not_go_up_by_one() {
    for observed in [0, 1, 3, u32::MAX] {
        let refusal = Refusal::AttemptOutOfOrder { observed, required: 2 };
        assert_eq!(findings(2, Event::Debit(debit(observed))), [refusal]);
    }
    let refusal = Refusal::AttemptOutOfOrder { observed: 2, required: 1 };
    assert_eq!(findings(1, Event::Debit(debit(2))), [refusal]);
    assert_eq!(findings(2, Event::Debit(debit(2))), []);
}

#[test]
fn refuses_a_debit_for_a_manifest_that_is_not_the_last_one_accepted() {
    let refusal = Refusal::ManifestNotAccepted { manifest: manifest() };
    assert_eq!(findings(0, Event::Debit(debit(1))), [refusal]);
    let other_job = Debit { job: Octets([0; 16]), ..debit(1) };
    assert_eq!(findings(1, Event::Debit(other_job)), [refusal]);
    let other = Digest::of(b"another");
    let other_manifest = Debit { manifest: other, ..debit(1) };
    let refusal = Refusal::ManifestNotAccepted { manifest: other };
    assert_eq!(findings(1, Event::Debit(other_manifest)), [refusal]);
}

#[test]
fn refuses_a_debit_for_another_unit() {
    let terms = Terms { unit: Unit::Record, ..golden() };
    let other = Debit { mechanism: Mechanism::new(terms).unwrap(), ..debit(2) };
    assert_eq!(findings(2, Event::Debit(other)), [Refusal::OtherUnit { dataset: DATASET }]);
}

#[test]
fn refuses_a_manifest_sequence_that_goes_down() {
    let older = Accepted { sequence: 2, manifest: Digest::of(b"older"), ..accepted() };
    let refusal = Refusal::SequenceWentDown { observed: 2, required: 3 };
    assert_eq!(findings(1, Event::Manifest(older)), [refusal]);
    assert_eq!(findings(1, Event::Manifest(accepted())), []);
    let newer = Accepted { sequence: 4, manifest: Digest::of(b"newer"), ..accepted() };
    assert_eq!(findings(1, Event::Manifest(newer)), []);
}

#[test]
fn refuses_two_manifests_with_one_number() {
    let other = Accepted { manifest: Digest::of(b"other"), ..accepted() };
    assert_eq!(findings(1, Event::Manifest(other)), [Refusal::SequenceTaken { sequence: 3 }]);
}

#[test]
fn refuses_a_release_without_its_debit() {
    let refusal = Refusal::ReleaseWithoutDebit { debit: 1 };
    assert_eq!(findings(1, Event::Release(release())), [refusal]);
    let of_a_manifest = Release { debit: 0, ..release() };
    let refusal = Refusal::ReleaseWithoutDebit { debit: 0 };
    assert_eq!(findings(2, Event::Release(of_a_manifest)), [refusal]);
}

#[test]
fn refuses_a_release_of_another_attempts_debit() {
    let refusal = Refusal::ReleaseOfOtherDebit { debit: 1 };
    let other_attempt = Release { attempt: 2, ..release() };
    assert_eq!(findings(2, Event::Release(other_attempt)), [refusal]);
    let other_manifest = Release { manifest: Digest::of(b"other"), ..release() };
    assert_eq!(findings(2, Event::Release(other_manifest)), [refusal]);
}

#[test]
fn refuses_a_restart_without_a_new_debit() {
    let again = Release { release_id: Octets([0; 16]), session: Octets([0; 64]), ..release() };
    assert_eq!(findings(3, Event::Release(again.clone())), [Refusal::DebitUsed { debit: 1 }]);
    let next_share = Release { share_index: 2, ..again };
    assert_eq!(findings(3, Event::Release(next_share)), []);
}

#[test]
fn refuses_one_name_for_two_releases() {
    let again = Release { share_index: 2, ..release() };
    let refusal = Refusal::ReleaseRepeated { release_id: Octets([4; 16]) };
    assert_eq!(findings(3, Event::Release(again)), [refusal]);
}

#[test]
fn refuses_a_confirmation_of_nothing_and_a_second_one() {
    let release_id = Octets([4; 16]);
    let refusal = Refusal::ConfirmWithoutRelease { release_id };
    assert_eq!(findings(2, Event::Confirm(confirm())), [refusal]);
    let refusal = Refusal::ConfirmRepeated { release_id };
    assert_eq!(findings(4, Event::Confirm(confirm())), [refusal]);
}

#[test]
fn refuses_a_confirmation_and_a_receipt_after_the_lease() {
    let required = TIME + 60;
    for (count, event) in [(3, Event::Confirm(confirm())), (4, Event::Receipt(receipt()))] {
        let state = State::fold(&history()[..count]).unwrap();
        let at = |time| state.findings(&Record { time, ..salted(event.clone()) });
        assert_eq!(at(required), []);
        let ended = Refusal::LeaseEnded { observed: required + 1, required };
        assert_eq!(at(required + 1), [ended]);
    }
}

#[test]
fn an_attempt_ends_with_the_first_of_its_leases() {
    let mut records = history()[..3].to_vec();
    let next =
        Release { not_after: TIME + 9, release_id: Octets([0; 16]), share_index: 2, ..release() };
    records.push(salted(Event::Release(next)));
    let state = State::fold(&records).unwrap();
    assert_eq!(state.job(&JOB).unwrap().lease(1), Some(TIME + 9));
}

#[test]
fn refuses_checkpoints_that_go_back_or_were_not_paid_for() {
    for observed in [10, 9, 0] {
        let refusal = Refusal::StepWentDown { observed, required: 10 };
        assert_eq!(findings(5, Event::Commit(commit(observed))), [refusal]);
    }
    let unpaid = Refusal::AttemptUnpaid { attempt: 1 };
    assert_eq!(findings(1, Event::Commit(commit(10))), [unpaid]);
}

#[test]
fn refuses_a_second_receipt_of_an_attempt() {
    let refusal = Refusal::ReceiptRepeated { attempt: 1 };
    assert_eq!(findings(6, Event::Receipt(receipt())), [refusal]);
}

#[test]
fn refuses_a_receipt_for_what_was_not_paid_or_not_released() {
    let unreleased = Refusal::ReceiptWithoutRelease { attempt: 1 };
    assert_eq!(findings(2, Event::Receipt(receipt())), [unreleased]);
    let unpaid = Refusal::AttemptUnpaid { attempt: 1 };
    assert_eq!(findings(1, Event::Receipt(receipt())), [unpaid, unreleased]);
    let never = Receipt { attempt: 0, ..receipt() };
    let unpaid = Refusal::AttemptUnpaid { attempt: 0 };
    let unreleased = Refusal::ReceiptWithoutRelease { attempt: 0 };
    assert_eq!(findings(5, Event::Receipt(never)), [unpaid, unreleased]);
}

#[test]
fn refuses_a_second_plaintext_of_a_job() {
    let other = Unwrap { recipient: Octets([0; 32]), ..unwrap() };
    let refusal = Refusal::UnwrapRepeated { recipient: Octets([9; 32]) };
    assert_eq!(findings(7, Event::Unwrap(other)), [refusal]);
    assert_eq!(findings(7, Event::Unwrap(unwrap())), [refusal]);
}

#[test]
fn refuses_to_unwrap_what_has_no_receipt() {
    let refusal = Refusal::UnwrapWithoutReceipt { attempt: 1 };
    assert_eq!(findings(5, Event::Unwrap(unwrap())), [refusal]);
}

#[test]
fn names_everything_that_is_wrong_at_once() {
    let all = findings(3, Event::Release(Release { attempt: 2, ..release() }));
    let release_id = Octets([4; 16]);
    let refusals = [
        Refusal::ReleaseOfOtherDebit { debit: 1 },
        Refusal::DebitUsed { debit: 1 },
        Refusal::ReleaseRepeated { release_id },
    ];
    assert_eq!(all, refusals);
    let text = FoldError { index: 3, findings: all }.to_string();
    assert!(text.starts_with("record 3: the debit at leaf 1 is of another attempt"), "{text}");
}
