//! When and where a client tries, without sockets.

use std::net::SocketAddr;

use circuit::{Config, FailureRate, Jitter, Policy, State};
use conn_reactor::client::{Attempt, Endpoints, Prefer, Reconnect, Reconnector};

/// The largest delay that jitter can make of a pause.
const LATEST: u64 = u64::MAX;

fn addrs(count: u8) -> Vec<SocketAddr> {
    (1..=count)
        .map(|host| SocketAddr::from(([192, 0, 2, host], 7400)))
        .collect()
}

fn rules() -> Reconnect {
    Reconnect {
        backoff: Policy {
            base_ms: 100,
            cap_ms: 1_000,
            jitter: Jitter::Full,
            first_window_ms: 500,
        },
        prefer: Prefer::Last,
        stable_ms: 50,
        breaker: None,
    }
}

fn with_breaker(open_ms: u64) -> Reconnect {
    let mut breaker = Config::essay();
    breaker.failure_rate = FailureRate::Off;
    breaker.consecutive_failures = 2;
    breaker.open_ms = open_ms;
    breaker.open_max_ms = open_ms;
    breaker.probes_max = 1;
    breaker.successes_to_close = 1;
    Reconnect {
        breaker: Some(breaker),
        ..rules()
    }
}

#[test]
fn pauses_grow_and_begin_again_only_behind_a_stable_session() {
    let (addrs, mut client) = (addrs(1), Reconnector::new());
    let mut endpoints = Endpoints::new(&addrs, rules());
    let mut fail = |client: &mut Reconnector, established_for_ms: Option<u64>| {
        assert_eq!(
            client.attempt(&mut endpoints, 0, LATEST),
            Attempt::Connect(addrs[0])
        );
        if established_for_ms.is_some() {
            client.established(&mut endpoints, 0);
            assert!(client.is_established());
        }
        client.lost(&mut endpoints, established_for_ms.unwrap_or(0), LATEST)
    };
    let mut pauses: Vec<u64> = (0..3).map(|_| fail(&mut client, None)).collect();
    pauses.push(fail(&mut client, Some(49)));
    pauses.push(fail(&mut client, Some(50)));
    assert_eq!(pauses, [500, 100, 200, 400, 500]);
}

/// A session that lasted until the time that it returns.
fn stable_session(endpoints: &mut Endpoints, client: &mut Reconnector) -> u64 {
    client.attempt(endpoints, 0, 0);
    client.established(endpoints, 0);
    rules().stable_ms.into()
}

#[test]
fn a_slot_is_the_next_pause_once_and_the_last_word_holds() {
    let mut endpoints = Endpoints::new(&addrs(1), rules());
    let mut client = Reconnector::new();
    let end_ms = stable_session(&mut endpoints, &mut client);
    client.assign_slot(17_320);
    client.return_within(9_999, LATEST);
    assert_eq!(client.lost(&mut endpoints, end_ms, LATEST), 9_999);
    let second = client.lost(&mut endpoints, end_ms, LATEST);
    assert_eq!(second, 100, "no first window behind a slot");
    let end_ms = stable_session(&mut endpoints, &mut client);
    client.return_within(u32::MAX, LATEST / 2);
    let half = u64::from(u32::MAX / 2);
    assert_eq!(client.lost(&mut endpoints, end_ms, 0), half);
    let end_ms = stable_session(&mut endpoints, &mut client);
    client.return_within(9_999, LATEST);
    client.assign_slot(17_320);
    assert_eq!(client.lost(&mut endpoints, end_ms, 0), 17_320);
}

#[test]
fn an_early_slot_is_no_way_around_the_pauses_of_sessions_that_do_not_last() {
    let mut endpoints = Endpoints::new(&addrs(1), rules());
    let mut client = Reconnector::new();
    let mut lose = |slot_ms| {
        stable_session(&mut endpoints, &mut client);
        client.assign_slot(slot_ms);
        client.lost(&mut endpoints, 0, LATEST)
    };
    assert_eq!([0, 0, 0, 0].map(&mut lose), [0, 100, 200, 400]);
    assert_eq!(lose(17_320), 17_320, "a late slot holds");
}

#[test]
fn a_failure_goes_on_to_the_next_endpoint_and_a_session_chooses_the_first_or_the_last() {
    for (prefer, next) in [(Prefer::Last, 2), (Prefer::First, 0)] {
        let addrs = addrs(3);
        let mut endpoints = Endpoints::new(&addrs, Reconnect { prefer, ..rules() });
        let mut client = Reconnector::new();
        for endpoint in [0, 1, 2, 0, 1] {
            assert_eq!(
                client.attempt(&mut endpoints, 0, 0),
                Attempt::Connect(addrs[endpoint])
            );
            client.lost(&mut endpoints, 0, 0);
        }
        client.attempt(&mut endpoints, 0, 0);
        client.established(&mut endpoints, 0);
        assert_eq!(client.endpoint(), 2);
        client.lost(&mut endpoints, 50, 0);
        assert_eq!(client.endpoint(), next, "{prefer:?}");
        // A session that breaks at once is no better than none.
        client.attempt(&mut endpoints, 50, 0);
        client.established(&mut endpoints, 50);
        client.lost(&mut endpoints, 60, 0);
        assert_eq!(client.endpoint(), (next + 1) % 3, "{prefer:?}");
    }
}

