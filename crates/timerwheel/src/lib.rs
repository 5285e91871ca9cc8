//! When does it fire? Millions of deadlines in a hierarchical timer wheel.
//!
//! [`Wheel<T>`] holds values that fall due at a tick. Insert, cancel and reschedule are O(1); nothing fires
//! early; the clock is an argument, so that every behaviour can be tested without one.
//!
//! ```
//! use timerwheel::Wheel;
//!
//! let mut wheel = Wheel::new(1_000); // the clock reads 1,000 ticks
//! let hello = wheel.insert(1_030, "hello timeout");
//! wheel.insert(1_500, "idle timeout");
//! assert_eq!(wheel.cancel(hello), Some("hello timeout"));
//!
//! assert_eq!(wheel.pop_due(1_499), None);
//! assert!(matches!(wheel.pop_due(1_500), Some((_, "idle timeout"))));
//! ```
//!
//! # How it works
//!
//! Write a deadline as eleven digits of six bits. A timer lives on the level of the highest digit in which
//! its deadline differs from the wheel's cursor, in the slot of that digit (George Varghese and Tony Lauck,
//! "Hashed and Hierarchical Timing Wheels", SOSP 1987; the difference rule makes each level hold only slots
//! ahead of the cursor, so that nothing wraps and any `u64` is a valid deadline). One bitmap per level says
//! which slots hold timers, so empty time costs nothing. When the cursor reaches a slot of a higher level, its
//! timers move to lower ones: at most ten moves in a timer's life, and each move counts against the caller's
//! budget.
//!
//! Timers are nodes of a slab, linked by index. The slab grows by chunks of 4,096: no insert ever moves
//! more than one chunk.
//!
//! # What it does not do
//!
//! It starts no thread, reads no clock and sleeps nowhere: ask [`Wheel::next_deadline`] and wait as you like.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod slab;
mod wheel;

pub use slab::Key;
pub use wheel::{Advance, Iter, Wheel};
