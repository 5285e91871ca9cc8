//! Delta beats: what is sent is what arrives, in few bytes, and nonsense is refused.

use heartbeat_codec::delta::{
    DELTA_BYTES_MAX, Decoded, DeltaBeat, DeltaDecoder, DeltaEncoder, INTERVAL_MS_MAX, Resync,
};
use proptest::prelude::*;

use crate::random::Random;

fn decode_all(mut rest: &[u8]) -> Vec<DeltaBeat> {
    let mut decoder = DeltaDecoder::new();
    let mut beats = Vec::new();
    while !rest.is_empty() {
        let decoded = decoder.decode(rest).expect("a valid stream");
        let Decoded::Beat { beat, consumed, .. } = decoded else {
            panic!("cut short");
        };
        beats.push(beat);
        rest = &rest[consumed..];
    }
    beats
}

/// Beats of a timer on a grid, or of one that sleeps after each beat; the load walks by at most 2.
fn beats(seed: u64, sigma_ms: f64, grid: bool) -> Vec<DeltaBeat> {
    let mut random = Random(seed);
    let (mut last_ms, mut load) = (u32::MAX - 1_000_000, 50i32);
    let start_ms = last_ms;
    (1..=1_000u32)
        .map(|n| {
            let jitter_ms = (sigma_ms * random.normal()).round() as i32;
            let base_ms = if grid {
                start_ms.wrapping_add((n - 1) * 30_000)
            } else {
                last_ms
            };
            last_ms = base_ms.wrapping_add(30_000).wrapping_add_signed(jitter_ms);
            load = (load + (random.next() % 5) as i32 - 2).clamp(0, 100);
            DeltaBeat {
                stamp_ms: last_ms,
                load_percent: Some(load as u8),
            }
        })
        .collect()
}

/// Bytes per beat, and the share of beats in one byte, after the first.
fn cost(sigma_ms: f64, grid: bool) -> (f64, f64) {
    let (mut bytes, mut single, mut all) = (0, 0, 0);
    for seed in 0..20 {
        let beats = beats(seed, sigma_ms, grid);
        let mut encoder = DeltaEncoder::new(30_000);
        let mut wire = Vec::new();
        for (at, beat) in beats.iter().enumerate() {
            let encoded = encoder.encode(beat, None);
            wire.extend_from_slice(encoded.as_bytes());
            if at > 0 {
                bytes += encoded.as_bytes().len();
                single += usize::from(encoded.as_bytes().len() == 1);
                all += 1;
            }
        }
        assert_eq!(decode_all(&wire), beats);
    }
    (bytes as f64 / all as f64, single as f64 / all as f64)
}

#[test]
fn nearly_all_beats_with_usual_jitter_take_one_byte() {
    for (sigma_ms, grid, bytes_max, single_min) in [
        (1.0, true, 1.002, 0.998),
        (5.0, true, 1.035, 0.96),
        (5.0, false, 1.035, 0.96),
        (50.0, true, 1.9, 0.0),
        (50.0, false, 1.9, 0.0),
    ] {
        let (bytes, single) = cost(sigma_ms, grid);
        println!(
            "sigma {sigma_ms} grid {grid}: {bytes:.3} bytes, {:.1}% in one",
            100.0 * single
        );
        assert!(
            bytes <= bytes_max && single >= single_min,
            "{sigma_ms} {grid}: {bytes} {single}"
        );
    }
}

#[test]
fn the_forms_end_where_they_should() {
    let sizes = |offs_ms: &[i32], change: i32| -> Vec<usize> {
        let size = |off_ms: &i32| {
            let mut encoder = DeltaEncoder::new(100_000);
            let first = DeltaBeat {
                stamp_ms: 0,
                load_percent: Some(50),
            };
            assert_eq!(encoder.encode(&first, None).as_bytes().len(), 12);
            let beat = DeltaBeat {
                stamp_ms: 100_000u32.wrapping_add_signed(*off_ms),
                load_percent: Some((50 + change) as u8),
            };
            encoder.encode(&beat, None).as_bytes().len()
        };
        offs_ms.iter().map(size).collect()
    };
    let edges = [
        0, 11, -11, 12, 115, -115, 116, 1_559, -1_559, 1_560, 82_239, -82_239, 82_240,
    ];
    assert_eq!(sizes(&edges, 2), [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 12]);
    assert_eq!(sizes(&[0], 3), [2]);
    assert_eq!(sizes(&[0], -5), [2]);
    assert_eq!(sizes(&[0], 6), [3]);
    assert_eq!(sizes(&[0], -10), [3]);
    assert_eq!(sizes(&[0], 11), [4]);
}

#[test]
fn a_resync_says_everything() {
    let mut encoder = DeltaEncoder::new(30_000);
    let beat = DeltaBeat {
        stamp_ms: 7,
        load_percent: None,
    };
    let wire = encoder.encode(&beat, Some(65_535));
    let decoded = DeltaDecoder::new().decode(wire.as_bytes());
    let resync = Resync {
        interval_ms: 30_000,
        rtt_ms: Some(65_534),
    };
    assert_eq!(
        decoded,
        Ok(Decoded::Beat {
            beat,
            resync: Some(resync),
            consumed: DELTA_BYTES_MAX
        })
    );
}

