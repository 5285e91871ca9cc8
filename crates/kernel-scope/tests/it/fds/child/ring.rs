//! What the watched process does with io_uring.

use std::io;
use std::os::fd::{AsRawFd as _, RawFd};

use io_uring::{IoUring, cqueue, opcode, squeue, types};

use super::{PATH, answer, await_step};

/// Opens descriptors by a ring, in its own context and in that of the kernel's workers, and answers
/// their numbers, `none: ` and the reason where there are no rings. A step later it closes the first
/// by the ring, too, and answers its number.
pub(super) fn run() {
    await_step();
    let mut ring = match IoUring::new(8) {
        Ok(ring) => ring,
        Err(error) => return answer(&format!("none: {error}")),
    };
    let open = || opcode::OpenAt::new(types::Fd(libc::AT_FDCWD), PATH.as_ptr()).build();
    let socket = || opcode::Socket::new(libc::AF_UNIX, libc::SOCK_STREAM, 0).build();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback is up");
    let address = listener.local_addr().expect("it is bound");
    let _peer = std::net::TcpStream::connect(address).expect("somebody listens");
    let listening = types::Fd(listener.as_raw_fd());
    let accept = opcode::Accept::new(listening, std::ptr::null_mut(), std::ptr::null_mut());
    let by_worker = squeue::Flags::ASYNC;
    let made = [
        open(),
        open().flags(by_worker),
        socket(),
        socket().flags(by_worker),
        accept.build(),
    ]
    .map(|entry| finished(&mut ring, &entry));
    let numbers: Vec<String> = made.iter().map(RawFd::to_string).collect();
    answer(&numbers.join(" "));

    await_step();
    let close = opcode::Close::new(types::Fd(made[0])).build();
    assert_eq!(finished(&mut ring, &close), 0);
    answer(&made[0].to_string());
    // The ring, the listener and its peer stay open.
    await_step();
    answer("done");
}

/// Hands one entry in and returns its result, which is no error.
fn finished(ring: &mut IoUring, entry: &squeue::Entry) -> RawFd {
    // SAFETY: what the entry points to, a path in the program, lives for ever.
    unsafe { ring.submission().push(entry) }.expect("there is room");
    ring.submit_and_wait(1).expect("a ring");
    let done = ring.completion().next().as_ref().map(cqueue::Entry::result);
    let done = done.expect("it was waited for");
    assert!(done >= 0, "{}", io::Error::from_raw_os_error(-done));
    done
}
