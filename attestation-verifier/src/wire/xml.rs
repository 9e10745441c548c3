//! The XML that reference manifests are written in, and its canonical form.
//!
//! A small part of XML 1.0 with namespaces: printable ASCII and line feeds, elements, attributes in
//! double quotes after one space each, text. No declarations, comments, processing instructions,
//! CDATA, entities, carriage returns or tabs; whoever wants those is refused. In this part, Canonical
//! XML 1.1 without comments needs no escaping and no normalisation of values.
//!
//! The parser keeps its place in a list, not on the call stack, and counts what it takes.

use alloc::vec::Vec;

/// Most bytes of a document: the largest seen is 25 KiB.
pub(crate) const BYTE_LIMIT: usize = 256 * 1024;
/// Most elements: the most seen is 83.
pub(crate) const ELEMENT_LIMIT: usize = 512;
/// Deepest nesting: the deepest seen is 6.
pub(crate) const DEPTH_LIMIT: usize = 8;
/// Most attributes of an element, namespace declarations included: the most seen is 14.
pub(crate) const ATTRIBUTE_LIMIT: usize = 32;

/// A document as a list of elements; the first is the root.
pub(crate) struct Document<'a> {
    elements: Vec<Element<'a>>,
}

pub(crate) struct Element<'a> {
    parent: Option<usize>,
    /// As written, prefix included.
    name: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) local: &'a str,
    /// Prefix (empty for the default) and namespace.
    declarations: Vec<(&'a str, &'a str)>,
    pub(crate) attributes: Vec<Attribute<'a>>,
    children: Vec<Child<'a>>,
}

pub(crate) struct Attribute<'a> {
    name: &'a str,
    /// Empty for a name without a prefix.
    pub(crate) namespace: &'a str,
    pub(crate) local: &'a str,
    pub(crate) value: &'a str,
}

#[derive(Clone, Copy)]
enum Child<'a> {
    Element(usize),
    Text(&'a str),
}

type Problem = &'static str;

impl<'a> Document<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, Problem> {
        if bytes.len() > BYTE_LIMIT {
            return Err("is longer than any honest one");
        }
        if !bytes.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\n')) {
            return Err("has a character other than printable ascii and line feeds");
        }
        let text = core::str::from_utf8(bytes).map_err(|_| "is not text")?;
        Parser { rest: text, elements: Vec::new(), open: Vec::new() }.document()
    }

    pub(crate) fn root(&self) -> Result<Node<'_, 'a>, Problem> {
        self.node(0).ok_or("has no root")
    }

    fn node(&self, at: usize) -> Option<Node<'_, 'a>> {
        self.elements.get(at).map(|element| Node { document: self, at, element })
    }
}

/// An element in its document.
#[derive(Clone, Copy)]
pub(crate) struct Node<'d, 'a> {
    document: &'d Document<'a>,
    at: usize,
    element: &'d Element<'a>,
}

impl<'d, 'a> Node<'d, 'a> {
    pub(crate) fn is(&self, namespace: &str, local: &str) -> bool {
        self.element.namespace == namespace && self.element.local == local
    }

