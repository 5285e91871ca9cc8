//! A database server of the tests' own: private directory, private socket, gone with them.

use std::hash::{DefaultHasher, Hash, Hasher};
#[cfg(feature = "mysql")]
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
#[cfg(feature = "mysql")]
use std::process::ChildStdout;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Only a server that does not start takes so long.
const PATIENCE: Duration = Duration::from_secs(20);

/// How a database is run.
pub(crate) struct Kind {
    /// The user that it runs as when the tests run as root.
    pub(crate) user: &'static str,
    /// What ends it at once, without leaving anything outside of its directory.
    pub(crate) end: (&'static str, Signal),
    /// Prints its version.
    pub(crate) version: fn() -> Command,
    /// Makes the data directory, called in it.
    pub(crate) install: fn(&Path) -> Command,
    /// The server itself, in the foreground.
    pub(crate) serve: fn(&Path) -> Command,
    /// Whether it answers.
    pub(crate) is_ready: fn(&Path) -> Command,
    /// A shell of SQL that reads a statement from its last argument.
    pub(crate) shell: fn(&Path) -> Command,
    pub(crate) url: fn(&Path, &str) -> String,
    /// The name of its socket.
    pub(crate) socket: &'static str,
    pub(crate) template: OnceLock<PathBuf>,
    pub(crate) shared: OnceLock<Arc<Server>>,
}

pub(crate) struct Server {
    kind: &'static Kind,
    dir: tempfile::TempDir,
    /// What follows the arguments of its kind.
    settings: Vec<String>,
    child: Mutex<Child>,
}

impl Server {
    /// The one of all tests that leave it alone. It ends with the process.
    pub(crate) fn shared(kind: &'static Kind) -> Arc<Self> {
        let server = kind.shared.get_or_init(|| {
            let server = Self::start(kind);
            remove_after_this_process(server.dir.path());
            Arc::new(server)
        });
        Arc::clone(server)
    }

    /// One of the caller's own.
    pub(crate) fn start(kind: &'static Kind) -> Self {
        Self::start_with(kind, |_| Vec::new())
    }

    /// `prepare` is given the server's directory and says what it is started with.
    pub(crate) fn start_with(
        kind: &'static Kind,
        prepare: impl FnOnce(&Path) -> Vec<String>,
    ) -> Self {
        let dir = directory();
        give_to(dir.path(), kind.user);
        let template = kind.template.get_or_init(|| template(kind));
        copy(template, &dir.path().join("data"));
        let settings = prepare(dir.path());
        let child = Mutex::new(serve(kind, dir.path(), &settings));
        let server = Self {
            kind,
            dir,
            settings,
            child,
        };
        server.wait_until_ready(&mut server.lock());
        server
    }

    pub(crate) fn url(&self, query: &str) -> String {
        self.url_in(self.dir.path(), query)
    }

    /// Of the socket in `dir`.
    pub(crate) fn url_in(&self, dir: &Path, query: &str) -> String {
        (self.kind.url)(dir, query)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join(self.kind.socket)
    }

    /// As a power cut that the disk survives: what was synced is there again.
    pub(crate) fn kill_and_restart(&self) {
        self.without(|| ());
    }

    /// Dead until the guard gets another child.
    fn kill(&self) -> MutexGuard<'_, Child> {
        let mut child = self.lock();
        // PostgreSQL's processes would serve one more operation before they notice that the first one is
        // gone. Stopped, it makes no more of them.
        kill_process(Pid::from_child(&child), Signal::STOP).unwrap();
        let id = child.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        for id in children.split_whitespace() {
            let id = Pid::from_raw(id.parse().unwrap()).unwrap();
            // It has ended by itself otherwise.
            let _ = kill_process(id, Signal::KILL);
        }
        child
    }

