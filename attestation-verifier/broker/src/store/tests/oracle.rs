//! What the store publishes, read by an independent client of C2SP's formats (`signed_note`,
//! `tlog_tiles`: Cloudflare's port of Go's), which shares no code with ours.

use base64ct::{Base64, Encoding as _};
use signed_note::{Note as TheirNote, NoteError as TheirError, StandardVerifier, VerifierList};
use tlog_tiles::{
    Checkpoint as TheirCheckpoint, Error, Hash, Tile, TileHashReader, TileReader, check_record,
    check_tree, prove_record, prove_tree, record_hash,
};

use super::*;

/// Enough for full tiles, a partial one, and a tile above them.
const SIZE: u64 = 700;

/// A log of [`SIZE`] records, and the checkpoint it had at 300.
fn published() -> (tempfile::TempDir, Arc<Identity>, TheirCheckpoint) {
    let (folder, identity) = golden();
    let mut store = Store::open(folder.path(), Arc::clone(&identity)).unwrap();
    let batch = |count| (0..count).map(|n: u16| deny(n.to_le_bytes()[0])).collect();
    store.append(batch(300), 7).unwrap();
    let before = opened(store.checkpoint().as_bytes(), &identity).unwrap();
    store.append(batch(400), 8).unwrap();
    (folder, identity, before)
}

/// The checkpoint in a note, when the log's key signed it.
fn opened(note: &[u8], identity: &Identity) -> Result<TheirCheckpoint, TheirError> {
    let log = identity.custodian().log;
    let name = origin(log.as_bytes());
    let key = [&[1][..], log.as_bytes()].concat();
    let id = signed_note::key_id(&name, &key);
    let line = format!("{name}+{id:08x}+{}", Base64::encode_string(&key));
    let verifier = StandardVerifier::new(&line).unwrap();
    let note = TheirNote::from_bytes(note)?;
    let (signed, strange) = note.verify(&VerifierList::new(vec![Box::new(verifier)]))?;
    assert_eq!((signed.len(), strange.len()), (1, 0));
    let checkpoint = TheirCheckpoint::from_bytes(note.text()).unwrap();
    assert_eq!((checkpoint.origin(), checkpoint.extension()), (name.as_str(), ""));
    Ok(checkpoint)
}

struct Folder(PathBuf);

impl TileReader for Folder {
    fn height(&self) -> u8 {
        8
    }

    fn read_tiles(&self, tiles: &[Tile]) -> Result<Vec<Vec<u8>>, Error> {
        // Go's paths name the height, tlog-tiles's do not: it is always 8.
        let path = |tile: &Tile| self.0.join(tile.path().replacen("tile/8/", "tile/", 1));
        Ok(tiles.iter().map(|tile| fs::read(path(tile)).unwrap()).collect())
    }

    fn save_tiles(&self, _: &[Tile], _: &[Vec<u8>]) {}
}

#[test]
fn an_independent_client_reads_our_checkpoint_and_finds_every_leaf_in_our_tiles() {
    let (folder, identity, _) = published();
    let note = fs::read(folder.path().join("log/checkpoint")).unwrap();
    let checkpoint = opened(&note, &identity).unwrap();
    let (size, root) = (checkpoint.size(), *checkpoint.hash());
    assert_eq!(size, SIZE);
    let tiles = Folder(folder.path().join("log"));
    let hashes = TileHashReader::new(size, root, &tiles);
    let (fold, _) = view(folder.path()).unwrap();
    for (index, leaf) in (0..).zip(fold.leaves()) {
        let proof = prove_record(size, index, &hashes).unwrap();
        check_record(&proof, size, root, index, record_hash(leaf)).unwrap();
        let ours = fold.tree().inclusion_proof(index, size).unwrap();
        assert_eq!(ours.iter().map(|hash| Hash(*hash.as_bytes())).collect::<Vec<_>>(), proof);
    }
}

#[test]
fn an_independent_client_sees_that_the_log_only_grew() {
    let (folder, identity, before) = published();
    let note = fs::read(folder.path().join("log/checkpoint")).unwrap();
    let after = opened(&note, &identity).unwrap();
    let tiles = Folder(folder.path().join("log"));
    let hashes = TileHashReader::new(after.size(), *after.hash(), &tiles);
    let proof = prove_tree(after.size(), before.size(), &hashes).unwrap();
    check_tree(&proof, after.size(), *after.hash(), before.size(), *before.hash()).unwrap();
    let (fold, _) = view(folder.path()).unwrap();
    let ours = fold.tree().consistency_proof(before.size(), after.size()).unwrap();
    assert_eq!(ours.iter().map(|hash| Hash(*hash.as_bytes())).collect::<Vec<_>>(), proof);
}

#[test]
fn an_independent_client_refuses_our_note_with_any_byte_changed() {
    let (folder, identity) = with_three();
    let note = fs::read(folder.path().join("log/checkpoint")).unwrap();
    assert!(opened(&note, &identity).is_ok());
    for at in 0..note.len() {
        let mut forged = note.clone();
        forged[at] ^= 1;
        assert!(opened(&forged, &identity).is_err(), "byte {at}");
    }
    let other = Identity::create(&folder.path().join("other"), "other");
    assert!(opened(&note, &other.unwrap()).is_err());
}
