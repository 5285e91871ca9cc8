//! A private redis-server with `appendfsync always`: SET NX, pipelined on one connection or from a
//! connection per thread. The protocol is spoken here, so that nothing but the server is measured.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::turns::{Contender, Key, Load, Times, VALUE, new_key, on_threads, record, times};

pub(crate) const NAME: &str = "redis, appendfsync always";

pub(crate) struct Redis {
    server: Child,
    socket: PathBuf,
}

impl Redis {
    pub(crate) fn start(dir: &Path) -> io::Result<Self> {
        std::fs::create_dir(dir)?;
        let socket = dir.join("socket");
        let server = Command::new("redis-server")
            .args(["--port", "0", "--appendonly", "yes", "--save", ""])
            .args(["--appendfsync", "always", "--unixsocket"])
            .arg(&socket)
            .arg("--dir")
            .arg(dir)
            .stdout(Stdio::null())
            .spawn()?;
        let mut redis = Self { server, socket };
        let patience = Instant::now();
        while UnixStream::connect(&redis.socket).is_err() {
            if patience.elapsed() > Duration::from_secs(10) || redis.server.try_wait()?.is_some() {
                return Err(io::Error::other("redis-server does not answer"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(redis)
    }

    fn connect(&self) -> Connection {
        Connection {
            stream: UnixStream::connect(&self.socket).expect("it answered before"),
            out: Vec::new(),
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // Nothing it holds is needed any more.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

struct Connection {
    stream: UnixStream,
    out: Vec<u8>,
}

impl Connection {
    fn queue(&mut self, key: &Key) {
        self.out.extend_from_slice(b"*4\r\n$3\r\nSET\r\n$16\r\n");
        self.out.extend_from_slice(key);
        self.out.extend_from_slice(b"\r\n$64\r\n");
        self.out.extend_from_slice(&VALUE);
        self.out.extend_from_slice(b"\r\n$2\r\nNX\r\n");
    }

    fn send(&mut self) {
        self.stream.write_all(&self.out).expect("sends");
        self.out.clear();
    }

    /// How many were set; all keys are new, so every answer is `+OK`.
    fn answers(&mut self) -> usize {
        let mut bytes = [0; 5 * 1024];
        let mut got = self.stream.read(&mut bytes).expect("answers");
        while !got.is_multiple_of(5) {
            got += self.stream.read(&mut bytes[got..]).expect("answers");
        }
        assert!(got > 0 && bytes[..got].chunks(5).all(|answer| answer == b"+OK\r\n"));
        got / 5
    }

    fn pending(&mut self, in_flight: usize, slice: Duration) -> Times {
        let mut times = times();
        let mut began = VecDeque::with_capacity(in_flight);
        let start = Instant::now();
        let mut now = start;
        while now - start < slice || !began.is_empty() {
            while began.len() < in_flight && now - start < slice {
                self.queue(&new_key());
                began.push_back(now);
            }
            self.send();
            let answers = self.answers();
            now = Instant::now();
            for began in began.drain(..answers) {
                record(&mut times, now - began);
            }
        }
        times
    }
}

impl Contender for Redis {
    fn name(&self) -> &'static str {
        NAME
    }

    fn turn(&mut self, load: Load, slice: Duration) -> Times {
        match load {
            Load::Pending(n) => self.connect().pending(n, slice),
            Load::Threads(n) => on_threads(n, slice, |key| {
                thread_local! {
                    static OWN: std::cell::RefCell<Option<Connection>> = const { std::cell::RefCell::new(None) };
                }
                OWN.with_borrow_mut(|own| {
                    let own = own.get_or_insert_with(|| self.connect());
                    own.queue(key);
                    own.send();
                    assert_eq!(own.answers(), 1);
                });
            }),
        }
    }
}
