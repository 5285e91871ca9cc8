//! Commands by the clock.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gateway::device::{Answer, Device};
use gateway::proto::ResultStatus;
use gateway::server::scheduler::{Retry, Schedule};
use gateway::server::{CommandJob, DevicePattern};
use serde_json::{Value, json};

use crate::peer::{Heard, Peer};
use crate::rig::{Rig, until};

fn job(schedule: Schedule, devices: &str) -> CommandJob {
    let devices = DevicePattern::parse(devices).unwrap();
    CommandJob::new("tick", schedule, devices, r#"{"do":"it"}"#)
}

/// Fires once, at once.
fn now(devices: &str) -> CommandJob {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let mut job = job(Schedule::at_ms(since.as_millis() as u64), devices);
    job.misfire_after = Duration::from_secs(3_600);
    job
}

/// A gateway that knows these devices and then starts with a job.
fn started(
    known: &[&str],
    job: CommandJob,
    change: impl FnOnce(&mut gateway::server::Config),
) -> Rig {
    let rig = Rig::start();
    known.iter().for_each(|id| rig.known(id));
    rig.restart_with(|config| {
        config.jobs = vec![job];
        change(config);
    })
}

fn read(rig: &Rig) -> Value {
    rig.get("/v1/jobs").json()["jobs"][0].clone()
}

/// Waits until so many firings have this outcome.
fn settled(rig: &Rig, outcome: &str, count: u64) -> Value {
    until(outcome, || {
        read(rig)["firings"][outcome].as_u64() >= Some(count)
    });
    read(rig)
}

#[test]
fn each_firing_reaches_each_device_that_matches_once() {
    let every = Schedule::every(Duration::from_millis(100)).unwrap();
    let mut job = job(every, "pump-*");
    job.misfire_after = Duration::from_secs(3_600);
    let rig = Rig::with(|config| config.jobs = vec![job]);
    let executed = Arc::new(AtomicUsize::new(0));
    let devices: Vec<_> = ["pump-1", "pump-2", "valve-1"]
        .iter()
        .map(|id| {
            let executed = Arc::clone(&executed);
            let device = Device::builder(rig.device_addr, *id).start(move |command| {
                assert!(command.device.starts_with("pump-"), "{}", command.device);
                assert_eq!(command.payload, br#"{"do":"it"}"#);
                executed.fetch_add(1, Relaxed);
                Answer::json("1")
            });
            device.unwrap()
        })
        .collect();
    until("two devices were reached five times", || {
        read(&rig)["commands"]["done"].as_u64() >= Some(10)
    });
    devices
        .into_iter()
        .for_each(|device| device.stop().unwrap());
    until("nothing runs", || read(&rig)["running"] == 0);
    let job = read(&rig);
    let done = job["commands"]["done"].as_u64().unwrap();
    assert_eq!(done, executed.load(Relaxed) as u64);
    assert_eq!(job["commands"]["replayed"], Value::Null, "{job}");
    assert_eq!(
        (&job["schedule"], &job["devices"]),
        (&json!("every 100ms"), &json!("pump-*"))
    );
    assert!(job["next"].as_str().unwrap().ends_with("00Z"), "{job}");
    let metric = |name: &str| rig.metric(&format!("mainstay_job_{name}"));
    assert_eq!(
        metric("commands_total{job=\"tick\",outcome=\"done\"}"),
        done as f64
    );
    let firings = job["firings"]["succeeded"].as_u64().unwrap();
    assert!(metric("firings_total{job=\"tick\",outcome=\"succeeded\"}") >= firings as f64);
    assert!(metric("lateness_seconds_count") >= firings as f64);
    assert!(metric("next_timestamp_seconds{job=\"tick\"}") > 1e9);
}

#[test]
fn an_absent_device_is_waited_for_and_then_reported() {
    let mut job = now("a-*");
    job.timeout_ms = Some(3_600_000);
    let rig = started(&["a-1", "a-2", "b-1"], job, |_| {});
    until("both are waited for", || read(&rig)["last"]["waiting"] == 2);
    let mut peer = rig.online("a-2");
    peer.answer("1");
    until("one is waited for", || read(&rig)["last"]["waiting"] == 1);
    let mut peer = rig.online("a-1");
    peer.answer("1");
    let job = settled(&rig, "succeeded", 1);
    assert_eq!(job["last"]["devices"], 2);
    assert_eq!(job["last"]["commands"], json!({ "done": 2 }));
    assert_eq!(
        (&job["state"], &job["next"]),
        (&json!("done"), &Value::Null)
    );
}

#[test]
fn a_device_that_does_not_come_is_reported_and_tried_again_as_the_job_says() {
    let mut job = now("a-*");
    job.timeout_ms = Some(50);
    job.retry = Retry {
        attempts: 2,
        base: Duration::from_millis(1),
        cap: Duration::from_millis(1),
    };
    let rig = started(&["a-1", "a-2"], job, |_| {});
    let job = settled(&rig, "failed", 1);
    let last = &job["history"][0];
    assert_eq!(
        (&last["outcome"], &last["attempts"]),
        (&json!("failed"), &json!(2))
    );
    assert_eq!(last["error"], "2 timed-out-unsent");
    assert_eq!(job["commands"], json!({ "timed-out-unsent": 4 }));
    // Nothing was claimed for them.
    assert_eq!(rig.metric("mainstay_store_keys{state=\"stored\"}"), 0.0);
}

#[test]
fn a_device_that_nobody_knows_yet_is_waited_for() {
    let mut job = now("a-1");
    job.timeout_ms = Some(3_600_000);
    let rig = started(&[], job, |_| {});
    until("it is waited for", || read(&rig)["last"]["waiting"] == 1);
    let mut peer = rig.online("a-1");
    peer.answer("1");
    let job = settled(&rig, "succeeded", 1);
    assert_eq!(job["last"]["commands"], json!({ "done": 1 }));
    assert_eq!(job["last"]["devices"], 1);
}

#[test]
fn a_device_that_nobody_knows_and_that_does_not_come_fails_the_firing() {
    let mut job = now("a-1");
    job.timeout_ms = Some(50);
    let rig = started(&[], job, |_| {});
    let job = settled(&rig, "failed", 1);
    let error = job["history"][0]["error"].as_str().unwrap();
    let expected = "1 timed-out-unsent; no device has ever said HELLO as \"a-1\"";
    assert_eq!(error, expected);
}

#[test]
fn a_firing_that_a_drain_cut_off_is_continued_and_repeated_to_nobody() {
    let mut job = now("a-*");
    job.timeout_ms = Some(3_600_000);
    let mut rig = started(&["a-1", "a-2", "a-3"], job, |_| {});
    let mut first = rig.online("a-1");
    first.answer("1");
    let mut second = rig.online("a-2");
    // It is inside the command while the gateway stops.
    let (id, _) = second.command();
    rig.drain_later().join().unwrap();
    let rig = rig.restart_drained();
    let (mut first, mut third) = (rig.online("a-1"), rig.online("a-3"));
    third.answer("3");
    let mut second = rig.online("a-2");
    let (again, _) = second.command();
    assert_eq!(again, id, "the device would recognise it");
    second.result(id, ResultStatus::Json, "2");
    let job = settled(&rig, "succeeded", 1);
    assert_eq!(job["last"]["commands"], json!({ "done": 2, "replayed": 1 }));
    first.hears_nothing();
    assert_eq!(second.hear(), Some(Heard::ResultAck(id)));
    [second, third].iter_mut().for_each(Peer::hears_nothing);
    // It is over: another start sends nothing.
    let rig = rig.restart();
    let job = settled(&rig, "elsewhere", 1);
    assert_eq!(
        (&job["commands"], &job["state"]),
        (&json!({}), &json!("done"))
    );
}

#[test]
fn so_many_commands_run_at_a_time_and_no_more() {
    let mut job = now("a-*");
    job.timeout_ms = Some(3_600_000);
    let rig = started(&["a-1", "a-2", "a-3", "a-4", "a-5"], job, |config| {
        config.commands.job_commands_max = 2;
    });
    let peers: Vec<_> = (1..=5).map(|n| rig.online(&format!("a-{n}"))).collect();
    until("two run", || rig.metric("mainstay_commands_running") == 2.0);
    let (sender, heard) = std::sync::mpsc::channel();
    let threads: Vec<_> = peers
        .into_iter()
        .map(|mut peer| {
            let sender = sender.clone();
            std::thread::spawn(move || {
                let (id, _) = peer.command();
                let (answer, told) = std::sync::mpsc::channel();
                sender.send((id, answer)).unwrap();
                told.recv().unwrap();
                peer.result(id, ResultStatus::Json, "1");
                assert_eq!(peer.hear(), Some(Heard::ResultAck(id)));
            })
        })
        .collect();
    let mut ids = HashSet::new();
    for left in (0..5).rev() {
        let (id, answer) = heard.recv().unwrap();
        assert!(ids.insert(id));
        let running = rig.metric("mainstay_commands_running");
        assert!(running <= 2.0, "{running} with {left} to come");
        answer.send(()).unwrap();
    }
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    settled(&rig, "succeeded", 1);
}

#[test]
fn a_try_waits_for_the_command_that_an_earlier_one_left_out() {
    let mut job = now("a-1");
    job.timeout_ms = Some(2_000);
    job.retry = Retry {
        attempts: 2,
        base: Duration::from_millis(1),
        cap: Duration::from_millis(1),
    };
    let rig = started(&["a-1"], job, |_| {});
    let mut peer = rig.online("a-1");
    let (id, _) = peer.command();
    until("the second try has it under way", || {
        rig.metric("mainstay_commands_total{outcome=\"in-progress\"}") > 0.0
    });
    peer.result(id, ResultStatus::Json, "1");
    let job = settled(&rig, "succeeded", 1);
    assert_eq!(job["last"]["attempt"], 2);
    assert_eq!(
        job["commands"],
        json!({ "timed-out-sent": 1, "replayed": 1 })
    );
}

#[test]
fn a_firings_answer_can_be_read_with_its_key() {
    let rig = started(&["a-1"], now("a-1"), |_| {});
    let mut peer = rig.online("a-1");
    peer.answer("42");
    let job = settled(&rig, "succeeded", 1);
    let fire_time = job["history"][0]["fire_time"].as_str().unwrap();
    let key = format!("job:tick:{fire_time}");
    rig.post("a-1", &key, r#"{ "do" : "it" }"#).replay_of("42");
    peer.hears_nothing();
}

#[test]
fn an_open_breaker_fails_the_firing_and_names_its_trace() {
    let every = Schedule::every(Duration::from_millis(50)).unwrap();
    let mut job = job(every, "a-*");
    job.timeout_ms = Some(20);
    let rig = Rig::with(|config| {
        config.jobs = vec![job];
        config.breaker.separator = Some('-');
        config.breaker.calls = 2;
    });
    let _silent = rig.online("a-1");
    until("the breaker is open", || {
        read(&rig)["commands"]["breaker-open"].as_u64() > Some(0)
    });
    let job = read(&rig);
    let refused = |record: &Value| record["error"] == "1 breaker-open";
    assert!(
        job["history"].as_array().unwrap().iter().any(refused),
        "{job}"
    );
}

/// Commands of others opened it, and the job's devices would answer.
#[test]
fn an_open_breaker_refuses_a_jobs_commands_like_any_other() {
    let every = Schedule::every(Duration::from_millis(50)).unwrap();
    let rig = Rig::with(|config| {
        config.jobs = vec![job(every, "a-2")];
        config.breaker.separator = Some('-');
        config.breaker.calls = 2;
    });
    let _silent = rig.online("a-1");
    for key in ["k1", "k2"] {
        let request = rig.command("a-1", key, "{}").timeout_ms(20);
        assert_eq!(request.send(rig.http_addr).status, 504);
    }
    // It was waited for; what it is sent is refused from its first moment here.
    until("the job waits", || read(&rig)["last"]["waiting"] == 1);
    let mut device = rig.online("a-2");
    until("the job is refused", || {
        read(&rig)["commands"]["breaker-open"].as_u64() > Some(1)
    });
    device.hears_nothing();
    let refused = rig.metric("mainstay_breaker_refused_total{group=\"a\"}");
    assert!(refused >= 2.0, "{refused}");
}

#[test]
fn without_a_job_nothing_is_there() {
    let rig = Rig::start();
    assert_eq!(rig.get("/v1/jobs").json(), json!({ "jobs": [] }));
    assert!(!rig.get("/metrics").text().contains("mainstay_job"));
    assert!(!rig.data().join("jobs").exists());
}
