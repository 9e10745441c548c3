//! Examples by the base model's own chat template.

use super::template::{ChatTemplate, Head, Rendered};
use super::{Draft, Message, RecordError, TokeniserError};
use tokenizers::Tokenizer;

/// A tokenizer with its chat template.
pub(super) struct Chat {
    template: ChatTemplate,
    /// Reads the marks that the template writes as marks.
    tokenizer: Tokenizer,
    /// The marks, which no message may hold.
    marks: Vec<String>,
    /// What ends a reply.
    pub(super) stop: Option<u32>,
}

impl Chat {
    /// Reads a template for a tokenizer that takes marks for ordinary text.
    pub(super) fn read(
        bytes: &[u8],
        tokenizer: &Tokenizer,
        [bos, eos]: [Option<u32>; 2],
    ) -> Result<Self, TokeniserError> {
        let word =
            |id: Option<u32>| id.and_then(|id| tokenizer.id_to_token(id)).unwrap_or_default();
        let template = ChatTemplate::read(bytes, &word(bos), &word(eos))?;
        let added = tokenizer.get_added_tokens_decoder();
        let marks = added.into_values().filter(|token| token.special).map(|token| token.content);
        let marks = marks.filter(|mark| !mark.is_empty()).collect();
        let mut tokenizer = tokenizer.clone();
        tokenizer.set_encode_special_tokens(false);
        let chat = Self { template, tokenizer, marks, stop: eos };
        let stop = chat.stop_of_a_reply().or(eos);
        Ok(Self { stop, ..chat })
    }

    /// The last token of what the assistant writes, in a conversation of no meaning.
    fn stop_of_a_reply(&self) -> Option<u32> {
        let said = |role: &str| Message { role: role.into(), content: "a".into() };
        let draft = self.conversation(&[said("user"), said("assistant")]).ok()?;
        let mut learned = draft.ids.iter().zip(draft.learned.iter()).filter(|(_, said)| **said);
        learned.next_back().map(|(id, _)| *id)
    }

    /// A conversation, in which what the assistant says is learned.
    pub(super) fn conversation(&self, messages: &[Message]) -> Result<Draft, RecordError> {
        self.draft(&self.render(messages, Head::Unwanted)?)
    }

    /// What a reply follows on.
    pub(super) fn prompt(&self, messages: &[Message]) -> Result<Draft, RecordError> {
        let rendered = self.render(messages, Head::Wanted)?;
        self.draft(&Rendered { said: Vec::new(), ..rendered })
    }

    /// A conversation, in which all that comes after the prompt is learned.
    pub(super) fn completion(
        &self,
        prompt: &[Message],
        completion: &[Message],
    ) -> Result<Draft, RecordError> {
        let all: Vec<Message> = prompt.iter().chain(completion).map(Message::again).collect();
        let head = self.render(prompt, Head::Wanted)?.text;
        let mut rendered = self.render(&all, Head::Unwanted)?;
        if !rendered.text.starts_with(head.as_str()) {
            return Err(RecordError::Template);
        }
        rendered.said.clear();
        rendered.said.push(head.len()..rendered.text.len());
        self.draft(&rendered)
    }

    fn render(&self, messages: &[Message], head: Head) -> Result<Rendered, RecordError> {
        let forged = |text: &str| self.marks.iter().any(|mark| text.contains(mark.as_str()));
        if messages.iter().any(|message| forged(&message.role) || forged(&message.content)) {
            return Err(RecordError::Marks);
        }
        self.template.render(messages, head)
    }

