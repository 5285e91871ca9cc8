//! Canonical bytes beside ordinary serialization and beside other canonical writers.
//!
//! `cargo xtask bench canon [-- --quick] [--only=CONTENDER] [CASE...]` prints the tables of docs/BENCHMARKS.md.
#![expect(clippy::print_stdout, reason = "a benchmark prints")]

mod cases;

use std::time::Duration;

use canon_ser::{cbor, json};
use mainstay_benches::counting::Counting;
use mainstay_benches::rounds::{Contender, Plan, measure};
use serde::Serialize;
use zerocopy::IntoBytes as _;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let plan = Plan {
        rounds: if quick { 61 } else { 301 },
        slice: Duration::from_millis(1),
    };
    let picked: Vec<&String> = arguments
        .iter()
        .filter(|argument| !argument.starts_with("--"))
        .collect();
    let wanted = |name: &str| picked.is_empty() || picked.iter().any(|&pick| pick == name);
    if wanted("a") {
        small(plan);
    }
    if wanted("b") {
        table(
            "(b) HashMap<String, String> of 1,000",
            plan,
            writers(&cases::map()),
        );
    }
    if wanted("c") {
        table("(c) typed document", plan, writers(&cases::document()));
    }
    if wanted("d") {
        table("(d) 10,000 doubles", plan, writers(&cases::floats()));
    }
    if wanted("text") {
        text(plan);
    }
}

/// Everyone who writes any serde value into a new vector; serde_json first.
fn writers<'a, T: Serialize>(value: &'a T) -> Vec<Contender<'a>> {
    macro_rules! writer {
        ($name:literal, $write:expr) => {{
            let write = $write;
            Contender::new($name, write(value).len(), move || write(value))
        }};
    }
    vec![
        writer!("serde_json::to_vec", |value: &'a T| serde_json::to_vec(
            value
        )
        .expect("JSON")),
        writer!("canon_ser::json::to_vec", |value: &'a T| json::to_vec(
            value
        )
        .expect("JSON")),
        writer!("serde_jcs::to_vec", |value: &'a T| serde_jcs::to_vec(value)
            .expect("JSON")),
        writer!("serde_json_canonicalizer::to_vec", |value: &'a T| {
            serde_json_canonicalizer::to_vec(value).expect("JSON")
        }),
        writer!("ciborium::into_writer (unordered)", |value: &'a T| {
            let mut out = Vec::new();
            ciborium::into_writer(value, &mut out).expect("CBOR");
            out
        }),
        writer!("canon_ser::cbor::to_vec", |value: &'a T| cbor::to_vec(
            value
        )
        .expect("CBOR")),
        writer!("cbor4ii::serde::to_vec (unordered)", |value: &'a T| {
            cbor4ii::serde::to_vec(Vec::new(), value).expect("CBOR")
        }),
        writer!("serde_ipld_dagcbor::to_vec", |value: &'a T| {
            serde_ipld_dagcbor::to_vec(value).expect("CBOR")
        }),
        writer!("cbor_core::Value::serialized, encode", |value: &'a T| {
            cbor_core::Value::serialized(value).expect("CBOR").encode()
        }),
    ]
}

/// (a) as a record of fixed offsets.
#[derive(zerocopy::IntoBytes, zerocopy::Immutable)]
#[repr(C, packed)]
struct Fixed {
    id: zerocopy::little_endian::U64,
    name: [u8; 32],
    kind: u8,
}

