//! Sockets: the system calls of this crate, without policy.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, Shutdown, sockopt};

use crate::Options;
use crate::platform::{set_reuseport, stream_socket};

/// The listening sockets of one address, one per shard, and the address that was bound.
pub(crate) struct Listeners {
    pub(crate) local_addr: SocketAddr,
    pub(crate) sockets: Vec<Arc<OwnedFd>>,
}

/// Binds and listens: one SO_REUSEPORT socket per shard, so that the kernel spreads connections over them; one
/// socket that all shards share where that is not supported.
pub(crate) fn listen(addr: SocketAddr, options: &Options) -> io::Result<Listeners> {
    // The first socket binds alone: with SO_REUSEPORT set, a second process would silently share the port and take
    // half of the connections instead of being told that the address is in use.
    let first = listening_socket(addr, options)?;
    net::bind(&first, &addr)?;
    let local_addr = local_addr(first.as_fd())?;
    let first = Arc::new(first);
    let sockets = match siblings(&first, local_addr, options) {
        Ok(mut more) => {
            more.insert(0, first);
            more
        }
        Err(_) => vec![first; options.shards],
    };
    let backlog = i32::try_from(options.backlog).unwrap_or(i32::MAX);
    for (index, socket) in sockets.iter().enumerate() {
        if index == 0 || !Arc::ptr_eq(socket, &sockets[0]) {
            net::listen(socket, backlog)?;
        }
    }
    Ok(Listeners {
        local_addr,
        sockets,
    })
}

/// The other shards' sockets on the address of the first.
fn siblings(first: &OwnedFd, addr: SocketAddr, options: &Options) -> io::Result<Vec<Arc<OwnedFd>>> {
    if options.shards == 1 {
        return Ok(Vec::new());
    }
    set_reuseport(first)?;
    (1..options.shards)
        .map(|_| {
            let socket = listening_socket(addr, options)?;
            set_reuseport(&socket)?;
            net::bind(&socket, &addr)?;
            Ok(Arc::new(socket))
        })
        .collect()
}

fn listening_socket(addr: SocketAddr, options: &Options) -> io::Result<OwnedFd> {
    let socket = stream_socket(family(addr))?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    // Accepted sockets inherit these from the listener on Linux: no system call per connection.
    set_stream_options(socket.as_fd(), options)?;
    Ok(socket)
}

/// NODELAY, keepalive and user timeout as the options want them.
pub(crate) fn set_stream_options(socket: BorrowedFd<'_>, options: &Options) -> io::Result<()> {
    if options.nodelay {
        sockopt::set_tcp_nodelay(socket, true)?;
    }
    if let Some(keepalive) = options.keepalive {
        sockopt::set_socket_keepalive(socket, true)?;
        #[cfg(not(target_os = "openbsd"))]
        {
            sockopt::set_tcp_keepidle(socket, Duration::from_secs(keepalive.idle_s.into()))?;
            sockopt::set_tcp_keepintvl(socket, Duration::from_secs(keepalive.interval_s.into()))?;
            sockopt::set_tcp_keepcnt(socket, keepalive.count)?;
        }
    }
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let Some(timeout_ms) = options.user_timeout_ms {
        sockopt::set_tcp_user_timeout(socket, timeout_ms)?;
    }
    Ok(())
}

fn family(addr: SocketAddr) -> AddressFamily {
    if addr.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    }
}

/// Starts a connect that ends later: the socket becomes writable, and [`connect_result`] tells how it went.
pub(crate) fn connect(
    addr: SocketAddr,
    bind: Option<SocketAddr>,
    options: &Options,
) -> io::Result<OwnedFd> {
    let socket = stream_socket(family(addr))?;
    set_stream_options(socket.as_fd(), options)?;
    if let Some(bind) = bind {
        sockopt::set_socket_reuseaddr(&socket, true)?;
        net::bind(&socket, &bind)?;
    }
    match net::connect(&socket, &addr) {
        Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => Ok(socket),
        Err(error) => Err(error.into()),
    }
}

