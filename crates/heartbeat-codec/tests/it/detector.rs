//! Detectors: the formulas against exact mathematics, and behaviour on rhythms with loss and pauses.

use heartbeat_codec::detector::{FixedMisses, PhiAccrual, PhiConfig};
use proptest::prelude::*;

fn taught(config: &PhiConfig, intervals: impl IntoIterator<Item = u64>) -> PhiAccrual {
    let mut peer = PhiAccrual::new(config, 0);
    for interval in intervals {
        peer.heartbeat(config, peer.last_ms() + interval);
    }
    peer
}

#[test]
fn fixed_misses_adds_up_and_saturates() {
    let rule = FixedMisses {
        interval_ms: 10_000,
        misses: 3,
        grace_ms: 500,
    };
    assert_eq!(rule.deadline_ms(1), 30_501);
    assert_eq!(rule.deadline_ms(u64::MAX - 5), u64::MAX);
}

#[test]
fn the_document_has_the_tables_of_today() {
    let document = include_str!("../../docs/DETECTORS.md");
    let today = crate::detector_tables::all();
    for (documented, line) in document.lines().zip(today.lines()) {
        assert_eq!(documented, line);
    }
    assert_eq!(document.lines().count(), today.lines().count());
}

#[test]
fn a_peer_costs_sixteen_bytes() {
    assert_eq!(size_of::<PhiAccrual>(), 16);
}

/// Tails of the normal distribution from a table: P(Z >= 1), 2, 3, and the middle.
#[test]
fn phi_is_the_tail_of_the_normal_distribution() {
    let mut config = PhiConfig::new(1_000);
    config.std_min_ms = 100.0;
    let peer = taught(&config, [1_000; 500]);
    assert_eq!(peer.std_ms(&config), 100.0);
    for (silence_ms, tail) in [
        (1_000, 0.5),
        (1_100, 0.158_655),
        (1_200, 0.022_750),
        (1_300, 0.001_349_9),
        (900, 0.841_345),
    ] {
        let phi = f64::from(peer.phi(&config, peer.last_ms() + silence_ms));
        let approximated = 10f64.powf(-phi);
        assert!(
            (approximated - tail).abs() < 0.000_2,
            "{silence_ms}: {approximated} {tail}"
        );
    }
}

#[test]
fn pause_shifts_suspicion() {
    let plain = PhiConfig::new(1_000);
    let mut patient = plain;
    patient.pause_ms = 3_000;
    let peer = taught(&plain, [1_000; 50]);
    assert_eq!(
        peer.phi(&plain, peer.last_ms() + 1_200),
        peer.phi(&patient, peer.last_ms() + 4_200)
    );
    let difference = peer.deadline_ms(&patient) - peer.deadline_ms(&plain);
    assert_eq!(difference, 3_000);
}

#[test]
fn one_outage_does_not_blunt_the_detector() {
    let config = PhiConfig::new(1_000);
    let mut peer = taught(&config, [1_000; 200]);
    let before = peer.deadline_ms(&config) - peer.last_ms();
    peer.heartbeat(&config, peer.last_ms() + 3_600_000);
    let after = peer.deadline_ms(&config) - peer.last_ms();
    assert!(after < before + 200, "{before} {after}");
}

#[test]
fn a_peer_that_slows_down_is_understood() {
    let config = PhiConfig::new(1_000);
    let mut peer = taught(&config, [1_000; 200]);
    let mut wronged = 0;
    for _ in 0..500 {
        let next = peer.last_ms() + 5_000;
        wronged += usize::from(peer.phi(&config, next) >= config.threshold);
        peer.heartbeat(&config, next);
    }
    assert!((1..60).contains(&wronged), "{wronged}");
    assert!((peer.mean_ms() - 5_000.0).abs() < 50.0);
}

#[test]
fn beats_out_of_order_do_no_harm() {
    let config = PhiConfig::new(1_000);
    let mut peer = taught(&config, [1_000; 10]);
    let last = peer.last_ms();
    peer.heartbeat(&config, last - 700);
    assert_eq!(peer.last_ms(), last);
    assert!(peer.phi(&config, 0) < 0.5);
}

#[test]
fn an_age_of_silence_leaves_finite_estimates() {
    let mut config = PhiConfig::new(1_000);
    (config.window, config.threshold) = (2, f32::MAX);
    let mut peer = PhiAccrual::new(&config, 0);
    peer.heartbeat(&config, u64::MAX - 1_000_000);
    for _ in 0..100 {
        peer.heartbeat(&config, peer.last_ms() + 1_000);
    }
    assert!((peer.mean_ms() - 1_000.0).abs() < 1.0, "{peer:?}");
    assert_eq!(peer.std_ms(&config), 100.0);
}

#[test]
fn a_threshold_beyond_all_numbers_is_never_reached() {
    for threshold in [1e38, f32::MAX, f32::INFINITY] {
        let config = PhiConfig {
            threshold,
            ..PhiConfig::new(1_000)
        };
        let peer = taught(&config, [1_000; 20]);
        assert_eq!(peer.deadline_ms(&config), u64::MAX, "{threshold}");
    }
}

proptest! {
    #[test]
    fn suspicion_never_falls_and_the_deadline_is_where_it_crosses(
        first_ms in 1u32..100_000,
        intervals in prop::collection::vec(0u64..100_000, 0..50),
        threshold in 0.1f32..16.0,
        window in 0u16..200,
        std_min_ms in 0f32..1_000.0,
    ) {
        let config = PhiConfig { threshold, window, std_min_ms, ..PhiConfig::new(first_ms) };
        let peer = taught(&config, intervals);
        let deadline = peer.deadline_ms(&config);
        // One part in 10^4 of the silence is what f32 leaves of it.
        let slack = 1 + (deadline - peer.last_ms()) / 10_000;
        prop_assert!(peer.phi(&config, deadline + slack) >= threshold);
        if deadline > peer.last_ms() + slack {
            prop_assert!(peer.phi(&config, deadline - slack) <= threshold);
        }
        let mut before = 0.0;
        for step in 0..64u32 {
            let phi = peer.phi(&config, peer.last_ms() + (1u64 << step) - 1);
            prop_assert!(phi >= before, "{} {}", before, phi);
            before = phi;
        }
    }

    #[test]
    fn any_configuration_and_time_give_a_number(
        interval_first_ms: u32,
        window: u16,
        threshold: f32,
        std_min_ms: f32,
        pause_ms: u32,
        times: [u64; 8],
    ) {
        let config = PhiConfig { interval_first_ms, window, threshold, std_min_ms, pause_ms };
        let mut peer = PhiAccrual::new(&config, times[0]);
        for now in times {
            peer.heartbeat(&config, now);
            let phi = peer.phi(&config, now.wrapping_mul(3));
            prop_assert!(phi >= 0.0, "{} {:?}", phi, peer);
            prop_assert!(peer.deadline_ms(&config) >= peer.last_ms());
        }
    }
}
