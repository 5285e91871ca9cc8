use super::{Origin, State};
use crate::fds::event::{self, Event};
use crate::fds::found::Found;

const TABLE: u64 = 0xffff_0001;
const OTHER: u64 = 0xffff_0002;

fn open(time_ns: u64, table: u64, fd: u32, file: u64) -> Event {
    let call = i32::try_from(file).expect("small");
    Event {
        fd,
        other: file,
        call,
        stack: 7,
        ..Event::new(event::OPEN, time_ns, table)
    }
}

/// By a call that took no time.
fn close(time_ns: u64, table: u64, fd: u32, last: u32) -> Event {
    Event {
        other: time_ns,
        fd,
        last,
        ..Event::new(event::CLOSE, time_ns, table)
    }
}

fn found(table: u64, tid: u32, fd: u32, file: u64) -> Found {
    Found {
        table,
        file,
        tid,
        fd,
        comm: *b"holder\0\0\0\0\0\0\0\0\0\0",
    }
}

fn call(call: i32) -> Origin {
    Origin::Call { call, stack: 7 }
}

/// What is open in the table that this process has.
fn open_in(state: &State, holder: u32) -> Vec<(u32, Origin)> {
    let mut tables = state.tables();
    let table = tables.find(|table| table.holders.contains_key(&holder));
    let open = table.into_iter().flat_map(|table| table.open());
    open.map(|(fd, opened)| (fd, opened.origin)).collect()
}

#[test]
fn what_was_opened_and_not_closed_is_open() {
    let mut state = State::default();
    for event in [
        open(1, TABLE, 3, 30),
        open(2, TABLE, 4, 40),
        open(3, TABLE, 5, 50),
        close(4, TABLE, 4, 4),
        open(5, TABLE, 4, 41),
        open(6, TABLE, 9, 90),
        close(7, TABLE, 5, u32::MAX),
        close(8, TABLE, 2, 1),
    ] {
        state.apply(&event);
    }
    assert_eq!(open_in(&state, 1), [(3, call(30)), (4, call(41))]);
}

#[test]
fn a_snapshot_decides_and_events_say_whence() {
    let mut state = State::default();
    state.apply(&open(1, TABLE, 3, 30));
    state.apply(&open(2, TABLE, 4, 40));
    state.apply(&open(3, TABLE, 5, 50));
    // 3 is still the same file, 4 another, 5 is closed without an event; 6 came from nowhere.
    let snapshot = [
        found(TABLE, 1, 3, 30),
        found(TABLE, 1, 4, 44),
        found(TABLE, 1, 6, 60),
    ];
    state.reconcile(&snapshot, 10, &[]);
    let unknown = Origin::Unknown;
    assert_eq!(
        open_in(&state, 1),
        [(3, call(30)), (4, unknown), (6, unknown)]
    );
    // An event that was late: of the file that was found, or of one before it.
    state.apply(&open(9, TABLE, 6, 60));
    state.apply(&open(9, TABLE, 4, 43));
    state.apply(&close(9, TABLE, 4, 4));
    assert_eq!(
        open_in(&state, 1),
        [(3, call(30)), (4, unknown), (6, call(60))]
    );
}

/// The number was free for a moment of which nothing was told.
#[test]
fn what_is_opened_after_a_snapshot_replaces_what_it_found() {
    let mut state = State::default();
    state.reconcile(&[found(TABLE, 1, 3, 30)], 10, &[]);
    state.apply(&open(11, TABLE, 3, 31));
    assert_eq!(open_in(&state, 1), [(3, call(31))]);
}

/// The age of a descriptor is that of its opening, not of the snapshot.
#[test]
fn a_snapshot_does_not_make_younger() {
    let mut state = State::default();
    state.apply(&open(1, TABLE, 3, 30));
    state.reconcile(&[found(TABLE, 1, 3, 30), found(TABLE, 1, 4, 40)], 10, &[]);
    state.reconcile(&[found(TABLE, 1, 3, 30), found(TABLE, 1, 4, 40)], 20, &[]);
    let table = state.tables().next().expect("there is one");
    let times: Vec<u64> = table.open().map(|(_, opened)| opened.time_ns).collect();
    assert_eq!(times, [1, 10]);
}