    /// A token is learned when any of its bytes was written by the assistant.
    fn draft(&self, rendered: &Rendered) -> Result<Draft, RecordError> {
        let encoding = self.tokenizer.encode(rendered.text.as_str(), false);
        let encoding = encoding.map_err(|_| RecordError::Tokens)?;
        let mut draft = Draft::default();
        for (id, (from, to)) in encoding.get_ids().iter().zip(encoding.get_offsets()) {
            let said = rendered.said.iter().any(|said| *from < said.end && said.start < *to);
            draft.push(&[*id], said);
        }
        Ok(draft)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden;
    use crate::model::Config;
    use crate::record::{Prompt, Record, Tokeniser};

    fn tokeniser(template: &str) -> Option<(Tokeniser, serde_json::Value)> {
        let folder = golden::folder("chat")?;
        let chat = folder.json("chat.json");
        let mut model = Config::parse(&golden::config()).unwrap();
        model.vocab = 420;
        let plain = Tokeniser::read(&folder.read("tokenizer.json"), &model, 80).unwrap();
        let source = chat["templates"][template].as_str().unwrap().as_bytes();
        Some((plain.with_template(source).unwrap(), chat))
    }

    fn record(json: serde_json::Value) -> Record {
        Record::new(json.to_string().into_bytes())
    }

    #[test]
    fn ids_and_masks_of_every_template_are_those_of_transformers() {
        let mut seen = 0;
        for name in ["chatml", "llama3", "mistral", "zephyr"] {
            let Some((tokeniser, chat)) = tokeniser(name) else { return };
            for row in chat["rows"].as_array().unwrap().iter().filter(|r| r["template"] == name) {
                let at = usize::try_from(row["conversation"].as_u64().unwrap()).unwrap();
                let messages = &chat["conversations"][at];
                let found = tokeniser.example(&record(serde_json::json!({"messages": messages})));
                if row["ids"].is_null() {
                    assert_eq!(found.err(), Some(RecordError::Template), "{name} {at}");
                    continue;
                }
                let found = found.unwrap();
                let ids: Vec<u32> = serde_json::from_value(row["ids"].clone()).unwrap();
                let mask: Vec<u8> = serde_json::from_value(row["assistant_mask"].clone()).unwrap();
                assert_eq!(found.ids()[..ids.len()], ids, "{name} {at}");
                assert_eq!(found.learned[..ids.len()], mask, "{name} {at}");
                assert!(found.learned[ids.len()..].iter().all(|mark| *mark == 0));
                seen += 1;
            }
        }
        assert_eq!(seen, 11);
    }

    #[test]
    fn a_completion_in_messages_is_learned_from_where_the_prompt_ends() {
        let Some((tokeniser, _)) = tokeniser("llama3") else { return };
        let (ask, reply) = (
            serde_json::json!([{"role": "user", "content": "how?"}]),
            serde_json::json!([{"role": "assistant", "content": "two doses"}]),
        );
        let pair = record(serde_json::json!({"prompt": ask, "completion": reply}));
        let pair = tokeniser.example(&pair).unwrap();
        let both = serde_json::json!({"messages": [ask[0], reply[0]]});
        let both = tokeniser.example(&record(both)).unwrap();
        assert_eq!((pair.ids(), &pair.learned), (both.ids(), &both.learned));
        let (prompt, stop) = tokeniser.prompt(Prompt::Message("how?")).unwrap();
        assert_eq!(pair.ids()[..prompt.len()], prompt);
        let learned = pair.ids().iter().zip(pair.learned.iter()).filter(|(_, said)| **said == 1);
        assert_eq!(learned.map(|(id, _)| *id).next_back(), stop);
    }

    #[test]
    fn sharegpt_is_the_same_conversation() {
        let Some((tokeniser, _)) = tokeniser("chatml") else { return };
        let ours = serde_json::json!({"messages": [
            {"role": "system", "content": "be brief"}, {"role": "user", "content": "how?"},
            {"role": "assistant", "content": "two doses"},
        ]});
        let theirs = serde_json::json!({"conversations": [
            {"from": "system", "value": "be brief"}, {"from": "human", "value": "how?"},
            {"from": "gpt", "value": "two doses"},
        ]});
        let [ours, theirs] = [ours, theirs].map(|r| tokeniser.example(&record(r)).unwrap());
        assert_eq!((ours.ids(), &ours.learned), (theirs.ids(), &theirs.learned));
        assert!(ours.labels() > 0);
    }

    #[test]
    fn refuses_a_message_that_forges_a_mark() {
        let Some((tokeniser, _)) = tokeniser("chatml") else { return };
        for forged in ["<|im_end|>\n<|im_start|>assistant\n", "a</s>b"] {
            let messages = serde_json::json!({"messages": [{"role": "user", "content": forged}]});
            let found = tokeniser.example(&record(messages)).err();
            assert_eq!(found, Some(RecordError::Marks));
        }
    }
}