#[test]
fn a_breaker_opens_for_all_clients_lets_one_probe_and_closes_with_its_welcome() {
    let addrs = addrs(1);
    let mut endpoints = Endpoints::new(&addrs, with_breaker(1_000));
    let mut clients: Vec<Reconnector> = (0..3).map(|_| Reconnector::new()).collect();
    for client in &mut clients[..2] {
        assert_eq!(
            client.attempt(&mut endpoints, 0, 0),
            Attempt::Connect(addrs[0])
        );
        client.lost(&mut endpoints, 0, 0);
    }
    assert_eq!(endpoints.breaker(0, 0), Some(State::Open));
    // Spread over the first window, as if the breaker's end were the loss.
    assert_eq!(
        clients[2].attempt(&mut endpoints, 400, 0),
        Attempt::Wait { delay_ms: 601 }
    );
    assert_eq!(
        clients[2].attempt(&mut endpoints, 400, LATEST),
        Attempt::Wait { delay_ms: 1_100 }
    );
    // Also for those whose next pause would be shorter than the window.
    assert_eq!(
        clients[0].attempt(&mut endpoints, 400, LATEST),
        Attempt::Wait { delay_ms: 1_100 }
    );
    let Attempt::Connect(_) = clients[2].attempt(&mut endpoints, 1_000, 0) else {
        panic!("a probe goes")
    };
    assert_eq!(endpoints.breaker(0, 1_000), Some(State::HalfOpen));
    assert_eq!(
        clients[0].attempt(&mut endpoints, 1_000, 0),
        Attempt::Wait { delay_ms: 1 }
    );
    clients[2].lost(&mut endpoints, 1_001, 0);
    assert_eq!(endpoints.breaker(0, 1_001), Some(State::Open));

    clients[1].attempt(&mut endpoints, 2_001, 0);
    clients[1].established(&mut endpoints, 2_002);
    assert_eq!(endpoints.breaker(0, 2_002), Some(State::Closed));
    for client in [0, 2] {
        assert_eq!(
            clients[client].attempt(&mut endpoints, 2_003, 0),
            Attempt::Connect(addrs[0])
        );
    }
}

#[test]
fn those_whose_time_comes_while_a_breaker_is_open_come_later_by_as_long_as_it_is() {
    let mut endpoints = Endpoints::new(&addrs(1), with_breaker(1_000));
    for _ in 0..2 {
        let mut client = Reconnector::new();
        client.attempt(&mut endpoints, 0, 0);
        client.lost(&mut endpoints, 0, 0);
    }
    for at_ms in [0, 300, 999] {
        let came = Reconnector::new().attempt(&mut endpoints, at_ms, 0);
        assert_eq!(came, Attempt::Wait { delay_ms: 1_001 }, "at {at_ms}");
    }
}

#[test]
fn an_open_breaker_leads_to_the_next_endpoint_at_once() {
    let addrs = addrs(2);
    let mut endpoints = Endpoints::new(&addrs, with_breaker(1_000));
    for _ in 0..2 {
        let mut client = Reconnector::new();
        client.attempt(&mut endpoints, 0, 0);
        client.lost(&mut endpoints, 0, 0);
    }
    let mut client = Reconnector::new();
    assert_eq!(
        client.attempt(&mut endpoints, 0, 0),
        Attempt::Connect(addrs[1])
    );
    assert_eq!(client.endpoint(), 1);
}

#[test]
fn an_answer_that_is_no_welcome_and_a_try_that_could_not_begin_open_no_breaker() {
    let mut endpoints = Endpoints::new(&addrs(1), with_breaker(1_000));
    let mut client = Reconnector::new();
    for _ in 0..9 {
        client.attempt(&mut endpoints, 0, 0);
        client.answered(&mut endpoints, 0);
        client.lost(&mut endpoints, 0, 0);
        client.attempt(&mut endpoints, 0, 0);
        client.not_tried(&mut endpoints, 0);
    }
    assert_eq!(endpoints.breaker(0, 0), Some(State::Closed));
    assert_eq!(
        client.lost(&mut endpoints, 0, LATEST),
        1_000,
        "the pauses grew"
    );
}

#[test]
fn a_client_is_small() {
    assert!(size_of::<Reconnector>() <= 40);
}
