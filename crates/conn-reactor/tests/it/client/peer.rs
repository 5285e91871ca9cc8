//! A server that can be killed, and the clients that speak to it.
//!
//! The client greets with `H` and a token; the server welcomes with `W`, a token and the number of the last frame that
//! it has from this client; frames are a number and a value; the server acknowledges with `A` and a number. All numbers
//! are eight bytes.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

use conn_reactor::client::{
    Arrival, ClientId, ClientIo, ClientOptions, Clients, Inbound, Loss, Protocol,
};
use conn_reactor::{CloseReason, Options, Reactor, Running, Sender};

use crate::rig::{Numbers, PATIENCE, one_shard};

/// What a server remembers of a client, also when it is killed.
#[derive(Default)]
pub(super) struct Memory {
    pub(super) inbound: Inbound,
    pub(super) values: Vec<u64>,
    /// The tokens that it greeted with.
    pub(super) greetings: Vec<u64>,
    pub(super) repeats: u64,
}

/// What all servers of a test remember, by client.
#[derive(Clone, Default)]
pub(super) struct Memories(Arc<(Mutex<BTreeMap<u64, Memory>>, Condvar)>);

impl Memories {
    pub(super) fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Memory>> {
        self.0.0.lock().unwrap()
    }

    /// Waits until the servers have so many values of a client, and checks that they are 0, 1, 2 and so on.
    pub(super) fn until_received(&self, client: u64, count: u64) {
        let received = |memories: &mut BTreeMap<u64, Memory>| {
            let memory = memories.get(&client);
            memory.map_or(0, |memory| memory.values.len() as u64)
        };
        let waited = self
            .0
            .1
            .wait_timeout_while(self.lock(), PATIENCE, |memories| received(memories) < count);
        let (mut memories, _) = waited.unwrap();
        assert_eq!(received(&mut memories), count);
        let values = memories
            .get(&client)
            .map_or(&[][..], |memory| &memory.values);
        assert!(values.iter().copied().eq(0..count), "{values:?}");
    }
}

/// How long a server stays with a client.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Mood {
    Steady,
    /// Breaks each connection behind some frames, some of them not acknowledged.
    Moody,
    /// Accepts and says nothing.
    Mute,
}

pub(super) struct Server {
    pub(super) addr: SocketAddr,
    killed: Arc<AtomicBool>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
    acceptor: Option<JoinHandle<()>>,
}

impl Server {
    pub(super) fn start(mood: Mood, memories: &Memories) -> Self {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into(), mood, memories)
    }

    pub(super) fn start_at(addr: SocketAddr, mood: Mood, memories: &Memories) -> Self {
        let listener = TcpListener::bind(addr).unwrap();
        let addr = listener.local_addr().unwrap();
        let killed = Arc::new(AtomicBool::new(false));
        let streams = Arc::<Mutex<Vec<TcpStream>>>::default();
        let acceptor = {
            let (killed, streams) = (Arc::clone(&killed), Arc::clone(&streams));
            let memories = memories.clone();
            std::thread::spawn(move || {
                let mut sessions = Vec::new();
                for stream in listener.incoming() {
                    if killed.load(SeqCst) {
                        break;
                    }
                    let stream = stream.unwrap();
                    streams.lock().unwrap().push(stream.try_clone().unwrap());
                    let memories = memories.clone();
                    let number = sessions.len() as u64;
                    sessions.push(std::thread::spawn(move || {
                        // Ends with the connection, whoever ends that.
                        let _ = serve(&stream, mood, number, &memories);
                        let _ = stream.shutdown(Shutdown::Both);
                    }));
                }
                drop(listener);
                for stream in streams.lock().unwrap().drain(..) {
                    let _ = stream.shutdown(Shutdown::Both);
                }
                for session in sessions {
                    session.join().unwrap();
                }
            })
        };
        Self {
            addr,
            killed,
            streams,
            acceptor: Some(acceptor),
        }
    }

    /// Connections so far.
    pub(super) fn accepted(&self) -> usize {
        self.streams.lock().unwrap().len()
    }
}