    /// Also after a test that failed: the others go on.
    fn lock(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Dead while the closure runs.
    pub(crate) fn without<T>(&self, run: impl FnOnce() -> T) -> T {
        let mut child = self.kill();
        let result = run();
        *child = serve(self.kind, self.dir.path(), &self.settings);
        self.wait_until_ready(&mut child);
        result
    }

    /// Runs SQL in the database's own shell.
    pub(crate) fn sql(&self, statement: &str) -> String {
        let output = (self.kind.shell)(self.dir.path()).arg(statement).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{statement}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn wait_until_ready(&self, child: &mut Child) {
        let started = Instant::now();
        let is_ready = || {
            let mut asked = (self.kind.is_ready)(self.dir.path());
            let asked = asked.stdout(Stdio::null()).stderr(Stdio::null()).status();
            asked.is_ok_and(|status| status.success())
        };
        while !is_ready() {
            assert!(started.elapsed() < PATIENCE, "the server does not start");
            if child.try_wait().unwrap().is_some() {
                // PostgreSQL does not start while a process of the killed server still lives.
                *child = serve(self.kind, self.dir.path(), &self.settings);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let child = self.child.get_mut();
        let child = child.unwrap_or_else(PoisonError::into_inner);
        // It may have been killed already.
        let _ = kill_process(Pid::from_child(child), self.kind.end.1);
        let _ = child.wait();
    }
}

/// A new directory, in memory if there is plenty: what a server has written is there again after
/// `kill -9` either way, and PostgreSQL syncs every file before it recovers, which takes disks seconds.
fn directory() -> tempfile::TempDir {
    const MEMORY: &str = "/dev/shm";
    const PLENTY: u64 = 1 << 30;
    let free = rustix::fs::statvfs(MEMORY).map_or(0, |found| found.f_bavail * found.f_frsize);
    let made = (free >= PLENTY).then(|| tempfile::tempdir_in(MEMORY));
    made.unwrap_or_else(tempfile::tempdir).unwrap()
}

/// A data directory that was installed once, under the build directory, and is copied from then on:
/// installing takes seconds.
fn template(kind: &Kind) -> PathBuf {
    let dir = tempfile::tempdir().unwrap();
    let version = (kind.version)().output();
    let version = version.expect("the database is installed (cargo xtask test does it)");
    let install = (kind.install)(Path::new("."));
    let mut hash = DefaultHasher::new();
    (version.stdout, format!("{install:?}")).hash(&mut hash);
    let templates = Path::new(env!("CARGO_TARGET_TMPDIR")).join("databases");
    let uid = rustix::process::geteuid().as_raw();
    let made = templates.join(format!("{}-{uid}-{:016x}", kind.user, hash.finish()));
    if made.exists() {
        return made;
    }
    give_to(dir.path(), kind.user);
    let installed = as_user(kind, (kind.install)(dir.path())).output().unwrap();
    assert!(installed.status.success(), "{installed:?}");
    // Another process may do the same at this time: one of them takes the name.
    std::fs::create_dir_all(&templates).unwrap();
    let mine = tempfile::tempdir_in(&templates).unwrap();
    copy(&dir.path().join("data"), &mine.path().join("data"));
    let renamed = std::fs::rename(mine.path().join("data"), &made);
    assert!(renamed.is_ok() || made.exists(), "{renamed:?}");
    made
}

/// A directory with everything in it, owners and rights as they are.
fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(copied.unwrap().success());
}

/// Nothing that is dropped ends a server that lives as long as its process.
fn remove_after_this_process(dir: &Path) {
    // `read` ends when this process, the only one that could write, is gone; the server, which dies
    // then too, may still be writing.
    const REMOVE: &str = "trap '' HUP INT TERM; read -r _; \
                          for _ in 1 2 3 4 5; do rm -rf \"$0\" && exit; sleep 1; done";
    let mut command = Command::new("sh");
    command.args(["-c", REMOVE]).arg(dir).stdin(Stdio::piped());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    // Not waited for, and its input never closed.
    std::mem::forget(command.spawn().unwrap());
}

/// Starts the server so that it dies with this process. The kernel takes the death of the starting
/// thread for that of the parent, so one thread starts them all and never ends.
fn serve(kind: &Kind, dir: &Path, settings: &[String]) -> Child {
    type Order = (Command, mpsc::Sender<std::io::Result<Child>>);
    static STARTER: Mutex<Option<mpsc::Sender<Order>>> = Mutex::new(None);
    let mut command = as_user(kind, (kind.serve)(dir));
    command.args(settings);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let (reply, replied) = mpsc::channel();
    let mut starter = STARTER.lock().unwrap();
    let orders = starter.get_or_insert_with(|| {
        let (sender, orders) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, reply) in orders {
                drop(reply.send(command.spawn()));
            }
        });
        sender
    });
    orders.send((command, reply)).unwrap();
    replied.recv().unwrap().expect("setpriv is there")
}

