//! A handler that reports what it sees, and a way to run code on its shard.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use conn_reactor::{
    CloseReason, Handler, Io, Opened, Options, Reactor, Running, SendError, Sender, TimerKey, Token,
};

/// Long enough that only a bug reaches it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Tokens of closed connections that a probe remembers.
const STALE_KEPT: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Behaviour {
    /// Sends everything back; reads nothing while its own queue is full.
    Echo,
    /// Sends whole frames back (one length byte, then that many), leaves incomplete ones.
    EchoFrames,
    /// Reports input and consumes it.
    Sink,
    /// Reports input and leaves all of it.
    Hold,
    /// Wants no connection.
    Refuse,
    /// Leaves all input, and asks for it again at once.
    Restless,
    /// Panics on input.
    Panic,
}

#[derive(Debug, PartialEq)]
pub(crate) enum Seen {
    Opened(Token, Opened),
    Data(Token, Vec<u8>),
    PeerFinished(Token),
    Closed(Token, u64, CloseReason),
    ConnectFailed(u64, io::ErrorKind),
    Timer(TimerKey, u64, Instant),
    Drained(Token),
}

pub(crate) struct Probe {
    pub(crate) behaviour: Behaviour,
    /// Connections so far; also the state given to the next one.
    pub(crate) opened: u64,
    /// A connection to close at the next input of any.
    pub(crate) victim: Option<Token>,
    /// Whether the next input of any pauses its connection.
    pub(crate) pause: bool,
    /// Where the next connect that fails is tried again, and from where.
    pub(crate) retry: Option<(SocketAddr, SocketAddr)>,
    /// Calls of `data` in this turn.
    presented: usize,
    /// Tokens of the connections that closed last.
    stale: VecDeque<Token>,
    /// Bytes received and sent before this turn, and most of them in one turn.
    pub(crate) moved: u64,
    pub(crate) moved_in_a_turn: u64,
    seen: mpsc::Sender<Seen>,
}

pub(crate) type Job = Box<dyn FnOnce(&mut Probe, &mut Io<Probe>) + Send>;

impl Probe {
    fn see(&self, seen: Seen) {
        // The test may have ended.
        let _ = self.seen.send(seen);
    }

    /// Does to connections that have closed what could be done to a connection.
    pub(crate) fn use_stale_tokens(&self, io: &mut Io<Self>) {
        for token in self.stale.iter().copied() {
            let written = io.write(token, b"for nobody");
            assert!(written.unwrap_err().is_stale(), "{token:?}");
            assert_eq!(io.state(token), None);
            io.pause_reading(token);
            io.resume_reading(token);
            io.set_deadline(token, Some(0));
            io.close_after_flush(token, CloseReason::Local(1), 0);
            io.close(token, CloseReason::Local(1));
        }
    }

    fn echo_frames(&self, io: &mut Io<Self>, token: Token, input: &[u8]) -> usize {
        let mut rest = input;
        while let [length, tail @ ..] = rest {
            let Some(after) = tail.get(*length as usize..) else {
                break;
            };
            io.write(token, &rest[..rest.len() - after.len()])
                .expect("the test reads its echo");
            rest = after;
        }
        input.len() - rest.len()
    }
}

impl Handler for Probe {
    type Conn = u64;
    type Timer = u64;
    type Message = Job;

    fn opened(&mut self, io: &mut Io<Self>, token: Token, opened: Opened) -> Option<u64> {
        assert_eq!(
            io.state(token),
            None,
            "the state exists only once opened has returned it"
        );
        if self.behaviour == Behaviour::Refuse {
            return None;
        }
        self.see(Seen::Opened(token, opened));
        self.opened += 1;
        Some(self.opened)
    }

