//! One line of JSONL into one record: strict, and sparing with what it keeps.
//!
//! A line is one of three shapes, and holds exactly one of them:
//!
//! | shape | fields | must not be blank |
//! |---|---|---|
//! | chat | `messages`: list of `{role, content}` | every `content`; at least one `assistant` |
//! | chat (ShareGPT) | `conversations`: list of `{from, value}` | the same; sealed as `messages` |
//! | pair | `prompt`, `completion` | both |
//! | plain | `text` | `text` |
//!
//! The privacy unit's field (`customer_id`, say) is read and left behind: the container's index
//! names units by random numbers. Further fields are left behind too, and the survey names them.
//! What is sealed of a line is the shape's fields alone, as compact JSON in the order above.

use core::fmt;
use std::borrow::Cow;
use std::collections::BTreeSet;

use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::error::Category;
use thiserror::Error;
use zeroize::Zeroizing;

/// The longest line that is read, in bytes without its line end.
pub const MAX_LINE: usize = 1 << 20;

/// One record, ready to be sealed. Secret: neither `Debug` nor `Clone`.
pub struct Record {
    payload: Zeroizing<Vec<u8>>,
    unit: Option<Zeroizing<String>>,
    left_out: Vec<String>,
}

impl Record {
    /// Reads one line, without its line end.
    ///
    /// `unit` names the field that holds the privacy unit; `None` makes each record its own unit.
    ///
    /// # Errors
    /// The first [`Flaw`] of the line.
    pub fn parse(line: &[u8], unit: Option<&str>) -> Result<Self, Flaw> {
        if line.len() > MAX_LINE {
            return Err(Flaw::Long { cap: MAX_LINE });
        }
        if line.trim_ascii().is_empty() {
            return Err(Flaw::Blank);
        }
        let mut json = serde_json::Deserializer::from_slice(line);
        let fields = Fields::seed(unit).deserialize(&mut json).map_err(|e| Flaw::malformed(&e))?;
        json.end().map_err(|e| Flaw::malformed(&e))?;
        fields.into_record(unit)
    }

    /// Lends the bytes that are sealed to `f` and to nothing after it.
    pub fn expose<R>(&self, f: impl FnOnce(&[u8]) -> R) -> R {
        f(&self.payload)
    }

    /// Length of the bytes that are sealed.
    #[must_use]
    pub fn payload_len(&self) -> usize {
        self.payload.len()
    }

    /// Lends the name of the privacy unit, if the records have one, to `f`.
    pub fn expose_unit<R>(&self, f: impl FnOnce(Option<&str>) -> R) -> R {
        f(self.unit.as_ref().map(|unit| unit.as_str()))
    }

    /// Names of the fields that are not sealed, the unit's field apart.
    #[must_use]
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }
}

/// What is wrong with one line.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum Flaw {
    /// Fields of two shapes in one record.
    #[error(
        "ambiguous record: it holds fields of more than one of messages, prompt/completion, text"
    )]
    Ambiguous,
    /// A line of nothing but white space.
    #[error("blank line")]
    Blank,
    /// A field that holds nothing but white space.
    #[error("empty record: `{field}` is blank")]
    Empty {
        /// The blank field.
        field: &'static str,
    },
    /// More bytes on one line than the cap.
    #[error("line is longer than {cap} bytes")]
    Long {
        /// The cap, in bytes.
        cap: usize,
    },
    /// Not the JSON that was asked for.
    #[error("column {column}: malformed json: {complaint}")]
    Malformed {
        /// Column in bytes, from 1.
        column: usize,
        /// The parser's words, without any content of the record.
        complaint: String,
    },
    /// None of the three shapes.
    #[error("not a record: it holds none of messages, prompt/completion, text")]
    Shapeless,
    /// No value in the privacy unit's field.
    #[error("no privacy unit: `{field}` is missing or blank")]
    Unitless {
        /// The field that job.toml names.
        field: String,
    },
}

impl Flaw {
    fn malformed(error: &serde_json::Error) -> Self {
        let full = error.to_string();
        let place = format!(" at line {} column {}", error.line(), error.column());
        let words = full.strip_suffix(&place).unwrap_or(&full);
        let complaint = match error.classify() {
            Category::Data => without_content(words),
            Category::Eof | Category::Io | Category::Syntax => words.to_owned(),
        };
        Self::Malformed { column: error.column(), complaint }
    }
}

