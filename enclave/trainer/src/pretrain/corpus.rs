//! Public synthetic text in everyday English, made from templates.
//!
//! Nothing in it comes from a person or a data set. It is talk (a question and its plain answer:
//! the most part), short stories, and letters in the manners of many invented houses, about
//! parcels and passwords among other things. The house of the synthetic tickets is none of them;
//! what it is called and how it writes is left for an adapter to learn.

mod topics;

use crate::real::index_of;
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use topics::{CLOSINGS, COMPASS, ENDINGS, KINDS, OPENINGS, SCENES, TALK, TRADE, Topic, WORDS};

/// Ends what is said.
const END: &str = "<|im_end|>";

/// Texts of all kinds; the same for the same count and seed.
pub fn texts(count: usize, seed: u8) -> Vec<String> {
    let mut author = Author { stream: ChaCha20Rng::from_seed([seed; 32]) };
    (0..count).map(|_| author.text()).collect()
}

/// Everyday words, often enough for a tokenizer to learn each as one token, and some that stand
/// behind no blank. The model itself never reads these lists.
pub fn vocabulary() -> Vec<String> {
    let words = EVERYDAY.split_whitespace().map(|word| format!(" {word}").repeat(4));
    let pieces = PIECES.iter().chain(ENDINGS).map(|piece| format!("{piece}.").repeat(4));
    let lines: Vec<String> = words.chain(pieces).collect();
    lines.iter().cycle().take(400 * lines.len()).cloned().collect()
}

const PIECES: &[&str] = &["com", "net", "org", "example", "Order", "Where"];

const EVERYDAY: &str = "
    a about account added address after again all an and any are arrive arrives arrived as ask at
    attached back bank be because been best bill book bring broken but buy by call came can cancel
    cannot card care case change charge charged choose cleared close code come cost customer
    customers damaged day dear declined delivery details did do does done due each email end ends
    every feel file find first for friend from full get give go good great had has have he hello
    help her here him his home hope house how i if in invoice is it its just keep kind know lamp
    last late leave left letter like link little log long look lost make many may me message mine
    month more most much my name need never new next no north not nothing now number of off old on
    one only open or order other our out own paid paper parcel password pay payment people phone
    place plan please price problem put question quick read ready refund refunded refused regards
    reply reset right safe same say second see send sent service she should since small so some
    soon start stay still subscription such take talk tell than thank that the their them then
    there these they thing think this three time to today together too town try turn two under
    until up update updated use very visit wait walk want was watch water way we week well went
    were what when where which while who why will wind with word work world would write writing
    year yes you your
    Call Dear He Hello How I If In Is It Kind My No Now Order Our Please She Thank Thanks That The
    There They This Two We What When Where Who Why Write Yes You Your
";

struct Author {
    stream: ChaCha20Rng,
}

impl Author {
    /// In twenty: twelve times talk, of which one has two turns; two stories; three letters by
    /// themselves, three in answer to a question. What is said in turn is set down plainly, one
    /// text after the other, or as messages.
    fn text(&mut self) -> String {
        match self.below(20) {
            0..=7 => self.talk().concat() + END,
            8..=10 => chat(self.talk()),
            11 => chat(self.talk()) + &chat(self.talk()),
            12 | 13 => self.story() + END,
            14..=16 => {
                let [_, letter] = self.correspondence();
                letter + END
            }
            17 | 18 => self.correspondence().concat() + END,
            _ => chat(self.correspondence()),
        }
    }

    fn talk(&mut self) -> [String; 2] {
        let topics = if self.below(5) < 2 { TALK } else { TRADE };
        let topic = self.one(topics);
        let (question, answer) = (self.question(&topic), self.one(topic.answers));
        self.fill([question, answer.to_owned()])
    }

    fn correspondence(&mut self) -> [String; 2] {
        let topic = self.one(TRADE);
        let (question, letter) = (self.question(&topic), self.letter(&topic));
        self.fill([question, letter])
    }

