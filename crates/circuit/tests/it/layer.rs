//! The tower layer around real futures.

use std::future::{Future, pending};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use circuit::{BreakerLayer, CallError, Config, Outcome, State, TraceId};
use tower::{Layer, Service, service_fn};

fn now<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

fn strict() -> Config {
    let mut config = Config::essay();
    config.consecutive_failures = 1;
    config.open_ms = 0;
    config.probes_max = 1;
    config
}

#[test]
fn errors_open_and_refusals_do_not_reach_the_service() {
    let mut config = strict();
    config.open_ms = 60_000;
    config.open_max_ms = 60_000;
    let layer = BreakerLayer::new(config);
    let mut calls = 0;
    let mut service = layer.layer(service_fn(|fails: bool| {
        calls += 1;
        async move { if fails { Err("down") } else { Ok(()) } }
    }));
    assert_eq!(now(service.call(false)), Poll::Ready(Ok(())));
    assert_eq!(
        now(service.call(true)),
        Poll::Ready(Err(CallError::Failed("down")))
    );
    let refused = now(service.call(false));
    assert!(matches!(refused, Poll::Ready(Err(CallError::Rejected(_)))));
    drop(service);
    assert_eq!(calls, 2);
}

#[test]
fn a_dropped_call_gives_its_probe_back() {
    let layer = BreakerLayer::new(strict());
    layer.with_breaker(|breaker, now_ms| breaker.trip(now_ms));
    let mut service = layer.layer(service_fn(|_: ()| pending::<Result<(), ()>>()));
    for _ in 0..10 {
        let call = service.call(());
        assert!(now(call).is_pending());
    }
    let state = layer.with_breaker(|breaker, now_ms| breaker.state(now_ms));
    assert_eq!(state, State::HalfOpen);
}

#[test]
fn answers_are_classified_and_traces_found() {
    let mut config = strict();
    config.open_ms = 60_000;
    let layer = BreakerLayer::new(config)
        .classify(|answer: &Result<u16, ()>| match answer {
            Ok(status) if *status < 500 => Outcome::Success,
            _ => Outcome::Failure,
        })
        .traced(|trace: &Option<TraceId>| *trace);
    let mut service = layer.layer(service_fn(|_: Option<TraceId>| async {
        Ok::<u16, ()>(503)
    }));
    let trace = TraceId::from_bytes([7; 16]);
    assert_eq!(now(service.call(trace)), Poll::Ready(Ok(503)));
    let Poll::Ready(Err(CallError::Rejected(rejected))) = now(service.call(trace)) else {
        panic!("open");
    };
    assert_eq!(rejected.trace(), trace);
}
