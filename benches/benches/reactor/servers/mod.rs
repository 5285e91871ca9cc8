//! The same echo server five times, each as its library's documentation would have it when CPU time and memory count.
//!
//! What belongs to the sockets is equal: NODELAY on the listener, which accepted sockets inherit; a backlog of 4,096;
//! a read of less than the buffer is the last one where the library says when it is not.

mod floor;
mod on_mio;
mod on_smol;
mod on_tokio;
mod ours;

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use rustix::net::{AddressFamily, SocketType, bind, listen, socket, sockopt};

use super::Result;

/// A contender: its name, and what serves.
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    serve: fn() -> Result<()>,
}

/// The floor comes first: ratios are to it.
pub(crate) const CONTENDERS: [Contender; 5] = [
    Contender {
        name: "epoll",
        about: "raw epoll, edge-triggered",
        serve: floor::serve,
    },
    Contender {
        name: "conn-reactor",
        about: "conn-reactor",
        serve: ours::serve,
    },
    Contender {
        name: "mio",
        about: "mio",
        serve: on_mio::serve,
    },
    Contender {
        name: "tokio",
        about: "tokio, current_thread",
        serve: on_tokio::serve,
    },
    Contender {
        name: "smol",
        about: "smol",
        serve: on_smol::serve,
    },
];

/// Bytes read at once.
const BUFFER: usize = 64 * 1024;

/// Serves until the parent process ends this one's input.
pub(crate) fn run(name: &str) -> Result<()> {
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    let contender = CONTENDERS.iter().find(|contender| contender.name == name);
    (contender.ok_or("no such server")?.serve)()
}

/// A listener on a free port, for the libraries that do not make their own.
fn listener() -> Result<TcpListener> {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    listen(&socket, 4096)?;
    let listener = TcpListener::from(socket);
    listener.set_nonblocking(true)?;
    announce(listener.local_addr()?);
    Ok(listener)
}

/// Tells the parent process where this one listens.
fn announce(addr: SocketAddr) {
    println!("{addr}");
}
