//! What the public text is made of. Words in braces are filled in.

/// One subject: how it is asked about, how a friend answers, and what a house writes on it.
#[derive(Clone, Copy)]
pub(super) struct Topic {
    pub(super) questions: &'static [&'static str],
    pub(super) answers: &'static [&'static str],
    pub(super) letters: &'static [&'static str],
}

pub(super) const COMPASS: &[&str] = &["North", "South", "East", "West"];

pub(super) const ENDINGS: &[&str] =
    &["wind", "gate", "field", "bank", "side", "wood", "lake", "hill", "port", "way"];

pub(super) const KINDS: &[&str] =
    &["Care", "Books", "Post", "Garden", "Foods", "Travel", "Music", "Tools"];

pub(super) const OPENINGS: &[&str] = &[
    "Dear customer, we are glad to hear from you.",
    "Dear customer, many thanks for your letter.",
    "Dear {name}, thank you for your letter.",
    "Dear {name}, thank you for writing to {house}.",
    "Dear friend, thank you for writing to us.",
    "Dear guest, thank you for your visit to {house}.",
    "Dear reader, {house} is glad to hear from you.",
    "Hello {name}, many thanks for writing to {house}.",
    "Good morning, this is {house}.",
];

pub(super) const CLOSINGS: &[&str] = &[
    "Kind regards, {house}",
    "Kind regards, {name}",
    "Best wishes, {house}",
    "Best wishes, {name}",
    "Yours, {house}",
    "Many thanks, {house}",
    "Take care, {name}",
];

pub(super) const SCENES: &[&str] = &[
    "On {day} {name} went to {place} and found a {colour} {thing}.",
    "A {animal} met a {colour} bird at {place}, and they walked home together.",
    "{name} lost the {thing}, looked for it at {place}, and found it in the {time}.",
    "It was {weather} in {town}, so {name} stayed at home.",
    "The {job} came to {place} in the {time} and asked for {food}.",
    "There was a {good} {thing} on the table, and {name} wanted it.",
    "{name} wrote a letter to a friend in {town}.",
    "The {animal} slept all day, and in the {time} it was gone.",
    "They sold the {colour} {thing} for {n} euros.",
    "It took {n} days to get to {town}.",
    "On {day} there was no bus, and {name} walked to {place}.",
    "{name} is a {job} and likes {hobby}.",
    "The train to {town} arrives within three hours.",
    "{name} was second in the race, and came first within a year.",
    "There is no charge for three days, says {name}.",
    "{name} found a message attached to the {thing}.",
    "Nothing is due this month, so {name} will try again.",
    "The sky has now cleared, as {name} said.",
    "{name} added details to the story and updated the end.",
    "The ship arrives on {day}, and within three days it leaves.",
];

