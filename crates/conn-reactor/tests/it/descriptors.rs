//! What a process has open, and what of it a shard holds.

use std::os::fd::AsRawFd;

use conn_reactor::descriptors::{self, Kind};

use crate::rig::{Behaviour, Rig, in_own_process, one_shard};

#[test]
fn counts_lists_and_ledger_agree() {
    in_own_process("descriptors::counts_lists_and_ledger_agree", || {
        let before = descriptors::list().unwrap();
        assert_eq!(descriptors::count().unwrap(), before.len());

        let rig = Rig::start(Behaviour::Sink, one_shard());
        let (client, _) = rig.client_and_token();
        let held = rig.on_shard(|_, io| io.descriptors());
        let open = descriptors::list().unwrap();
        // polling's own poller holds an eventfd and a timerfd besides; the client is ours.
        let polling = 2;
        assert_eq!(open.len(), before.len() + held + polling + 1);
        assert_eq!(descriptors::count().unwrap(), open.len());

        let kinds = |numbers: &[i32], wanted| {
            let of = |number: &&i32| descriptors::kind(**number).unwrap() == wanted;
            numbers.iter().filter(of).count()
        };
        assert_eq!(
            kinds(&open, Kind::Socket),
            kinds(&before, Kind::Socket) + 3,
            "a listener and both ends of a connection"
        );
        assert!(kinds(&open, Kind::Anonymous) > kinds(&before, Kind::Anonymous));
        drop(client);
        // A sender keeps its shard's eventfd open.
        drop(rig);
        assert_eq!(descriptors::list().unwrap(), before);
        let new = open.iter().find(|number| !before.contains(number));
        let gone = descriptors::kind(*new.unwrap()).unwrap_err();
        assert_eq!(gone.kind(), std::io::ErrorKind::NotFound);
    });
}

/// A table that is nearly empty is read from the directory, and is told the same.
#[test]
fn a_descriptor_far_behind_the_others_is_listed() {
    in_own_process(
        "descriptors::a_descriptor_far_behind_the_others_is_listed",
        || {
            let mut expected = descriptors::list().unwrap();
            let file = std::fs::File::open("/dev/null").unwrap();
            let far = rustix::io::fcntl_dupfd_cloexec(&file, 900).unwrap();
            expected.extend([file.as_raw_fd(), far.as_raw_fd()]);
            expected.sort_unstable();
            assert_eq!(descriptors::list().unwrap(), expected);
            assert_eq!(descriptors::count().unwrap(), expected.len());
        },
    );
}

/// Also what the README says it costs: `cargo test --release -p conn-reactor descriptors -- --nocapture`.
#[test]
fn thousands_are_counted_and_listed() {
    in_own_process("descriptors::thousands_are_counted_and_listed", || {
        let file = std::fs::File::open("/dev/null").unwrap();
        let before = descriptors::count().unwrap();
        // As many as a usual limit allows, or what the limit is.
        let mut copies: Vec<_> = (0..19_000).map_while(|_| file.try_clone().ok()).collect();
        // Room for the descriptor that the list is read through.
        copies.pop();
        let timed = |what: &str, ask: &dyn Fn() -> usize| {
            let times: Vec<_> = (0..5)
                .map(|_| {
                    let started = std::time::Instant::now();
                    std::hint::black_box(ask());
                    started.elapsed()
                })
                .collect();
            println!("{what} {} descriptors: {times:?}", ask());
        };
        timed("counting", &|| descriptors::count().unwrap());
        timed("listing", &|| descriptors::list().unwrap().len());
        timed("counting", &|| descriptors::count().unwrap());
        let count = descriptors::count().unwrap();
        let listed = descriptors::list().unwrap();
        assert_eq!(count, before + copies.len());
        assert_eq!(listed.len(), count);
        assert!(listed.is_sorted());
    });
}
