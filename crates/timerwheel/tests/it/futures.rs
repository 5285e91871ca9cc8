//! Futures over the service, in tokio's runtime without tokio's timers.

use std::future::{pending, poll_fn, ready};
use std::time::{Duration, Instant};

use timerwheel::service::{Config, DelayQueue, Sleeps};

fn sleeps() -> Sleeps {
    let mut config = Config::default();
    config.shards = 1;
    Sleeps::start(config).expect("threads")
}

fn run<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime without timers")
        .block_on(future)
}

#[test]
fn sleeps_end_at_their_time_and_not_before() {
    let sleeps = sleeps();
    run(async {
        for delay_us in [0, 1, 100, 1_000, 5_000] {
            let start = Instant::now();
            let delay = Duration::from_micros(delay_us);
            sleeps.sleep_until(start + delay).await;
            assert!(start.elapsed() >= delay, "early");
        }
        let mut sleep = sleeps.sleep(Duration::from_secs(3_600));
        assert!(
            sleeps
                .timeout(Duration::from_millis(1), &mut sleep)
                .await
                .is_err()
        );
        sleep.reset_ns(0);
        sleep.await;
    });
}

#[test]
fn a_timeout_ends_what_takes_too_long() {
    let sleeps = sleeps();
    run(async {
        let hour = Duration::from_secs(3_600);
        assert_eq!(sleeps.timeout(hour, ready(7)).await, Ok(7));
        let late = sleeps
            .timeout(Duration::from_millis(2), pending::<()>())
            .await;
        assert!(late.expect_err("too long").to_string().contains("over"));
    });
}

#[test]
fn a_delay_queue_gives_its_values_in_time_and_in_order() {
    let sleeps = sleeps();
    run(async {
        let mut queue = DelayQueue::new(&sleeps);
        assert_eq!(poll_fn(|context| queue.poll_expired(context)).await, None);
        let start = Instant::now();
        let third = queue.insert(1, Duration::from_millis(1));
        queue.insert(2, Duration::from_millis(2));
        let gone = queue.insert(0, Duration::from_millis(2));
        assert!(queue.reset(third, Duration::from_millis(3)));
        assert_eq!(queue.remove(gone), Some(0));
        for (value, delay_ms) in [(2, 2), (1, 3)] {
            let next = poll_fn(|context| queue.poll_expired(context)).await;
            assert_eq!(next, Some(value));
            assert!(start.elapsed() >= Duration::from_millis(delay_ms), "early");
        }
        assert!(queue.is_empty());
    });
}