/// serde quotes a value of the wrong type; a terminal is no place for it.
fn without_content(words: &str) -> String {
    match (words.split_once(": "), words.rfind(", expected ")) {
        (Some((head @ ("invalid type" | "invalid value"), tail)), Some(at)) => {
            let kind = tail.split(['`', '"']).next().unwrap_or_default().trim_end();
            let asked = words.get(at..).unwrap_or_default();
            format!("{head}: {kind}{asked}")
        }
        _ => words.to_owned(),
    }
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Message {
    role: Role,
    content: String,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Role {
    Assistant,
    System,
    User,
}

/// A message of ShareGPT.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Turn {
    from: Speaker,
    value: String,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Speaker {
    #[serde(alias = "assistant")]
    Gpt,
    #[serde(alias = "user")]
    Human,
    System,
}

impl From<Turn> for Message {
    fn from(Turn { from, value }: Turn) -> Self {
        let role = match from {
            Speaker::Gpt => Role::Assistant,
            Speaker::Human => Role::User,
            Speaker::System => Role::System,
        };
        Self { role, content: value }
    }
}

#[derive(Serialize)]
#[serde(untagged)]
enum Shape<'a> {
    Chat { messages: &'a [Message] },
    Pair { prompt: &'a str, completion: &'a str },
    Plain { text: &'a str },
}

impl Shape<'_> {
    fn blank_field(&self) -> Option<&'static str> {
        let blank = |text: &str| text.trim().is_empty();
        match self {
            Self::Chat { messages } => {
                let speaks = messages.iter().any(|m| m.role == Role::Assistant);
                let hollow = messages.iter().any(|m| blank(&m.content));
                (!speaks || hollow).then_some("messages")
            }
            Self::Pair { prompt, .. } if blank(prompt) => Some("prompt"),
            Self::Pair { completion, .. } => blank(completion).then_some("completion"),
            Self::Plain { text } => blank(text).then_some("text"),
        }
    }
}

/// The fields of one line, as they came.
#[derive(Default)]
struct Fields {
    conversations: Option<Vec<Message>>,
    messages: Option<Vec<Message>>,
    prompt: Option<Zeroizing<String>>,
    completion: Option<Zeroizing<String>>,
    text: Option<Zeroizing<String>>,
    unit: Option<Zeroizing<String>>,
    left_out: Vec<String>,
}

impl Fields {
    fn seed(unit: Option<&str>) -> FieldsSeed<'_> {
        FieldsSeed { unit }
    }

    fn shape(&self) -> Result<Shape<'_>, Flaw> {
        if self.conversations.is_some() && self.messages.is_some() {
            return Err(Flaw::Ambiguous);
        }
        let messages = self.conversations.as_ref().or(self.messages.as_ref());
        match (messages, &self.prompt, &self.completion, &self.text) {
            (Some(messages), None, None, None) => Ok(Shape::Chat { messages }),
            (None, Some(prompt), Some(completion), None) => Ok(Shape::Pair { prompt, completion }),
            (None, None, None, Some(text)) => Ok(Shape::Plain { text }),
            (None, None, Some(_), None) => Err(Flaw::Empty { field: "prompt" }),
            (None, Some(_), None, None) => Err(Flaw::Empty { field: "completion" }),
            (None, None, None, None) => Err(Flaw::Shapeless),
            _ => Err(Flaw::Ambiguous),
        }
    }

    fn into_record(mut self, unit: Option<&str>) -> Result<Record, Flaw> {
        let shape = self.shape()?;
        if let Some(field) = shape.blank_field() {
            return Err(Flaw::Empty { field });
        }
        let mut payload = Zeroizing::new(Vec::with_capacity(512));
        serde_json::to_writer(&mut *payload, &shape).map_err(|e| Flaw::malformed(&e))?;
        let named = self.unit.take().filter(|value| !value.trim().is_empty());
        match (unit, named) {
            (Some(field), None) => Err(Flaw::Unitless { field: field.to_owned() }),
            (_, unit) => Ok(Record { payload, unit, left_out: self.left_out }),
        }
    }
}

struct FieldsSeed<'a> {
    unit: Option<&'a str>,
}

