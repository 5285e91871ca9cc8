//! What it costs to have epoll watch for something else: a system call each, against batches in a ring of io_uring's.

use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Instant;

use io_uring::{IoUring, opcode, types};
use rustix::event::epoll;

use super::Result;
use super::tables::median;

const SOCKETS: usize = 1_024;
/// Changes in one submission.
const BATCHES: [usize; 4] = [1, 16, 64, 1_024];
const PASSES: usize = 20;

/// Nanoseconds for each change. Contenders take turns in every round.
pub(crate) fn table(rounds: usize) -> Result<()> {
    println!("### A change of interest (EPOLL_CTL_MOD of one of {SOCKETS} sockets)\n");
    let watched = Watched::new()?;
    let mut ring = IoUring::new(SOCKETS as u32)?;
    let rounds = rounds * 10;
    let mut calls = Vec::new();
    let mut batched = BATCHES.map(|_| Vec::new());
    for _ in 0..rounds {
        calls.push(ns_each(|interest| watched.change_by_calls(interest))?);
        for (batch, ns) in BATCHES.into_iter().zip(&mut batched) {
            ns.push(ns_each(|interest| {
                watched.change_by_ring(&mut ring, batch, interest)
            })?);
        }
    }
    println!("| | ns | to the first |");
    println!("|---|---:|---:|");
    println!("| epoll_ctl | {:.0} | 1.00 |", median(calls.clone()));
    for (batch, ns) in BATCHES.into_iter().zip(batched) {
        let ratios = ns.iter().zip(&calls).map(|(ns, call)| ns / call).collect();
        let (ns, ratio) = (median(ns), median(ratios));
        println!("| IORING_OP_EPOLL_CTL, {batch} a submission | {ns:.0} | {ratio:.2} |");
    }
    println!();
    Ok(())
}

fn ns_each(mut change_all: impl FnMut(epoll::EventFlags) -> Result<()>) -> Result<f64> {
    let started = Instant::now();
    for pass in 0..PASSES {
        let output = [epoll::EventFlags::empty(), epoll::EventFlags::OUT][pass % 2];
        change_all(epoll::EventFlags::IN | epoll::EventFlags::ET | output)?;
    }
    Ok(started.elapsed().as_nanos() as f64 / (PASSES * SOCKETS) as f64)
}

struct Watched {
    epoll: OwnedFd,
    sockets: Vec<UdpSocket>,
}

impl Watched {
    fn new() -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let socket = |_| UdpSocket::bind("127.0.0.1:0");
        let sockets = (0..SOCKETS)
            .map(socket)
            .collect::<std::io::Result<Vec<_>>>()?;
        for (at, socket) in sockets.iter().enumerate() {
            let data = epoll::EventData::new_u64(at as u64);
            epoll::add(&epoll, socket.as_fd(), data, epoll::EventFlags::IN)?;
        }
        Ok(Self { epoll, sockets })
    }

    fn change_by_calls(&self, interest: epoll::EventFlags) -> Result<()> {
        for (at, socket) in self.sockets.iter().enumerate() {
            let data = epoll::EventData::new_u64(at as u64);
            epoll::modify(&self.epoll, socket.as_fd(), data, interest)?;
        }
        Ok(())
    }

    fn change_by_ring(
        &self,
        ring: &mut IoUring,
        batch: usize,
        interest: epoll::EventFlags,
    ) -> Result<()> {
        let epoll = types::Fd(self.epoll.as_raw_fd());
        for (chunk, sockets) in self.sockets.chunks(batch).enumerate() {
            let mut events = Vec::with_capacity(batch);
            for at in 0..sockets.len() {
                events.push(libc::epoll_event {
                    events: interest.bits(),
                    u64: (chunk * batch + at) as u64,
                });
            }
            for (socket, event) in sockets.iter().zip(&events) {
                let event = std::ptr::from_ref(event).cast();
                let fd = types::Fd(socket.as_raw_fd());
                let change = opcode::EpollCtl::new(epoll, fd, libc::EPOLL_CTL_MOD, event).build();
                // SAFETY: the descriptors and `events` live until all completions of this chunk have come, below.
                unsafe { ring.submission().push(&change)? };
            }
            ring.submit_and_wait(sockets.len())?;
            for done in ring.completion() {
                if done.result() != 0 {
                    return Err(std::io::Error::from_raw_os_error(-done.result()).into());
                }
            }
        }
        Ok(())
    }
}
