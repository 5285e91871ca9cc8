//! One test binary for the crate; one module per behaviour.

#![expect(
    clippy::unwrap_used,
    reason = "helpers outside of test functions unwrap too"
)]

mod allocations;
mod cbor_input;
mod cbor_values;
mod digest;
mod golden_numbers;
mod json_check;
mod json_read;
mod json_text;
mod json_values;
mod long_numbers;
mod model;
mod numbers;
mod private_structs;
mod profiles;
mod rfc8785;
mod rfc8949;
mod rules;
mod semantic;
mod strict;
