//! Random sequences of beats; `cargo xtask soak beats` runs 100 million.

use heartbeat_codec::delta::{Decoded, DeltaBeat, DeltaDecoder, DeltaEncoder};
use heartbeat_codec::fixed::{self, FixedBeat};

use crate::random::Random;

const BEATS: usize = 16;

/// A sequence per seed, all of it from the seed.
fn sequence(random: &mut Random) -> (u32, [DeltaBeat; BEATS]) {
    let interval_ms = 1 << (random.below(22) as u32) | random.below(1_000) as u32;
    // How wild it is: nearly all is one byte at 0, and nearly none at 31.
    let spread = random.below(32) as u32;
    let (mut stamp_ms, mut load) = (random.next() as u32, random.below(101) as i32);
    let beats = std::array::from_fn(|_| {
        let bits = random.next();
        let off_ms = (bits as u32) & ((1u32 << spread) - 1);
        let off_ms = off_ms.wrapping_sub((1 << spread) / 2);
        stamp_ms = stamp_ms.wrapping_add(interval_ms).wrapping_add(off_ms);
        let step = match bits >> 60 {
            0 => random.below(201) as i32 - 100,
            _ => (bits >> 32) as i32 % 3,
        };
        load = (load + step).clamp(0, 100);
        DeltaBeat {
            stamp_ms,
            load_percent: (bits >> 56 & 15 > 0).then_some(load as u8),
        }
    });
    (interval_ms, beats)
}

#[test]
fn random_sequences_arrive() {
    let setting = |name: &str, default| match std::env::var(name) {
        Ok(value) => value.parse().expect("a number"),
        Err(_) => default,
    };
    let first: u64 = setting("MAINSTAY_SEED_FIRST", 0);
    let count: u64 = setting("MAINSTAY_SEQUENCES", 20_000);
    let mut sizes = [0u64; 13];
    for seed in first..first + count {
        let (interval_ms, beats) = sequence(&mut Random(seed.wrapping_mul(0x2545_f491_4f6c_dd1d)));
        let mut encoder = DeltaEncoder::new(interval_ms);
        let mut decoder = DeltaDecoder::new();
        for beat in beats {
            let wire = encoder.encode(&beat, None);
            let wire = wire.as_bytes();
            sizes[wire.len()] += 1;
            let Ok(Decoded::Beat {
                beat: read,
                consumed,
                ..
            }) = decoder.decode(wire)
            else {
                panic!("seed {seed}: refused {wire:02x?}");
            };
            assert!(
                read == beat && consumed == wire.len(),
                "seed {seed}: {read:?} for {beat:?}"
            );
            let beat = FixedBeat {
                stamp_ms: beat.stamp_ms,
                load_percent: beat.load_percent,
            };
            let consumed = fixed::FIXED_BYTES;
            assert_eq!(
                FixedBeat::decode(&beat.encode()),
                Ok(fixed::Decoded::Beat { beat, consumed })
            );
        }
    }
    println!("{count} sequences of {BEATS} beats, by size: {sizes:?}");
    for size in [1, 2, 3, 4, 12] {
        assert!(
            sizes[size] * 1_000 > count,
            "too few of {size} bytes: {sizes:?}"
        );
    }
}