fn small(plan: Plan) {
    let value = cases::small();
    let [mut first, mut second, mut third, mut fourth] = [[0_u8; 128]; 4];
    let mut encoder = json::Encoder::new();
    let mut cbor_encoder = cbor::Encoder::new();
    let mut contenders = writers(&value);
    let json_len = json::to_vec(&value).expect("JSON").len();
    let cbor_len = cbor::to_vec(&value).expect("CBOR").len();
    contenders.extend([
        Contender::new("serde_json::to_writer, slice", json_len, || {
            serde_json::to_writer(&mut first[..], &value)
        }),
        Contender::new("canon_ser::json::to_slice", json_len, || {
            json::to_slice(&value, &mut second).map(|bytes| bytes.len())
        }),
        Contender::new("canon_ser::json::Encoder", json_len, || {
            encoder.encode(&value).map(|bytes| bytes.len())
        }),
        Contender::new("canon_ser::cbor::to_slice", cbor_len, || {
            cbor::to_slice(&value, &mut third).map(|bytes| bytes.len())
        }),
        Contender::new("canon_ser::cbor::Encoder", cbor_len, || {
            cbor_encoder.encode(&value).map(|bytes| bytes.len())
        }),
        Contender::new(
            "postcard::to_slice",
            postcard::to_stdvec(&value).expect("postcard").len(),
            || postcard::to_slice(&value, &mut fourth).map(|bytes| bytes.len()),
        ),
        Contender::new("fixed offsets (zerocopy)", 41, || fixed(&value)),
    ]);
    table("(a) struct of u64, 32-byte string, u8", plan, contenders);
}

fn fixed(value: &cases::Small) -> [u8; 41] {
    let record = Fixed {
        id: value.id.into(),
        name: value.name.as_bytes().try_into().expect("32 bytes"),
        kind: value.kind,
    };
    record.as_bytes().try_into().expect("41 bytes")
}

/// Canonical text and bytes: made from other text, and checked.
fn text(plan: Plan) {
    let document = cases::document();
    let plain = serde_json::to_vec(&document).expect("JSON");
    let canonical = json::to_vec(&document).expect("JSON");
    let bytes = cbor::to_vec(&document).expect("CBOR");
    let mut encoder = json::Encoder::new();
    let contenders = vec![
        Contender::new("serde_json text to Value to text", plain.len(), || {
            let value: serde_json::Value = serde_json::from_slice(&plain).expect("JSON");
            serde_json::to_vec(&value).expect("JSON")
        }),
        Contender::new(
            "canon_ser::json::canonicalize, disordered",
            plain.len(),
            || json::canonicalize(&plain).expect("JSON"),
        ),
        Contender::new(
            "canon_ser::json::canonicalize, ordered",
            canonical.len(),
            || json::canonicalize(&canonical).expect("JSON"),
        ),
        Contender::new("canon_ser::json::Encoder::encode_text", plain.len(), || {
            encoder.encode_text(&plain).map(|bytes| bytes.len())
        }),
        Contender::new("canon_ser::json::check", canonical.len(), || {
            json::check(&canonical)
        }),
        Contender::new("canon_ser::cbor::check", bytes.len(), || {
            cbor::check(&bytes)
        }),
    ];
    table("text and checks, on (c)", plan, contenders);
}

fn table(title: &str, plan: Plan, mut contenders: Vec<Contender<'_>>) {
    if let Some(only) =
        std::env::args().find_map(|argument| argument.strip_prefix("--only=").map(str::to_owned))
    {
        contenders.retain(|contender| contender.name().contains(&only));
    }
    if contenders.is_empty() {
        return;
    }
    println!("### {title}\n");
    println!("| | bytes | median | best | to the first | MB/s | allocations |");
    println!("|---|---:|---:|---:|---:|---:|---:|");
    for row in measure(plan, &mut contenders) {
        println!(
            "| {} | {} | {} | {} | {:.2} | {:.0} | {} |",
            row.name,
            row.bytes,
            time(row.ns),
            time(row.best_ns),
            row.ratio,
            row.mb_per_s(),
            row.allocations.round(),
        );
    }
    println!();
}

fn time(ns: f64) -> String {
    match ns {
        ns if ns < 10_000.0 => format!("{ns:.0} ns"),
        ns if ns < 10_000_000.0 => format!("{:.0} µs", ns / 1e3),
        ns => format!("{:.1} ms", ns / 1e6),
    }
}
