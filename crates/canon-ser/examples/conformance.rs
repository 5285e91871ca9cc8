//! The Rust side of `cargo xtask conformance`: makes the documents, and canonicalizes them in three ways.
//!
//! ```text
//! conformance generate COUNT                        documents to stdout, one JSON text a line
//! conformance canon WAY THREADS DOCUMENTS [OUTPUT]  the SHA-256 of all canonical forms, each followed by a newline
//! conformance numbers COUNT                         the SHA-256 of COUNT doubles as printed, each followed by a newline
//! ```
//!
//! WAY is `text` (no tree), `hashmap` (through maps whose order is random in every process) or `cbor` (through deterministic CBOR and back).

use std::collections::HashMap;
use std::error::Error;
use std::fs::File;
use std::io::{self, BufWriter, Write};

use canon_ser::{cbor, json};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};

#[path = "../conformance/documents.rs"]
mod documents;
#[path = "../conformance/doubles.rs"]
mod doubles;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["generate", count] => generate(count.parse()?),
        ["numbers", count] => numbers(count.parse()?),
        ["canon", way, threads, file] => canon(way, threads.parse()?, file, None),
        ["canon", way, threads, file, output] => canon(way, threads.parse()?, file, Some(output)),
        _ => Err("usage: conformance generate|canon|numbers ...; see the source".into()),
    }
}

fn generate(count: u64) -> Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    let mut source = documents::Source::new();
    for _ in 0..count {
        out.write_all(source.document().as_bytes())?;
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}

fn numbers(count: u64) -> Result<()> {
    let mut digest = Sha256::new();
    let mut buffer = [0; 32];
    for value in doubles::Doubles::new().take_draws(count) {
        digest.update(json::to_slice(&value, &mut buffer)?);
        digest.update(b"\n");
    }
    print_digest(digest)
}

fn canon(way: &str, threads: usize, file: &str, output: Option<&str>) -> Result<()> {
    let bytes = std::fs::read(file)?;
    let lines: Vec<&[u8]> = bytes.split_inclusive(|&byte| byte == b'\n').collect();
    let share = lines.len().div_ceil(threads.max(1)).max(1);
    let parts: Vec<Result<Vec<u8>>> = std::thread::scope(|scope| {
        let workers: Vec<_> = lines
            .chunks(share)
            .map(|lines| scope.spawn(move || canon_part(way, lines)))
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().expect("a worker reports its errors"))
            .collect()
    });
    let mut digest = Sha256::new();
    let mut output = output.map(File::create).transpose()?;
    for part in parts {
        let part = part?;
        digest.update(&part);
        if let Some(file) = &mut output {
            file.write_all(&part)?;
        }
    }
    print_digest(digest)
}

fn canon_part(way: &str, lines: &[&[u8]]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut encoder = json::Encoder::new();
    for line in lines {
        match way {
            "text" => out.extend(encoder.encode_text(line)?),
            "hashmap" => out.extend(encoder.encode(&serde_json::from_slice::<Node>(line)?)?),
            // CBOR keeps integers up to 64 bits; those beyond 2^53 in the documents are doubles.
            "cbor" => out.extend(cbor::to_json(
                &cbor::from_json(line)?,
                json::Integers::Round,
            )?),
            _ => return Err(format!("unknown way `{way}`").into()),
        }
        out.push(b'\n');
    }
    Ok(out)
}

fn print_digest(digest: Sha256) -> Result<()> {
    let hex: String = digest
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Ok(writeln!(io::stdout(), "{hex}")?)
}

/// Any JSON value; its objects iterate in another order in every process.
enum Node {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    Array(Vec<Node>),
    Object(HashMap<String, Node>),
}

impl Serialize for Node {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Node::Null => serializer.serialize_unit(),
            Node::Bool(value) => value.serialize(serializer),
            Node::Number(value) => value.serialize(serializer),
            Node::Text(value) => value.serialize(serializer),
            Node::Array(value) => value.serialize(serializer),
            Node::Object(value) => value.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Node, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Node;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a JSON value")
            }
            fn visit_unit<E>(self) -> std::result::Result<Node, E> {
                Ok(Node::Null)
            }
            fn visit_bool<E>(self, value: bool) -> std::result::Result<Node, E> {
                Ok(Node::Bool(value))
            }
            fn visit_u64<E>(self, value: u64) -> std::result::Result<Node, E> {
                Ok(Node::Number(value as f64))
            }
            fn visit_i64<E>(self, value: i64) -> std::result::Result<Node, E> {
                Ok(Node::Number(value as f64))
            }
            fn visit_f64<E>(self, value: f64) -> std::result::Result<Node, E> {
                Ok(Node::Number(value))
            }
            fn visit_str<E>(self, value: &str) -> std::result::Result<Node, E> {
                Ok(Node::Text(value.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(
                self,
                mut access: A,
            ) -> std::result::Result<Node, A::Error> {
                let mut elements = Vec::new();
                while let Some(element) = access.next_element()? {
                    elements.push(element);
                }
                Ok(Node::Array(elements))
            }
            fn visit_map<A: MapAccess<'de>>(
                self,
                mut access: A,
            ) -> std::result::Result<Node, A::Error> {
                let mut members = HashMap::new();
                while let Some((key, value)) = access.next_entry()? {
                    members.insert(key, value);
                }
                Ok(Node::Object(members))
            }
        }
        deserializer.deserialize_any(Any)
    }
}
