//! Chat templates from a tokenizer's files: Jinja, as transformers applies it.
//!
//! `{% generation %}` … `{% endgeneration %}` marks what the assistant writes; it becomes a filter
//! that puts the text between two noncharacters of Unicode, which are taken out again. A template
//! without such marks is refused: nothing would say what is to be learned. A template sees the
//! messages, `bos_token`, `eos_token`, `add_generation_prompt` and `raise_exception`; no clock, no
//! files, no other template, and so much fuel.

use super::{Message, RecordError};
use core::ops::Range;
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, Value, context};
use minijinja_contrib::pycompat::unknown_method_callback;
use thiserror::Error;
use zeroize::Zeroizing;

const MAX_BYTES: usize = 1 << 18;
/// Instructions for one record; real templates take some tens for a message.
const FUEL: u64 = 1_000_000;
const DEPTH: usize = 64;
const NAME: &str = "chat";
const BEGIN: char = '\u{FDD0}';
const END: char = '\u{FDD1}';

/// Why a chat template cannot be used.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum TemplateError {
    /// It marks nothing as the assistant's.
    #[error("the chat template has no generation marks, so nothing says what is learned")]
    NoMarks,
    /// The file is larger than any real one.
    #[error("the chat template has {observed} bytes, at most {MAX_BYTES} are read")]
    Size {
        /// Bytes given.
        observed: usize,
    },
    /// It is not Jinja, or not UTF-8.
    #[error("the chat template cannot be read")]
    Syntax,
}

/// A compiled chat template.
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos: String,
    eos: String,
}

/// What a template made of messages.
pub(super) struct Rendered {
    pub(super) text: Zeroizing<String>,
    /// Bytes of the text that the assistant wrote, ascending.
    pub(super) said: Vec<Range<usize>>,
}

impl ChatTemplate {
    /// Reads a `chat_template.jinja`, to be applied with these marks of beginning and end.
    ///
    /// # Errors
    /// [`TemplateError`].
    pub fn read(bytes: &[u8], bos: &str, eos: &str) -> Result<Self, TemplateError> {
        let observed = bytes.len();
        if observed > MAX_BYTES {
            return Err(TemplateError::Size { observed });
        }
        let source = core::str::from_utf8(bytes).map_err(|_| TemplateError::Syntax)?;
        let (source, marks) = with_filters(source);
        if marks == 0 {
            return Err(TemplateError::NoMarks);
        }
        let mut environment = environment().map_err(|_| TemplateError::Syntax)?;
        environment.add_template_owned(NAME, source).map_err(|_| TemplateError::Syntax)?;
        Ok(Self { environment, bos: bos.to_owned(), eos: eos.to_owned() })
    }

    /// The messages as text; with `Head::Wanted` the beginning of a reply after them.
    pub(super) fn render(&self, messages: &[Message], head: Head) -> Result<Rendered, RecordError> {
        if messages
            .iter()
            .any(|m| m.role.contains([BEGIN, END]) || m.content.contains([BEGIN, END]))
        {
            return Err(RecordError::Marks);
        }
        let template = self.environment.get_template(NAME).map_err(|_| RecordError::Template)?;
        let text = template.render(context! {
            messages => messages.iter().map(value).collect::<Vec<_>>(),
            bos_token => self.bos.as_str(),
            eos_token => self.eos.as_str(),
            add_generation_prompt => head == Head::Wanted,
        });
        Ok(without_marks(&Zeroizing::new(text.map_err(|_| RecordError::Template)?)))
    }
}

fn value(message: &Message) -> Value {
    context! { role => message.role.as_str(), content => message.content.as_str() }
}

/// Whether the beginning of a reply is wanted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Head {
    Unwanted,
    Wanted,
}

/// Python's methods of strings, lists and mappings, transformers' white space, and no more.
fn environment() -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    let white_space = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?;
    environment.set_syntax(white_space);
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(DEPTH);
    environment.set_unknown_method_callback(unknown_method_callback);
    environment.add_filter("generation", |text: String| format!("{BEGIN}{text}{END}"));
    environment.add_function("raise_exception", |_: String| -> Result<String, Error> {
        Err(Error::from(ErrorKind::InvalidOperation))
    });
    Ok(environment)
}

/// The source with generation marks as filter blocks, and how many there were.
fn with_filters(source: &str) -> (String, usize) {
    let (mut made, mut rest, mut marks) = (String::with_capacity(source.len()), source, 0);
    while let Some((before, after)) = rest.split_once("{%") {
        let Some((tag, after)) = after.split_once("%}") else { break };
        let word = tag.trim_matches(|c: char| c.is_whitespace() || "+-".contains(c));
        let tag = match word {
            "generation" => {
                marks += 1;
                tag.replace("generation", "filter generation")
            }
            "endgeneration" => tag.replace("endgeneration", "endfilter"),
            _ => tag.to_owned(),
        };
        made.extend([before, "{%", &tag, "%}"]);
        rest = after;
    }
    made.push_str(rest);
    (made, marks)
}

