//! Just enough of DER to walk certificates and lists, what NVIDIA puts in extensions, and OCSP.
//!
//! One-byte tags and minimal definite lengths; anything else is refused. The walker never allocates
//! and never recurses: a caller opens each level by itself.

/// One element: its tag, its contents, and both with the length between them.
#[derive(Clone, Copy)]
pub(crate) struct Element<'a> {
    pub(crate) tag: u8,
    pub(crate) value: &'a [u8],
    pub(crate) whole: &'a [u8],
}

/// Elements side by side.
#[derive(Clone, Copy)]
pub(crate) struct Walker<'a>(&'a [u8]);

pub(crate) const BOOLEAN: u8 = 0x01;
pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const OBJECT_ID: u8 = 0x06;
pub(crate) const ENUMERATED: u8 = 0x0a;
pub(crate) const SEQUENCE: u8 = 0x30;

impl<'a> Walker<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next element, whatever it is.
    pub(crate) fn any(&mut self) -> Option<Element<'a>> {
        let start = self.0;
        let (&tag, rest) = start.split_first()?;
        // A tag number of 31 and above takes more bytes; nothing here has one.
        if tag & 0x1f == 0x1f {
            return None;
        }
        let (len, rest) = length(rest)?;
        let (value, tail) = rest.split_at_checked(len)?;
        let whole = start.get(..start.len().checked_sub(tail.len())?)?;
        self.0 = tail;
        Some(Element { tag, value, whole })
    }

    /// The contents of the next element, which must have `tag`.
    pub(crate) fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.optional(tag)
    }

    /// The contents of the next element if it has `tag`; otherwise nothing is consumed.
    pub(crate) fn optional(&mut self, tag: u8) -> Option<&'a [u8]> {
        let mut ahead = *self;
        let element = ahead.any().filter(|element| element.tag == tag)?;
        *self = ahead;
        Some(element.value)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn end(self) -> Option<()> {
        self.is_empty().then_some(())
    }
}

/// The one element that `bytes` are, opened.
pub(crate) fn only(tag: u8, bytes: &[u8]) -> Option<Walker<'_>> {
    let mut walker = Walker::new(bytes);
    let value = walker.expect(tag)?;
    walker.end()?;
    Some(Walker::new(value))
}

/// A length of at most three bytes, in its shortest form.
fn length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (&first, rest) = bytes.split_first()?;
    let (len, least, rest) = match (first, rest) {
        (0..=0x7f, rest) => (usize::from(first), 0, rest),
        (0x81, [a, rest @ ..]) => (usize::from(*a), 0x80, rest),
        (0x82, [a, b, rest @ ..]) => (usize::from(u16::from_be_bytes([*a, *b])), 0x100, rest),
        (0x83, [a, b, c, rest @ ..]) => {
            let len = u32::from_be_bytes([0, *a, *b, *c]);
            (usize::try_from(len).ok()?, 0x1_0000, rest)
        }
        _ => return None,
    };
    (len >= least).then_some((len, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_lengths_that_are_not_the_shortest() {
        assert_eq!(length(&[0x7f]), Some((0x7f, &[][..])));
        assert_eq!(length(&[0x81, 0x80]), Some((0x80, &[][..])));
        assert_eq!(length(&[0x81, 0x7f]), None);
        assert_eq!(length(&[0x82, 0x00, 0xff]), None);
        assert_eq!(length(&[0x82, 0x01, 0x00]), Some((0x100, &[][..])));
        assert_eq!(length(&[0x83, 0x00, 0xff, 0xff]), None);
        assert_eq!(length(&[0x80]), None);
        assert_eq!(length(&[0x84, 0, 0, 0, 1]), None);
    }

    #[test]
    fn refuses_elements_that_end_early_and_long_tags() {
        assert!(Walker::new(&[0x04, 2, 1]).any().is_none());
        assert!(Walker::new(&[0x1f, 1, 1]).any().is_none());
        assert!(only(SEQUENCE, &[0x30, 0, 0]).is_none());
        assert!(only(SEQUENCE, &[0x30, 0]).is_some());
    }
}
