//! Client-side throttling against a callee with a fixed capacity.

use circuit::Throttle;

/// A small generator, so that runs repeat (Steele et al., SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// 100 requests a second against a callee that accepts some of them each second; what went out and what was
/// accepted in the second half of 10 minutes.
fn run(k_percent: u32, accepts_each_second: u32) -> (u32, u32) {
    let mut throttle = Throttle::new(k_percent);
    let mut random = Random(7);
    let (mut out, mut accepted) = (0, 0);
    for second in 0..600u64 {
        let mut room = accepts_each_second;
        for n in 0..100 {
            let now_ms = second * 1_000 + n * 10;
            if throttle.try_call(now_ms, random.next()).is_err() {
                continue;
            }
            let served = room > 0;
            room = room.saturating_sub(1);
            throttle.record(served, now_ms);
            if second >= 300 {
                out += 1;
                accepted += u32::from(served);
            }
        }
    }
    (out, accepted)
}

#[test]
fn a_healthy_callee_gets_everything() {
    assert_eq!(run(200, 100), (30_000, 30_000));
    // Half of the requests refused is exactly what K = 2 lets be.
    assert!(run(200, 50).0 > 29_000);
}

#[test]
fn an_overloaded_callee_gets_about_k_times_what_it_accepts() {
    let (out, accepted) = run(200, 10);
    assert!(accepted > 2_900, "{accepted}");
    assert!((5_700..6_300).contains(&out), "{out}");
    let (out, accepted) = run(110, 10);
    assert!((2_700..3_400).contains(&out), "{out}");
    assert!(accepted > 2_500);
}

#[test]
fn a_dead_callee_gets_a_trickle_and_recovers() {
    let (out, _) = run(200, 0);
    assert!((1..100).contains(&out), "{out}");

    let mut throttle = Throttle::new(200);
    let mut random = Random(1);
    for n in 0..10_000 {
        let _ = throttle.try_call(n, random.next());
    }
    assert!(throttle.refusal_probability(10_000) > 0.99);
    // Two minutes later all of it is forgotten.
    assert_eq!(throttle.refusal_probability(130_001), 0.0);
}
