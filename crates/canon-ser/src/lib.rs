//! One value, one byte string: canonical JSON and deterministic CBOR from any serde value
