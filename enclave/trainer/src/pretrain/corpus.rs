//! Public synthetic text: short conversations of everyday English, made from templates.
//!
//! Nothing in it comes from a person or a data set. It is small talk, plain answers, and exercises
//! in repeating and spelling, which show a model every common word and many random names, numbers
//! and addresses. The forms of letters and of a help desk are left for an adapter to learn.

use crate::real::index_of;
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

/// Conversations in ChatML and plain texts; the same for the same count and seed.
pub fn conversations(count: usize, seed: u8) -> Vec<String> {
    let stream = ChaCha20Rng::from_seed([seed; 32]);
    let mut author = Author { stream, everyday: EVERYDAY.split_whitespace().collect() };
    (0..count).map(|_| author.text()).collect()
}

/// Everyday words, often enough for a tokenizer to learn each as one token. The model itself
/// never reads this list.
pub fn vocabulary() -> Vec<String> {
    let line = |word| format!(" {word} {word} {word} {word}");
    (0..400).flat_map(|_| EVERYDAY.split_whitespace().map(line)).collect()
}

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

/// One question with its answers; words in braces are filled in, alike in both.
#[derive(Clone, Copy)]
struct Topic {
    questions: &'static [&'static str],
    answers: &'static [&'static str],
}

struct Author {
    stream: ChaCha20Rng,
    everyday: Vec<&'static str>,
}

impl Author {
    /// In ten: five conversations, of which one has two turns; two exchanges set down plainly, one
    /// text after the other; two exercises; one row of sentences without sense.
    fn text(&mut self) -> String {
        match self.below(10) {
            0..=3 => self.conversation(1),
            4 => self.conversation(2),
            5 | 6 => {
                let [question, answer] = self.exchange();
                format!("{question}{answer}<|im_end|>")
            }
            7 | 8 => {
                let [question, answer] = self.exercise();
                if self.below(2) == 0 {
                    chat([question, answer])
                } else {
                    question + &answer + "<|im_end|>"
                }
            }
            _ => {
                let sentences: Vec<String> = (0..3).map(|_| self.sentence()).collect();
                sentences.join(" ") + "<|im_end|>"
            }
        }
    }

    fn conversation(&mut self, turns: u32) -> String {
        (0..turns).map(|_| chat(self.exchange())).collect()
    }

    fn exchange(&mut self) -> [String; 2] {
        let topic = self.one(TOPICS);
        let texts = [self.one(topic.questions), self.one(topic.answers)];
        self.fill(texts)
    }

    fn exercise(&mut self) -> [String; 2] {
        let said = if self.below(2) == 0 {
            self.sentence()
        } else {
            self.sentence() + " " + &self.sentence()
        };
        match self.below(5) {
            0 => [format!("Please repeat: {said}"), said],
            1 => [format!("Say this: {said}"), said],
            2 => [said.clone(), format!("You said: {said}")],
            3 => {
                let code = self.code();
                [format!("Write {code} twice."), format!("{code} {code}")]
            }
            _ => {
                let word = self.word();
                let letters: Vec<String> = word.chars().map(String::from).collect();
                [format!("Spell {word}."), letters.join(" ")]
            }
        }
    }

    /// Random words with a capital and a full stop.
    fn sentence(&mut self) -> String {
        let count = 3 + self.below(7);
        let words: Vec<String> = (0..count).map(|_| self.word()).collect();
        let end = self.one(&[".", ".", ".", "?", "!"]);
        let text = words.join(" ").replace(" ,", ",");
        let mut letters = text.chars();
        letters
            .next()
            .map(|first| first.to_uppercase().chain(letters).collect::<String>())
            .unwrap_or_default()
            + end
    }

    fn word(&mut self) -> String {
        match self.below(12) {
            0 => self.code(),
            1 => self.one(NAMES).to_owned(),
            2 => self.invented(),
            3 => self.one(&[",", "and", "the", "to", "of"]).to_owned(),
            _ => {
                let at = self.below(u32::try_from(self.everyday.len()).unwrap_or(1));
                self.everyday.get(index_of(at)).copied().unwrap_or_default().to_owned()
            }
        }
    }

