//! Shards as tasks, and what goes in and out of them, on real sockets.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use ::tokio::io::{AsyncReadExt, AsyncWriteExt};
use ::tokio::net::TcpStream;
use ::tokio::task::{LocalSet, spawn_local, yield_now};
use conn_reactor::tokio::{Items, Outlet, outlet, run};
use conn_reactor::{
    CloseReason, Handler, Io, Opened, Options, Reactor, SendError, Sender, Shard, TimerKey, Token,
};

use crate::rig::{PATIENCE, one_shard};

/// Hands every byte out, answers with what it is sent, and pauses connections whose bytes find no room.
struct Bytes {
    out: Outlet<(Token, u8)>,
    paused: Vec<Token>,
    refused: usize,
    room: usize,
    timers: usize,
    closed: Vec<CloseReason>,
}

enum ToShard {
    Answer(Token, u8),
    Room,
    Timer(u64),
}

impl Handler for Bytes {
    type Conn = ();
    type Timer = ();
    type Message = ToShard;

    fn opened(&mut self, _: &mut Io<Self>, _: Token, _: Opened) -> Option<()> {
        Some(())
    }

    fn data(&mut self, io: &mut Io<Self>, token: Token, input: &[u8]) -> usize {
        for (place, byte) in input.iter().enumerate() {
            match self.out.try_send((token, *byte)) {
                Ok(()) => {}
                Err(SendError::Full(_)) => {
                    self.refused += 1;
                    io.pause_reading(token);
                    self.paused.push(token);
                    return place;
                }
                Err(SendError::Stopped(_)) => {
                    io.stop();
                    return place;
                }
            }
        }
        input.len()
    }

    fn closed(&mut self, _: &mut Io<Self>, _: Token, (): (), reason: CloseReason) {
        self.closed.push(reason);
    }

    fn connect_failed(&mut self, _: &mut Io<Self>, _: u64, _: std::io::Error) {}

    fn timer(&mut self, _: &mut Io<Self>, _: TimerKey, (): ()) {
        self.timers += 1;
        // Stands for a word from the timer: nobody is connected as this token.
        let sent = self.out.try_send((Token::from_u64(u64::MAX), 0));
        sent.expect("there is room");
    }

    fn message(&mut self, io: &mut Io<Self>, message: ToShard) {
        match message {
            ToShard::Answer(token, byte) => io.write(token, &[byte]).unwrap(),
            ToShard::Room => {
                self.room += 1;
                for token in self.paused.drain(..) {
                    io.resume_reading(token);
                }
            }
            ToShard::Timer(delay_ms) => {
                io.set_timer(io.deadline_after(delay_ms), ());
            }
        }
    }
}

struct Site {
    shard: Shard<Bytes>,
    sender: Sender<ToShard>,
    items: Items<(Token, u8)>,
    addr: std::net::SocketAddr,
}

fn site(options: Options, capacity: usize) -> Site {
    let (out, items) = outlet(capacity);
    let mut out = Some(out);
    let reactor = Reactor::builder(options)
        .listen(([127, 0, 0, 1], 0).into())
        .build(|_| Bytes {
            out: out.take().unwrap(),
            paused: Vec::new(),
            refused: 0,
            room: 0,
            timers: 0,
            closed: Vec::new(),
        })
        .unwrap();
    let (addr, sender) = (reactor.local_addrs()[0], reactor.senders().remove(0));
    let items = items.telling(sender.clone(), || ToShard::Room);
    let shard = reactor.into_shards().remove(0);
    Site {
        shard,
        sender,
        items,
        addr,
    }
}

/// Runs a test on one thread, and not for ever.
fn on_one_thread<T>(test: impl Future<Output = T>) -> T {
    let runtime = ::tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, async {
        ::tokio::time::timeout(PATIENCE, test).await.unwrap()
    })
}

