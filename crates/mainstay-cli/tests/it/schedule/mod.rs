//! `mainstay schedule`: jobs as processes and HTTP calls, once across processes.

#[cfg(any(feature = "mysql", feature = "postgres", feature = "redis"))]
mod crash;
mod daemon;
#[cfg(any(feature = "mysql", feature = "postgres", feature = "redis"))]
mod stopped;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};

use daemon::{Daemon, run, write};
use rustix::process::Signal;

use crate::support::http::Client;

#[test]
fn a_dry_run_prints_the_next_firings() {
    let dir = tempfile::tempdir().unwrap();
    write(
        dir.path(),
        "[defaults]\ntimezone = \"Europe/Berlin\"\n\
         [[job]]\nname = \"nightly\"\ncron = \"30 2 * * *\"\nrun = [\"true\"]\n\
         [[job]]\nname = \"late\"\nat = \"2026-03-30T00:00:00+02:00\"\nrun = [\"true\"]\n",
    );
    let args = [
        "--config",
        "jobs.toml",
        "--dry-run",
        "2",
        "--from",
        "2026-03-28T12:00:00Z",
    ];
    let output = run(dir.path(), &args);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let expected = "nightly  (cron 30 2 * * * Europe/Berlin)\n  2026-03-29T01:00:00.000Z\n  \
                    2026-03-30T00:30:00.000Z\nlate  (at 2026-03-29T22:00:00.000Z)\n  \
                    2026-03-29T22:00:00.000Z\n  none after that\n";
    assert_eq!(text, expected);
    let output = run(dir.path(), &[&args[..], &["--json"]].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    let first: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(first["firings"][0], "2026-03-29T01:00:00.000Z");
}

#[test]
fn the_guides_file_is_understood() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/SCHEDULE.md");
    let page = std::fs::read_to_string(page).expect("the guide is in the repository");
    let (_, block) = page
        .split_once("```toml\n")
        .expect("the guide has a toml block");
    let (block, _) = block.split_once("```").expect("the block ends");
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), block);
    let args = ["--config", "jobs.toml", "--dry-run", "1", "--json"];
    let output = run(dir.path(), &args);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(
        output.stdout.split(|byte| *byte == b'\n').count(),
        3,
        "{output:?}"
    );
}

#[test]
fn errors_of_the_file_name_the_line_and_the_key() {
    let dir = tempfile::tempdir().unwrap();
    write(
        dir.path(),
        "[[job]]\nname = \"x\"\nrun = [\"true\"]\ncron = \"0 0 30 2 *\"\n",
    );
    let output = run(dir.path(), &["--config", "jobs.toml"]);
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("jobs.toml, line 4, key `cron`:"), "{text}");
    let output = run(dir.path(), &[]);
    assert_eq!(output.status.code(), Some(2), "--config is required");
}

#[test]
fn a_command_is_told_its_job_and_time_and_its_failure_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let file = "[[job]]\nname = \"write\"\nevery = \"100ms\"\n\
                run = [\"sh\", \"-c\", \"echo $MAINSTAY_JOB $MAINSTAY_FIRE_TIME $TRACEPARENT >> fired.log\"]\n\
                [[job]]\nname = \"fail\"\nafter = \"1ms\"\nrun = [\"sh\", \"-c\", \"exit 3\"]\n\
                retry = { attempts = 2, base = \"1ms\" }\n\
                [[job]]\nname = \"slow\"\nafter = \"1ms\"\ntimeout = \"50ms\"\nrun = [\"sleep\", \"600\"]\n";
    write(dir.path(), file);
    let daemon = Daemon::start(dir.path(), &[]);
    let mut seen = std::collections::HashMap::new();
    while seen.len() < 3 {
        let firing = daemon.event("firing");
        seen.insert(firing["job"].as_str().unwrap().to_owned(), firing);
    }
    assert_eq!(seen["write"]["outcome"], "succeeded");
    assert_eq!(
        (&seen["fail"]["outcome"], &seen["fail"]["attempts"]),
        (&"failed".into(), &2.into())
    );
    let error = seen["fail"]["error"].as_str().unwrap();
    assert!(error.contains("exit status: 3"), "{error}");
    assert_eq!(seen["slow"]["outcome"], "timed-out");
    let log = std::fs::read_to_string(dir.path().join("fired.log")).unwrap();
    let trace = seen["write"]["trace_id"].as_str().unwrap();
    let line = format!(
        "write {} 00-{trace}-",
        seen["write"]["fire_time"].as_str().unwrap()
    );
    assert!(log.contains(&line), "{line}: {log}");
    assert!(daemon.stop().success());
}