    /// A word that means nothing, of two or three syllables, now and then with a capital.
    fn invented(&mut self) -> String {
        let syllables = 2 + self.below(2);
        let mut word = String::new();
        for _ in 0..syllables {
            word += self.one(&[
                "b", "d", "f", "g", "h", "j", "k", "l", "m", "n", "p", "r", "s", "t", "v", "w",
                "z", "st", "tr", "sh",
            ]);
            word += self
                .one(&["a", "e", "i", "o", "u", "ai", "ea", "oo", "ar", "en", "in", "or", "er"]);
        }
        if self.below(2) == 0 {
            word.get_mut(..1).into_iter().for_each(str::make_ascii_uppercase);
        }
        word
    }

    /// Something like a number, an address or a label.
    fn code(&mut self) -> String {
        let letter = |author: &mut Self| {
            char::from_digit(10 + author.below(26), 36).unwrap_or('a').to_ascii_uppercase()
        };
        match self.below(5) {
            0 => self.digits(5),
            1 => format!("{}{}-{}", letter(self), letter(self), self.digits(4)),
            2 => format!("{}-{}-{}", self.digits(3), self.digits(3), self.digits(4)),
            3 => format!("{} {} {}", self.digits(4), self.digits(4), self.digits(4)),
            _ => {
                let (name, place) = (self.invented(), self.invented());
                let number = self.digits(2);
                format!("{name}{number}@{place}.test").to_lowercase()
            }
        }
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

    fn fill(&mut self, texts: [&str; 2]) -> [String; 2] {
        let mut texts = texts.map(str::to_owned);
        for (slot, words) in WORDS {
            let word = self.one(words);
            texts = texts.map(|text| text.replace(slot, word));
        }
        for slot in ["{n}", "{m}"] {
            let digits = 1 + self.below(4);
            let number = self.below(10_u32.pow(digits));
            texts = texts.map(|text| text.replace(slot, &number.to_string()));
        }
        texts
    }
}

fn chat([question, answer]: [String; 2]) -> String {
    format!("<|im_start|>user\n{question}<|im_end|><|im_start|>assistant\n{answer}<|im_end|>")
}

const NAMES: &[&str] = &[
    "Anna", "Ben", "Clara", "David", "Emma", "Frank", "Grace", "Henry", "Ivy", "Jack", "Kate",
    "Leo", "Maria", "Nora", "Oscar", "Paula", "Quinn", "Rosa", "Sam", "Tom", "Uma", "Victor",
    "Wendy", "Yusuf", "Zoe",
];

const WORDS: &[(&str, &[&str])] = &[
    ("{name}", NAMES),
    (
        "{place}",
        &[
            "the park",
            "the market",
            "the library",
            "the station",
            "the harbour",
            "the museum",
            "the office",
            "the school",
            "the bakery",
            "the garden",
            "the lake",
            "the city",
            "the airport",
            "the shop",
            "the post office",
            "the bank",
        ],
    ),
    (
        "{town}",
        &[
            "Paris", "London", "Oslo", "Rome", "Madrid", "Berlin", "Vienna", "Lisbon", "Dublin",
            "Prague", "Athens", "Geneva", "Boston", "Toronto", "Sydney", "Cairo", "Lima", "Tokyo",
        ],
    ),
    (
        "{thing}",
        &[
            "book",
            "lamp",
            "chair",
            "table",
            "phone",
            "camera",
            "bag",
            "coat",
            "bicycle",
            "kettle",
            "radio",
            "watch",
            "key",
            "letter",
            "parcel",
            "card",
            "box",
            "printer",
            "screen",
            "charger",
            "jacket",
            "pair of shoes",
            "bottle",
            "blanket",
        ],
    ),
    (
        "{colour}",
        &["red", "blue", "green", "yellow", "black", "white", "grey", "brown", "orange", "purple"],
    ),
    (
        "{food}",
        &[
            "soup",
            "bread",
            "rice",
            "pasta",
            "salad",
            "cheese",
            "an apple",
            "a sandwich",
            "fish",
            "cake",
            "tea",
            "coffee",
            "beans",
            "eggs",
            "a pear",
            "potatoes",
        ],
    ),
    (
        "{day}",
        &[
            "Monday",
            "Tuesday",
            "Wednesday",
            "Thursday",
            "Friday",
            "Saturday",
            "Sunday",
            "tomorrow",
            "today",
            "next week",
        ],
    ),
    ("{time}", &["morning", "afternoon", "evening", "night", "noon", "this week", "the weekend"]),
    (
        "{weather}",
        &["sunny", "cloudy", "rainy", "windy", "cold", "warm", "snowy", "foggy", "dry", "mild"],
    ),
    (
        "{hobby}",
        &[
            "reading",
            "swimming",
            "cooking",
            "painting",
            "running",
            "singing",
            "dancing",
            "gardening",
            "drawing",
            "hiking",
            "fishing",
            "playing chess",
            "playing the piano",
            "taking photos",
        ],
    ),
    (
        "{animal}",
        &[
            "cat", "dog", "horse", "bird", "rabbit", "fox", "cow", "sheep", "duck", "bee", "mouse",
            "bear",
        ],
    ),
    (
        "{sound}",
        &["quietly", "loudly", "slowly", "quickly", "carefully", "happily", "often", "rarely"],
    ),
    (
        "{job}",
        &[
            "teacher", "nurse", "baker", "driver", "farmer", "painter", "doctor", "writer",
            "engineer", "gardener",
        ],
    ),
    (
        "{good}",
        &["good", "nice", "great", "fine", "lovely", "easy", "useful", "small", "simple", "new"],
    ),
];

const TOPICS: &[Topic] = &[
    Topic {
        questions: &[
            "Hello!",
            "Hi there.",
            "Good morning.",
            "Hello, how are you?",
            "Hi, my name is {name}.",
            "Good evening, I am {name}.",
        ],
        answers: &[
            "Hello! How are you today?",
            "Hi {name}, it is nice to meet you.",
            "I am well, and you?",
            "Good to see you. What is new?",
        ],
    },
    Topic {
        questions: &["What is your name?", "Who are you?", "Do you have a name?"],
        answers: &[
            "My name is {name}.",
            "I am {name}, a {job} from {town}.",
            "You can call me {name}.",
        ],
    },
    Topic {
        questions: &["Where do you live?", "Where is {name} from?", "Do you know {town}?"],
        answers: &[
            "{name} lives in {town}, near {place}.",
            "I live in {town}.",
            "Yes, {town} is a {good} place.",
            "We moved to {town} {n} years ago.",
        ],
    },
    Topic {
        questions: &[
            "How is the weather in {town}?",
            "Will it be {weather} on {day}?",
            "What is the weather like on {day}?",
        ],
        answers: &[
            "It is {weather} in {town}.",
            "On {day} it will be {weather}, so take your coat.",
            "It was {weather} in the {time} and it will stay {weather}.",
        ],
    },
    Topic {
        questions: &[
            "What do you like to eat?",
            "What is for dinner?",
            "Can I have {food}?",
            "What did you have in the {time}?",
        ],
        answers: &[
            "I like {food}.",
            "We have {food} and some tea with it.",
            "Yes, there is {food} on the table.",
            "I had {food} with {name}.",
        ],
    },
    Topic {
        questions: &[
            "What colour is the {thing}?",
            "Is the {thing} {colour}?",
            "Which {thing} is yours?",
        ],
        answers: &[
            "The {thing} is {colour}.",
            "No, it is {colour}.",
            "The {colour} one is mine.",
            "My {thing} is {colour} and quite {good}.",
        ],
    },
    Topic {
        questions: &[
            "Where is my {thing}?",
            "Have you seen the {thing}?",
            "I cannot find my {thing}.",
        ],
        answers: &[
            "Your {thing} is at {place}.",
            "I saw it next to the {colour} window.",
            "It is in the {colour} box.",
            "Maybe {name} took it to {place}.",
        ],
    },
    Topic {
        questions: &[
            "What is {n} plus 1?",
            "How many is {n}?",
            "Can you count to three?",
            "Which number comes next?",
        ],
        answers: &[
            "It is {m}.",
            "One, two, three.",
            "The number is {n}.",
            "There are {n} of them.",
        ],
    },
    Topic {
        questions: &["What do you do at {time}?", "What is your hobby?", "Do you like {hobby}?"],
        answers: &[
            "I like {hobby}.",
            "In the {time} I go {hobby} with {name}.",
            "Yes, {hobby} is {good}.",
            "No, I would rather try {hobby}.",
        ],
    },
    Topic {
        questions: &[
            "Do you have a {animal}?",
            "What does the {animal} do?",
            "Tell me about the {animal}.",
        ],
        answers: &[
            "The {animal} sleeps {sound}.",
            "We have a {colour} {animal}.",
            "A {animal} lives at {place}.",
            "Every {animal} eats {sound} in the {time}.",
        ],
    },
    Topic {
        questions: &["How do I get to {place}?", "Is {place} far?", "Which way is {place}?"],
        answers: &[
            "Go left, then right, and you will see {place}.",
            "It is {n} steps from here.",
            "Take the bus number {n} to {place}.",
            "Walk over the bridge and turn right.",
        ],
    },
    Topic {
        questions: &[
            "When does {place} open?",
            "When is {name} coming?",
            "When can we meet?",
            "Is {place} open on {day}?",
        ],
        answers: &[
            "It opens on {day} at {n}.",
            "{name} comes on {day}.",
            "We can meet on {day} in the {time}.",
            "Yes, on {day} until the {time}.",
        ],
    },
    Topic {
        questions: &[
            "How much is the {thing}?",
            "What does the {thing} cost?",
            "Is the {thing} expensive?",
        ],
        answers: &[
            "It costs {n} euros.",
            "The {thing} is {n} dollars.",
            "No, it is cheap, only {n}.",
            "The price of the {colour} {thing} is {n}.",
        ],
    },
    Topic {
        questions: &[
            "Can you help me?",
            "I need some help with the {thing}.",
            "Could you carry this {thing}?",
            "My {thing} does not work.",
        ],
        answers: &[
            "Of course, what do you need?",
            "Yes, I can help you on {day}.",
            "Turn it off and on again.",
            "Ask {name}, who knows about it.",
        ],
    },
    Topic {
        questions: &[
            "Did the {thing} arrive?",
            "Is there a {thing} for me?",
            "Who sent the {thing}?",
            "When will the {thing} come?",
        ],
        answers: &[
            "It came on {day}.",
            "No, it is still on its way from {town}.",
            "{name} sent it from {town}.",
            "The {thing} will be here on {day}.",
        ],
    },
    Topic {
        questions: &[
            "What is the number of your house?",
            "What is your phone number?",
            "Can you write the number down?",
        ],
        answers: &[
            "It is {n}.",
            "The number is {n} {m}.",
            "Please write {n}, then {m}.",
            "I do not have a phone.",
        ],
    },
    Topic {
        questions: &["What does {name} do?", "Is {name} a {job}?", "What is a {job}?"],
        answers: &[
            "{name} is a {job} in {town}.",
            "A {job} works at {place}.",
            "Yes, and a {good} one.",
            "{name} was a {job} for {n} years.",
        ],
    },
    Topic {
        questions: &["Thank you!", "Thanks for the {thing}.", "That was {good}, thank you."],
        answers: &[
            "You are welcome.",
            "It was nothing.",
            "I am glad you like the {thing}.",
            "Any time, {name}.",
        ],
    },
    Topic {
        questions: &[
            "I am tired.",
            "I am happy today.",
            "I am late for {place}.",
            "I feel {good}.",
        ],
        answers: &[
            "Then sleep well.",
            "That is {good} to hear.",
            "Do not worry, {name} will wait.",
            "Why is that?",
        ],
    },
    Topic {
        questions: &["Goodbye!", "See you on {day}.", "I have to go to {place} now."],
        answers: &[
            "Goodbye, {name}!",
            "See you on {day}.",
            "Have a {good} {time}.",
            "Take care, and come back soon.",
        ],
    },
    Topic {
        questions: &[
            "Tell me a story.",
            "What happened on {day}?",
            "What did {name} do at {place}?",
        ],
        answers: &[
            "On {day} {name} went to {place} and found a {colour} {thing}.",
            "A {animal} met a {colour} bird at {place}, and they walked home {sound}.",
            "{name} lost the {thing}, looked for it at {place}, and found it in the {time}.",
            "It was {weather} in {town}, so {name} stayed at home, {hobby} {sound}.",
        ],
    },
    Topic {
        questions: &[
            "Why is it {weather}?",
            "Why did you buy the {thing}?",
            "Why is the {animal} here?",
        ],
        answers: &[
            "Because it is {day}.",
            "I bought it because the old one was broken.",
            "Because {name} left the door open.",
            "I do not know why.",
        ],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_text() {
        assert_eq!(conversations(50, 1), conversations(50, 1));
        assert_ne!(conversations(50, 1), conversations(50, 2));
    }

    #[test]
    fn leaves_no_slot_unfilled() {
        assert!(conversations(2_000, 3).iter().all(|text| !text.contains(['{', '}'])));
    }
}