impl<'de> DeserializeSeed<'de> for FieldsSeed<'_> {
    type Value = Fields;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Fields, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for FieldsSeed<'_> {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut fields = Fields::default();
        let mut seen = BTreeSet::new();
        while let Some(Key(key)) = map.next_key::<Key<'de>>()? {
            match &*key {
                // Before the shapes: job.toml cannot name a shape's field as the unit.
                name if self.unit == Some(name) => fields.unit = map.next_value::<Unit>()?.0,
                "messages" => fields.messages = Some(map.next_value()?),
                "conversations" => {
                    let turns = map.next_value::<Vec<Turn>>()?;
                    fields.conversations = Some(turns.into_iter().map(Message::from).collect());
                }
                "prompt" => fields.prompt = Some(map.next_value::<String>()?.into()),
                "completion" => fields.completion = Some(map.next_value::<String>()?.into()),
                "text" => fields.text = Some(map.next_value::<String>()?.into()),
                other => {
                    map.next_value::<IgnoredAny>()?;
                    fields.left_out.push(other.to_owned());
                }
            }
            if let Some(twice) = seen.replace(key) {
                return Err(A::Error::custom(format_args!("duplicate field `{twice}`")));
            }
        }
        Ok(fields)
    }
}

#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

/// A unit is named by a text or a whole number; 17 and "17" name the same one, which errs towards
/// protecting more records together.
struct Unit(Option<Zeroizing<String>>);

impl<'de> Deserialize<'de> for Unit {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(UnitVisitor)
    }
}

struct UnitVisitor;