impl Drop for Server {
    /// Closes everything; the port can be listened on again.
    fn drop(&mut self) {
        self.killed.store(true, SeqCst);
        drop(TcpStream::connect(self.addr));
        let acceptor = self.acceptor.take().expect("dropped once");
        if !std::thread::panicking() {
            acceptor.join().unwrap();
        }
    }
}

fn serve(
    mut stream: &TcpStream,
    mood: Mood,
    number: u64,
    memories: &Memories,
) -> std::io::Result<()> {
    let mut greeting = [0; 17];
    stream.read_exact(&mut greeting)?;
    if mood == Mood::Mute {
        return stream.read_exact(&mut [0; 1]);
    }
    let client = u64::from_le_bytes(greeting[1..9].try_into().unwrap());
    let token = u64::from_le_bytes(greeting[9..].try_into().unwrap());
    let through = {
        let mut memories = memories.lock();
        let memory = memories.entry(client).or_default();
        memory.greetings.push(token);
        memory.inbound.through()
    };
    let mut welcome = vec![b'W'];
    welcome.extend((token + 1).to_le_bytes());
    // A moody server does not tell, so that it gets repeats.
    let told = if mood == Mood::Moody { 0 } else { through };
    welcome.extend(told.to_le_bytes());
    stream.write_all(&welcome)?;
    let mut numbers = Numbers(number + token);
    loop {
        let mut frame = [0; 16];
        stream.read_exact(&mut frame)?;
        let number = u64::from_le_bytes(frame[..8].try_into().unwrap());
        let value = u64::from_le_bytes(frame[8..].try_into().unwrap());
        let through = {
            let mut memories = memories.lock();
            let memory = memories.entry(client).or_default();
            match memory.inbound.arrive(number) {
                Arrival::New => memory.values.push(value),
                Arrival::Repeat => memory.repeats += 1,
                Arrival::Gap => panic!("{number} behind {}", memory.inbound.through()),
            }
            memory.inbound.through()
        };
        memories.0.1.notify_all();
        if mood == Mood::Steady || numbers.below(2) == 0 {
            let mut answer = vec![b'A'];
            answer.extend(through.to_le_bytes());
            stream.write_all(&answer)?;
        }
        if mood == Mood::Moody && numbers.below(20) == 0 {
            return Ok(());
        }
    }
}

/// What the clients tell the test.
#[derive(Debug)]
pub(super) enum Told {
    Established { client: u64, endpoint: usize },
    Lost(Loss),
    Alarm,
}

pub(super) struct Talk {
    told: mpsc::Sender<Told>,
    /// Given to the next client as its name.
    pub(super) clients: u64,
}