/// What people talk about.
pub(super) const TALK: &[Topic] = &[
    Topic {
        questions: &[
            "Hello!",
            "Hi there.",
            "Good morning.",
            "Hello, how are you?",
            "Hi, my name is {name}.",
        ],
        answers: &[
            "I am well, and you?",
            "Hi {name}, it is nice to meet you.",
            "Good to see you. What is new?",
        ],
        letters: &[],
    },
    Topic {
        questions: &["What is your name?", "Who are you?", "Do you have a name?"],
        answers: &[
            "My name is {name}.",
            "I am {name}, a {job} from {town}.",
            "You can call me {name}.",
        ],
        letters: &[],
    },
    Topic {
        questions: &["Where do you live?", "Where is {name} from?", "Do you know {town}?"],
        answers: &[
            "{name} lives in {town}, near {place}.",
            "I live in {town}.",
            "Yes, {town} is a {good} town.",
            "We moved to {town} {n} years ago.",
        ],
        letters: &[],
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
            "It was {weather} in the {time} and it will stay so.",
        ],
        letters: &[],
    },
    Topic {
        questions: &["What do you like to eat?", "What is for dinner?", "Can I have {food}?"],
        answers: &[
            "I like {food} best.",
            "There is {food} on the table.",
            "I had {food} with {name}.",
        ],
        letters: &[],
    },
    Topic {
        questions: &[
            "What colour is the {thing}?",
            "Is the {thing} {colour}?",
            "Which {thing} is yours?",
        ],
        answers: &["The {thing} is {colour}.", "No, it is {colour}.", "The {colour} one is mine."],
        letters: &[],
    },
    Topic {
        questions: &[
            "Where is my {thing}?",
            "Have you seen the {thing}?",
            "I cannot find my {thing}.",
        ],
        answers: &[
            "Your {thing} is at {place}.",
            "I saw it next to the window.",
            "Maybe {name} took it to {place}.",
        ],
        letters: &[],
    },
    Topic {
        questions: &[
            "What do you do in the {time}?",
            "What is your hobby?",
            "Do you like {hobby}?",
        ],
        answers: &[
            "I like {hobby}.",
            "In the {time} I go {hobby} with {name}.",
            "No, I would rather stay at home.",
        ],
        letters: &[],
    },
    Topic {
        questions: &[
            "Do you have a {animal}?",
            "What does the {animal} do?",
            "Tell me about the {animal}.",
        ],
        answers: &[
            "The {animal} sleeps under the table.",
            "We have a {colour} {animal}.",
            "A {animal} lives at {place}.",
        ],
        letters: &[],
    },
    Topic {
        questions: &["How do I get to {place}?", "Is {place} far?", "Which way is {place}?"],
        answers: &[
            "Go left, then right, and you will see it.",
            "Take the bus number {n} to {place}.",
            "Walk over the bridge and turn right.",
        ],
        letters: &[],
    },
    Topic {
        questions: &[
            "How much is the {thing}?",
            "What does the {thing} cost?",
            "Is the {thing} expensive?",
        ],
        answers: &[
            "It costs {n} euros.",
            "No, it is cheap, only {n} euros.",
            "The {colour} one costs {n} euros.",
        ],
        letters: &[],
    },
    Topic {
        questions: &["What does {name} do?", "Is {name} a {job}?", "What is a {job}?"],
        answers: &[
            "{name} is a {job} in {town}.",
            "A {job} works at {place}.",
            "{name} was a {job} for {n} years.",
        ],
        letters: &[],
    },
    Topic {
        questions: &["Thank you!", "Thanks for the {thing}.", "That was {good}, thank you."],
        answers: &["You are welcome.", "It was nothing.", "I am glad you like it."],
        letters: &[],
    },
    Topic {
        questions: &["Goodbye!", "See you on {day}.", "I have to go to {place} now."],
        answers: &["Goodbye, {name}!", "Have a {good} {time}.", "Take care, and come back soon."],
        letters: &[],
    },
];

