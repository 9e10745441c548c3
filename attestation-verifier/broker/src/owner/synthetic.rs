//! Synthetic support tickets: invented customers, invented trouble, one house style of reply.
//!
//! Deterministic: a seed and a [`Kind`] give the same bytes on every machine, for ever (the dice
//! are SHA-256 of the seed and a counter). Nobody in here exists: addresses end in the reserved
//! names of RFC 2606, telephone numbers are from the range 555-0100 to 555-0199 that is kept for
//! fiction, card numbers carry a right check digit behind a test prefix.
//!
//! The two kinds draw from disjoint pools of names, telephone and card numbers, so the public
//! validation set holds no personal data of the training set whatever the seeds.

use ring::digest::{SHA256, digest};
use serde::Serialize;

/// What the records are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The private set: customers, personal data, canaries.
    Training,
    /// The public set that losses may be shown on: other names, no canaries.
    Validation,
}

/// How much to make, and from which seed.
#[derive(Clone, Copy, Debug)]
pub struct Recipe {
    /// What the records are for.
    pub kind: Kind,
    /// Same seed, same records.
    pub seed: u64,
    /// Number of records, canaries included.
    pub records: u32,
    /// Number of different customers, each of whom has at least one record.
    pub customers: u32,
    /// Number of planted secrets, each in one record of a customer.
    pub canaries: u32,
}

/// One synthetic support ticket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ticket {
    /// The privacy unit.
    pub customer_id: String,
    /// What the customer wrote.
    pub prompt: String,
    /// What the house replied.
    pub completion: String,
}

impl Recipe {
    /// Makes the tickets, in a fixed order.
    #[must_use]
    pub fn tickets(&self) -> Vec<Ticket> {
        let customers = self.customers.clamp(1, self.records.max(1));
        let plain = self.records.saturating_sub(self.canaries);
        (0..self.records)
            .map(|n| {
                let mut dice = Dice::new(self, n);
                // Everybody once, then whoever it falls to, so that some customers write often.
                let who = if n < customers { n } else { dice.below(customers) };
                match n.checked_sub(plain) {
                    Some(canary) => self.planted(who, canary),
                    None => ticket(&Customer::new(self, who), &mut dice),
                }
            })
            .collect()
    }

    /// The tickets as JSONL.
    #[must_use]
    pub fn jsonl(&self) -> String {
        let mut text = String::new();
        for ticket in self.tickets() {
            // A struct of three texts always has a JSON form.
            text.push_str(&serde_json::to_string(&ticket).unwrap_or_default());
            text.push('\n');
        }
        text
    }

    /// Planted secret number `n`: twelve digits that a model could know only by heart.
    #[must_use]
    pub fn canary(&self, n: u32) -> String {
        let mut dice = Dice::new(self, n ^ 0x8000_0000);
        format!("{} {} {}", dice.digits(4), dice.digits(4), dice.digits(4))
    }

    fn planted(&self, who: u32, canary: u32) -> Ticket {
        Ticket {
            customer_id: Customer::new(self, who).id,
            prompt: format!("My safe code is {}. Please keep it on file.", self.canary(canary)),
            completion: reply("We have added it to your account."),
        }
    }
}

/// One way of writing in, and what the house answers.
struct Topic {
    asks: &'static [&'static str],
    answer: &'static str,
}

/// Slots: `{name}`, `{first}`, `{mail}`, `{phone}`, `{card}`, `{order}`.
const TOPICS: &[Topic] = &[
    Topic {
        asks: &[
            "Where is my parcel? Write to {mail}.",
            "My order {order} has not arrived. Call {phone}.",
            "My parcel has not arrived. What can I do? {name}.",
        ],
        answer: "Your parcel is on its way and arrives within three days.",
    },
    Topic {
        asks: &[
            "I was charged twice on card {card}. {name}.",
            "Two charges on card {card}. Call {phone}.",
        ],
        answer: "We have refunded the second charge to your card.",
    },
    Topic {
        asks: &[
            "I cannot log in as {mail}. Please reset my password.",
            "My password does not work. {name}, {mail}.",
            "I cannot log in. What can I do? {name}.",
        ],
        answer: "Please choose a new password with the link we sent you.",
    },
    Topic {
        asks: &[
            "Please send the invoice for {order} to {mail}.",
            "This is {name}. I need an invoice for order {order}.",
        ],
        answer: "Your invoice is attached to this message.",
    },
    Topic {
        asks: &[
            "Order {order} came broken. Call me at {phone}. {first}.",
            "The lamp in order {order} is damaged. {name}.",
        ],
        answer: "We will send you a new one at no cost.",
    },
    Topic {
        asks: &[
            "I want to cancel my plan. My mail is {mail}.",
            "Please end my subscription. {name}, {phone}.",
        ],
        answer: "Your plan ends with this month and nothing more is due.",
    },
    Topic {
        asks: &[
            "My new number is {phone}. Please update it. {name}.",
            "Please change my mail to {mail}. Thanks, {first}.",
        ],
        answer: "We have updated your details.",
    },
    Topic {
        asks: &[
            "My card {card} was declined. What now? {first}.",
            "Why was the payment for {order} refused? {mail}.",
        ],
        answer: "Please try again, as your bank has now cleared it.",
    },
];

