//! What JSON of a stranger may cost: depth and count, before any parser sees it.

/// Deepest honest document: 7, Intel's TCB info.
const DEPTH_LIMIT: usize = 16;
/// Most values: the largest honest document has about 2000.
const COUNT_LIMIT: usize = 16 * 1024;

/// Refuses text that is nested too deep or holds too many values. Whether it is JSON at all is the
/// parser's question.
pub(super) fn check(text: &str) -> Result<(), &'static str> {
    let (mut depth, mut count) = (0_usize, 0_usize);
    let (mut quoted, mut escaped) = (false, false);
    for byte in text.bytes() {
        if quoted {
            (quoted, escaped) = (escaped || byte != b'"', !escaped && byte == b'\\');
            continue;
        }
        match byte {
            b'"' => quoted = true,
            b'{' | b'[' => depth = depth.saturating_add(1),
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' => count = count.saturating_add(1),
            _ => {}
        }
        if depth > DEPTH_LIMIT {
            return Err("nested deeper than any honest document");
        }
        if count > COUNT_LIMIT {
            return Err("holds more values than any honest document");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use alloc::string::String;

    use super::*;

    #[test]
    fn accepts_the_deepest_and_refuses_one_deeper() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert_eq!(check(&nested(DEPTH_LIMIT)), Ok(()));
        let deeper = check(&nested(DEPTH_LIMIT + 1));
        assert_eq!(deeper, Err("nested deeper than any honest document"));
    }

    #[test]
    fn accepts_the_most_values_and_refuses_one_more() {
        let values = |count: usize| String::from("[0") + &",0".repeat(count) + "]";
        assert_eq!(check(&values(COUNT_LIMIT)), Ok(()));
        let more = check(&values(COUNT_LIMIT + 1));
        assert_eq!(more, Err("holds more values than any honest document"));
    }

    #[test]
    fn brackets_and_commas_inside_strings_cost_nothing() {
        let text = String::from("{\"a\":\"") + &"[,".repeat(COUNT_LIMIT) + "\\\"[\",\"b\":0}";
        assert_eq!(check(&text), Ok(()));
        let open = String::from("\"\\\\\"") + &"[".repeat(DEPTH_LIMIT + 1);
        assert!(check(&open).is_err());
    }
}