pub(super) type Job = Box<dyn FnOnce(&mut Talk, &mut ClientIo<'_, Talk>) + Send>;

impl Talk {
    fn tell(&self, told: Told) {
        // The test may have ended.
        drop(self.told.send(told));
    }

    pub(super) fn add(&mut self, io: &mut ClientIo<'_, Self>) -> ClientId {
        self.clients += 1;
        io.add(self.clients, 0).unwrap()
    }
}

pub(super) fn say(io: &mut ClientIo<'_, Talk>, client: ClientId, value: u64) {
    io.send(client, |number, frame| {
        frame.extend(number.to_le_bytes());
        frame.extend(value.to_le_bytes());
    })
    .unwrap();
}

impl Protocol for Talk {
    type Client = u64;
    type Resume = u64;
    type Message = Job;

    fn connected(&mut self, io: &mut ClientIo<'_, Self>, client: ClientId) {
        assert!(io.is_connected(client) && !io.is_established(client));
        assert!(!io.set_alarm(client, 0), "there is no session yet");
        let mut greeting = vec![b'H'];
        greeting.extend(io.state(client).unwrap().to_le_bytes());
        greeting.extend(io.resume(client).copied().unwrap_or(0).to_le_bytes());
        io.write(client, &greeting).unwrap();
    }

    fn data(&mut self, io: &mut ClientIo<'_, Self>, client: ClientId, input: &[u8]) -> usize {
        let mut rest = input;
        loop {
            let number = |at: usize| u64::from_le_bytes(rest[at..at + 8].try_into().unwrap());
            match rest {
                [b'W', ..] if rest.len() >= 17 => {
                    io.set_resume(client, Some(number(1)));
                    io.acknowledge(client, number(9)).unwrap();
                    io.established(client);
                    let told = Told::Established {
                        client: *io.state(client).unwrap(),
                        endpoint: io.endpoint(client).unwrap(),
                    };
                    self.tell(told);
                    rest = &rest[17..];
                }
                [b'A', ..] if rest.len() >= 9 => {
                    io.acknowledge(client, number(1)).unwrap();
                    rest = &rest[9..];
                }
                [b'W' | b'A', ..] | [] => return input.len() - rest.len(),
                other => panic!("{other:?}"),
            }
        }
    }

    fn lost(&mut self, io: &mut ClientIo<'_, Self>, client: ClientId, loss: Loss) {
        assert!(!io.is_connected(client));
        self.tell(Told::Lost(loss));
    }

    fn alarm(&mut self, _: &mut ClientIo<'_, Self>, _: ClientId) {
        self.tell(Told::Alarm);
    }

    fn message(&mut self, io: &mut ClientIo<'_, Self>, job: Job) {
        job(self, io);
    }
}

/// A running shard of clients. Dropping it stops and joins the shard.
pub(super) struct Shard {
    running: Option<Running<Clients<Talk>>>,
    shard: Sender<Job>,
    told: Receiver<Told>,
}

impl Shard {
    pub(super) fn start(options: &ClientOptions) -> Self {
        Self::start_with(options, one_shard())
    }

    pub(super) fn start_with(options: &ClientOptions, reactor: Options) -> Self {
        let (told_in, told) = mpsc::channel();
        let reactor = Reactor::builder(reactor).build(|_| {
            let talk = Talk {
                told: told_in.clone(),
                clients: 0,
            };
            Clients::new(talk, options.clone())
        });
        let running = reactor.unwrap().run().unwrap();
        Self {
            shard: running.senders()[0].clone(),
            running: Some(running),
            told,
        }
    }

    /// Runs code on the shard and waits for its result.
    pub(super) fn run<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Talk, &mut ClientIo<'_, Talk>) -> R + Send + 'static,
    ) -> R {
        let (result_in, result) = mpsc::channel();
        let job = move |talk: &mut Talk, io: &mut ClientIo<'_, Talk>| {
            result_in.send(job(talk, io)).unwrap();
        };
        self.shard.try_send(Box::new(job)).unwrap();
        result.recv_timeout(PATIENCE).unwrap()
    }

    pub(super) fn next(&self) -> Told {
        self.told.recv_timeout(PATIENCE).unwrap()
    }

    /// Waits for a session; returns its endpoint.
    pub(super) fn until_established(&self) -> usize {
        loop {
            if let Told::Established { endpoint, .. } = self.next() {
                return endpoint;
            }
        }
    }

    pub(super) fn until_lost(&self) -> Loss {
        loop {
            if let Told::Lost(loss) = self.next() {
                return loss;
            }
        }
    }

    /// Waits until a shard that was told to stop has ended.
    pub(super) fn join(&mut self) {
        self.running.take().unwrap().join().unwrap();
    }
}

impl Drop for Shard {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop();
            let joined = running.join();
            if !std::thread::panicking() {
                joined.unwrap();
            }
        }
    }
}

/// Quick to come back.
pub(super) fn options(endpoints: &[SocketAddr]) -> ClientOptions {
    let mut options = ClientOptions::new(endpoints[0]);
    options.endpoints = endpoints.to_vec();
    options.reconnect.backoff.base_ms = 1;
    options.reconnect.backoff.cap_ms = 10;
    options.reconnect.backoff.first_window_ms = 10;
    options.reconnect.stable_ms = 0;
    options.reconnect.breaker = None;
    options
}

/// Hangs up on the client's side.
pub(super) fn hang_up(shard: &Shard, client: ClientId) {
    shard.run(move |_, io| io.hang_up(client, CloseReason::Local(7)));
}
