//! The certificates that a host hands to its guest beside a report: the table of the GHCB
//! specification (56421, "SNP Extended Guest Request"), behind a report or by itself.
//!
//! Entries are a GUID, an offset from the table's start and a length; a GUID of zeros ends them.

/// Most entries that are looked at.
const COUNT_LIMIT: usize = 16;
const ENTRY: usize = 24;

/// VCEK, VLEK, ASK, ARK, and the ARK's revocation list.
const KNOWN: [u128; 5] = [
    0x63da758d_e664_4564_adc5_f4b93be8accd,
    0xa8074bc2_a25a_483e_aae6_39c045a0b8a1,
    0x4ab7b379_bbac_4fe4_a02f_05aef327c782,
    0xc0b406a4_a803_4952_9743_3fb6014cd0ae,
    0x92f81bc3_5811_4d3d_97ff_d19f88dc67ea,
];

/// What the entries of a table hold; none when `bytes` are no such table.
pub fn certificates(bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut all = Vec::new();
    for entry in bytes.chunks_exact(ENTRY).take(COUNT_LIMIT) {
        let (guid, place) = entry.split_first_chunk::<16>()?;
        if *guid == [0; 16] {
            return (!all.is_empty()).then_some(all);
        }
        if !is_known(*guid) {
            return None;
        }
        let (offset, length) = place.split_first_chunk::<4>()?;
        let number = |bytes: [u8; 4]| usize::try_from(u32::from_le_bytes(bytes)).ok();
        let offset = number(*offset)?;
        let until = offset.checked_add(number(length.try_into().ok()?)?)?;
        all.push(bytes.get(offset..until)?.to_vec());
    }
    None
}

/// Tools write GUIDs in either order of bytes.
fn is_known(guid: [u8; 16]) -> bool {
    let [a, b, c, d, e, f, g, h, rest @ ..] = guid;
    let mut swapped = [d, c, b, a, f, e, h, g, 0, 0, 0, 0, 0, 0, 0, 0];
    swapped.iter_mut().skip(8).zip(rest).for_each(|(to, from)| *to = from);
    [guid, swapped].iter().any(|guid| KNOWN.contains(&u128::from_be_bytes(*guid)))
}
