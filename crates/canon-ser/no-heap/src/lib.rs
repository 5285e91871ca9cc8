//! What canon-ser offers without a heap, linked without an allocator.

#![no_std]

use canon_ser::{Profile, cbor, json};
use serde::Serialize;

#[derive(Serialize)]
struct Reading {
    sensor: u16,
    celsius: f32,
    name: &'static str,
}

const READING: Reading = Reading {
    sensor: 7,
    celsius: 21.5,
    name: "north",
};

/// Everything that is there without the feature alloc, used once.
pub fn everything(buffer: &mut [u8]) -> Result<usize, canon_ser::Error> {
    let mut sum = 0;
    let text = json::to_slice(&READING, buffer)?;
    json::check(text)?;
    sum += text.len();
    let bytes = cbor::to_slice(&READING, buffer)?;
    cbor::check(bytes)?;
    Profile::CborLengthFirstV1.check(bytes)?;
    sum += bytes.len();
    sum += json::FixedEncoder::<64>::new()
        .encode(&READING, buffer)?
        .len();
    sum += cbor::FixedEncoder::<8>::new()
        .encode(&READING, buffer)?
        .len();
    Ok(sum)
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