#[test]
fn an_http_call_carries_its_body_its_trace_and_its_idempotency_key() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let file = format!(
        "[[job]]\nname = \"call\"\nafter = \"1ms\"\nretry = {{ attempts = 2, base = \"1ms\" }}\n\
         http = {{ method = \"PUT\", url = \"http://{address}/v1?x=1\", headers = {{ a = \"b\" }}, \
         body = {{ n = [1, \"two\"] }} }}\n"
    );
    write(dir.path(), &file);
    let daemon = Daemon::start(dir.path(), &[]);
    let answers = ["500 Internal Server Error", "200 OK"];
    let requests = answers.map(|answer| {
        let (mut stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            reader.read_line(&mut head).unwrap();
        }
        let mut body = vec![0; r#"{"n":[1,"two"]}"#.len()];
        reader.read_exact(&mut body).unwrap();
        write!(stream, "HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n").unwrap();
        (head.to_lowercase(), String::from_utf8(body).unwrap())
    });
    let firing = daemon.firing("call");
    assert_eq!(
        (&firing["outcome"], &firing["attempts"]),
        (&"succeeded".into(), &2.into())
    );
    let id = format!(
        "idempotency-key: \"call:{}:0\"",
        firing["fire_time"].as_str().unwrap()
    );
    let trace = format!("traceparent: 00-{}-", firing["trace_id"].as_str().unwrap());
    for (head, body) in requests {
        assert!(head.starts_with("put /v1?x=1 http/1.1\r\n"), "{head}");
        for part in [
            id.to_lowercase().as_str(),
            &trace,
            "a: b",
            "content-type: application/json",
        ] {
            assert!(head.contains(part), "{part} in {head}");
        }
        assert_eq!(body, r#"{"n":[1,"two"]}"#);
    }
    daemon.stop();
}

#[test]
fn the_pages_show_jobs_and_nobody_elses_host_sees_them() {
    let dir = tempfile::tempdir().unwrap();
    write(
        dir.path(),
        "[[job]]\nname = \"<b>\"\nevery = \"50ms\"\nrun = [\"true\"]\n",
    );
    let daemon = Daemon::start(dir.path(), &[]);
    daemon.firing("<b>");
    let mut client = Client::new(daemon.http);
    let page = client.get("/").unwrap();
    assert_eq!(page.status, 200);
    assert!(
        page.text().contains("&lt;b&gt;") && !page.text().contains("<td><b>"),
        "{}",
        page.text()
    );
    let jobs = client.get("/v1/jobs").unwrap().json();
    let job = &jobs["jobs"][0];
    assert_eq!(
        (&job["name"], &job["state"]),
        (&"<b>".into(), &"scheduled".into())
    );
    assert!(job["counts"]["succeeded"].as_u64().unwrap() > 0, "{job}");
    assert_eq!(job["history"][0]["outcome"], "succeeded");
    let metrics = client.get("/metrics").unwrap().text();
    let line = "mainstay_scheduler_firings_total{job=\"<b>\",shard=\"0\",outcome=\"succeeded\"} ";
    assert!(metrics.contains(line), "{metrics}");
    assert!(
        metrics.contains("mainstay_scheduler_breaker_open{"),
        "{metrics}"
    );
    let late = "mainstay_scheduler_lateness_seconds_";
    let count = |name: &str| {
        let line = metrics
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{late}{name} ")));
        line.unwrap_or_else(|| panic!("{metrics}"))
            .parse::<f64>()
            .unwrap()
    };
    assert!(count("count") > 0.0, "{metrics}");
    assert_eq!(count("count"), count("bucket{le=\"+Inf\"}"));
    assert_eq!(client.get("/readyz").unwrap().status, 200);
    let mut stream = std::net::TcpStream::connect(daemon.http).unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    daemon.stop();
}

#[test]
fn jobs_go_on_when_nobody_reads_standard_output() {
    let dir = tempfile::tempdir().unwrap();
    let job = |name: &str| {
        let run = "run = [\"sleep\", \"600\"]";
        format!("[[job]]\nname = \"{name}\"\nevery = \"1ms\"\n{run}\n")
    };
    write(dir.path(), &["a", "b", "c", "d"].map(job).concat());
    let mut child = daemon::command(dir.path())
        .args(["--config", "jobs.toml", "--http", "127.0.0.1:0", "--json"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut ready = String::new();
    while !ready.contains("\"ready\"") {
        ready.clear();
        assert!(out.read_line(&mut ready).unwrap() > 0);
    }
    let ready: serde_json::Value = serde_json::from_str(&ready).unwrap();
    let mut client = Client::new(ready["http"].as_str().unwrap().parse().unwrap());
    let started = std::time::Instant::now();
    loop {
        let metrics = client.get("/metrics").unwrap().text();
        let name = "mainstay_scheduler_output_lines_dropped_total ";
        let dropped = metrics.lines().find_map(|line| line.strip_prefix(name));
        if dropped.is_some_and(|dropped| dropped != "0") {
            break;
        }
        assert!(started.elapsed() < daemon::PATIENCE, "{metrics}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn jobs_go_on_when_nobody_reads_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let run = "run = [\"sleep\", \"600\"]";
    write(
        dir.path(),
        &format!("[[job]]\nname = \"a\"\nevery = \"1ms\"\n{run}\n"),
    );
    let mut child = daemon::command(dir.path())
        .args(["--config", "jobs.toml", "--http", "127.0.0.1:0", "--json"])
        .env("RUST_LOG", "debug")
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut events = BufReader::new(child.stdout.take().unwrap()).lines();
    // More than a pipe holds: each has a line in the log.
    let (sender, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for _ in 0..2_000 {
            events.next().unwrap().unwrap();
        }
        sender.send(()).ok();
    });
    let told = told.recv_timeout(daemon::PATIENCE);
    child.kill().unwrap();
    child.wait().unwrap();
    told.expect("firings are settled");
}

#[test]
fn no_more_run_at_a_time_than_may() {
    let dir = tempfile::tempdir().unwrap();
    // Each notes that it began, and ends when it is told to.
    let script = "echo began >> log; until [ -e end ]; do sleep 0.02; done";
    let job = format!(
        "[[job]]\nname = \"a\"\nevery = \"20ms\"\noverlap = \"allow\"\nrun = [\"sh\", \"-c\", \"{script}\"]\n"
    );
    write(dir.path(), &job);
    let daemon = Daemon::start(dir.path(), &["--running-max", "3"]);
    let mut client = Client::new(daemon.http);
    let started = std::time::Instant::now();
    // Ten more are due.
    loop {
        let jobs = client.get("/v1/jobs").unwrap().json();
        let job = &jobs["jobs"][0];
        if job["waiting"].as_u64() >= Some(10) {
            assert_eq!(job["running"], 3, "{job}");
            break;
        }
        assert!(started.elapsed() < daemon::PATIENCE, "{jobs}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let began = std::fs::read_to_string(dir.path().join("log")).unwrap();
    assert!(began.lines().count() <= 3, "{began}");
    std::fs::write(dir.path().join("end"), "").unwrap();
    daemon.stop();
}

#[test]
fn what_a_command_started_has_its_time_to_stop_when_the_command_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let script = "(trap 'sleep 0.3; echo done > ended.log; exit' TERM; echo > began.log; \
                  while :; do sleep 0.05; done) & exec sleep 600";
    let job =
        format!("[[job]]\nname = \"job\"\nafter = \"1ms\"\nrun = [\"sh\", \"-c\", \"{script}\"]\n");
    write(dir.path(), &job);
    let daemon = Daemon::start(dir.path(), &["--drain-timeout", "1ms"]);
    while !dir.path().join("began.log").exists() {
        std::thread::yield_now();
    }
    assert!(daemon.stop().success());
    let ended = std::fs::read_to_string(dir.path().join("ended.log"));
    assert_eq!(ended.unwrap(), "done\n");
}

/// The next call, and its head in small letters.
fn hear(listener: &TcpListener) -> (TcpStream, String) {
    let (stream, _) = listener.accept().unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        reader.read_line(&mut head).unwrap();
    }
    (stream, head.to_lowercase())
}

#[test]
fn a_call_succeeds_with_its_status_however_long_the_rest_takes() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let file = format!(
        "[[job]]\nname = \"call\"\nafter = \"1ms\"\ntimeout = \"5s\"\n\
         http = {{ url = \"http://{address}/\" }}\n"
    );
    write(dir.path(), &file);
    let daemon = Daemon::start(dir.path(), &[]);
    let (mut stream, _) = hear(&listener);
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n").unwrap();
    assert_eq!(daemon.firing("call")["outcome"], "succeeded");
}

#[test]
fn a_call_with_a_long_answer_succeeds_and_its_headers_stand_once() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let file = format!(
        "[[job]]\nname = \"call\"\nafter = \"1ms\"\nretry = {{ attempts = 2, base = \"1ms\" }}\n\
         http = {{ url = \"http://{address}/\", body = {{}}, \
         headers = {{ Host = \"x\", content-type = \"a/b\" }} }}\n"
    );
    write(dir.path(), &file);
    let daemon = Daemon::start(dir.path(), &[]);
    let (mut stream, head) = hear(&listener);
    for header in ["host: x\r\n", "content-type: a/b\r\n"] {
        let (name, _) = header.split_once(' ').unwrap();
        assert!(head.contains(header), "{head}");
        assert_eq!(head.matches(name).count(), 1, "{head}");
    }
    let length = 3 << 20;
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"
    )
    .unwrap();
    // It hangs up before all is read.
    stream.write_all(&vec![b'x'; length]).ok();
    let firing = daemon.firing("call");
    assert_eq!(
        (&firing["outcome"], &firing["attempts"]),
        (&"succeeded".into(), &1.into())
    );
}

#[test]
fn a_reload_keeps_what_did_not_change_and_survives_a_broken_file() {
    let dir = tempfile::tempdir().unwrap();
    let job = |name: &str, every: &str| {
        format!("[[job]]\nname = \"{name}\"\nevery = \"{every}\"\nrun = [\"true\"]\n")
    };
    write(
        dir.path(),
        &[job("kept", "20ms"), job("changed", "1h"), job("gone", "1h")].concat(),
    );
    let daemon = Daemon::start(dir.path(), &[]);
    daemon.firing("kept");
    let ids = |client: &mut Client| -> Vec<(String, u64)> {
        let jobs = client.get("/v1/jobs").unwrap().json();
        let jobs = jobs["jobs"].as_array().unwrap().clone();
        let id = |job: &serde_json::Value| {
            (
                job["name"].as_str().unwrap().to_owned(),
                job["id"].as_u64().unwrap(),
            )
        };
        jobs.iter().map(id).collect()
    };
    let mut client = Client::new(daemon.http);
    let before = ids(&mut client);
    write(
        dir.path(),
        &[job("kept", "20ms"), job("changed", "2h"), job("new", "1h")].concat(),
    );
    daemon.signal(Signal::HUP);
    let reloaded = daemon.event("reloaded");
    assert_eq!(
        (&reloaded["kept"], &reloaded["added"], &reloaded["removed"]),
        (&1.into(), &2.into(), &2.into())
    );
    let after = ids(&mut client);
    let names: Vec<&str> = after.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["changed", "kept", "new"]);
    assert!(
        after.contains(&before[2]),
        "kept is the same job: {before:?} {after:?}"
    );
    write(dir.path(), "[[job]\n");
    daemon.signal(Signal::HUP);
    daemon.event("reload-failed");
    daemon.firing("kept");
    assert!(daemon.stop().success());
}

#[test]
fn an_embedded_store_remembers_across_starts_and_doubts_are_resolved() {
    let dir = tempfile::tempdir().unwrap();
    let jobs = "[[job]]\nname = \"job\"\nevery = \"100ms\"\nonce = true\nin_doubt = \"ask\"\n\
                run = [\"sh\", \"-c\", \"echo $MAINSTAY_FIRE_TIME >> fired.log; exec sleep 600\"]\n";
    write(dir.path(), jobs);
    let store = ["--store", "file:store"];
    let daemon = Daemon::start(dir.path(), &store);
    let log = dir.path().join("fired.log");
    while !std::fs::read_to_string(&log).is_ok_and(|text| text.ends_with('\n')) {
        std::thread::yield_now();
    }
    daemon.kill();
    let fired = std::fs::read_to_string(&log).unwrap();
    let id = format!("job:{}:0", fired.trim());
    let list = run(dir.path(), &[&["resolve", "--json"][..], &store].concat());
    let text = String::from_utf8(list.stdout).unwrap();
    assert!(text.contains(&id), "{text} {:?}", list.stderr);
    let resolve = || {
        run(
            dir.path(),
            &[&["resolve", "--ran", &id][..], &store].concat(),
        )
    };
    assert_eq!(resolve().status.code(), Some(0));
    assert_eq!(
        resolve().status.code(),
        Some(1),
        "it is not in doubt any more"
    );
    let quick = jobs.replace("; exec sleep 600", "");
    write(dir.path(), &quick);
    let daemon = Daemon::start(dir.path(), &store);
    // What was missed meanwhile comes first.
    while daemon.firing("job")["outcome"] != "succeeded" {}
    assert!(daemon.stop().success());
    let fired = std::fs::read_to_string(&log).unwrap();
    let mut lines: Vec<&str> = fired.lines().collect();
    lines.sort_unstable();
    let count = lines.len();
    lines.dedup();
    assert_eq!(lines.len(), count, "a firing ran twice: {fired}");
}
