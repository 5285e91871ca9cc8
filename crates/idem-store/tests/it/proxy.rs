//! A proxy before a server that loses answers, or everything.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mood {
    Honest,
    /// The next answer, and the connection with it.
    LoseNextAnswer,
    /// Answers vanish; the connections stand.
    LoseEveryAnswer,
    /// Nothing arrives on either side, and nobody is told.
    Cut,
}

pub(crate) struct Proxy {
    dir: tempfile::TempDir,
    state: Arc<State>,
}

struct State {
    mood: Mutex<Mood>,
    lost: AtomicU32,
}

impl Proxy {
    pub(crate) fn start(server: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Clients of databases look for the socket by its name.
        let name = server.file_name().expect("a socket has a name");
        let listener = UnixListener::bind(dir.path().join(name)).unwrap();
        let state = Arc::new(State {
            mood: Mutex::new(Mood::Honest),
            lost: AtomicU32::new(0),
        });
        let (for_thread, server): (_, PathBuf) = (Arc::clone(&state), server.into());
        // It ends with the process; nobody connects any more when the test is over.
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(upstream) = UnixStream::connect(&server) else {
                    continue;
                };
                let (to_server, from_client) = (upstream.try_clone(), client.try_clone());
                let (Ok(to_server), Ok(from_client)) = (to_server, from_client) else {
                    continue;
                };
                let states = [0; 2].map(|_| Arc::clone(&for_thread));
                let [there, back] = states;
                thread::spawn(move || carry(from_client, to_server, |_| there.is_connected()));
                thread::spawn(move || carry(upstream, client, |out| back.lets_through(out)));
            }
        });
        Self { dir, state }
    }

    /// Where its socket is.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn set(&self, mood: Mood) {
        *self.state.mood.lock().unwrap() = mood;
    }

    /// Answers that were lost together with their connection.
    pub(crate) fn lost(&self) -> u32 {
        self.state.lost.load(Ordering::Relaxed)
    }
}

impl State {
    fn is_connected(&self) -> bool {
        *self.mood.lock().unwrap() != Mood::Cut
    }

    fn lets_through(&self, client: &UnixStream) -> bool {
        let mut mood = self.mood.lock().unwrap();
        if *mood == Mood::LoseNextAnswer {
            *mood = Mood::Honest;
            self.lost.fetch_add(1, Ordering::Relaxed);
            // The other side may be gone already.
            let _ = client.shutdown(Shutdown::Both);
            return false;
        }
        *mood == Mood::Honest
    }
}

fn carry(mut from: UnixStream, mut to: UnixStream, lets_through: impl Fn(&UnixStream) -> bool) {
    let mut bytes = [0; 16 << 10];
    loop {
        match from.read(&mut bytes) {
            Ok(got) if got > 0 => {
                if lets_through(&to) && to.write_all(&bytes[..got]).is_err() {
                    break;
                }
            }
            _ => break,
        }
    }
    // Whichever side ends, both do.
    let _ = (to.shutdown(Shutdown::Both), from.shutdown(Shutdown::Both));
}
