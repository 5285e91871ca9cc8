//! A proxy before a server that loses answers.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mood {
    Honest,
    /// The next answer, and the connection with it.
    LoseNextAnswer,
    /// Answers vanish; the connections stand.
    LoseEveryAnswer,
}

pub(super) struct Proxy {
    dir: tempfile::TempDir,
    state: Arc<State>,
}

struct State {
    mood: Mutex<Mood>,
    lost: AtomicU32,
}

impl Proxy {
    pub(super) fn start(server: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("socket")).unwrap();
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
                let state = Arc::clone(&for_thread);
                thread::spawn(move || carry(from_client, to_server, |_| true));
                thread::spawn(move || carry(upstream, client, |out| state.lets_through(out)));
            }
        });
        Self { dir, state }
    }

    pub(super) fn url(&self, query: &str) -> String {
        format!("redis+unix://{}/socket{query}", self.dir.path().display())
    }

    pub(super) fn set(&self, mood: Mood) {
        *self.state.mood.lock().unwrap() = mood;
    }

    /// Answers that were lost together with their connection.
    pub(super) fn lost(&self) -> u32 {
        self.state.lost.load(Ordering::Relaxed)
    }
}

impl State {
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