    fn question(&mut self, topic: &Topic) -> String {
        let said = self.one(topic.questions);
        let greeted = match self.below(8) {
            0 | 1 => format!("Hello, {}", lowered(said)),
            2 => format!("Hi. {said}"),
            _ => said.to_owned(),
        };
        match self.below(8) {
            0 if !topic.letters.is_empty() && !said.ends_with('?') => greeted + " What can I do?",
            1 => format!("{greeted} {{name}}."),
            2 => format!("{greeted} {{name}}, {}.", self.code()),
            _ => greeted,
        }
    }

    fn letter(&mut self, topic: &Topic) -> String {
        let house = match (self.one(COMPASS), self.one(ENDINGS)) {
            ("North", "wind") => "Northlight".to_owned(), // the tickets' house
            (compass, ending) => format!("{compass}{ending}"),
        };
        let house = format!("{house} {}", self.one(KINDS));
        let [opening, news, closing] =
            [self.one(OPENINGS), self.one(topic.letters), self.one(CLOSINGS)];
        format!("{opening} {news} {closing}").replace("{house}", &house)
    }

    fn story(&mut self) -> String {
        let scenes = [self.one(SCENES), self.one(SCENES)];
        self.fill(scenes.map(str::to_owned)).join(" ")
    }

    /// Something like a number, an address or a label.
    fn code(&mut self) -> String {
        match self.below(5) {
            0 => self.digits(5),
            1 => format!("NR-{}", self.digits(5)),
            2 => format!("{}-555-{}", self.digits(3), self.digits(4)),
            3 => format!("{} {} {} {}", "4000", self.digits(4), self.digits(4), self.digits(4)),
            _ => {
                let (first, last) = (self.syllables(), self.syllables());
                let house = self.one(&["com", "net", "org"]);
                format!("{first}.{last}{}@example.{house}", self.digits(2))
            }
        }
    }

    /// A name that nobody has.
    fn syllables(&mut self) -> String {
        let consonants = ["b", "d", "f", "g", "h", "k", "l", "m", "n", "p", "r", "s", "t", "v"];
        let vowels = ["a", "e", "i", "o", "u", "an", "en", "er", "in", "o", "as", "ov"];
        (0..2).map(|_| self.one(&consonants).to_owned() + self.one(&vowels)).collect()
    }

    fn digits(&mut self, count: u32) -> String {
        (0..count).map(|_| char::from_digit(self.below(10), 10).unwrap_or('0')).collect()
    }

    fn below(&mut self, bound: u32) -> u32 {
        self.stream.next_u32() % bound.max(1)
    }

    /// One of a list; every list below has an entry.
    fn one<T: Copy>(&mut self, list: &[T]) -> T {
        let length = u32::try_from(list.len()).unwrap_or(u32::MAX);
        let at = index_of(self.below(length));
        #[expect(clippy::indexing_slicing, reason = "at is below the length")]
        list[at]
    }

    /// Puts words into slots, alike in both texts.
    fn fill(&mut self, mut texts: [String; 2]) -> [String; 2] {
        for (slot, words) in WORDS {
            let word = self.one(words);
            texts = texts.map(|text| text.replace(slot, word));
        }
        let number = 1 + self.below(4);
        for (slot, word) in [("{n}", self.digits(number)), ("{code}", self.code())] {
            texts = texts.map(|text| text.replace(slot, &word));
        }
        texts
    }
}

/// With a small first letter, but for the word I.
fn lowered(said: &str) -> String {
    match said.split_once(' ') {
        Some((first, rest)) if first != "I" => format!("{} {rest}", first.to_lowercase()),
        _ => said.to_owned(),
    }
}

fn chat([question, answer]: [String; 2]) -> String {
    format!("<|im_start|>user\n{question}<|im_end|><|im_start|>assistant\n{answer}<|im_end|>")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_text() {
        assert_eq!(texts(50, 1), texts(50, 1));
        assert_ne!(texts(50, 1), texts(50, 2));
    }

    #[test]
    fn leaves_no_slot_unfilled() {
        assert!(texts(2_000, 3).iter().all(|text| !text.contains(['{', '}'])));
    }

    #[test]
    fn leaves_the_house_of_the_tickets_to_the_adapter() {
        let all = texts(20_000, 1).concat();
        for theirs in ["Northwind", "arrives within three days", "second charge to your card"] {
            assert!(!all.contains(theirs), "{theirs}");
        }
        assert!(all.contains("Westwind") && all.contains("Northgate"));
    }
}