#[test]
fn one_thread_hosts_a_shard_its_clients_and_the_code_that_answers() {
    const CLIENTS: u8 = 40;
    const BYTES: usize = 500;
    let handler = on_one_thread(async {
        // Batches of one event, so that some are left behind by every turn.
        let options = Options {
            event_batch: 1,
            ..one_shard()
        };
        let mut site = site(options, 8);
        let serving = spawn_local(run(site.shard));
        let sender = site.sender.clone();
        let answering = spawn_local(async move {
            let mut answered = 0;
            while answered < BYTES * usize::from(CLIENTS) {
                let (token, byte) = site.items.recv().await.unwrap();
                let answer = ToShard::Answer(token, byte.wrapping_add(1));
                assert!(sender.send(answer).await.is_ok());
                answered += 1;
            }
        });
        let client = |number: u8| async move {
            let mut stream = TcpStream::connect(site.addr).await.unwrap();
            for round in 0..5u8 {
                stream
                    .write_all(&[number ^ round; BYTES / 5])
                    .await
                    .unwrap();
                let mut answer = [0; BYTES / 5];
                stream.read_exact(&mut answer).await.unwrap();
                assert_eq!(answer, [(number ^ round).wrapping_add(1); BYTES / 5]);
            }
        };
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| spawn_local(client(number)))
            .collect();
        for client in clients {
            client.await.unwrap();
        }
        answering.await.unwrap();
        site.sender.stop();
        serving.await.unwrap().unwrap()
    });
    assert!(handler.refused > 0, "the outlet was full");
    assert!(handler.room > 0 && handler.paused.is_empty());
    assert_eq!(handler.closed.len(), CLIENTS.into());
}

#[test]
fn timers_fire_while_the_runtime_has_nothing_else_to_do() {
    let handler = on_one_thread(async {
        let mut site = site(one_shard(), 8);
        let serving = spawn_local(run(site.shard));
        for delay_ms in [0, 1, 20] {
            assert!(site.sender.send(ToShard::Timer(delay_ms)).await.is_ok());
            assert_eq!(site.items.recv().await.unwrap().1, 0);
        }
        site.sender.stop();
        serving.await.unwrap().unwrap()
    });
    assert_eq!(handler.timers, 3);
}

#[test]
fn a_shard_that_stops_closes_its_connections_and_ends_the_stream() {
    on_one_thread(async {
        let mut site = site(one_shard(), 8);
        let serving = spawn_local(run(site.shard));
        let mut client = TcpStream::connect(site.addr).await.unwrap();
        client.write_all(b"a").await.unwrap();
        site.items.recv().await.unwrap();
        site.sender.stop();
        let handler = serving.await.unwrap().unwrap();
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
        assert!(
            site.sender
                .send(ToShard::Room)
                .await
                .unwrap_err()
                .is_stopped()
        );
        let Bytes { out, .. } = handler;
        drop(out);
        assert_eq!(site.items.recv().await, None);
    });
}

#[test]
fn a_stream_that_is_dropped_is_told_to_the_handler() {
    on_one_thread(async {
        let site = site(one_shard(), 8);
        let serving = spawn_local(run(site.shard));
        drop(site.items);
        let mut client = TcpStream::connect(site.addr).await.unwrap();
        client.write_all(b"a").await.unwrap();
        let handler = serving.await.unwrap().unwrap();
        assert_eq!(handler.closed, [CloseReason::Shutdown]);
    });
}

#[test]
fn a_handler_that_waits_for_room_hears_that_the_stream_was_dropped() {
    on_one_thread(async {
        let site = site(one_shard(), 2);
        let serving = spawn_local(run(site.shard));
        let mut client = TcpStream::connect(site.addr).await.unwrap();
        client.write_all(b"abc").await.unwrap();
        while !format!("{:?}", site.items).contains("waiting: 2") {
            yield_now().await;
        }
        drop(site.items);
        // Its next item tells the handler, which stops then.
        let handler = serving.await.unwrap().unwrap();
        assert_eq!((handler.refused, handler.room), (1, 1));
    });
}

#[test]
fn senders_of_many_threads_wait_for_room_and_every_message_arrives_once() {
    const TASKS: u64 = 8;
    const MESSAGES: u64 = 500;
    let options = Options {
        mailbox_max: 2,
        message_batch: 1,
        ..one_shard()
    };
    let Site {
        shard,
        sender,
        mut items,
        ..
    } = site(options, 4);
    let thread = std::thread::spawn(|| shard.run_on_this_thread().unwrap().timers);
    let runtime = ::tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let tasks: Vec<_> = (0..TASKS)
            .map(|_| {
                let sender = sender.clone();
                ::tokio::spawn(async move {
                    for _ in 0..MESSAGES {
                        assert!(sender.send(ToShard::Room).await.is_ok());
                    }
                })
            })
            .collect();
        for task in tasks {
            ::tokio::time::timeout(PATIENCE, task)
                .await
                .unwrap()
                .unwrap();
        }
        assert!(sender.send(ToShard::Timer(0)).await.is_ok());
        // Behind all of them.
        ::tokio::time::timeout(PATIENCE, items.recv())
            .await
            .unwrap();
    });
    sender.stop();
    assert_eq!(thread.join().unwrap(), 1);
}

