use measurement::digest::Digest;
use measurement::log::{Accepted, Code, Deny};

use super::*;

mod oracle;

fn deny(n: u8) -> Event {
    let code = Code::try_from(format!("code-{n}")).unwrap();
    Event::Deny(Deny { code, manifest: Digest::from_bytes([n; 48]) })
}

fn golden() -> (tempfile::TempDir, Arc<Identity>) {
    let folder = tempfile::tempdir().unwrap();
    let identity = Identity::create(folder.path(), "golden").unwrap();
    Store::create(folder.path()).unwrap();
    (folder, Arc::new(identity))
}

fn with_three() -> (tempfile::TempDir, Arc<Identity>) {
    let (folder, identity) = golden();
    let mut store = Store::open(folder.path(), Arc::clone(&identity)).unwrap();
    assert_eq!(store.append(vec![deny(0), deny(1)], 7).unwrap(), [0, 1]);
    assert_eq!(store.append(vec![deny(2)], 8).unwrap(), [2]);
    drop(store);
    (folder, identity)
}

/// A fourth record that was written but never signed.
fn unsigned(folder: &Path, identity: &Arc<Identity>) -> Vec<u8> {
    let store = Store::open(folder, Arc::clone(identity)).unwrap();
    let entry = store.entry(&Record { event: deny(3), salt: Octets([3; 32]), time: 9 });
    let mut bytes = Vec::new();
    wal::write(&entry, &mut bytes);
    bytes
}

fn extend(folder: &Path, bytes: &[u8]) {
    let path = folder.join("wal");
    let mut wal = fs::read(&path).unwrap();
    wal.extend_from_slice(bytes);
    fs::write(path, wal).unwrap();
}

#[test]
fn everything_is_there_after_a_restart() {
    let (folder, identity) = with_three();
    let before = fs::read(folder.path().join("log/checkpoint")).unwrap();
    let store = Store::open(folder.path(), Arc::clone(&identity)).unwrap();
    assert_eq!(store.fold().state().size(), 3);
    assert_eq!(store.checkpoint().as_bytes(), before);
    assert_eq!(store.fold().events(), [deny(0), deny(1), deny(2)]);
    let (fold, checkpoint) = view(folder.path()).unwrap();
    assert_eq!((fold.tree().root(), 3), (checkpoint.root, checkpoint.size));
}

#[test]
fn every_record_proves_under_the_checkpoint() {
    let (folder, identity) = with_three();
    let store = Store::open(folder.path(), Arc::clone(&identity)).unwrap();
    let me = identity.custodian();
    let ledger = measurement::manifest::LedgerTerms { log: me.log, quorum: 0, witnesses: vec![] };
    for (index, expected) in (0..).zip(store.fold().events()) {
        let proven = store.proven(index).unwrap();
        let record =
            attestation_verifier::proof::record(&proven, &me.log, &me.decision, &ledger).unwrap();
        assert_eq!(record.event, *expected);
    }
    assert_eq!(store.proven(3), None);
}

#[test]
fn a_torn_end_beyond_the_signed_size_is_dropped() {
    let (folder, identity) = with_three();
    let fourth = unsigned(folder.path(), &identity);
    let signed = fs::read(folder.path().join("wal")).unwrap();
    for torn in [1, 4, 12, 100, fourth.len() - 1] {
        extend(folder.path(), &fourth[..torn]);
        let mut store = Store::open(folder.path(), Arc::clone(&identity)).unwrap();
        assert_eq!(store.fold().state().size(), 3);
        assert_eq!(fs::read(folder.path().join("wal")).unwrap(), signed);
        assert_eq!(store.append(vec![], 9).unwrap(), Vec::<u64>::new());
    }
}

#[test]
fn a_whole_record_that_was_not_signed_yet_is_kept() {
    let (folder, identity) = with_three();
    extend(folder.path(), &unsigned(folder.path(), &identity));
    let store = Store::open(folder.path(), Arc::clone(&identity)).unwrap();
    assert_eq!(store.fold().state().size(), 4);
    assert_eq!(view(folder.path()).unwrap().1.size, 4);
    assert!(folder.path().join("records/3.cbor").exists());
}

