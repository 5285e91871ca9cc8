//! Behaviour of the codec as its users see it.

mod beat;
mod delta;
mod detector;
mod frame;
mod vectors;
