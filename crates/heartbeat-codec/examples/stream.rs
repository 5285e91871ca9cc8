//! Frames out of a byte stream that arrives in pieces, as a socket would deliver it.
//!
//! Run with `cargo run -p heartbeat-codec --example stream`.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use heartbeat_codec::beat::Beat;
use heartbeat_codec::frame::{self, Decoded, FrameError};

const BEAT: u8 = 0x03;
const BODY_BYTES_MAX: usize = 1024;

fn main() -> Result<(), FrameError> {
    let mut sent = Vec::new();
    for second in 0..3 {
        let beat = Beat {
            stamp_ms: second * 1_000,
            load_percent: Some(20),
            rtt_ms: None,
        };
        frame::encode_into(&mut sent, BEAT, &beat.encode())?;
    }

    let mut buffer = Vec::new();
    for piece in sent.chunks(5) {
        buffer.extend_from_slice(piece);
        let mut done = 0;
        loop {
            match frame::decode(&buffer[done..], BODY_BYTES_MAX)? {
                Decoded::Frame {
                    kind,
                    body,
                    consumed,
                } => {
                    println!("kind {kind}: {:?}", Beat::decode(body));
                    done += consumed;
                }
                Decoded::NeedMore { bytes_min } => {
                    let here = buffer.len() - done;
                    println!("{here} bytes here, {bytes_min} wanted");
                    break;
                }
            }
        }
        buffer.drain(..done);
    }
    Ok(())
}