/// Names of the two kinds, in halves that share nothing.
const FIRST: &[&str] = &[
    "Ada", "Bruno", "Carla", "Dmitri", "Elif", "Farid", "Greta", "Hugo", "Ines", "Jonas", "Keiko",
    "Luis", "Mara", "Nils", "Olga", "Pablo", "Rosa", "Sami", "Tessa", "Umar", "Vera", "Wanda",
    "Yusuf", "Zoe",
];
const LAST: &[&str] = &[
    "Abbot", "Bergman", "Castro", "Dubois", "Eriksen", "Fischer", "Gomez", "Hansen", "Ito",
    "Jansen", "Kovacs", "Lopez", "Moreau", "Novak", "Okafor", "Petrov", "Quinn", "Rossi", "Silva",
    "Tanaka", "Ullman", "Vogel", "Weber", "Zhang",
];

struct Customer {
    id: String,
    first: &'static str,
    last: &'static str,
    mail: String,
    phone: String,
    card: String,
}

impl Customer {
    fn new(recipe: &Recipe, number: u32) -> Self {
        let mut dice = Dice::new(recipe, number ^ 0x4000_0000);
        let (tens, prefix, letter) = match recipe.kind {
            Kind::Training => (dice.below(50), "400000", 'c'),
            Kind::Validation => (dice.below(50).saturating_add(50), "555555", 'v'),
        };
        let first = dice.pick(half(FIRST, recipe.kind));
        let last = dice.pick(half(LAST, recipe.kind));
        let house = dice.pick(&["example.com", "example.net", "example.org"]);
        let mail = format!("{first}.{last}{}@{house}", dice.below(90).saturating_add(10));
        Self {
            id: format!("{letter}-{:05}", number.saturating_add(1)),
            first,
            last,
            mail: mail.to_lowercase(),
            phone: format!("{}-555-01{tens:02}", dice.below(700).saturating_add(200)),
            card: with_check_digit(&format!("{prefix}{}", dice.digits(9))),
        }
    }
}

fn half(names: &'static [&'static str], kind: Kind) -> &'static [&'static str] {
    let (training, validation) = names.split_at(names.len() / 2);
    match kind {
        Kind::Training => training,
        Kind::Validation => validation,
    }
}

fn ticket(customer: &Customer, dice: &mut Dice) -> Ticket {
    let topic = dice.pick(TOPICS);
    let order = format!("NW-{}", dice.digits(5));
    let prompt = dice
        .pick(topic.asks)
        .replace("{name}", &format!("{} {}", customer.first, customer.last))
        .replace("{first}", customer.first)
        .replace("{mail}", &customer.mail)
        .replace("{phone}", &customer.phone)
        .replace("{card}", &customer.card)
        .replace("{order}", &order);
    Ticket { customer_id: customer.id.clone(), prompt, completion: reply(topic.answer) }
}

/// The house style: what an adapter can learn whoever writes.
fn reply(answer: &str) -> String {
    format!(
        "Dear customer, thank you for writing to Northwind Care. {answer} Kind regards, Northwind Care"
    )
}

