//! The context of a connection: its trace id and its deadline.

use std::collections::HashSet;
use std::io::Read;

use conn_reactor::{CloseReason, Options};

use crate::rig::{Behaviour, Rig, Seen, one_shard};

#[test]
fn each_connection_has_a_trace_id_of_its_own_for_life() {
    let options = Options {
        shards: 2,
        ..Options::default()
    };
    let rig = Rig::start(Behaviour::Echo, options);
    let clients: Vec<_> = (0..100).map(|_| rig.client()).collect();
    for _ in &clients {
        assert!(matches!(rig.next(), Seen::Opened(..)));
    }
    let ids = |shard| {
        rig.on_that_shard(shard, |_, io| {
            let ctx = |token| io.ctx(token).unwrap();
            io.tokens().into_iter().map(ctx).collect::<Vec<_>>()
        })
    };
    let all = [ids(0), ids(1)].concat();
    assert!(all.iter().all(|ctx| ctx.deadline_ms.is_none()));
    let distinct: HashSet<_> = all.iter().map(|ctx| ctx.trace_id).collect();
    assert_eq!(distinct.len(), 100);
    assert_eq!([ids(0), ids(1)].concat(), all);
    let id = all[0].trace_id;
    assert_eq!(id.to_string().len(), 32);
    assert_eq!(u128::from_str_radix(&id.to_string(), 16), Ok(id.as_u128()));
}

#[test]
fn a_slots_next_connection_has_another_trace_id() {
    let rig = Rig::start(Behaviour::Sink, one_shard());
    let (client, first) = rig.client_and_token();
    let id = rig.on_shard(move |_, io| io.ctx(first).unwrap().trace_id);
    drop(client);
    rig.until_closed(first);
    let (_client, second) = rig.client_and_token();
    assert_eq!(second.slot(), first.slot());
    let (stale, next) = rig.on_shard(move |_, io| (io.ctx(first), io.ctx(second).unwrap()));
    assert_eq!(stale, None);
    assert_ne!(next.trace_id, id);
}

#[test]
fn a_deadline_closes_and_one_taken_back_does_not() {
    let rig = Rig::start(Behaviour::Sink, one_shard());
    let (mut late, late_token) = rig.client_and_token();
    let (_spared, spared_token) = rig.client_and_token();
    let (_moved, moved_token) = rig.client_and_token();
    let deadline_ms = rig.on_shard(move |_, io| {
        let soon = io.now_ms() + 30;
        for token in [late_token, spared_token, moved_token] {
            io.set_deadline(token, Some(soon));
            assert_eq!(io.ctx(token).unwrap().deadline_ms, Some(soon));
        }
        io.set_deadline(spared_token, None);
        io.set_deadline(moved_token, Some(soon + 600_000));
        assert_eq!(io.ctx(spared_token).unwrap().deadline_ms, None);
        soon
    });
    assert_eq!(
        rig.next(),
        Seen::Closed(late_token, 1, CloseReason::DeadlinePassed)
    );
    assert_eq!(late.read(&mut [0; 9]).unwrap(), 0);
    rig.on_shard(move |_, io| {
        assert!(io.now_ms() >= deadline_ms);
        assert_eq!(io.connections(), 2);
        // A deadline that has passed already is due at once, and closes what is draining, too.
        io.close_after_flush(spared_token, CloseReason::Local(1), 600_000);
        io.set_deadline(spared_token, Some(0));
    });
    assert_eq!(
        rig.next(),
        Seen::Closed(spared_token, 2, CloseReason::DeadlinePassed)
    );
}

#[cfg(feature = "tracing")]
#[test]
fn a_span_carries_the_context() {
    use std::sync::{Arc, Mutex};

    /// Notes the fields of every span.
    #[derive(Clone, Default)]
    struct Notes(Arc<Mutex<Vec<String>>>);

    impl tracing::field::Visit for Notes {
        fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
            self.0.lock().unwrap().push(format!("{field}={value:?}"));
        }
    }

    impl tracing::Subscriber for Notes {
        fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, span: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            span.record(&mut self.clone());
            tracing::span::Id::from_u64(1)
        }
        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
        fn event(&self, _: &tracing::Event<'_>) {}
        fn enter(&self, _: &tracing::span::Id) {}
        fn exit(&self, _: &tracing::span::Id) {}
    }

    let rig = Rig::start(Behaviour::Sink, one_shard());
    let (_client, token) = rig.client_and_token();
    let ctx = rig.on_shard(move |_, io| {
        io.set_deadline(token, Some(7_000_000));
        io.ctx(token).unwrap()
    });
    let notes = Notes::default();
    tracing::subscriber::with_default(notes.clone(), || drop(ctx.span()));
    let expected = [
        format!("trace_id={}", ctx.trace_id),
        format!("token={}", token.as_u64()),
        "deadline_ms=7000000".to_owned(),
    ];
    assert_eq!(*notes.0.lock().unwrap(), expected);
}
