//! The system calls that make or close descriptors, by the numbers of this architecture.

/// Twin of `enum fds_call_kind` in `bpf/fds.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Returns = 1,
    Fcntl = 2,
    PairAt0 = 3,
    PairAt3 = 4,
    Signalfd = 5,
    Bpf = 6,
    Recvmsg = 7,
    Recvmmsg = 8,
    Dup2 = 9,
    Close = 10,
    CloseRange = 11,
    Unshare = 12,
}

use Kind::{
    Bpf, Close, CloseRange, Dup2, Fcntl, PairAt0, PairAt3, Recvmmsg, Recvmsg, Returns, Signalfd,
    Unshare,
};

/// Number, what it does, and its name where it makes descriptors.
const CALLS: &[(i64, Kind, &str)] = &[
    (libc::SYS_openat, Returns, "openat"),
    (libc::SYS_openat2, Returns, "openat2"),
    (libc::SYS_open_by_handle_at, Returns, "open_by_handle_at"),
    (libc::SYS_socket, Returns, "socket"),
    (libc::SYS_socketpair, PairAt3, "socketpair"),
    (libc::SYS_accept, Returns, "accept"),
    (libc::SYS_accept4, Returns, "accept4"),
    (libc::SYS_dup, Returns, "dup"),
    (libc::SYS_dup3, Dup2, "dup3"),
    (libc::SYS_fcntl, Fcntl, "fcntl"),
    (libc::SYS_pipe2, PairAt0, "pipe2"),
    (libc::SYS_eventfd2, Returns, "eventfd2"),
    (libc::SYS_epoll_create1, Returns, "epoll_create1"),
    (libc::SYS_memfd_create, Returns, "memfd_create"),
    (libc::SYS_timerfd_create, Returns, "timerfd_create"),
    (libc::SYS_signalfd4, Signalfd, "signalfd4"),
    (libc::SYS_inotify_init1, Returns, "inotify_init1"),
    (libc::SYS_fanotify_init, Returns, "fanotify_init"),
    (libc::SYS_userfaultfd, Returns, "userfaultfd"),
    (libc::SYS_perf_event_open, Returns, "perf_event_open"),
    (libc::SYS_bpf, Bpf, "bpf"),
    (libc::SYS_io_uring_setup, Returns, "io_uring_setup"),
    (libc::SYS_pidfd_open, Returns, "pidfd_open"),
    (libc::SYS_pidfd_getfd, Returns, "pidfd_getfd"),
    (libc::SYS_open_tree, Returns, "open_tree"),
    (libc::SYS_fsopen, Returns, "fsopen"),
    (libc::SYS_fspick, Returns, "fspick"),
    (libc::SYS_fsmount, Returns, "fsmount"),
    (libc::SYS_mq_open, Returns, "mq_open"),
    (libc::SYS_memfd_secret, Returns, "memfd_secret"),
    (
        libc::SYS_landlock_create_ruleset,
        Returns,
        "landlock_create_ruleset",
    ),
    (libc::SYS_recvmsg, Recvmsg, "SCM_RIGHTS"),
    (libc::SYS_recvmmsg, Recvmmsg, "SCM_RIGHTS"),
    (libc::SYS_close, Close, ""),
    (libc::SYS_close_range, CloseRange, ""),
    (libc::SYS_unshare, Unshare, ""),
];

/// Older forms that newer architectures have not.
#[cfg(target_arch = "x86_64")]
const OLD_CALLS: &[(i64, Kind, &str)] = &[
    (libc::SYS_open, Returns, "open"),
    (libc::SYS_creat, Returns, "creat"),
    (libc::SYS_dup2, Dup2, "dup2"),
    (libc::SYS_pipe, PairAt0, "pipe"),
    (libc::SYS_eventfd, Returns, "eventfd"),
    (libc::SYS_epoll_create, Returns, "epoll_create"),
    (libc::SYS_signalfd, Signalfd, "signalfd"),
    (libc::SYS_inotify_init, Returns, "inotify_init"),
];
#[cfg(not(target_arch = "x86_64"))]
const OLD_CALLS: &[(i64, Kind, &str)] = &[];

/// Calls that make descriptors in ways of their own: only `fd_install` tells of them.
const INSTALLING_CALLS: &[(i64, &str)] = &[
    (libc::SYS_ioctl, "ioctl"),
    (libc::SYS_clone, "clone"),
    (libc::SYS_clone3, "clone3"),
    (libc::SYS_io_uring_enter, "io_uring"),
    (libc::SYS_execve, "execve"),
];

/// What made a descriptor whose making was not seen.
pub(super) const UNKNOWN: &str = "unknown";

/// The knob `call_kinds` of the program.
pub(super) fn kinds<const CALLS_MAX: usize>() -> [u8; CALLS_MAX] {
    let mut kinds = [0; CALLS_MAX];
    for (number, kind, _) in CALLS.iter().chain(OLD_CALLS) {
        let slot = usize::try_from(*number)
            .ok()
            .and_then(|number| kinds.get_mut(number));
        *slot.expect("system calls are numbered below 512") = *kind as u8;
    }
    kinds
}

/// The name of what made a descriptor, by the number in an event.
pub(super) fn name(call: i32) -> &'static str {
    const IO_WORKER: i32 = -1;
    const COMPAT: i32 = -2;
    let known = CALLS.iter().chain(OLD_CALLS);
    let known = known.map(|(number, _, name)| (number, *name));
    let installing = INSTALLING_CALLS
        .iter()
        .map(|(number, name)| (number, *name));
    let found = known
        .chain(installing)
        .find(|(number, name)| **number == i64::from(call) && !name.is_empty());
    match (call, found) {
        (IO_WORKER, _) => "io_uring",
        (COMPAT, _) => "32-bit call",
        (_, Some((_, name))) => name,
        // Work that the kernel does for a task when some call of it returns: io_uring's, mostly.
        (_, None) => "deferred",
    }
}

#[cfg(test)]
mod tests {
    use super::{kinds, name};

    #[test]
    fn numbers_have_one_kind_and_one_name() {
        let kinds: [u8; 512] = kinds();
        let made = super::CALLS.len() + super::OLD_CALLS.len();
        assert_eq!(kinds.iter().filter(|kind| **kind != 0).count(), made);
        let number = |number: i64| i32::try_from(number).expect("small");
        assert_eq!(name(number(libc::SYS_openat)), "openat");
        assert_eq!(name(number(libc::SYS_recvmmsg)), "SCM_RIGHTS");
        assert_eq!(name(number(libc::SYS_read)), "deferred");
        assert_eq!(name(number(libc::SYS_close)), "deferred");
        assert_eq!((name(-1), name(-2)), ("io_uring", "32-bit call"));
    }
}