fn without_marks(marked: &str) -> Rendered {
    let mut rendered =
        Rendered { text: Zeroizing::new(String::with_capacity(marked.len())), said: Vec::new() };
    let mut begun = None;
    for character in marked.chars() {
        match character {
            BEGIN => begun = begun.or(Some(rendered.text.len())),
            END => rendered.said.extend(begun.take().map(|from| from..rendered.text.len())),
            other => rendered.text.push(other),
        }
    }
    rendered
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden;

    fn read(source: &str) -> ChatTemplate {
        ChatTemplate::read(source.as_bytes(), "<s>", "</s>").unwrap()
    }

    fn message(role: &str, content: &str) -> Message {
        Message { role: role.into(), content: content.into() }
    }

    #[test]
    fn renders_the_reference_templates_as_transformers_does() {
        let Some(folder) = golden::folder("chat") else { return };
        let chat = folder.json("chat.json");
        let mut refused = 0;
        for row in chat["rows"].as_array().unwrap() {
            let name = row["template"].as_str().unwrap();
            let template = read(chat["templates"][name].as_str().unwrap());
            let at = usize::try_from(row["conversation"].as_u64().unwrap()).unwrap();
            let messages: Vec<Message> =
                serde_json::from_value(chat["conversations"][at].clone()).unwrap();
            let rendered = template.render(&messages, Head::Unwanted);
            if row["text"].is_null() {
                assert_eq!(rendered.err(), Some(RecordError::Template), "{name} {at}");
                refused += 1;
                continue;
            }
            assert_eq!(*rendered.unwrap().text, row["text"].as_str().unwrap(), "{name} {at}");
            // The reference leaves the last message out before it asks for another.
            let asked = &messages[..messages.len() - 1];
            let head = template.render(asked, Head::Wanted).unwrap();
            let expected = row["text_generation_prompt"].as_str().unwrap();
            assert_eq!(*head.text, expected, "{name} {at}");
        }
        assert_eq!(refused, 1);
    }

    #[test]
    fn a_template_that_loops_runs_out_of_fuel() {
        let source = "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}\
                      {% generation %}{% endgeneration %}";
        let found = read(source).render(&[message("user", "a")], Head::Unwanted);
        assert_eq!(found.err(), Some(RecordError::Template));
    }

    #[test]
    fn marks_are_found_whatever_the_white_space() {
        let source = "{% for m in messages %}{{ m.role }}:\n  {%- generation -%}  {{ m.content }}\n\
                      {%+endgeneration%}|{% endfor %}";
        let rendered = read(source).render(&[message("a", "b"), message("c", "d")], Head::Unwanted);
        let rendered = rendered.unwrap();
        let said: Vec<&str> =
            rendered.said.iter().map(|range| &rendered.text[range.clone()]).collect();
        assert_eq!(said.len(), 2);
        assert!(said[0].starts_with('b') && said[1].starts_with('d'), "{said:?}");
        assert!(rendered.text.starts_with("a:b"), "{}", *rendered.text);
    }

    #[test]
    fn methods_of_python_are_at_hand_and_a_clock_is_not() {
        let source = "{% generation %}{{ messages[0].content.strip().split('x')[-1] }}\
                      {% endgeneration %}{{ strftime_now is defined }}";
        let rendered = read(source).render(&[message("a", " 1x2 ")], Head::Unwanted).unwrap();
        assert_eq!(rendered.text.to_lowercase(), "2false");
    }

    #[test]
    fn refuses_what_is_no_template() {
        let found = |bytes: &[u8]| ChatTemplate::read(bytes, "", "").err();
        assert_eq!(found(b"{{ messages }}"), Some(TemplateError::NoMarks));
        let open = b"{% generation %}{{ messages }";
        assert_eq!(found(open), Some(TemplateError::Syntax));
        assert_eq!(found(b"{% generation %}\xff{% endgeneration %}"), Some(TemplateError::Syntax));
        let observed = MAX_BYTES + 1;
        assert_eq!(found(&vec![b' '; observed]), Some(TemplateError::Size { observed }));
    }

    #[test]
    fn no_prefix_of_a_template_breaks_anything() {
        let Some(folder) = golden::folder("chat") else { return };
        let chat = folder.json("chat.json");
        for source in chat["templates"].as_object().unwrap().values() {
            let source = source.as_str().unwrap().as_bytes();
            for end in 0..source.len() {
                if let Ok(template) = ChatTemplate::read(&source[..end], "<s>", "</s>") {
                    let _ = template.render(&[message("user", "a")], Head::Wanted);
                }
            }
        }
    }

    #[test]
    fn refuses_messages_that_forge_the_marks() {
        let template = read("{% generation %}{{ messages[0].content }}{% endgeneration %}");
        for forged in ["a\u{FDD1}b", "\u{FDD0}"] {
            let found = template.render(&[message("user", forged)], Head::Unwanted);
            assert_eq!(found.err(), Some(RecordError::Marks));
        }
    }
}