/// What people ask a house, and each other.
pub(super) const TRADE: &[Topic] = &[
    Topic {
        questions: &[
            "Where is my parcel?",
            "Where is my parcel {code}?",
            "My parcel has not arrived.",
            "My parcel has not arrived. What can I do?",
            "My order {code} has not arrived.",
            "Has my parcel been sent?",
            "When will my parcel come?",
            "My parcel is late. What can I do?",
        ],
        answers: &[
            "You can ask at the post office, they keep parcels for a week.",
            "You can ask the people next door, they often take parcels in.",
            "You can wait until {day} and then call them.",
            "Mine came on {day}, so wait one more day.",
            "It may be at {place}, go and look there.",
        ],
        letters: &[
            "Your parcel was sent on {day}.",
            "Your parcel is on its way and will be with you on {day}.",
            "Your parcel is at {place} and waits for you.",
            "Your parcel is on its way to you.",
        ],
    },
    Topic {
        questions: &[
            "I was charged twice.",
            "I was charged twice on card {code}.",
            "I paid twice for the {thing}.",
            "Two charges are on my card {code}.",
            "They charged my card twice. What can I do?",
            "I was charged twice for order {code}.",
        ],
        answers: &[
            "You can call your bank, they will look at it.",
            "You can ask for the money back.",
            "Keep the bill and show it at {place}.",
            "Look again, one of them may be gone on {day}.",
        ],
        letters: &[
            "We have sent your money back.",
            "The other payment was our mistake.",
            "Your bank will show the money on {day}.",
            "We have refunded {n} euros.",
        ],
    },
    Topic {
        questions: &[
            "I cannot log in.",
            "My password does not work.",
            "I have lost my password.",
            "Please reset my password.",
            "I cannot log in as {code}.",
        ],
        answers: &[
            "You can try it again with small letters.",
            "You can ask {name}, who knows about it.",
            "Write it down next time, that is what I do.",
            "Turn it off and on again.",
        ],
        letters: &[
            "We have sent you a new password.",
            "Please choose another password on {day}.",
            "Please use the link to log in.",
            "You will find a link in your mail.",
        ],
    },
    Topic {
        questions: &[
            "I need an invoice.",
            "Please send the invoice for order {code}.",
            "I need a bill for the {thing}.",
            "Where is my invoice?",
            "Please send the bill to {code}.",
            "I need an invoice for order {code}.",
        ],
        answers: &[
            "You can print it at {place}.",
            "I put it on the table in the {time}.",
            "{name} has it, you can ask on {day}.",
            "It is in the box with the {thing}.",
        ],
        letters: &[
            "Your invoice is in the box with the parcel.",
            "Your invoice was sent on {day}.",
            "You will find the bill in the box.",
            "Here is a copy of your bill.",
        ],
    },
    Topic {
        questions: &[
            "The {thing} came broken.",
            "My {thing} is damaged.",
            "My {thing} does not work.",
            "Order {code} came broken.",
            "The {thing} in order {code} is damaged.",
            "The {thing} is broken. What can I do?",
        ],
        answers: &[
            "You can take it back to {place}.",
            "You can ask {name} to mend it.",
            "Mine broke too, so I bought another one.",
            "What a pity, it was a {good} {thing}.",
        ],
        letters: &[
            "We are sorry and send another one on {day}.",
            "Please send it back, and we pay for the post.",
            "We are sorry, and it is at no cost for you.",
            "You will get your money back.",
        ],
    },
    Topic {
        questions: &[
            "I want to cancel my plan.",
            "Please end my subscription.",
            "I do not need it any more.",
            "How do I cancel it?",
            "Please cancel order {code}.",
        ],
        answers: &[
            "You can write and tell them, that is enough.",
            "You can do it until {day}.",
            "I cancelled mine too and saved {n} euros.",
            "Keep it, it is {good}.",
        ],
        letters: &[
            "Your plan ends on {day}.",
            "Your plan ends with the week.",
            "Your subscription is closed.",
            "There is nothing more to pay.",
        ],
    },
    Topic {
        questions: &[
            "My new number is {code}.",
            "My new number is {code}. Please update it.",
            "Please change my address.",
            "Please change my mail to {code}.",
            "We moved to {town}.",
        ],
        answers: &[
            "Good, I will write it down.",
            "Thank you, I will tell {name}.",
            "I did not know that you moved.",
            "Then I will call you on {day}.",
        ],
        letters: &[
            "We have written it down.",
            "Your address is changed.",
            "Your account has the new number.",
            "We have changed it on {day}.",
        ],
    },
    Topic {
        questions: &[
            "My card was declined.",
            "My card {code} was declined.",
            "Why was my payment refused?",
            "Why was the payment for order {code} refused?",
            "The shop did not take my card. What now?",
        ],
        answers: &[
            "You can pay with money this time.",
            "You can call the bank in the {time}.",
            "Mine did the same, it was the machine.",
            "Try another card, or wait until {day}.",
        ],
        letters: &[
            "Please use another card.",
            "Please ask your bank first.",
            "The payment works again.",
            "You can pay until {day}.",
        ],
    },
    Topic {
        questions: &[
            "When do you open?",
            "When does {place} open?",
            "Is {place} open on {day}?",
            "When can I come?",
        ],
        answers: &[
            "It opens on {day} at {n}.",
            "You can come on {day} in the {time}.",
            "Yes, until the {time}.",
            "I do not know, ask {name}.",
        ],
        letters: &[
            "We open on {day} at {n}.",
            "Our doors are open until the {time}.",
            "Please come on {day}.",
        ],
    },
    Topic {
        questions: &[
            "Can you help me?",
            "I need some help with the {thing}.",
            "Could you carry this {thing}?",
            "What can I do?",
        ],
        answers: &[
            "You can ask {name}, who knows about it.",
            "You can come on {day}, and I will help you.",
            "Of course, what do you need?",
            "Turn it off and on again.",
        ],
        letters: &[
            "We will help you on {day}.",
            "Please call us in the {time}.",
            "We have asked {name} to help you.",
        ],
    },
    Topic {
        questions: &[
            "My safe code is {code}.",
            "My code is {code}. Please keep it.",
            "Please keep the number {code}.",
            "My seat is {code}.",
        ],
        answers: &[
            "Good, I will keep it.",
            "You should tell nobody.",
            "I will write it down on {day}.",
        ],
        letters: &["We keep it for you.", "We have written it in our book.", "It is safe with us."],
    },
];

const NAMES: &[&str] = &[
    "Anna", "Ben", "Clara", "David", "Emma", "Frank", "Grace", "Henry", "Ivy", "Jack", "Kate",
    "Leo", "Maria", "Nora", "Oscar", "Paula", "Quinn", "Rosa", "Sam", "Tom", "Uma", "Victor",
    "Wendy", "Yusuf", "Zoe",
];

pub(super) const WORDS: &[(&str, &[&str])] = &[
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
