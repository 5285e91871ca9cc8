//! `mainstay trace` on the running kernel. Needs root; skipped with the reason where it cannot.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, ChildStderr, Command, Output, Stdio};

use libbpf_rs::{MapCore as _, MapFlags, MapHandle, MapType, libbpf_sys};
use serde_json::Value;

#[path = "../../../kernel-scope/tests/it/skip.rs"]
mod skip;
use skip::skip;

fn mainstay(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mainstay"));
    command
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// A running `trace`, attached.
struct Tracing {
    child: Child,
    stderr: BufReader<ChildStderr>,
}

impl Tracing {
    /// Returns when the program is attached; nothing, and the reason on stdout, when it may not.
    fn start(args: &[&str]) -> Option<Self> {
        let mut child = mainstay(args).spawn().expect("the binary was built");
        let mut stderr = BufReader::new(child.stderr.take().expect("it is piped"));
        let mut line = String::new();
        stderr.read_line(&mut line).expect("it is text");
        if line.starts_with("watching") {
            return Some(Self { child, stderr });
        }
        stderr.read_to_string(&mut line).expect("it is text");
        assert_eq!(child.wait().expect("it is ours").code(), Some(2), "{line}");
        assert!(
            line.contains("CAP_BPF") || line.contains("forbids"),
            "no reason: {line}"
        );
        skip(line.trim_end());
        None
    }

    fn interrupt(self) -> Output {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill")
            .args(["-INT", &pid])
            .status()
            .expect("kill exists");
        assert!(sent.success());
        // Beside stdout: a tool that cannot write on does not end.
        let mut pipe = self.stderr;
        let stderr = std::thread::spawn(move || {
            let mut stderr = Vec::new();
            pipe.read_to_end(&mut stderr).expect("a pipe");
            stderr
        });
        let mut output = self.child.wait_with_output().expect("it is ours");
        output.stderr = stderr.join().expect("no panic");
        output
    }
}

/// The lines of `--json`: the rows, and the account, which balances.
fn json_lines(output: Output) -> (Vec<Value>, Value) {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let mut lines: Vec<Value> = String::from_utf8(output.stdout)
        .expect("JSON is text")
        .lines()
        .map(|line| serde_json::from_str(line).expect("one object a line"))
        .collect();
    let last = lines.pop().expect("at least the account");
    let count = |name: &str| last["events"][name].as_u64().expect("a count");
    assert_eq!(
        count("seen"),
        count("delivered") + count("pending") + count("dropped")
    );
    assert!(last["overhead"]["tool_cpu_ms"].is_number(), "{last}");
    assert!(last["attached"]["kind"].is_string(), "{last}");
    assert!(last["attached"]["passed_over"].is_array(), "{last}");
    (lines, last)
}

fn map_with(name: &str, entries: u32) -> (MapHandle, u32) {
    let opts = libbpf_sys::bpf_map_create_opts {
        sz: size_of::<libbpf_sys::bpf_map_create_opts>() as libbpf_sys::size_t,
        ..Default::default()
    };
    let map = MapHandle::create(MapType::Hash, Some(name), 4, 4, entries * 2, &opts);
    let map = map.expect("root may make maps");
    for n in 0..entries {
        map.update(&n.to_ne_bytes(), &[0; 4], MapFlags::ANY)
            .expect("room");
    }
    let id = map.info().expect("it is a map").info.id;
    (map, id)
}

#[test]
fn map_iter_reports_a_known_walk_as_json() {
    let pid = std::process::id().to_string();
    let Some(tracing) = Tracing::start(&["trace", "map-iter", "--json", "--pid", &pid]) else {
        return;
    };
    let (map, id) = map_with("cli_walk", 200);
    for _ in 0..5 {
        assert_eq!(map.keys().count(), 200);
    }
    let output = tracing.interrupt();
    let (rows, last) = json_lines(output);
    let row = rows
        .iter()
        .find(|row| row["map_id"] == id)
        .expect("the map was walked");
    assert_eq!(row["pid"], std::process::id());
    assert_eq!(
        (&row["map_name"], &row["map_type"]),
        (&"cli_walk".into(), &"hash".into())
    );
    assert_eq!(
        (&row["walks"], &row["keys"], &row["restarts"]),
        (&5.into(), &1000.into(), &0.into())
    );
    assert!(row["comm"].is_string());
    let (p50, p99) = (
        row["step_ns"]["p50"].as_u64(),
        row["step_ns"]["p99"].as_u64(),
    );
    assert!(p50 > Some(0) && p99 >= p50, "{row}");
    let count = |name: &str| last["events"][name].as_u64().expect("a count");
    assert!(count("seen") >= 1005);
    assert_eq!(count("dropped"), 0);
    assert_eq!(row["linear"], false);
    assert!(row["stack"][0].is_string(), "{row}");
    assert!(row["hot_buckets"][0]["keys"].as_u64() >= Some(5), "{row}");
    assert_eq!(counted(&row["step_ns"]["histogram"]), 1005);
}

#[test]
fn map_iter_ends_by_itself_with_a_table_and_the_drop_line() {
    if Tracing::start(&["trace", "map-iter", "--for", "1ms"]).is_none() {
        return;
    }
    let output = mainstay(&["trace", "map-iter", "--for", "1ms"])
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(text.trim_start().starts_with("PID"), "{text}");
    let last = text.lines().last().expect("a line");
    assert!(
        last.starts_with("events: ") && last.contains("dropped"),
        "{text}"
    );
    assert!(!text.contains('\x1b'), "no terminal control in a pipe");
}

/// The counts of a histogram's pairs together.
fn counted(histogram: &Value) -> u64 {
    let pairs = histogram.as_array().expect("a list of pairs");
    pairs
        .iter()
        .map(|pair| pair[1].as_u64().expect("a count"))
        .sum()
}

/// A child that waits for a word, sleeps a hundred times for a millisecond, and waits for another.
fn sleeper() -> Child {
    let sleeps = "for n in $(seq 100); do read -t 0.001 x <&3; done 3<>/dev/fd/0";
    Command::new("bash")
        .args(["-c", &format!("read word; {sleeps}; echo done; read word")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("bash is there")
}

fn say_a_word(sleeper: &mut Child) {
    let stdin = sleeper.stdin.as_mut().expect("it is piped");
    stdin.write_all(b"word\n").expect("it reads");
}

fn until_done(sleeper: &mut Child) {
    let mut out = BufReader::new(sleeper.stdout.take().expect("it is piped"));
    let mut line = String::new();
    out.read_line(&mut line).expect("it is text");
    assert_eq!(line, "done\n");
}

fn wait_until_asleep(pid: &str) {
    let state = format!("/proc/{pid}/status");
    while !std::fs::read_to_string(&state)
        .expect("the child lives")
        .contains("State:\tS")
    {
        std::thread::yield_now();
    }
}

#[test]
fn runq_tells_who_woke_a_task_and_draws_where_it_slept() {
    let folder = tempfile::tempdir().expect("temporary folders can be made");
    let svg = folder.path().join("off.svg");
    let svg_text = svg.to_str().expect("a plain path");
    let Some(tracing) = Tracing::start(&["trace", "runq", "--json", "--svg", svg_text]) else {
        return;
    };
    let mut child = sleeper();
    say_a_word(&mut child);
    until_done(&mut child);
    let (rows, last) = json_lines(tracing.interrupt());
    child.kill().expect("it is ours");
    child.wait().expect("it is ours");
    let of_child = |row: &&Value| row["pid"] == child.id();
    let row = rows.iter().find(of_child).expect("it slept");
    assert_eq!(row["comm"], "bash");
    let waits = &row["waits"]["woken"];
    assert!(
        waits["p99_us"].as_f64() >= waits["p50_us"].as_f64(),
        "{row}"
    );
    assert_eq!(Some(counted(&waits["histogram"])), waits["count"].as_u64());
    let wakers = row["wakers"].as_array().expect("a list");
    let by_timer = wakers.iter().find(|waker| waker["class"] == "hardirq");
    let count = by_timer.expect("timers woke it")["count"].as_u64();
    assert!(count >= Some(50), "{row}");
    assert_eq!(last["wakers_without_room"], 0);
    assert_eq!(last["off_cpu_without_room"], 0);
    let svg = std::fs::read_to_string(svg).expect("it was drawn");
    assert!(svg.contains("woken by hardirq") && svg.contains("<title>bash: "));
}

#[test]
fn wake_tells_which_calls_slept_and_who_woke_them() {
    let mut child = sleeper();
    let pid = child.id().to_string();
    let Some(tracing) = Tracing::start(&["trace", "wake", "--json", "--pid", &pid]) else {
        child.kill().expect("it is ours");
        child.wait().expect("it is ours");
        return;
    };
    say_a_word(&mut child);
    until_done(&mut child);
    // The last read is woken by this test: once the child sleeps in it.
    wait_until_asleep(&pid);
    say_a_word(&mut child);
    child.wait().expect("it is ours");
    let (rows, _) = json_lines(tracing.interrupt());
    let row = rows
        .iter()
        .find(|row| row["call"] == "read")
        .expect("it read");
    assert_eq!(
        (&row["pid"], &row["comm"]),
        (&child.id().into(), &"bash".into())
    );
    assert_eq!(
        Some(counted(&row["asleep_us"]["histogram"])),
        row["calls"].as_u64()
    );
    let wakers = row["wakers"].as_array().expect("a list");
    let us = wakers
        .iter()
        .find(|waker| waker["pid"] == std::process::id());
    assert_eq!(us.expect("it was woken by us")["class"], "task");
    assert_in_order(&row["slowest"]);
}

fn assert_in_order(call: &Value) {
    let at = |name: &str| call[name].as_f64().expect("a time");
    assert!(at("blocked_us") <= at("woken_us"), "{call}");
    assert!(at("woken_us") <= at("running_us"), "{call}");
    assert!(at("running_us") <= at("left_us"), "{call}");
}

/// Each call has its line, and all of them together are the totals.
#[test]
fn wake_tells_each_call_on_a_timeline() {
    let mut child = sleeper();
    let pid = child.id().to_string();
    let args = ["trace", "wake", "--json", "--timeline", "--pid", &pid];
    let tracing = Tracing::start(&args);
    say_a_word(&mut child);
    until_done(&mut child);
    let lines = tracing.map(|tracing| json_lines(tracing.interrupt()).0);
    child.kill().expect("it is ours");
    child.wait().expect("it is ours");
    let Some(lines) = lines else {
        return;
    };
    let is_call = |line: &&Value| line.get("entered_ns").is_some();
    let calls: Vec<&Value> = lines.iter().filter(is_call).collect();
    let rows: Vec<&Value> = lines.iter().filter(|line| !is_call(line)).collect();
    assert!(calls.len() >= 50, "{lines:?}");
    for call in &calls {
        assert_eq!(
            (&call["pid"], &call["comm"]),
            (&child.id().into(), &"bash".into())
        );
        assert_in_order(call);
    }
    let told: u64 = rows.iter().filter_map(|row| row["calls"].as_u64()).sum();
    assert_eq!(told, calls.len() as u64);
    // Rows come after the calls that they sum up.
    assert!(lines[..calls.len()].iter().all(|line| is_call(&line)));
}

/// Its number may be given to another process.
#[test]
fn watching_a_process_ends_when_it_does() {
    for tool in ["fds", "map-iter", "runq", "wake"] {
        let mut cat = Command::new("cat").stdin(Stdio::piped()).spawn();
        let cat = cat.as_mut().expect("cat exists");
        let pid = cat.id().to_string();
        let tracing = Tracing::start(&["trace", tool, "--pid", &pid]);
        drop(cat.stdin.take());
        cat.wait().expect("it is ours");
        let Some(mut tracing) = tracing else {
            return;
        };
        // Nobody interrupts it.
        let mut stderr = String::new();
        let read = tracing.stderr.read_to_string(&mut stderr);
        read.expect("it is text");
        assert_eq!(stderr, format!("process {pid} has ended\n"));
        let output = tracing.child.wait_with_output().expect("it is ours");
        assert_eq!(output.status.code(), Some(0));
        let text = String::from_utf8(output.stdout).expect("text");
        assert!(text.contains("\nevents: "), "{text}");
    }
}

/// The reader of its messages goes away, nobody looks at them: the result is the same.
#[test]
fn messages_that_nobody_reads_cost_no_result() {
    let Some(tracing) = Tracing::start(&["trace", "runq", "--for", "1ms"]) else {
        return;
    };
    tracing.child.wait_with_output().expect("it is ours");
    let (reader, writer) = std::io::pipe().expect("descriptors are left");
    drop(reader);
    let output = mainstay(&["trace", "runq", "--for", "300ms"])
        .stderr(writer)
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(text.contains("\nevents: "), "{text}");
}

/// A table tells as much of what was lost as JSON does.
#[test]
fn runq_tells_below_its_table_for_what_it_had_no_room() {
    let mut child = sleeper();
    let pid = child.id().to_string();
    let args = ["trace", "runq", "--tasks-max", "1", "--pid", &pid];
    let tracing = Tracing::start(&args);
    // By us, by timers, and by us again: there is room for one that is not the last.
    wait_until_asleep(&pid);
    say_a_word(&mut child);
    until_done(&mut child);
    wait_until_asleep(&pid);
    say_a_word(&mut child);
    child.wait().expect("it is ours");
    let Some(tracing) = tracing else {
        return;
    };
    let output = tracing.interrupt();
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(text.contains(" wakers without room\n"), "{text}");
}

#[test]
fn runq_and_wake_end_by_themselves_with_a_table_and_the_drop_line() {
    for tool in ["runq", "wake"] {
        if Tracing::start(&["trace", tool, "--for", "1ms"]).is_none() {
            return;
        }
        let output = mainstay(&["trace", tool, "--for", "300ms"])
            .output()
            .expect("it runs");
        assert_eq!(output.status.code(), Some(0));
        let text = String::from_utf8(output.stdout).expect("text");
        assert!(text.trim_start().starts_with("PID"), "{text}");
        assert!(text.contains("\noverhead: the tool "), "{text}");
        let last = text.lines().last().expect("a line");
        assert!(last.starts_with("events: "), "{text}");
        assert!(!text.contains('\x1b'), "no terminal control in a pipe");
    }
}

/// A line for each group, together what the kernel lists.
#[test]
fn fds_are_those_of_proc() {
    let mut cat = Command::new("cat")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("cat exists");
    let pid = cat.id().to_string();
    let args = ["trace", "fds", "--pid", &pid, "--json"];
    if let Some(tracing) = Tracing::start(&args) {
        let output = tracing.interrupt();
        assert_eq!(output.status.code(), Some(0));
        let lines: Vec<Value> = String::from_utf8(output.stdout)
            .expect("text")
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        let (last, groups) = lines.split_last().expect("at least the account");
        let mut told = Vec::new();
        for group in groups {
            assert_eq!(group["pid"], cat.id());
            assert_eq!(group["call"], "unknown", "opened before the tool began");
            assert!(group["oldest_ms"].is_u64() && group["stack"].is_array());
            let fds = group["fds"].as_array().expect("numbers");
            assert_eq!(group["count"], fds.len());
            told.extend(fds.iter().map(|fd| fd.as_u64().expect("a number")));
        }
        told.sort_unstable();
        let listed = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs");
        let mut listed: Vec<u64> = listed
            .map(|entry| entry.expect("an entry").file_name())
            .map(|name| name.to_string_lossy().parse().expect("a number"))
            .collect();
        listed.sort_unstable();
        assert_eq!(told, listed);
        assert_eq!(last["open_total"], told.len());
        assert_eq!(last["events"]["dropped"], 0);
    }
    drop(cat.stdin.take());
    cat.wait().expect("it is ours");
}

#[test]
fn wrong_usage_is_exit_code_2() {
    for args in [
        &["trace", "map-iter", "--for", "soon"][..],
        &["trace", "map-iter", "--pid", "0"],
        &["trace", "map-iter", "--ring-bytes", "5000"],
        &["trace", "runq", "--tasks-max", "0"],
        &["trace", "runq", "--tasks-max", "4194305"],
        // No Linux has a process of this number.
        &["trace", "fds", "--pid", "4194305", "--for", "1ms"],
        &["trace", "map-iter", "--pid", "4194305", "--for", "1ms"],
        &["trace", "runq", "--pid", "4194305", "--for", "1ms"],
        &["trace", "wake", "--pid", "4194305", "--for", "1ms"],
        &["trace", "nothing"],
    ] {
        let output = mainstay(args).output().expect("it runs");
        assert_eq!(output.status.code(), Some(2), "{args:?}");
    }
}

/// Without privileges the message says what is missing.
#[test]
fn without_capabilities_the_error_names_them() {
    let dropped = Command::new("setpriv")
        .args([
            "--bounding-set=-all",
            "--inh-caps=-all",
            "--reuid=65534",
            "--clear-groups",
        ])
        .arg(env!("CARGO_BIN_EXE_mainstay"))
        .args(["trace", "map-iter", "--for", "1ms"])
        .output();
    let output = match dropped {
        Ok(output) if output.status.code() == Some(2) => output,
        other => {
            return skip(format_args!(
                "setpriv cannot drop privileges here: {other:?}"
            ));
        }
    };
    let text = String::from_utf8(output.stderr).expect("text");
    assert!(
        text.contains("CAP_BPF and CAP_PERFMON") && text.contains("root"),
        "{text}"
    );
    assert!(output.stdout.is_empty());
}