#[test]
fn refuses_to_start_when_signed_records_are_torn() {
    let (folder, identity) = with_three();
    let path = folder.path().join("wal");
    let wal = fs::read(&path).unwrap();
    fs::write(&path, &wal[..wal.len() - 1]).unwrap();
    let refused = Store::open(folder.path(), identity).err().unwrap();
    assert!(matches!(refused, StoreError::Lost { observed: 2, required: 3 }), "{refused}");
}

#[test]
fn refuses_to_start_after_a_bit_flip_anywhere_in_what_was_signed() {
    let (folder, identity) = with_three();
    let path = folder.path().join("wal");
    let wal = fs::read(&path).unwrap();
    for at in (0..wal.len()).step_by(37) {
        let mut rotten = wal.clone();
        rotten[at] ^= 1;
        fs::write(&path, rotten).unwrap();
        let refused = Store::open(folder.path(), Arc::clone(&identity)).err().unwrap();
        assert!(matches!(refused, StoreError::Lost { required: 3, .. }), "{at}: {refused}");
    }
}

#[test]
fn refuses_to_start_under_another_root_and_without_a_signed_state() {
    let (folder, identity) = with_three();
    let path = folder.path().join("signed-state");
    let other = print(&Signed { root: empty_root(), size: 3 });
    fs::write(&path, other).unwrap();
    let refused = Store::open(folder.path(), Arc::clone(&identity)).err().unwrap();
    assert!(matches!(refused, StoreError::Root { size: 3, .. }), "{refused}");
    fs::write(&path, b"{}\n").unwrap();
    let refused = Store::open(folder.path(), Arc::clone(&identity)).err().unwrap();
    assert!(matches!(refused, StoreError::SignedState { .. }), "{refused}");
    fs::remove_file(&path).unwrap();
    assert!(matches!(Store::open(folder.path(), identity), Err(StoreError::File(_))));
}

#[test]
fn refuses_a_second_writer() {
    let (folder, identity) = golden();
    let first = Store::open(folder.path(), Arc::clone(&identity)).unwrap();
    let refused = Store::open(folder.path(), Arc::clone(&identity)).err().unwrap();
    assert!(matches!(refused, StoreError::Locked { .. }), "{refused}");
    drop(first);
    assert!(Store::open(folder.path(), identity).is_ok());
}

#[test]
fn writes_nothing_of_a_batch_that_the_ledger_forbids() {
    let (folder, identity) = with_three();
    let before = fs::read(folder.path().join("wal")).unwrap();
    let mut store = Store::open(folder.path(), identity).unwrap();
    let accepted = |sequence| {
        Event::Manifest(Accepted {
            dataset: Octets([1; 16]),
            job: Octets([2; 16]),
            manifest: Digest::from_bytes([3; 48]),
            sequence,
        })
    };
    let refused = store.append(vec![accepted(2), accepted(1)], 9).unwrap_err();
    assert!(matches!(refused, AppendError::Forbidden(_)), "{refused}");
    assert_eq!(store.fold().state().size(), 3);
    assert_eq!(fs::read(folder.path().join("wal")).unwrap(), before);
    assert_eq!(store.append(vec![accepted(2)], 9).unwrap(), [3]);
}

#[test]
fn the_audit_copy_is_a_whole_log() {
    let (folder, _) = with_three();
    let out = folder.path().join("copy");
    assert_eq!(export(folder.path(), &out).unwrap(), 3);
    let note = fs::read(out.join("checkpoint")).unwrap();
    let checkpoint = Note::parse(&note).unwrap().checkpoint().unwrap();
    let (tree, leaves) = tiles::read(&checkpoint, |name| fs::read(out.join(name)).ok()).unwrap();
    assert_eq!((tree.size(), leaves.len()), (3, 3));
    for (index, leaf) in leaves.iter().enumerate() {
        let record = fs::read(out.join(format!("records/{index}.cbor"))).unwrap();
        assert!(Leaf::from_slice(leaf).unwrap().covers(&record));
    }
    assert!(export(folder.path(), &out).is_err());
}
