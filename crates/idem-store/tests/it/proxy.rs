//! A proxy before a server that loses answers, or everything.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mood {
    Honest,
    /// The next answer, and the connection with it.
    LoseNextAnswer,
    /// So many answers come through; the one after them is lost with its connection.
    LoseAnswerAfter(u32),
    /// So many answers come through; all after them vanish, and the connections stand.
    LoseAnswersAfter(u32),
    /// So many questions come through; the one after them is kept until [`Proxy::release`], and its client
    /// loses the connection.
    KeepQuestionAfter(u32),
    /// Nothing arrives on either side, and nobody is told.
    Cut,
}

pub(crate) struct Proxy {
    dir: tempfile::TempDir,
    state: Arc<State>,
}

struct State {
    mood: Mutex<Mood>,
    clients: Mutex<Vec<UnixStream>>,
    kept: Mutex<Option<Kept>>,
    lost: AtomicU32,
    swallowed: AtomicU32,
}

/// A question that is still under way when its client has given it up.
struct Kept {
    question: Vec<u8>,
    server: UnixStream,
    /// Ends after the answer.
    answers: JoinHandle<()>,
}

impl Proxy {
    pub(crate) fn start(server: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Clients of databases look for the socket by its name.
        let name = server.file_name().expect("a socket has a name");
        let listener = UnixListener::bind(dir.path().join(name)).unwrap();
        let state = Arc::new(State {
            mood: Mutex::new(Mood::Honest),
            clients: Mutex::new(Vec::new()),
            kept: Mutex::new(None),
            lost: AtomicU32::new(0),
            swallowed: AtomicU32::new(0),
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
                let kept = client.try_clone().unwrap();
                for_thread.clients.lock().unwrap().push(kept);
                let states = [0; 2].map(|_| Arc::clone(&for_thread));
                let [there, back] = states;
                let answers = thread::spawn(move || back.carry_answers(upstream, client));
                thread::spawn(move || there.carry_questions(from_client, to_server, answers));
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

    /// Ends the connections that stand.
    pub(crate) fn disconnect(&self) {
        for client in self.state.clients.lock().unwrap().drain(..) {
            // It may have ended by itself.
            let _ = client.shutdown(Shutdown::Both);
        }
    }

    /// Answers that were lost together with their connection.
    pub(crate) fn lost(&self) -> u32 {
        self.state.lost.load(Ordering::Relaxed)
    }

    /// Questions that did not arrive, of which nobody was told.
    pub(crate) fn swallowed(&self) -> u32 {
        self.state.swallowed.load(Ordering::Relaxed)
    }

    /// Lets the server have the question that was kept, if one was, and waits for its answer.
    pub(crate) fn release(&self) {
        if let Some(mut kept) = self.state.kept.lock().unwrap().take() {
            kept.server.write_all(&kept.question).unwrap();
            kept.answers.join().unwrap();
        }
    }
}

impl State {
    fn carry_questions(
        &self,
        mut client: UnixStream,
        mut server: UnixStream,
        answers: JoinHandle<()>,
    ) {
        let mut bytes = [0; 16 << 10];
        while let Ok(got @ 1..) = client.read(&mut bytes) {
            let mood = self.next(|mood| match *mood {
                Mood::KeepQuestionAfter(0) => *mood = Mood::Honest,
                Mood::KeepQuestionAfter(ref mut after) => *after -= 1,
                _ => {}
            });
            if mood == Mood::KeepQuestionAfter(0) {
                // The other side may be gone already.
                let _ = client.shutdown(Shutdown::Both);
                let question = bytes[..got].to_vec();
                let kept = Kept {
                    question,
                    server,
                    answers,
                };
                *self.kept.lock().unwrap() = Some(kept);
                return;
            }
            if mood == Mood::Cut {
                self.swallowed.fetch_add(1, Ordering::Relaxed);
            } else if server.write_all(&bytes[..got]).is_err() {
                break;
            }
        }
        end(&server, &client);
    }

    fn carry_answers(&self, mut server: UnixStream, mut client: UnixStream) {
        let mut bytes = [0; 16 << 10];
        while let Ok(got @ 1..) = server.read(&mut bytes) {
            let mood = self.next(|mood| match *mood {
                Mood::LoseNextAnswer | Mood::LoseAnswerAfter(0) => *mood = Mood::Honest,
                Mood::LoseAnswerAfter(ref mut after) => *after -= 1,
                Mood::LoseAnswersAfter(ref mut after) => *after = after.saturating_sub(1),
                _ => {}
            });
            match mood {
                Mood::LoseNextAnswer | Mood::LoseAnswerAfter(0) => {
                    self.lost.fetch_add(1, Ordering::Relaxed);
                    break;
                }
                Mood::Cut | Mood::LoseAnswersAfter(0) => {}
                _ => {
                    if client.write_all(&bytes[..got]).is_err() {
                        break;
                    }
                }
            }
        }
        end(&server, &client);
    }

    /// The mood that counts for what was just read, and what it becomes.
    fn next(&self, change: impl FnOnce(&mut Mood)) -> Mood {
        let mut mood = self.mood.lock().unwrap();
        let now = *mood;
        change(&mut mood);
        now
    }
}

/// Whichever side ends, both do.
fn end(one: &UnixStream, other: &UnixStream) {
    // They may be gone already.
    let _ = (one.shutdown(Shutdown::Both), other.shutdown(Shutdown::Both));
}
