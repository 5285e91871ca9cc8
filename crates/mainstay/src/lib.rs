//! One dependency for the Mainstay crates: a feature per crate