/// The command under `setpriv`: as the database's user if we are root, and mortal.
fn as_user(kind: &Kind, inner: Command) -> Command {
    let mut command = Command::new("setpriv");
    if is_root() {
        let (uid, gid) = ids(kind.user);
        command
            .arg(format!("--reuid={uid}"))
            .arg(format!("--regid={gid}"))
            .arg("--clear-groups");
    }
    command
        .args(["--pdeathsig", kind.end.0])
        .arg(inner.get_program())
        .args(inner.get_args());
    command.current_dir(inner.get_current_dir().expect("each has one"));
    command
}

pub(crate) fn give_to(dir: &Path, user: &str) {
    if is_root() {
        let (uid, gid) = ids(user);
        std::os::unix::fs::chown(dir, Some(uid), Some(gid)).unwrap();
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// User and group of a name.
fn ids(user: &str) -> (u32, u32) {
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    let found = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let is_it = fields.next() == Some(user);
        let ids = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
        is_it.then_some(ids)
    });
    found.unwrap_or_else(|| panic!("there is no user {user}: install the database"))
}

/// A program by name, or where Debian keeps it.
fn program(name: &str, places: &[&str]) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|dir| dir.join(name));
    let elsewhere = places.iter().flat_map(|place| {
        // PLACE/VERSION/bin/NAME, the newest last.
        let mut versions: Vec<_> = std::fs::read_dir(place)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path().join("bin").join(name))
            .collect();
        versions.sort();
        versions.into_iter().rev()
    });
    let sbin = ["/usr/sbin", "/sbin"].map(|dir| Path::new(dir).join(name));
    let found = elsewhere
        .chain(on_path)
        .chain(sbin)
        .find(|file| file.is_file());
    found.unwrap_or_else(|| name.into())
}

#[cfg(feature = "postgres")]
const POSTGRES_PLACES: &[&str] = &["/usr/lib/postgresql"];

#[cfg(feature = "postgres")]
pub(crate) static POSTGRES: Kind = Kind {
    user: "postgres",
    // An immediate shutdown: killed, it would leave a segment of shared memory.
    end: ("QUIT", Signal::QUIT),
    version: || {
        let mut command = Command::new(program("postgres", POSTGRES_PLACES));
        command.arg("--version");
        command
    },
    install: |dir| {
        let mut command = Command::new(program("initdb", POSTGRES_PLACES));
        command
            .args(["--auth=trust", "--username=mainstay", "--no-sync"])
            .args(["--encoding=UTF8", "--locale=C", "--wal-segsize=1"])
            .arg("--pgdata=data")
            .current_dir(dir);
        command
    },
    serve: |dir| {
        let mut command = Command::new(program("postgres", POSTGRES_PLACES));
        command
            .args(["-D", "data", "-c", "listen_addresses="])
            .arg("-c")
            .arg(format!("unix_socket_directories={}", dir.display()))
            .args(["-c", "max_connections=300", "-c", "shared_buffers=64MB"])
            .args(["-c", "restart_after_crash=off"])
            // In its directory, so that a killed server leaves nothing in /dev/shm.
            .args(["-c", "dynamic_shared_memory_type=mmap"])
            .current_dir(dir);
        command
    },
    is_ready: |dir| {
        let mut command = Command::new(program("pg_isready", POSTGRES_PLACES));
        command.args(["--host"]).arg(dir);
        command
    },
    shell: |dir| {
        let mut command = Command::new(program("psql", POSTGRES_PLACES));
        command
            .args(["--username=mainstay", "--dbname=postgres", "--host"])
            .arg(dir)
            .args(["--no-align", "--tuples-only", "--quiet", "--command"]);
        command
    },
    url: |dir: &Path, query| {
        let dir = dir.display();
        format!("postgres:///postgres?user=mainstay&host={dir}&{query}")
    },
    socket: ".s.PGSQL.5432",
    template: OnceLock::new(),
    shared: OnceLock::new(),
};