    fn data(&mut self, io: &mut Io<Self>, token: Token, input: &[u8]) -> usize {
        assert!(!input.is_empty(), "nothing was presented");
        self.presented += 1;
        if let Some(victim) = self.victim.take() {
            io.close(victim, CloseReason::Local(1));
        }
        if std::mem::take(&mut self.pause) {
            io.pause_reading(token);
        }
        match self.behaviour {
            Behaviour::Echo => match io.write(token, input) {
                Ok(()) => input.len(),
                Err(error) if error.is_full() => {
                    io.pause_reading(token);
                    0
                }
                Err(_) => input.len(),
            },
            Behaviour::EchoFrames => self.echo_frames(io, token, input),
            Behaviour::Sink => {
                self.see(Seen::Data(token, input.to_vec()));
                input.len()
            }
            Behaviour::Hold => {
                self.see(Seen::Data(token, input.to_vec()));
                0
            }
            Behaviour::Restless => {
                assert!(self.presented < 1_000, "the connection keeps its shard");
                self.see(Seen::Data(token, input.to_vec()));
                io.pause_reading(token);
                io.resume_reading(token);
                0
            }
            Behaviour::Panic => panic!("told to panic"),
            Behaviour::Refuse => unreachable!("a refused connection has no input"),
        }
    }

    fn peer_finished(&mut self, _: &mut Io<Self>, token: Token) {
        self.see(Seen::PeerFinished(token));
    }

    fn closed(&mut self, io: &mut Io<Self>, token: Token, conn: u64, reason: CloseReason) {
        assert_eq!(
            io.state(token),
            None,
            "the token of a closed connection is stale"
        );
        self.stale.push_back(token);
        if self.stale.len() > STALE_KEPT {
            self.stale.pop_front();
        }
        self.see(Seen::Closed(token, conn, reason));
    }

    fn connect_failed(&mut self, io: &mut Io<Self>, tag: u64, error: io::Error) {
        if let Some((addr, bind)) = self.retry.take() {
            io.connect(addr, Some(bind), tag + 1)
                .expect("what failed has left its port");
        }
        self.see(Seen::ConnectFailed(tag, error.kind()));
    }

    fn timer(&mut self, io: &mut Io<Self>, key: TimerKey, timer: u64) {
        assert_eq!(
            io.cancel_timer(key),
            None,
            "the key of a fired timer is stale"
        );
        self.see(Seen::Timer(key, timer, Instant::now()));
    }

    fn message(&mut self, io: &mut Io<Self>, job: Job) {
        job(self, io);
    }

    fn turn_ended(&mut self, io: &mut Io<Self>) {
        self.presented = 0;
        let moved = io.stats().bytes_in + io.stats().bytes_out;
        self.moved_in_a_turn = self.moved_in_a_turn.max(moved - self.moved);
        self.moved = moved;
    }

    fn drained(&mut self, io: &mut Io<Self>, token: Token) {
        self.see(Seen::Drained(token));
        if self.behaviour == Behaviour::Echo {
            io.resume_reading(token);
        }
    }
}

/// A running reactor of probes. Dropping it stops and joins the shards.
pub(crate) struct Rig {
    pub(crate) addr: SocketAddr,
    pub(crate) running: Option<Running<Probe>>,
    pub(crate) senders: Vec<Sender<Job>>,
    seen: Receiver<Seen>,
}

pub(crate) fn one_shard() -> Options {
    Options {
        shards: 1,
        ..Options::default()
    }
}

impl Rig {
    pub(crate) fn start(behaviour: Behaviour, options: Options) -> Self {
        let (seen_in, seen) = mpsc::channel();
        let reactor = Reactor::builder(options)
            .listen((Ipv4Addr::LOCALHOST, 0).into())
            .build(|_| Probe {
                behaviour,
                opened: 0,
                victim: None,
                pause: false,
                retry: None,
                presented: 0,
                stale: VecDeque::new(),
                moved: 0,
                moved_in_a_turn: 0,
                seen: seen_in.clone(),
            })
            .expect("a free port of the loopback");
        let addr = reactor.local_addrs()[0];
        let senders = reactor.senders();
        let running = Some(reactor.run().expect("threads start"));
        Self {
            addr,
            running,
            senders,
            seen,
        }
    }

    pub(crate) fn client(&self) -> TcpStream {
        let client = TcpStream::connect(self.addr).expect("the reactor listens");
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.set_write_timeout(Some(PATIENCE)).unwrap();
        client.set_nodelay(true).unwrap();
        client
    }

    /// A client and the token that shard 0 knows it by.
    pub(crate) fn client_and_token(&self) -> (TcpStream, Token) {
        let client = self.client();
        match self.next() {
            Seen::Opened(token, opened) => {
                assert_eq!(
                    opened,
                    Opened::Accepted {
                        listener: 0,
                        peer: client.local_addr().unwrap()
                    }
                );
                (client, token)
            }
            other => panic!("expected an opened connection, saw {other:?}"),
        }
    }