impl Visitor<'_> for UnitVisitor {
    type Value = Unit;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or a whole number that names the privacy unit")
    }

    fn visit_i64<E>(self, value: i64) -> Result<Unit, E> {
        Ok(Unit(Some(value.to_string().into())))
    }

    fn visit_str<E>(self, value: &str) -> Result<Unit, E> {
        Ok(Unit(Some(value.to_owned().into())))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Unit, E> {
        Ok(Unit(Some(value.to_string().into())))
    }

    fn visit_unit<E>(self) -> Result<Unit, E> {
        Ok(Unit(None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"customer_id":"c-1","prompt":"where is it","completion":"on its way"}"#;

    fn parse(line: &str) -> Result<(String, Option<String>), Flaw> {
        let record = Record::parse(line.as_bytes(), Some("customer_id"))?;
        let payload = record.expose(|bytes| String::from_utf8(bytes.to_vec()).unwrap());
        Ok((payload, record.expose_unit(|unit| unit.map(str::to_owned))))
    }

    fn flaw(line: &str) -> Flaw {
        parse(line).err().unwrap()
    }

    #[test]
    fn keeps_the_shape_and_leaves_the_unit_and_other_fields_behind() {
        let line = GOOD.replace('}', r#","ticket":[1,{"a":2}]}"#);
        let (payload, unit) = parse(&line).unwrap();
        assert_eq!(payload, r#"{"prompt":"where is it","completion":"on its way"}"#);
        assert_eq!(unit.as_deref(), Some("c-1"));
        let record = Record::parse(line.as_bytes(), Some("customer_id")).ok().unwrap();
        assert_eq!(record.left_out(), ["ticket"]);
    }

    #[test]
    fn accepts_chat_and_plain_text() {
        let chat = r#"{"customer_id":7,"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}"#;
        assert_eq!(parse(chat).unwrap().1.as_deref(), Some("7"));
        let plain = r#"{"customer_id":"7","text":"an essay"}"#;
        assert_eq!(parse(plain).unwrap(), (r#"{"text":"an essay"}"#.into(), Some("7".into())));
    }

    #[test]
    fn seals_sharegpt_as_messages() {
        let chat = r#"{"customer_id":7,"conversations":[{"from":"human","value":"a"},{"from":"gpt","value":"b"}]}"#;
        let sealed =
            r#"{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}"#;
        assert_eq!(parse(chat).unwrap().0, sealed);
        assert!(matches!(flaw(&chat.replace("gpt", "crowd")), Flaw::Malformed { .. }));
        let both = chat.replace(r#""conversations""#, r#""messages":[],"conversations""#);
        assert_eq!(flaw(&both), Flaw::Ambiguous);
        let twice = chat.replace(r#""conversations""#, r#""conversations":[],"conversations""#);
        assert!(matches!(flaw(&twice), Flaw::Malformed { .. }));
    }

    #[test]
    fn names_the_column_of_malformed_json() {
        let cut = GOOD.get(..30).unwrap();
        assert_eq!(
            flaw(cut),
            Flaw::Malformed { column: 30, complaint: "EOF while parsing a value".into() }
        );
        assert_eq!(
            flaw(r#"{"prompt":"a" "completion":"b"}"#),
            Flaw::Malformed { column: 15, complaint: "expected `,` or `}`".into() }
        );
    }

    #[test]
    fn rejects_trailing_bytes_behind_a_record() {
        let line = format!("{GOOD} x");
        let Flaw::Malformed { complaint, .. } = flaw(&line) else { panic!("accepted") };
        assert_eq!(complaint, "trailing characters");
    }

    #[test]
    fn rejects_a_duplicate_field() {
        let line = GOOD.replace('}', r#","prompt":"again"}"#);
        let Flaw::Malformed { complaint, .. } = flaw(&line) else { panic!("accepted") };
        assert_eq!(complaint, "duplicate field `prompt`");
    }

    #[test]
    fn rejects_a_duplicate_of_a_field_that_is_left_out() {
        let line = GOOD.replace('}', r#","x":1,"x":2}"#);
        let Flaw::Malformed { complaint, .. } = flaw(&line) else { panic!("accepted") };
        assert_eq!(complaint, "duplicate field `x`");
    }

    #[test]
    fn complains_of_a_wrong_type_without_quoting_the_value() {
        let line = r#"{"customer_id":"c","messages":"card 4000, expected \"soon\""}"#;
        let Flaw::Malformed { complaint, .. } = flaw(line) else { panic!("accepted") };
        assert_eq!(complaint, "invalid type: string, expected a sequence");
        let line = r#"{"customer_id":3.5,"text":"x"}"#;
        let Flaw::Malformed { complaint, .. } = flaw(line) else { panic!("accepted") };
        assert_eq!(
            complaint,
            "invalid type: floating point, expected a text or a whole number that names the privacy unit"
        );
    }

    #[test]
    fn rejects_a_message_with_fields_that_would_be_lost() {
        let line =
            r#"{"customer_id":"c","messages":[{"role":"assistant","content":"a","tool_calls":1}]}"#;
        let Flaw::Malformed { complaint, .. } = flaw(line) else { panic!("accepted") };
        assert_eq!(complaint, "unknown field `tool_calls`, expected `role` or `content`");
    }

    #[test]
    fn rejects_blank_texts() {
        assert_eq!(flaw("  "), Flaw::Blank);
        assert_eq!(flaw(&GOOD.replace("on its way", " \\n")), Flaw::Empty { field: "completion" });
        assert_eq!(flaw(&GOOD.replace("where is it", "")), Flaw::Empty { field: "prompt" });
        assert_eq!(flaw(r#"{"customer_id":1,"text":"\t"}"#), Flaw::Empty { field: "text" });
        assert_eq!(flaw(r#"{"customer_id":1,"prompt":"a"}"#), Flaw::Empty { field: "completion" });
        assert_eq!(flaw(r#"{"customer_id":1,"messages":[]}"#), Flaw::Empty { field: "messages" });
    }

    #[test]
    fn rejects_a_chat_in_which_no_assistant_speaks() {
        let line = r#"{"customer_id":1,"messages":[{"role":"user","content":"a"}]}"#;
        assert_eq!(flaw(line), Flaw::Empty { field: "messages" });
    }

    #[test]
    fn rejects_no_shape_and_two_shapes() {
        assert_eq!(flaw("{}"), Flaw::Shapeless);
        assert_eq!(flaw(&GOOD.replace('}', r#","text":"t"}"#)), Flaw::Ambiguous);
    }

    #[test]
    fn rejects_a_missing_a_null_and_a_blank_unit() {
        let unitless = Flaw::Unitless { field: "customer_id".into() };
        assert_eq!(flaw(r#"{"text":"t"}"#), unitless);
        assert_eq!(flaw(r#"{"customer_id":null,"text":"t"}"#), unitless);
        assert_eq!(flaw(r#"{"customer_id":" ","text":"t"}"#), unitless);
    }

    #[test]
    fn rejects_a_line_over_the_cap() {
        let line = format!(r#"{{"text":"{}"}}"#, "a".repeat(MAX_LINE));
        assert_eq!(flaw(&line), Flaw::Long { cap: MAX_LINE });
    }

    #[test]
    fn never_panics_on_any_prefix_or_any_flipped_byte() {
        for end in 0..GOOD.len() {
            assert!(Record::parse(&GOOD.as_bytes()[..end], Some("customer_id")).is_err());
        }
        for at in 0..GOOD.len() {
            let mut line = GOOD.as_bytes().to_vec();
            line[at] ^= 0x80;
            drop(Record::parse(&line, Some("customer_id")));
        }
    }
}
