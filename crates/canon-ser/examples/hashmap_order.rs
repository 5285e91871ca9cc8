//! A `HashMap` iterates in another order in every run; its canonical bytes are always the same.
//!
//! Run it twice: `cargo run -p canon-ser --example hashmap_order`. The first line changes, the others do not.
#![expect(clippy::print_stdout, reason = "an example talks")]

use std::collections::HashMap;

use canon_ser::{Profile, json};

fn main() -> Result<(), canon_ser::Error> {
    let readings: HashMap<String, f64> = (1..=8)
        .map(|n| (format!("sensor-{n}"), f64::from(n) / 4.0))
        .collect();

    println!(
        "the map iterates as   {}",
        readings
            .keys()
            .map(|key| &key[7..])
            .collect::<Vec<_>>()
            .join(" ")
    );
    println!("canonical JSON        {}", json::to_string(&readings)?);
    let hex = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    println!(
        "deterministic CBOR    {}",
        hex(&Profile::CborCoreDetV1.to_vec(&readings)?)
    );

    // Within one run too: each map has its own hash seed.
    for _ in 0..1000 {
        let other: HashMap<_, _> = readings.clone().into_iter().collect();
        assert_eq!(json::to_vec(&other)?, json::to_vec(&readings)?);
    }
    println!("and 1,000 maps with other seeds gave the same bytes");
    Ok(())
}
