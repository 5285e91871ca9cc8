//! Behaviour of the wheel as its users see it.

mod basics;
mod model;