/// `None`: the connect is still going on. `Some(Ok(peer))`: it is connected.
pub(crate) fn connect_result(socket: BorrowedFd<'_>) -> Option<io::Result<SocketAddr>> {
    match sockopt::socket_error(socket) {
        Ok(Err(error)) | Err(error) => return Some(Err(error.into())),
        Ok(Ok(())) => {}
    }
    let peer = peer_addr(socket)?;
    // Nobody listened, and the kernel had given this socket the very port that it asks for: both ends are this one.
    if local_addr(socket).is_ok_and(|own| own == peer) {
        return Some(Err(Errno::CONNREFUSED.into()));
    }
    Some(Ok(peer))
}

pub(crate) fn peer_addr(socket: BorrowedFd<'_>) -> Option<SocketAddr> {
    net::getpeername(socket)
        .ok()
        .flatten()
        .and_then(|peer| SocketAddr::try_from(peer).ok())
}

fn local_addr(socket: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    Ok(SocketAddr::try_from(net::getsockname(socket)?)?)
}

/// The error that the socket has pending, if any.
pub(crate) fn pending_error(socket: BorrowedFd<'_>) -> Option<Errno> {
    match sockopt::socket_error(socket) {
        Ok(Err(error)) | Err(error) => Some(error),
        Ok(Ok(())) => None,
    }
}

/// Reads what is there; 0 is the end of the stream.
#[inline(always)]
pub(crate) fn recv(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize, Errno> {
    loop {
        match net::recv(socket, &mut *buffer, RecvFlags::empty()) {
            Err(Errno::INTR) => {}
            Ok((count, _)) => return Ok(count),
            Err(error) => return Err(error),
        }
    }
}

/// Sends as much as the socket takes.
#[inline(always)]
pub(crate) fn send(socket: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Errno> {
    #[cfg(not(target_vendor = "apple"))]
    const FLAGS: SendFlags = SendFlags::NOSIGNAL;
    #[cfg(target_vendor = "apple")]
    const FLAGS: SendFlags = SendFlags::empty();
    loop {
        match net::send(socket, bytes, FLAGS) {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Says FIN: nothing more will be sent.
pub(crate) fn finish_sending(socket: BorrowedFd<'_>) {
    // A connection that is gone already says so on the next read.
    let _ = net::shutdown(socket, Shutdown::Write);
}

#[cfg(test)]
#[cfg(all(
    any(target_os = "linux", target_os = "android"),
    not(conn_reactor_portable)
))]
mod tests {
    use super::*;
    use crate::Keepalive;
    use crate::platform::accept;

    #[test]
    fn accepted_sockets_inherit_the_listeners_options() {
        let keepalive = Keepalive {
            idle_s: 61,
            interval_s: 11,
            count: 4,
        };
        let options = Options {
            shards: 1,
            keepalive: Some(keepalive),
            user_timeout_ms: Some(4321),
            ..Options::default()
        };
        let listening = listen(([127, 0, 0, 1], 0).into(), &options).unwrap();
        let client = std::net::TcpStream::connect(listening.local_addr).unwrap();
        let (socket, peer) = accept(listening.sockets[0].as_fd(), &options).unwrap();
        assert_eq!(peer, Some(client.local_addr().unwrap()));
        assert!(sockopt::tcp_nodelay(&socket).unwrap());
        assert!(sockopt::socket_keepalive(&socket).unwrap());
        assert_eq!(
            sockopt::tcp_keepidle(&socket).unwrap(),
            Duration::from_secs(61)
        );
        assert_eq!(
            sockopt::tcp_keepintvl(&socket).unwrap(),
            Duration::from_secs(11)
        );
        assert_eq!(sockopt::tcp_keepcnt(&socket).unwrap(), 4);
        assert_eq!(sockopt::tcp_user_timeout(&socket).unwrap(), 4321);
        assert!(
            rustix::io::fcntl_getfd(&socket)
                .unwrap()
                .contains(rustix::io::FdFlags::CLOEXEC)
        );
    }

    #[test]
    fn a_port_is_taken_once_although_the_shards_share_it() {
        let options = Options {
            shards: 3,
            ..Options::default()
        };
        let listening = listen(([127, 0, 0, 1], 0).into(), &options).unwrap();
        assert_eq!(listening.sockets.len(), 3);
        assert!(
            !Arc::ptr_eq(&listening.sockets[0], &listening.sockets[1]),
            "a socket per shard"
        );
        let again = listen(listening.local_addr, &options)
            .err()
            .expect("the port is in use");
        assert_eq!(again.kind(), io::ErrorKind::AddrInUse);
    }
}
