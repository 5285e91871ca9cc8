//! What a kernel without a distribution lacks: mounts, a loopback interface, an environment, an end.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use rustix::io::Result;
use rustix::mount::{MountFlags, mount};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, SendFlags, SocketType, sendto, socket};
use rustix::system::{RebootCommand, reboot};

const MOUNTS: &[(&str, &str)] = &[
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("tmpfs", "/tmp"),
    ("tracefs", "/sys/kernel/tracing"),
    ("bpf", "/sys/fs/bpf"),
    ("cgroup2", "/sys/fs/cgroup"),
];

/// Mounts what tests look at and brings the loopback interface up. What does not work is told on the console: the tests
/// that need it will say more.
pub(crate) fn prepare() {
    for (kind, point) in MOUNTS {
        let made = fs::create_dir_all(point);
        let done = mount(
            *kind,
            *point,
            *kind,
            MountFlags::empty(),
            None::<&std::ffi::CStr>,
        );
        if let Err(error) = done {
            log(&format!(
                "guest: cannot mount {point} ({kind}): {error}, {made:?}"
            ));
        }
    }
    if let Err(error) = loopback_up() {
        log(&format!(
            "guest: the loopback interface stays down: {error}"
        ));
    }
}

/// One line on standard error, which for process 1 is the console.
pub(crate) fn log(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Ends the machine. QEMU with `-no-reboot` takes a restart for its end.
pub(crate) fn power_off() -> ! {
    let result = reboot(RebootCommand::Restart);
    // Without CAP_SYS_BOOT or outside a machine: the end of process 1 is a panic, which ends it too.
    panic!("the machine does not end: {result:?}");
}

/// `RTM_NEWLINK` with `IFF_UP` for interface 1, which is always `lo`.
fn loopback_up() -> Result<()> {
    const RTM_NEWLINK: u16 = 16;
    const NLM_F_REQUEST: u16 = 1;
    const IFF_UP: u32 = 1;
    if !Path::new("/sys/class/net/lo").exists() {
        return Ok(());
    }
    let mut message = Vec::with_capacity(32);
    // struct nlmsghdr: length, type, flags, sequence, port
    message.extend(32u32.to_ne_bytes());
    message.extend(RTM_NEWLINK.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    message.extend([0; 8]);
    // struct ifinfomsg: family and type, index, flags, which of them change
    message.extend([0; 4]);
    message.extend(1i32.to_ne_bytes());
    message.extend(IFF_UP.to_ne_bytes());
    message.extend(IFF_UP.to_ne_bytes());
    let route = socket(
        AddressFamily::NETLINK,
        SocketType::RAW,
        // NETLINK_ROUTE is protocol 0.
        None,
    )?;
    sendto(
        &route,
        &message,
        SendFlags::empty(),
        &SocketAddrNetlink::new(0, 0),
    )?;
    Ok(())
}
