//! Behaviour of the codec as its users see it.

mod beat;
mod detector;
mod frame;
mod vectors;
