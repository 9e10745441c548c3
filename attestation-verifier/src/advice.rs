//! What to do about a finding.
//!
//! The page of this crate says it, in tables that end in "what to do"; this reads them, so that a program
//! says what the page says.

const PAGE: &str = include_str!("../README.md");
const COLUMN: &str = " what to do ";

/// What to do about a finding with this id (`snp.debug`, `origin.missing`); none where the finding itself
/// says all there is.
///
/// ```
/// use attestation_verifier::advice::advice;
///
/// assert_eq!(advice("origin.surplus"), Some("leave one out"));
/// assert_eq!(advice("snp.nothing"), None);
/// ```
pub fn advice(id: &str) -> Option<&'static str> {
    let mut within = false;
    for line in PAGE.lines() {
        let mut cells = line.trim_matches('|').split('|');
        let (first, last) = (cells.next()?, cells.next_back().unwrap_or_default());
        match line.starts_with('|') {
            false => within = false,
            true if last == COLUMN => within = true,
            true if within && names(first, id) => {
                return Some(last.trim()).filter(|advice| *advice != "–");
            }
            true => {}
        }
    }
    None
}

/// Whether a cell as "`snp.debug`, `.smt`, `tdx.debug`" names an id: one without a section is of the one
/// before it.
fn names(cell: &str, id: &str) -> bool {
    let mut section = "";
    cell.split('`').skip(1).step_by(2).any(|name| match name.split_once('.') {
        Some(("", short)) => id.split_once('.') == Some((section, short)),
        Some((of, _)) => {
            section = of;
            name == id
        }
        None => false,
    })
}