    pub(crate) fn attributes(&self) -> &'d [Attribute<'a>] {
        &self.element.attributes
    }

    /// The value of an attribute; the empty namespace is that of names without a prefix.
    pub(crate) fn attribute(&self, namespace: &str, local: &str) -> Option<&'a str> {
        let mut attributes = self.element.attributes.iter();
        let found = attributes.find(|a| a.namespace == namespace && a.local == local)?;
        Some(found.value)
    }

    /// The elements inside, when there is nothing else but white space where it is `spaced`.
    pub(crate) fn elements(&self, spacing: Spacing) -> Result<Vec<Node<'d, 'a>>, Problem> {
        let mut nodes = Vec::new();
        for child in &self.element.children {
            match child {
                Child::Element(at) => nodes.extend(self.document.node(*at)),
                Child::Text(text) if spacing == Spacing::Lines && text.trim_ascii().is_empty() => {}
                Child::Text(_) => return Err("has text between elements"),
            }
        }
        Ok(nodes)
    }

    /// The text inside, when there is nothing else.
    pub(crate) fn text(&self) -> Result<&'a str, Problem> {
        match self.element.children.as_slice() {
            [] => Ok(""),
            [Child::Text(text)] => Ok(text),
            _ => Err("has elements where text belongs"),
        }
    }

    /// Whether the last thing inside is `node`.
    pub(crate) fn ends_with(&self, node: Node<'_, '_>) -> bool {
        matches!(self.element.children.last(), Some(Child::Element(at)) if *at == node.at)
    }

    /// Canonical XML 1.1 of this element, without `omitted` and all inside it.
    pub(crate) fn canonical(&self, omitted: Option<Node<'_, '_>>) -> Vec<u8> {
        let mut out = Vec::new();
        let omitted = omitted.map(|node| node.at);
        self.render(self.document.scope(self.at), omitted, &mut out);
        out
    }

    /// Recursion is as deep as the document, which is limited.
    fn render(&self, declared: Vec<(&str, &str)>, omitted: Option<usize>, out: &mut Vec<u8>) {
        let element = self.element;
        out.push(b'<');
        out.extend(element.name.as_bytes());
        let mut declared = declared;
        declared.sort_unstable();
        for (prefix, namespace) in declared {
            let colon = if prefix.is_empty() { "" } else { ":" };
            for part in [" xmlns", colon, prefix, "=\"", namespace, "\""] {
                out.extend(part.as_bytes());
            }
        }
        let mut attributes: Vec<_> = element.attributes.iter().collect();
        attributes.sort_unstable_by_key(|attribute| (attribute.namespace, attribute.local));
        for attribute in attributes {
            for part in [" ", attribute.name, "=\"", attribute.value, "\""] {
                out.extend(part.as_bytes());
            }
        }
        out.push(b'>');
        for child in &element.children {
            match child {
                Child::Text(text) => out.extend(text.as_bytes()),
                Child::Element(at) if Some(*at) == omitted => {}
                Child::Element(at) => {
                    if let Some(node) = self.document.node(*at) {
                        node.render(node.fresh_declarations(), omitted, out);
                    }
                }
            }
        }
        for part in ["</", element.name, ">"] {
            out.extend(part.as_bytes());
        }
    }

    /// The declarations that change what the parent has in scope.
    fn fresh_declarations(&self) -> Vec<(&'a str, &'a str)> {
        let parent = self.element.parent;
        let inherited = |prefix| parent.and_then(|at| self.document.lookup(at, prefix));
        let declarations = self.element.declarations.iter().copied();
        declarations.filter(|(prefix, name)| inherited(prefix) != Some(*name)).collect()
    }
}

/// Where white space may stand.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) enum Spacing {
    /// Between elements.
    Lines,
    /// Nowhere.
    None,
}

impl<'a> Document<'a> {
    /// The namespace of `prefix` at the element `at`.
    fn lookup(&self, at: usize, prefix: &str) -> Option<&'a str> {
        lookup(&self.elements, Some(at), prefix)
    }

    /// All declarations in scope at the element `at`, the nearest of each prefix.
    fn scope(&self, at: usize) -> Vec<(&'a str, &'a str)> {
        let mut scope: Vec<(&str, &str)> = Vec::new();
        let mut next = self.elements.get(at);
        while let Some(element) = next {
            for declaration in &element.declarations {
                if scope.iter().all(|(prefix, _)| *prefix != declaration.0) {
                    scope.push(*declaration);
                }
            }
            next = element.parent.and_then(|at| self.elements.get(at));
        }
        scope
    }
}

fn lookup<'a>(elements: &[Element<'a>], from: Option<usize>, prefix: &str) -> Option<&'a str> {
    let mut next = from;
    while let Some(element) = next.and_then(|at| elements.get(at)) {
        if let Some((_, namespace)) = element.declarations.iter().find(|(p, _)| *p == prefix) {
            return Some(namespace);
        }
        next = element.parent;
    }
    None
}

struct Parser<'a> {
    rest: &'a str,
    elements: Vec<Element<'a>>,
    /// The elements that are open, outermost first.
    open: Vec<usize>,
}