/// A small log: a server is copied with it.
#[cfg(feature = "mysql")]
const MARIADB_LOG: &str = "--innodb-log-file-size=8M";

#[cfg(feature = "mysql")]
pub(crate) static MARIADB: Kind = Kind {
    user: "mysql",
    end: ("KILL", Signal::KILL),
    version: || {
        let mut command = Command::new(program("mariadbd", &[]));
        command.args(["--no-defaults", "--version"]);
        command
    },
    install: |dir| {
        let mut command = Command::new(program("mariadb-install-db", &[]));
        command
            .args(["--no-defaults", "--auth-root-authentication-method=normal"])
            .args(["--skip-test-db", "--skip-name-resolve"])
            .arg(MARIADB_LOG)
            .arg(format!("--datadir={}/data", dir.display()))
            // Two at once in one directory remove each other's temporary tables.
            .arg(format!("--tmpdir={}", dir.display()))
            .current_dir(dir);
        command
    },
    serve: |dir| {
        let mut command = Command::new(program("mariadbd", &[]));
        command
            .args(["--no-defaults", "--skip-networking", "--skip-name-resolve"])
            .args(["--max-connections=300", "--innodb-buffer-pool-size=64M"])
            .args([MARIADB_LOG, "--skip-log-bin"])
            .arg(format!("--datadir={}/data", dir.display()))
            .arg(format!("--tmpdir={}", dir.display()))
            .arg(format!("--socket={}/socket", dir.display()))
            .arg(format!("--pid-file={}/pid", dir.display()))
            .current_dir(dir);
        command
    },
    is_ready: |dir| {
        let mut command = mariadb(dir);
        command.args(["--execute", "CREATE DATABASE IF NOT EXISTS mainstay"]);
        command
    },
    shell: |dir| {
        let mut command = mariadb(dir);
        command.arg("--database=mainstay").arg("--execute");
        command
    },
    url: |dir: &Path, query| {
        let dir = dir.display();
        format!("mysql://root@localhost/mainstay?socket={dir}/socket&{query}")
    },
    socket: "socket",
    template: OnceLock::new(),
    shared: OnceLock::new(),
};

/// A session of MariaDB's own shell that stays open.
#[cfg(feature = "mysql")]
pub(crate) struct Session {
    child: Child,
    answers: BufReader<ChildStdout>,
}

#[cfg(feature = "mysql")]
impl Session {
    pub(crate) fn on(server: &Server) -> Self {
        let mut command = mariadb(server.dir.path());
        command
            .args(["--database=mainstay", "--unbuffered"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Self { child, answers }
    }

    /// Waits until the statements are done.
    pub(crate) fn run(&mut self, statements: &str) {
        let input = self.child.stdin.as_mut().unwrap();
        writeln!(input, "{statements}; SELECT 'it is done';").unwrap();
        let mut line = String::new();
        while line.trim() != "it is done" {
            line.clear();
            let got = self.answers.read_line(&mut line).unwrap();
            assert!(got > 0, "{statements} failed");
        }
    }
}

#[cfg(feature = "mysql")]
impl Drop for Session {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(feature = "mysql")]
fn mariadb(dir: &Path) -> Command {
    let mut command = Command::new(program("mariadb", &[]));
    command
        .args([
            "--no-defaults",
            "--user=root",
            "--batch",
            "--skip-column-names",
        ])
        .arg(format!("--socket={}/socket", dir.display()));
    command
}