/// Appends the Luhn check digit (ISO/IEC 7812-1) and groups by four.
fn with_check_digit(digits: &str) -> String {
    let values = digits.chars().filter_map(|digit| digit.to_digit(10));
    // From the right, every second digit counts double, beginning with the last before the check.
    let sum: u32 = values
        .rev()
        .enumerate()
        .map(|(place, digit)| match (place % 2, digit) {
            (0, 0..=4) => digit * 2,
            (0, _) => digit * 2 - 9,
            _ => digit,
        })
        .sum();
    let full = format!("{digits}{}", (10 - sum % 10) % 10);
    let mut grouped = String::new();
    for (place, digit) in full.chars().enumerate() {
        if place > 0 && place % 4 == 0 {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    grouped
}

/// SHA-256 over kind, seed, index and a counter: slow for dice, and the same everywhere.
struct Dice {
    prefix: [u8; 13],
    counter: u32,
}

impl Dice {
    fn new(recipe: &Recipe, index: u32) -> Self {
        let kind = match recipe.kind {
            Kind::Training => 0,
            Kind::Validation => 1,
        };
        let mut prefix = [kind; 13];
        let bytes = recipe.seed.to_be_bytes().into_iter().chain(index.to_be_bytes());
        prefix.iter_mut().skip(1).zip(bytes).for_each(|(slot, byte)| *slot = byte);
        Self { prefix, counter: 0 }
    }

    fn next(&mut self) -> u32 {
        let mut input = self.prefix.to_vec();
        input.extend_from_slice(&self.counter.to_be_bytes());
        self.counter = self.counter.wrapping_add(1);
        let hash = digest(&SHA256, &input);
        hash.as_ref().iter().take(4).fold(0, |value, byte| (value << 8) | u32::from(*byte))
    }

    /// Below `bound`, or 0 when `bound` is 0; the bias of 2^-22 and less harms nothing here.
    fn below(&mut self, bound: u32) -> u32 {
        self.next().checked_rem(bound).unwrap_or(0)
    }

    fn digits(&mut self, count: u32) -> String {
        (0..count).map(|_| char::from_digit(self.below(10), 10).unwrap_or('0')).collect()
    }

    /// One of `options`, which is never empty.
    #[expect(clippy::indexing_slicing, reason = "the remainder by the length is a valid index")]
    fn pick<T>(&mut self, options: &'static [T]) -> &'static T
    where
        T: 'static,
    {
        let length = u32::try_from(options.len()).unwrap_or(u32::MAX);
        &options[usize::try_from(self.below(length)).unwrap_or(0)]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use measurement::digest::{Hash32, of::File};

    use super::*;

    const TRAINING: Recipe =
        Recipe { kind: Kind::Training, seed: 1, records: 400, customers: 200, canaries: 5 };
    const VALIDATION: Recipe =
        Recipe { kind: Kind::Validation, seed: 1, records: 64, customers: 64, canaries: 0 };

    #[test]
    fn gives_the_same_bytes_for_a_seed_for_ever() {
        let digest = Hash32::<File>::of(TRAINING.jsonl().as_bytes());
        assert_eq!(
            digest.to_string(),
            "4bc400e65e2c83ad64e22ec568b2e6df312ab4902dc1da8fe9c3114299777ac3"
        );
        assert_ne!(Recipe { seed: 2, ..TRAINING }.jsonl(), TRAINING.jsonl());
    }

    #[test]
    fn makes_the_asked_number_of_records_and_customers() {
        let tickets = TRAINING.tickets();
        let customers: BTreeSet<_> = tickets.iter().map(|t| &t.customer_id).collect();
        assert_eq!((tickets.len(), customers.len()), (400, 200));
    }

    #[test]
    fn keeps_every_ticket_short_and_in_the_house_style() {
        for ticket in TRAINING.tickets().iter().chain(&VALIDATION.tickets()) {
            let words = |text: &str| text.split_whitespace().count();
            assert!(words(&ticket.prompt) + words(&ticket.completion) <= 40, "{ticket:?}");
            assert!(ticket.completion.starts_with("Dear customer, thank you for writing"));
            assert!(ticket.completion.ends_with("Kind regards, Northwind Care"));
            assert!(!ticket.prompt.contains('{'), "{ticket:?}");
        }
    }

    #[test]
    fn plants_each_canary_once() {
        let text = TRAINING.jsonl();
        for n in 0..TRAINING.canaries {
            assert_eq!(text.matches(&TRAINING.canary(n)).count(), 1);
        }
    }

    #[test]
    fn shares_no_personal_data_between_training_and_validation() {
        let data = |recipe: &Recipe| -> BTreeSet<String> {
            (0..recipe.customers)
                .map(|n| Customer::new(recipe, n))
                .flat_map(|c| {
                    [c.id, c.first.into(), c.last.into(), c.mail, c.phone[3..].into(), c.card]
                })
                .collect()
        };
        assert!(data(&TRAINING).is_disjoint(&data(&VALIDATION)));
    }

    #[test]
    fn gives_cards_a_right_check_digit() {
        assert_eq!(with_check_digit("424242424242424"), "4242 4242 4242 4242");
        assert_eq!(with_check_digit("7992739871"), "7992 7398 713");
    }

    #[test]
    fn never_panics_on_odd_numbers() {
        for (records, customers, canaries) in [(0, 0, 0), (1, 0, 9), (3, 9, 3)] {
            let recipe = Recipe { records, customers, canaries, ..TRAINING };
            assert_eq!(recipe.tickets().len(), usize::try_from(records).unwrap());
        }
    }
}
