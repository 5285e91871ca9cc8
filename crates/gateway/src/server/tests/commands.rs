//! Results, refusals and retries that meet.

use super::*;

#[test]
fn a_late_refusal_of_an_older_session_does_not_free_a_key_that_is_being_executed() {
    let rig = Rig::new();
    let mut first = RawDevice::connect(&rig, None);
    let (table, device) = (
        &rig.shared().table,
        rig.shared().directory.get("a").unwrap(),
    );
    let task = rig.submit("key");
    let id = first.command();
    let first_epoch = rig.epoch();
    let mut second = RawDevice::connect(&rig, Some(first.token));
    assert_eq!(second.command(), id, "the same device gets it again");
    // What the device said on its first connection is read only now.
    table.deliver(id, &device, first_epoch, ResultStatus::Refused, b"");
    second.result(id, b"1");
    assert!(matches!(rig.answer(task), Answer::Done(outcome) if outcome == json(b"1")));
    assert_eq!(second.acknowledged(), id);
}

#[test]
fn a_refusal_frees_the_key_once_it_is_the_last_word() {
    let rig = Rig::new();
    let mut device = RawDevice::connect(&rig, None);
    let task = rig.submit("key");
    let id = device.command();
    device.say(&FromDevice::Result {
        id,
        status: ResultStatus::Refused,
        body: b"",
    });
    assert!(matches!(rig.answer(task), Answer::QueueFull));
    let task = rig.submit("key");
    let again = device.command();
    assert_ne!(again, id, "a freed key is a new command");
    device.result(again, b"2");
    assert!(matches!(rig.answer(task), Answer::Done(outcome) if outcome == json(b"2")));
}

#[test]
fn a_refusal_does_not_free_a_key_that_an_earlier_task_may_have_sent() {
    let rig = Rig::new();
    let mut device = RawDevice::connect(&rig, None);
    let (id, _) = rig.left_open("key");
    let task = rig.submit("key");
    assert_eq!(device.command(), id);
    device.say(&FromDevice::Result {
        id,
        status: ResultStatus::Refused,
        body: b"",
    });
    device.result(id, b"3");
    assert!(matches!(rig.answer(task), Answer::Done(outcome) if outcome == json(b"3")));
}

#[test]
fn a_refused_retry_of_an_open_key_does_not_outlast_its_caller() {
    let rig = Rig::new();
    let mut device = RawDevice::connect(&rig, None);
    let (id, _) = rig.left_open("key");
    let task = rig.submit_for("key", 500);
    assert_eq!(device.command(), id);
    device.say(&FromDevice::Result {
        id,
        status: ResultStatus::Refused,
        body: b"",
    });
    assert!(matches!(rig.answer(task), Answer::TimedOutSent));
    // Not for as long as a result may take, which is an hour.
    while rig.shared().commands_running() > 0 {
        std::thread::yield_now();
    }
    device.result(id, b"3");
    assert_eq!(device.acknowledged(), id);
    let again = rig.answer(rig.submit("key"));
    assert!(matches!(again, Answer::Replayed(outcome) if outcome == json(b"3")));
}

#[test]
fn a_task_whose_claim_passed_to_another_says_that_it_is_in_progress() {
    let rig = Rig::new();
    let mut device = RawDevice::connect(&rig, None);
    let task = rig.submit("key");
    let id = device.command();
    let shared = rig.shared();
    // By the clock of somebody else, its lease is over.
    let (key, tomorrow_ms) = (store_key("a", "key"), shared.unix_ms() + 24 * 3_600_000);
    let begin = Begin::new(&key, PRINT, 60_000, tomorrow_ms);
    let Begun::InDoubt(permit) = shared.store.begin(&begin).wait().unwrap() else {
        panic!("the lease is over")
    };
    device.result(id, b"7");
    assert!(matches!(rig.answer(task), Answer::InProgress));
    drop(permit);
    device.result(id, b"7");
    assert_eq!(device.acknowledged(), id);
    let again = rig.answer(rig.submit("key"));
    assert!(matches!(again, Answer::Replayed(outcome) if outcome == json(b"7")));
}

#[test]
fn a_stray_result_that_meets_a_retry_answers_it() {
    let rig = Rig::new();
    // Known and offline: nobody sends the command again.
    rig.shared().directory.remember("a");
    let device = rig.shared().directory.get("a").unwrap();
    let (id, claim) = rig.left_open("key");
    let table = &rig.shared().table;
    let delivery = table.deliver(id, &device, 1, ResultStatus::Json, b"4");
    assert_eq!(delivery, Delivery::Settle(claim.clone()));
    let task = rig.submit("key");
    while !table.is_awaited(id) {
        std::thread::yield_now();
    }
    let result = Reply::Result {
        epoch: 1,
        status: ResultStatus::Json,
        body: b"4".to_vec(),
    };
    let stray = Stray {
        device,
        id,
        result,
        claim,
    };
    rig.runtime
        .block_on(settle::settle(Arc::clone(rig.shared()), stray));
    assert!(matches!(rig.answer(task), Answer::Done(outcome) if outcome == json(b"4")));
    let again = rig.answer(rig.submit("key"));
    assert!(matches!(again, Answer::Replayed(outcome) if outcome == json(b"4")));
    assert_eq!(rig.shared().table.len(), 0);
}

#[test]
fn a_retry_that_finds_the_devices_queue_full_knocks_again() {
    let rig = Rig::new();
    let mut device = RawDevice::connect(&rig, None);
    let (id, _) = rig.left_open("key");
    let task = rig.submit("key");
    assert_eq!(device.command(), id);
    rig.shared()
        .table
        .not_sent(id, rig.epoch(), NotSent::QueueFull);
    assert_eq!(device.command(), id);
    device.result(id, b"5");
    assert!(matches!(rig.answer(task), Answer::Done(outcome) if outcome == json(b"5")));
}

#[test]
fn a_repeated_result_of_an_ended_command_is_acknowledged() {
    let rig = Rig::new();
    let mut device = RawDevice::connect(&rig, None);
    device.result(CommandId([9; 16]), b"6");
    assert_eq!(device.acknowledged(), CommandId([9; 16]));
}