/// Counts how often a task is woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

#[test]
fn a_sender_that_gives_up_when_it_is_woken_wakes_the_next() {
    let options = Options {
        mailbox_max: 1,
        ..one_shard()
    };
    let Site { shard, sender, .. } = site(options, 4);
    assert!(sender.try_send(ToShard::Room).is_ok());
    let woken: [Arc<Woken>; 3] = Default::default();
    let wakers = woken.clone().map(Waker::from);
    let mut first = Box::pin(sender.send(ToShard::Room));
    let mut second = Box::pin(sender.send(ToShard::Room));
    let mut third = Box::pin(sender.send(ToShard::Room));
    assert!(!poll_one(&mut first, &wakers[0]));
    assert!(!poll_one(&mut second, &wakers[1]));
    assert!(!poll_one(&mut third, &wakers[2]));
    let counts = || woken.each_ref().map(|woken| woken.0.load(SeqCst));
    let mut shard = shard.into_polled().unwrap();
    shard.turn().unwrap();
    assert_eq!(counts(), [1, 0, 0], "there is room for one");
    drop(first);
    assert_eq!(counts(), [1, 1, 0]);
    assert!(poll_one(&mut second, &wakers[1]));
    drop(third);
    assert_eq!(counts(), [1, 1, 0], "no room is left");
    shard.turn().unwrap();
    let mut fourth = Box::pin(sender.send(ToShard::Room));
    assert!(poll_one(&mut fourth, &wakers[2]));
    let mut fifth = Box::pin(sender.send(ToShard::Room));
    assert!(!poll_one(&mut fifth, &wakers[2]));
    drop(shard);
    assert_eq!(
        counts(),
        [1, 1, 1],
        "those that wait hear that the shard is gone"
    );
    let mut cx = Context::from_waker(&wakers[2]);
    let Poll::Ready(Err(error)) = fifth.as_mut().poll(&mut cx) else {
        panic!("nobody will take it")
    };
    assert!(error.is_stopped());
}

fn poll_one(future: &mut std::pin::Pin<Box<impl Future>>, waker: &Waker) -> bool {
    future
        .as_mut()
        .poll(&mut Context::from_waker(waker))
        .is_ready()
}

#[test]
fn a_polled_shard_says_how_long_it_can_wait() {
    use conn_reactor::Turn;
    let Site { shard, sender, .. } = site(one_shard(), 4);
    let mut shard = shard.into_polled().unwrap();
    // The listener is looked at once.
    while shard.turn().unwrap() == Turn::Again {}
    assert_eq!(shard.turn().unwrap(), Turn::Wait(None));
    assert!(sender.try_send(ToShard::Timer(3_600_000)).is_ok());
    match shard.turn().unwrap() {
        Turn::Wait(Some(pause)) => assert!(pause > Duration::from_secs(3_000)),
        other => panic!("{other:?}"),
    }
    sender.stop();
    assert_eq!(shard.turn().unwrap(), Turn::Stopped);
    assert_eq!(shard.turn().unwrap(), Turn::Stopped);
    assert_eq!(shard.into_handler().timers, 0);
}

#[test]
fn a_turn_that_fetched_all_it_may_asks_for_another() {
    use std::io::Write;

    use conn_reactor::Turn;
    let options = Options {
        event_batch: 1,
        ..one_shard()
    };
    let Site {
        shard,
        addr,
        items: _items,
        ..
    } = site(options, 8);
    let mut shard = shard.into_polled().unwrap();
    let mut clients = [(); 2].map(|()| std::net::TcpStream::connect(addr).unwrap());
    while shard.turn().unwrap() == Turn::Again {}
    for client in &mut clients {
        client.write_all(b"a").unwrap();
    }
    // Two events wait, and the second will make no new edge.
    assert_eq!(shard.turn().unwrap(), Turn::Again);
}
