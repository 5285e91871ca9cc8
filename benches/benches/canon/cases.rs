//! The values that are written: a small struct, a map, a document, floats.

use std::collections::HashMap;

use serde::Serialize;

/// (a) Eight bytes, 32 and one: 41 in a fixed layout.
#[derive(Serialize)]
pub(crate) struct Small {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) kind: u8,
}

pub(crate) fn small() -> Small {
    Small {
        id: 1_234_567_890_123,
        name: "0123456789abcdef0123456789abcdef".into(),
        kind: 7,
    }
}

/// (b) 1,000 entries in whatever order the map has them.
pub(crate) fn map() -> HashMap<String, String> {
    (0..1_000)
        .map(|n| (format!("key-{n:05}"), format!("value number {n}")))
        .collect()
}

/// (c) About 500 KB of JSON, fields in the order in which people declare them.
#[derive(Serialize)]
pub(crate) struct Document {
    pub(crate) version: u32,
    pub(crate) title: String,
    pub(crate) records: Vec<Record>,
}

#[derive(Serialize)]
pub(crate) struct Record {
    id: u64,
    name: String,
    active: bool,
    email: Option<String>,
    score: f64,
    tags: Vec<String>,
    address: Address,
    history: Vec<Event>,
}

#[derive(Serialize)]
struct Address {
    street: String,
    city: String,
    zip: u32,
    country: &'static str,
}

#[derive(Serialize)]
struct Event {
    time: u64,
    kind: Kind,
    value: f64,
}

#[derive(Serialize)]
enum Kind {
    Created,
    Updated,
    Seen,
}

pub(crate) fn document() -> Document {
    let mut random = Random(7);
    Document {
        version: 3,
        title: "Everything that happened".into(),
        records: (0..1_410).map(|id| record(id, &mut random)).collect(),
    }
}

fn record(id: u64, random: &mut Random) -> Record {
    let number = random.below(100_000);
    Record {
        id,
        name: format!("Person Number {number}"),
        active: random.below(2) == 0,
        email: (random.below(3) > 0).then(|| format!("person.{number}@example.com")),
        score: random.below(10_000) as f64 / 100.0,
        tags: (0..random.below(4)).map(|n| format!("tag-{n}")).collect(),
        address: Address {
            street: format!("{} Long Street", random.below(200)),
            city: "Zürich".into(),
            zip: 8_000 + random.below(100) as u32,
            country: "Switzerland",
        },
        history: (0..random.below(5)).map(|_| event(random.next())).collect(),
    }
}

fn event(bits: u64) -> Event {
    Event {
        time: 1_700_000_000_000 + bits % 100_000_000,
        kind: match bits >> 60 {
            0..4 => Kind::Created,
            4..8 => Kind::Updated,
            _ => Kind::Seen,
        },
        value: (bits >> 11) as f64 / (1_u64 << 53) as f64,
    }
}

/// (d) 10,000 doubles between 0 and 1000 of full precision.
pub(crate) fn floats() -> Vec<f64> {
    let mut random = Random(11);
    (0..10_000)
        .map(|_| (random.next() >> 11) as f64 / (1_u64 << 53) as f64 * 1000.0)
        .collect()
}

/// xorshift64*
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 16) % bound
    }
}