/// A thread gets a table of its own; what the process copies later is the process's.
#[test]
fn the_table_of_a_thread_is_not_that_of_its_process() {
    const THIRD: u64 = 0xffff_0003;
    let mut state = State::default();
    state.reconcile(&[found(TABLE, 1, 3, 30)], 1, &[]);
    state.apply(&open(2, TABLE, 4, 40));
    state.apply(&Event {
        tid: 2,
        ..Event::new(event::COPY, 3, OTHER)
    });
    state.apply(&open(4, OTHER, 4, 41));
    state.apply(&Event::new(event::EXEC, 5, THIRD));
    state.reconcile(&[found(THIRD, 1, 4, 40)], 10, &[]);
    let origin = Origin::Call {
        call: 40,
        stack: -1,
    };
    assert_eq!(open_in(&state, 1), [(4, origin)]);
}

/// The thread that closed may tell after the one that opened the same number.
#[test]
fn a_close_that_is_told_too_late_costs_nothing_in_the_end() {
    let mut state = State::default();
    state.apply(&open(1, TABLE, 3, 30));
    state.apply(&open(2, TABLE, 3, 31));
    // It began when the first was open, and ended when the second was.
    let entered = Event {
        other: 1,
        ..close(3, TABLE, 3, 3)
    };
    state.apply(&entered);
    assert_eq!(open_in(&state, 1), []);
    state.reconcile(&[found(TABLE, 1, 3, 31)], 10, &[]);
    assert_eq!(open_in(&state, 1), [(3, call(31))]);
}

/// The kernel gives the address of a closed file to the next one, which nobody tells of.
#[test]
fn what_was_closed_for_sure_explains_nothing_any_more() {
    let mut state = State::default();
    state.apply(&open(1, TABLE, 3, 30));
    state.apply(&close(2, TABLE, 3, 3));
    state.reconcile(&[found(TABLE, 1, 3, 30)], 10, &[]);
    assert_eq!(open_in(&state, 1), [(3, Origin::Unknown)]);

    // Also when it is told after the snapshot, in which case it happened before it.
    state.apply(&open(11, TABLE, 4, 40));
    let late = [close(12, TABLE, 4, 4)];
    state.reconcile(&[found(TABLE, 1, 4, 40)], 20, &late);
    assert_eq!(open_in(&state, 1), [(4, Origin::Unknown)]);
}

#[test]
fn of_two_files_at_one_address_the_later_one_is_open() {
    let mut state = State::default();
    state.apply(&open(1, TABLE, 3, 30));
    let mut again = open(11, TABLE, 3, 30);
    again.call = 31;
    state.reconcile(&[found(TABLE, 1, 3, 30)], 10, &[again]);
    assert_eq!(open_in(&state, 1), [(3, call(31))]);
}

#[test]
fn events_after_the_last_snapshot_only_explain_it() {
    let mut state = State::default();
    let later = [
        open(11, TABLE, 3, 30),
        close(12, TABLE, 3, 3),
        open(13, TABLE, 3, 31),
    ];
    state.reconcile(&[found(TABLE, 1, 3, 30)], 10, &later);
    assert_eq!(open_in(&state, 1), [(3, call(30))]);
}

#[test]
fn a_child_has_copies_and_then_its_own() {
    let mut state = State::default();
    state.apply(&open(1, TABLE, 3, 30));
    state.apply(&Event {
        other: TABLE,
        pid: 2,
        tid: 2,
        ..Event::new(event::COPY, 2, OTHER)
    });
    state.apply(&close(3, TABLE, 3, 3));
    assert_eq!(open_in(&state, 1), []);
    assert_eq!(open_in(&state, 2), [(3, call(30))]);
}

/// The program that runs now did not open what it inherited, and its addresses are others.
#[test]
fn exec_keeps_the_call_and_forgets_the_stack() {
    for table in [TABLE, OTHER] {
        let mut state = State::default();
        state.reconcile(&[found(TABLE, 1, 0, 10)], 1, &[]);
        state.apply(&open(2, TABLE, 3, 30));
        state.apply(&Event::new(event::EXEC, 3, table));
        let origin = Origin::Call {
            call: 30,
            stack: -1,
        };
        let snapshot = [found(table, 1, 0, 10), found(table, 1, 3, 30)];
        state.reconcile(&snapshot, 10, &[]);
        assert_eq!(
            open_in(&state, 1),
            [(0, Origin::Unknown), (3, origin)],
            "{table:#x}"
        );
    }
}

#[test]
fn one_table_of_two_processes_is_one() {
    let mut state = State::default();
    let snapshot = [found(TABLE, 5, 3, 30), found(TABLE, 9, 3, 30)];
    state.reconcile(&snapshot, 1, &[]);
    assert_eq!(state.tables().count(), 1);
    assert_eq!(open_in(&state, 5), open_in(&state, 9));
}
