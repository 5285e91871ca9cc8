//! One hash over the printed forms of very many doubles. `cargo xtask conformance` derives it again from what Node prints.

use canon_ser::json;
use sha2::{Digest, Sha256};

#[path = "../../conformance/doubles.rs"]
mod doubles;

/// Lines of count and SHA-256.
const GOLDEN: &str = include_str!("../../conformance/numbers.txt");

#[test]
fn as_ecmascript_prints_them() {
    let (count, golden) = GOLDEN
        .lines()
        .next()
        .and_then(|line| line.split_once(' '))
        .unwrap();
    let mut digest = Sha256::new();
    let mut lines = Vec::new();
    let mut encoder = json::Encoder::new();
    for value in doubles::Doubles::new().take_draws(count.parse().unwrap()) {
        lines.extend_from_slice(encoder.encode(&value).unwrap());
        lines.push(b'\n');
        if lines.len() > 1 << 16 {
            digest.update(&lines);
            lines.clear();
        }
    }
    digest.update(&lines);
    let hex: String = digest
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(hex, golden);
}