    /// The next thing that a handler saw.
    pub(crate) fn next(&self) -> Seen {
        self.seen
            .recv_timeout(PATIENCE)
            .expect("the shard reports in time")
    }

    /// What handlers saw, up to the thing wanted.
    pub(crate) fn until(&self, mut wanted: impl FnMut(&Seen) -> bool) -> Seen {
        loop {
            let seen = self.next();
            if wanted(&seen) {
                return seen;
            }
        }
    }

    pub(crate) fn until_closed(&self, token: Token) -> CloseReason {
        match self.until(|seen| matches!(seen, Seen::Closed(which, ..) if *which == token)) {
            Seen::Closed(_, _, reason) => reason,
            _ => unreachable!(),
        }
    }

    /// What was seen and not asked for yet.
    pub(crate) fn seen_so_far(&self) -> Vec<Seen> {
        self.seen.try_iter().collect()
    }

    pub(crate) fn post(&self, job: impl FnOnce(&mut Probe, &mut Io<Probe>) + Send + 'static) {
        post(&self.senders[0], Box::new(job));
    }

    /// Runs code on shard 0 and waits for its result.
    pub(crate) fn on_shard<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Probe, &mut Io<Probe>) -> R + Send + 'static,
    ) -> R {
        self.on_that_shard(0, job)
    }

    /// Runs code on a shard and waits for its result.
    pub(crate) fn on_that_shard<R: Send + 'static>(
        &self,
        shard: usize,
        job: impl FnOnce(&mut Probe, &mut Io<Probe>) -> R + Send + 'static,
    ) -> R {
        let (result_in, result) = mpsc::channel();
        let job = move |probe: &mut Probe, io: &mut Io<Probe>| {
            result_in.send(job(probe, io)).unwrap();
        };
        post(&self.senders[shard], Box::new(job));
        result
            .recv_timeout(PATIENCE)
            .expect("the shard runs the job in time")
    }

    /// Stops shard 0 between two turns until the returned sender is dropped: what clients do meanwhile reaches it
    /// as one batch of events.
    pub(crate) fn hold_shard(&self) -> mpsc::Sender<()> {
        let (entered_in, entered) = mpsc::channel();
        let (release_in, release) = mpsc::channel::<()>();
        self.post(move |_, _| {
            entered_in.send(()).unwrap();
            let _ = release.recv_timeout(PATIENCE);
        });
        entered
            .recv_timeout(PATIENCE)
            .expect("the shard gets there");
        release_in
    }

    pub(crate) fn stop(&mut self) -> Vec<Probe> {
        let running = self.running.take().expect("stopped once");
        running.stop();
        running.join().expect("no shard fails")
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop();
            let joined = running.join();
            if !std::thread::panicking() {
                joined.expect("no shard fails");
            }
        }
    }
}

/// An address of the loopback that nobody listens on.
pub(crate) fn nobody() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap()
}

/// Sends a job to a shard. Its mailbox may be full of what a test sent before: then as soon as it has room.
pub(crate) fn post(shard: &Sender<Job>, mut job: Job) {
    let patience = Instant::now() + PATIENCE;
    while let Err(error) = shard.try_send(job) {
        let SendError::Full(back) = error else {
            panic!("the shard runs")
        };
        assert!(Instant::now() < patience, "the mailbox stays full");
        job = back;
        std::thread::yield_now();
    }
}

/// Runs the calling test's body alone in a process of its own: for limits and counts that belong to a process.
/// `name` is the test's path as `cargo test` prints it.
#[expect(clippy::print_stdout, reason = "the child's numbers, for --nocapture")]
pub(crate) fn in_own_process(name: &str, body: impl FnOnce()) {
    const MARK: &str = "CONN_REACTOR_TEST_CHILD";
    if std::env::var(MARK).is_ok_and(|marked| marked == name) {
        return body();
    }
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(MARK, name)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "the child says:\n{text}"
    );
    println!("{text}");
}

/// A small generator of repeatable numbers (splitmix64, Steele et al. 2014).
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}