#[test]
fn nonsense_is_refused_and_changes_nothing() {
    let mut encoder = DeltaEncoder::new(1_000);
    let beat = DeltaBeat {
        stamp_ms: 0,
        load_percent: Some(100),
    };
    let resync = encoder.encode(&beat, None);
    let mut decoder = DeltaDecoder::new();
    assert!(
        decoder
            .decode(&[0x80])
            .expect_err("no resync")
            .is_out_of_sync()
    );
    assert!(
        decoder
            .decode(&[0x03, 0x07])
            .expect_err("a frame")
            .is_not_a_beat()
    );
    decoder.decode(resync.as_bytes()).expect("valid");
    // One more than full load; symbols that no pair has; forms that are too long.
    let centre_1 = 0x80 + 11 * 5 + 2;
    assert!(decoder.decode(&[centre_1 + 1]).is_err());
    assert!(decoder.decode(&[0xfc, 0xff]).is_err());
    assert!(decoder.decode(&[0xfd, 0xff, 0xff]).is_err());
    assert!(decoder.decode(&[0xfe, 0xff, 0xff, 0xff]).is_err());
    let centre_2 = 115 * 11 + 5;
    let two = [0xf3 + (centre_2 >> 8) as u8, centre_2 as u8];
    assert!(
        decoder
            .decode(&two)
            .expect_err("too long")
            .is_not_shortest()
    );
    let centre_4 = (82_239u32 * 102 + 100).to_le_bytes();
    let four = [0xfe, centre_4[0], centre_4[1], centre_4[2]];
    assert!(
        decoder
            .decode(&four)
            .expect_err("too long")
            .is_not_shortest()
    );
    assert_eq!(
        decoder.decode(&[0xfe]),
        Ok(Decoded::NeedMore { bytes_min: 4 })
    );
    assert_eq!(decoder.decode(&[]), Ok(Decoded::NeedMore { bytes_min: 1 }));
    let mut bad = resync.as_bytes().to_vec();
    bad[9] = 101;
    assert!(decoder.decode(&bad).is_err());
    bad[9] = 100;
    bad[5..9].copy_from_slice(&(INTERVAL_MS_MAX + 1).to_le_bytes());
    assert!(decoder.decode(&bad).is_err());
    // After all that it still knows where it was.
    let next = DeltaBeat {
        stamp_ms: 1_004,
        load_percent: Some(99),
    };
    let wire = encoder.encode(&next, None);
    assert!(
        matches!(decoder.decode(wire.as_bytes()), Ok(Decoded::Beat { beat, .. }) if beat == next)
    );
}

fn any_beat() -> impl Strategy<Value = (i64, Option<u8>)> {
    let step_ms = prop_oneof![
        8 => 900i64..1_100,
        2 => 0i64..4_000,
        1 => 0i64..200_000,
        1 => 0i64..i64::from(u32::MAX),
    ];
    let load = prop_oneof![6 => (45u8..55).prop_map(Some), 1 => (0u8..=100).prop_map(Some), 1 => Just(None)];
    (step_ms, load)
}

proptest! {
    #[test]
    fn what_is_sent_arrives(
        interval_ms in prop_oneof![Just(1_000u32), 0u32..=u32::MAX],
        steps in prop::collection::vec(any_beat(), 1..200),
    ) {
        let mut encoder = DeltaEncoder::new(interval_ms);
        let mut now_ms = 0u32;
        let (mut wire, mut sent) = (Vec::new(), Vec::new());
        for (at, (step_ms, load_percent)) in steps.into_iter().enumerate() {
            now_ms = now_ms.wrapping_add(step_ms as u32);
            if at % 50 == 49 {
                encoder.resync(interval_ms / 2);
            }
            let beat = DeltaBeat { stamp_ms: now_ms, load_percent };
            wire.extend_from_slice(encoder.encode(&beat, None).as_bytes());
            sent.push(beat);
        }
        prop_assert_eq!(decode_all(&wire), sent);
    }

    /// Whatever is accepted is what an encoder would have sent: there is one spelling.
    #[test]
    fn what_is_accepted_would_have_been_sent(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let mut encoder = DeltaEncoder::new(1_000);
        let first = DeltaBeat { stamp_ms: 0, load_percent: Some(50) };
        let mut decoder = DeltaDecoder::new();
        decoder.decode(encoder.encode(&first, None).as_bytes()).expect("valid");
        let mut rest = &bytes[..];
        while let Ok(Decoded::Beat { beat, resync, consumed }) = decoder.decode(rest) {
            if let Some(resync) = resync {
                encoder.resync(resync.interval_ms);
            }
            let encoded = encoder.encode(&beat, resync.and_then(|resync| resync.rtt_ms));
            prop_assert_eq!(encoded.as_bytes(), &rest[..consumed]);
            rest = &rest[consumed..];
        }
    }
}