impl<'a> Parser<'a> {
    fn document(mut self) -> Result<Document<'a>, Problem> {
        self.start_tag()?;
        while let Some(&at) = self.open.last() {
            if let Some(rest) = self.rest.strip_prefix("</") {
                self.rest = rest;
                self.end_tag(at)?;
            } else if self.rest.starts_with('<') {
                self.start_tag()?;
            } else {
                let text = self.take_until('<').ok_or("ends inside an element")?;
                self.check_plain(text)?;
                self.add_child(Child::Text(text));
            }
        }
        // Line feeds after the root are no part of what is signed.
        if self.rest.bytes().all(|byte| byte == b'\n') {
            Ok(Document { elements: self.elements })
        } else {
            Err("has something after its root")
        }
    }

    fn start_tag(&mut self) -> Result<(), Problem> {
        if self.rest.starts_with("<!") || self.rest.starts_with("<?") {
            return Err("has a declaration, comment, cdata section or processing instruction");
        }
        if self.elements.len() == ELEMENT_LIMIT {
            return Err("has more elements than any honest one");
        }
        if self.open.len() == DEPTH_LIMIT {
            return Err("is nested deeper than any honest one");
        }
        self.rest = self.rest.strip_prefix('<').ok_or("does not start with an element")?;
        let name = self.name()?;
        let (declarations, raw) = self.attributes()?;
        let parent = self.open.last().copied();
        let at = self.elements.len();
        let (prefix, local) = split(name)?;
        self.elements.push(Element {
            parent,
            name,
            namespace: "",
            local,
            declarations,
            attributes: Vec::new(),
            children: Vec::new(),
        });
        let resolve =
            |prefix: &str| -> Option<&'a str> { lookup(&self.elements, Some(at), prefix) };
        let namespace = resolve(prefix).ok_or("has an element in no namespace")?;
        let attributes = resolve_attributes(raw, resolve)?;
        if let Some(element) = self.elements.last_mut() {
            element.namespace = namespace;
            element.attributes = attributes;
        }
        self.add_child(Child::Element(at));
        self.open.push(at);
        if let Some(rest) = self.rest.strip_prefix("/>") {
            self.rest = rest;
            self.open.pop();
        } else {
            self.rest = self.rest.strip_prefix('>').ok_or("has a tag of unusual form")?;
        }
        Ok(())
    }

    fn end_tag(&mut self, at: usize) -> Result<(), Problem> {
        let name = self.take_until('>').ok_or("ends inside a tag")?;
        self.rest = self.rest.strip_prefix('>').ok_or("ends inside a tag")?;
        if self.elements.get(at).is_none_or(|element| element.name != name) {
            return Err("closes an element that is not open");
        }
        self.open.pop();
        Ok(())
    }

    /// Attributes, each after one space: namespace declarations, and the others as written.
    #[expect(clippy::type_complexity, reason = "two lists of pairs")]
    fn attributes(
        &mut self,
    ) -> Result<(Vec<(&'a str, &'a str)>, Vec<(&'a str, &'a str)>), Problem> {
        let (mut declarations, mut raw) = (Vec::new(), Vec::new());
        while let Some(rest) = self.rest.strip_prefix(' ') {
            self.rest = rest;
            if declarations.len() + raw.len() == ATTRIBUTE_LIMIT {
                return Err("has an element with more attributes than any honest one");
            }
            let name = self.name()?;
            self.rest = self.rest.strip_prefix("=\"").ok_or("has a tag of unusual form")?;
            let value = self.take_until('"').ok_or("ends inside a tag")?;
            self.rest = self.rest.strip_prefix('"').ok_or("ends inside a tag")?;
            self.check_plain(value)?;
            if value.contains(['<', '\n']) {
                return Err("has an attribute with markup or a line feed");
            }
            let declared = match split(name)? {
                ("", "xmlns") => Some(""),
                ("xmlns", prefix) if prefix != "xml" && prefix != "xmlns" => Some(prefix),
                ("xmlns" | "xml", _) => return Err("uses a reserved prefix"),
                _ => None,
            };
            match declared {
                Some(_) if value.is_empty() => return Err("undeclares a namespace"),
                Some(prefix) if declarations.iter().any(|(other, _)| *other == prefix) => {
                    return Err("declares a prefix twice");
                }
                Some(prefix) => declarations.push((prefix, value)),
                None => raw.push((name, value)),
            }
        }
        Ok((declarations, raw))
    }

    /// A name, with or without a prefix.
    fn name(&mut self) -> Result<&'a str, Problem> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-.:".contains(c);
        let end = self.rest.find(|c| !plain(c)).ok_or("ends inside a tag")?;
        let (name, rest) = self.rest.split_at_checked(end).ok_or("ends inside a tag")?;
        self.rest = rest;
        split(name)?;
        Ok(name)
    }

    fn take_until(&mut self, end: char) -> Option<&'a str> {
        let (taken, rest) = self.rest.split_at_checked(self.rest.find(end)?)?;
        self.rest = rest;
        Some(taken)
    }

    /// What canonical XML would have to escape is refused instead.
    fn check_plain(&self, text: &str) -> Result<(), Problem> {
        if text.contains('&') {
            return Err("has an entity reference");
        }
        if text.contains('>') {
            return Err("has a character that canonical xml would escape");
        }
        Ok(())
    }

    fn add_child(&mut self, child: Child<'a>) {
        let parent = self.open.last().and_then(|at| self.elements.get_mut(*at));
        if let Some(parent) = parent {
            parent.children.push(child);
        }
    }
}

