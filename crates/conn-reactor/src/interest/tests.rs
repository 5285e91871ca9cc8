//! The merge against a model of epoll that sees each change at once, and the same against the kernel.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const DESCRIPTORS: usize = 4;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Add, modify or delete, whichever it is for the descriptor as it stands.
    Want(usize, Option<Interest>),
    /// The descriptor is closed, and its number goes to another file at once.
    Recycle(usize),
    /// The turn is over: the kernel is told.
    Tell,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let interest = prop_oneof![
        2 => Just(Some(Interest::Both)),
        2 => Just(Some(Interest::Output)),
        1 => Just(None),
    ];
    let step = prop_oneof![
        5 => (0..DESCRIPTORS, interest).prop_map(|(which, wanted)| Step::Want(which, wanted)),
        1 => (0..DESCRIPTORS).prop_map(Step::Recycle),
        1 => Just(Step::Tell),
    ];
    prop::collection::vec(step, 0..120)
}

/// An interest list as epoll keeps it: refuses what epoll refuses.
#[derive(Clone, Debug, Default, PartialEq)]
struct Epoll(BTreeMap<usize, Interest>);

impl Epoll {
    fn change(&mut self, which: usize, change: Change) -> Result<(), &'static str> {
        let listed = self.0.contains_key(&which);
        match change {
            Change::Add(_) if listed => return Err("EEXIST"),
            Change::Modify(_) | Change::Delete if !listed => return Err("ENOENT"),
            Change::Add(interest) | Change::Modify(interest) => self.0.insert(which, interest),
            Change::Delete => self.0.remove(&which),
        };
        Ok(())
    }
}

proptest! {
    /// Whatever is asked for in a turn, the kernel ends up where it would be if it had seen every change, is told at
    /// most one thing per descriptor, nothing that it has, and nothing that it refuses.
    #[test]
    fn merged_changes_come_to_what_all_of_them_come_to(steps in steps()) {
        let mut watches = [Watch::default(); DESCRIPTORS];
        let (mut at_once, mut merged) = (Epoll::default(), Epoll::default());
        for step in steps.into_iter().chain([Step::Tell]) {
            match step {
                Step::Want(which, wanted) => {
                    watches[which] = watches[which].want(wanted);
                    let change = match (at_once.0.contains_key(&which), wanted) {
                        (false, Some(interest)) => Change::Add(interest),
                        (true, Some(interest)) => Change::Modify(interest),
                        (true, None) => Change::Delete,
                        (false, None) => continue,
                    };
                    prop_assert_eq!(at_once.change(which, change), Ok(()));
                }
                Step::Recycle(which) => {
                    watches[which] = Watch::default();
                    // The close takes it off both lists: that is never put off.
                    at_once.0.remove(&which);
                    merged.0.remove(&which);
                }
                Step::Tell => {
                    for (which, watch) in watches.iter_mut().enumerate() {
                        let before = merged.clone();
                        if let Some(change) = watch.change() {
                            prop_assert_eq!(merged.change(which, change), Ok(()));
                            prop_assert_ne!(&merged, &before, "told what it has");
                        }
                        *watch = watch.told();
                        prop_assert_eq!(watch.change(), None);
                    }
                    prop_assert_eq!(&merged, &at_once);
                }
            }
        }
    }
}

#[test]
fn the_table_of_merges() {
    let (both, output) = (Some(Interest::Both), Some(Interest::Output));
    let nothing = Watch::default();
    let has = |interest| Watch::new(interest, interest);
    let rows = [
        (
            nothing.want(both).want(output),
            Some(Change::Add(Interest::Output)),
        ),
        (nothing.want(both).want(None), None),
        (has(both).want(output).want(both), None),
        (
            has(output).want(output).want(both),
            Some(Change::Modify(Interest::Both)),
        ),
        (has(both).want(None), Some(Change::Delete)),
        (
            has(both).want(None).want(output),
            Some(Change::Modify(Interest::Output)),
        ),
        (has(both).want(None).want(both), None),
    ];
    for (row, (watch, change)) in rows.into_iter().enumerate() {
        assert_eq!(watch.change(), change, "row {row}");
    }
}

#[cfg(all(
    any(target_os = "linux", target_os = "android"),
    not(conn_reactor_portable)
))]
mod kernel {
    use std::os::fd::{AsFd, AsRawFd, OwnedFd};
    use std::sync::Arc;

    use rustix::event::{EventfdFlags, eventfd};

    use super::*;
    use crate::Token;
    use crate::platform::Registry;

    fn some_file() -> OwnedFd {
        eventfd(0, EventfdFlags::CLOEXEC).unwrap()
    }

    /// What the kernel says that it watches of `files`, by index.
    fn listed(poller: &polling::Poller, files: &[OwnedFd]) -> BTreeMap<usize, u32> {
        let number = poller.as_fd().as_raw_fd();
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap();
        let lines = info.lines().filter_map(|line| {
            let mut words = line.strip_prefix("tfd:")?.split_whitespace();
            let number: i32 = words.next()?.parse().unwrap();
            let events = u32::from_str_radix(words.nth(1)?, 16).unwrap();
            let which = files.iter().position(|file| file.as_raw_fd() == number)?;
            Some((which, events))
        });
        lines.collect()
    }

    proptest! {
        /// The kernel takes each change that comes out of a merge, and has what was asked for last: also when a
        /// descriptor's number went to another file meanwhile.
        #[test]
        fn the_kernel_takes_what_the_merge_says(steps in steps()) {
            let poller = Arc::new(polling::Poller::new().unwrap());
            let registry = Registry::new(Arc::clone(&poller), 1);
            let mut files: Vec<_> = (0..DESCRIPTORS).map(|_| some_file()).collect();
            let mut watches = [Watch::default(); DESCRIPTORS];
            for step in steps.into_iter().chain([Step::Tell]) {
                match step {
                    Step::Want(which, wanted) => watches[which] = watches[which].want(wanted),
                    Step::Recycle(which) => {
                        // Closes the old file and gives its number to the new one.
                        rustix::io::dup2(some_file(), &mut files[which]).unwrap();
                        watches[which] = Watch::default();
                    }
                    Step::Tell => {
                        for (which, watch) in watches.iter_mut().enumerate() {
                            if let Some(change) = watch.change() {
                                let token = Token::new(which as u32, 0);
                                registry.change(files[which].as_fd(), token, change).unwrap();
                            }
                            *watch = watch.told();
                        }
                        let listed = listed(&poller, &files);
                        for (which, watch) in watches.iter().enumerate() {
                            let input = listed.get(&which).map(|events| events & 1 != 0);
                            let wanted = watch.wanted().map(|wanted| wanted == Interest::Both);
                            prop_assert_eq!(input, wanted, "descriptor {}", which);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_recycled_number_must_be_added_afresh() {
        let poller = Arc::new(polling::Poller::new().unwrap());
        let registry = Registry::new(poller, 1);
        let mut file = some_file();
        let token = Token::new(0, 0);
        let modify = Change::Modify(Interest::Output);
        registry
            .change(file.as_fd(), token, Change::Add(Interest::Both))
            .unwrap();
        registry.change(file.as_fd(), token, modify).unwrap();
        rustix::io::dup2(some_file(), &mut file).unwrap();
        let refused = registry.change(file.as_fd(), token, modify).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::NotFound);
        registry
            .change(file.as_fd(), token, Change::Add(Interest::Output))
            .unwrap();
    }
}
