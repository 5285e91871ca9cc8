//! One test binary for the crate; one module per behaviour.

mod json_values;