/// The prefix, empty if there is none, and the rest of a name.
fn split(name: &str) -> Result<(&str, &str), Problem> {
    let (prefix, local) = name.split_once(':').unwrap_or(("", name));
    let plain = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && !part.contains(':')
    };
    if plain(local) && (plain(prefix) || !name.contains(':')) {
        Ok((prefix, local))
    } else {
        Err("has a name of unusual form")
    }
}

fn resolve_attributes<'a>(
    raw: Vec<(&'a str, &'a str)>,
    resolve: impl Fn(&str) -> Option<&'a str>,
) -> Result<Vec<Attribute<'a>>, Problem> {
    let mut attributes: Vec<Attribute<'_>> = Vec::new();
    for (name, value) in raw {
        let (prefix, local) = split(name)?;
        let namespace = match prefix {
            "" => "",
            prefix => resolve(prefix).ok_or("has an attribute in no namespace")?,
        };
        if attributes.iter().any(|other| other.namespace == namespace && other.local == local) {
            return Err("has an attribute twice");
        }
        attributes.push(Attribute { name, namespace, local, value });
    }
    Ok(attributes)
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::string::String;

    use super::*;

    fn problem(text: &str) -> Problem {
        Document::parse(text.as_bytes()).err().unwrap()
    }

    fn canonical(text: &str) -> String {
        let document = Document::parse(text.as_bytes()).unwrap();
        String::from_utf8(document.root().unwrap().canonical(None)).unwrap()
    }

    #[test]
    fn sorts_declarations_and_attributes_and_spells_empty_elements_out() {
        let text = "<r xmlns:b=\"urn:2\" xmlns=\"urn:1\" z=\"1\" b:y=\"2\" a=\"3\"><b:c/> </r>\n";
        assert_eq!(
            canonical(text),
            "<r xmlns=\"urn:1\" xmlns:b=\"urn:2\" a=\"3\" z=\"1\" b:y=\"2\"><b:c></b:c> </r>"
        );
    }

    #[test]
    fn renders_only_declarations_that_change_something() {
        let text = "<r xmlns=\"urn:1\"><s xmlns=\"urn:1\"><t xmlns=\"urn:2\"/></s></r>";
        assert_eq!(canonical(text), "<r xmlns=\"urn:1\"><s><t xmlns=\"urn:2\"></t></s></r>");
    }

    #[test]
    fn renders_all_in_scope_on_an_element_canonicalised_alone() {
        let text = "<r xmlns=\"urn:1\" xmlns:q=\"urn:2\"><q:s><t/></q:s></r>";
        let document = Document::parse(text.as_bytes()).unwrap();
        let root = document.root().unwrap();
        let [inner] = root.elements(Spacing::None).unwrap()[..] else { panic!() };
        let rendered = String::from_utf8(inner.canonical(None)).unwrap();
        assert_eq!(rendered, "<q:s xmlns=\"urn:1\" xmlns:q=\"urn:2\"><t></t></q:s>");
        let without = String::from_utf8(root.canonical(Some(inner))).unwrap();
        assert_eq!(without, "<r xmlns=\"urn:1\" xmlns:q=\"urn:2\"></r>");
    }

    #[test]
    fn refuses_what_manifests_never_hold() {
        let declaration = "has a declaration, comment, cdata section or processing instruction";
        for (text, expected) in [
            ("<?xml version=\"1.0\"?><r xmlns=\"u\"/>", declaration),
            ("<!DOCTYPE r SYSTEM \"file:///etc/passwd\"><r xmlns=\"u\"/>", declaration),
            ("<r xmlns=\"u\"><!-- --></r>", declaration),
            ("<r xmlns=\"u\"><![CDATA[x]]></r>", declaration),
            ("<r xmlns=\"u\">&amp;</r>", "has an entity reference"),
            ("<r xmlns=\"u\" a=\"&#65;\"/>", "has an entity reference"),
            ("<r xmlns=\"u\">></r>", "has a character that canonical xml would escape"),
            (
                "<r xmlns=\"u\"\ta=\"\"/>",
                "has a character other than printable ascii and line feeds",
            ),
            ("<r xmlns=\"u\">\r</r>", "has a character other than printable ascii and line feeds"),
            ("<r xmlns=\"u\">é</r>", "has a character other than printable ascii and line feeds"),
            ("<r xmlns=\"u\" a='1'/>", "has a tag of unusual form"),
            ("<r xmlns=\"u\"  a=\"1\"/>", "has a name of unusual form"),
            ("<r xmlns=\"u\" />", "has a name of unusual form"),
            ("<r xmlns=\"u\" a=\"1\" a=\"1\"/>", "has an attribute twice"),
            (
                "<r xmlns=\"u\" xmlns:p=\"v\" xmlns:q=\"v\" p:a=\"1\" q:a=\"1\"/>",
                "has an attribute twice",
            ),
            ("<r xmlns=\"u\" xmlns=\"u\"/>", "declares a prefix twice"),
            ("<r xmlns=\"u\" xmlns:p=\"\"/>", "undeclares a namespace"),
            ("<r xmlns=\"u\" xml:id=\"1\"/>", "uses a reserved prefix"),
            ("<r xmlns=\"u\" xmlns:xml=\"1\"/>", "uses a reserved prefix"),
            ("<r/>", "has an element in no namespace"),
            ("<r xmlns=\"u\" p:a=\"1\"/>", "has an attribute in no namespace"),
            ("<p:r xmlns=\"u\"/>", "has an element in no namespace"),
            ("<a:b:c xmlns=\"u\"/>", "has a name of unusual form"),
            ("<r xmlns=\"u\"></s>", "closes an element that is not open"),
            ("<r xmlns=\"u\"></r >", "closes an element that is not open"),
            ("<r xmlns=\"u\"/><r xmlns=\"u\"/>", "has something after its root"),
            ("<r xmlns=\"u\"/>\n ", "has something after its root"),
            (" <r xmlns=\"u\"/>", "does not start with an element"),
            ("<r xmlns=\"u\">", "ends inside an element"),
            ("", "does not start with an element"),
        ] {
            assert_eq!(problem(text), expected, "{text}");
        }
    }

    #[test]
    fn holds_its_budgets_at_the_limit_and_one_past_it() {
        let nested = |depth: usize| {
            let open = "<r xmlns=\"u\">".repeat(depth);
            format!("{open}{}", "</r>".repeat(depth))
        };
        assert!(Document::parse(nested(DEPTH_LIMIT).as_bytes()).is_ok());
        assert_eq!(problem(&nested(DEPTH_LIMIT + 1)), "is nested deeper than any honest one");

        let wide = |count: usize| format!("<r xmlns=\"u\">{}</r>", "<e/>".repeat(count - 1));
        assert!(Document::parse(wide(ELEMENT_LIMIT).as_bytes()).is_ok());
        assert_eq!(problem(&wide(ELEMENT_LIMIT + 1)), "has more elements than any honest one");

        let attributes = |count: usize| {
            let list: String = (1..count).map(|i| format!(" a{i}=\"\"")).collect();
            format!("<r xmlns=\"u\"{list}/>")
        };
        assert!(Document::parse(attributes(ATTRIBUTE_LIMIT).as_bytes()).is_ok());
        assert_eq!(
            problem(&attributes(ATTRIBUTE_LIMIT + 1)),
            "has an element with more attributes than any honest one"
        );

        let long = |len: usize| format!("<r xmlns=\"u\">{}</r>", " ".repeat(len - 17));
        assert!(Document::parse(long(BYTE_LIMIT).as_bytes()).is_ok());
        assert_eq!(problem(&long(BYTE_LIMIT + 1)), "is longer than any honest one");
    }
}
