//! `cargo xtask conformance`: one digest over the same documents from twelve processes in four languages.

use std::collections::VecDeque;
use std::io::BufRead as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::cmd::Cmd;
use crate::flags::Flags;
use crate::stages::Outcome;
use crate::workspace::Workspace;
use crate::{Command, tools};

pub(crate) const COMMAND: Command = Command {
    name: "conformance",
    about: "The same canonical JSON from Rust, Python, JavaScript and Go: twelve processes, one digest",
    help: HELP,
    run,
};

const HELP: &str = "\
usage: cargo xtask conformance [--documents N] [--full]

  --documents N  how many generated documents (default 100000)
  --full         100 million doubles instead of 1 million, printed by Rust and by Node (about 10 minutes)

Rust x4 (other hash seeds, locales, numbers of threads, ways through the crate), Python x3 (pip rfc8785), JavaScript x3
(npm canonicalize), Go x2 (its standard library and a sort). Needs python3, node, npm and go; the packages are fetched
into target/conformance once. Then the golden hash of printed doubles, from what Node prints.
docs/CONFORMANCE.md has the results and what is known of the peers.

example: cargo xtask conformance --documents 2000";

const SCRIPTS: &str = "crates/canon-ser/conformance";

/// One version each, so that a run is repeatable.
const PYTHON_PACKAGE: &str = "rfc8785==0.1.4";
const NODE_PACKAGE: &str = "canonicalize@5.1.0";

/// Documents in the stage of `cargo xtask test`.
const SLICE: u64 = 2_000;

/// Documents that are shown of a peer that differs.
const SHOWN_MAX: usize = 5;

fn run(args: &[String]) -> Result<(), String> {
    let mut flags = Flags::new(args.to_vec());
    let documents = flags.number("--documents")?.unwrap_or(100_000);
    let full = flags.switch("--full");
    flags.finish()?;
    let workspace = Workspace::load()?;
    let args = ["--package", "canon-ser", "--all-features"].map(str::to_owned);
    let bench = Bench::prepare(&workspace, &args, documents, true)?;
    if !bench.absent.is_empty() {
        return Err(bench.absent.join("; "));
    }
    println!("{}", bench.compare()?);
    println!("{}", bench.numbers(if full { 1 } else { 0 })?);
    Ok(())
}

/// The stage of `cargo xtask test`: few documents, and only the languages that are there.
pub(crate) fn slice(
    workspace: &Workspace,
    cargo_args: &[String],
    install: bool,
) -> Result<Outcome, String> {
    let bench = Bench::prepare(workspace, cargo_args, SLICE, install)?;
    for reason in &bench.absent {
        println!("left out: {reason}");
    }
    let mut note = bench.compare()?;
    if tools::on_path("node") {
        bench.numbers(0)?;
        note.push_str(", 1 M doubles as Node prints them");
    }
    if !bench.absent.is_empty() {
        note = format!("{note}; left out: {}", bench.absent.join("; "));
    }
    Ok(Outcome::Passed(note))
}

/// Everything that a run needs, built.
struct Bench {
    scripts: PathBuf,
    dir: PathBuf,
    rust: PathBuf,
    documents: PathBuf,
    processes: Vec<Process>,
    /// Languages that are not there, and why.
    absent: Vec<String>,
}

/// One way to canonicalize a file of documents.
struct Process {
    name: String,
    program: PathBuf,
    /// The file of documents follows, and then the file to write to, if any.
    args: Vec<String>,
    envs: Vec<(&'static str, String)>,
}

impl Bench {
    fn prepare(
        workspace: &Workspace,
        cargo_args: &[String],
        documents: u64,
        install: bool,
    ) -> Result<Bench, String> {
        let dir = workspace.target.join("conformance");
        create_dir(&dir)?;
        Cmd::cargo()
            .args(["build", "--quiet", "--example", "conformance"])
            .args(cargo_args)
            .run()?;
        let rust = workspace.target.join("debug/examples/conformance");
        let mut bench = Bench {
            scripts: workspace.root.join(SCRIPTS),
            documents: dir.join(format!("documents-{documents}.txt")),
            dir,
            rust,
            processes: Vec::new(),
            absent: Vec::new(),
        };
        bench.generate(documents)?;
        bench.add_rust();
        let languages: [(&str, AddLanguage); 3] = [
            ("Python", Bench::add_python),
            ("JavaScript", Bench::add_node),
            ("Go", Bench::add_go),
        ];
        for (language, add) in languages {
            if let Err(reason) = add(&mut bench, install) {
                // The first line says what failed; the rest is the program's own output.
                let reason = reason.lines().next().unwrap_or_default().to_owned();
                bench.absent.push(format!("{language}: {reason}"));
            }
        }
        Ok(bench)
    }

    /// Made anew each time: the generator may have changed.
    fn generate(&self, count: u64) -> Result<(), String> {
        let text = Cmd::new(&self.rust)
            .args(["generate", &count.to_string()])
            .capture()?;
        std::fs::write(&self.documents, text)
            .map_err(|error| format!("cannot write {}: {error}", self.documents.display()))
    }

    fn add_rust(&mut self) {
        // Each process has hash seeds of its own.
        let ways = [
            ("text", "1", "C"),
            ("hashmap", "1", "tr_TR.UTF-8"),
            ("hashmap", "4", "de_DE.UTF-8"),
            ("cbor", "3", "ja_JP.UTF-8"),
        ];
        for (way, threads, locale) in ways {
            self.processes.push(Process {
                name: format!("Rust, {way}, {threads} threads, {locale}"),
                program: self.rust.clone(),
                args: ["canon", way, threads].map(str::to_owned).into(),
                envs: vec![("LC_ALL", locale.to_owned())],
            });
        }
    }

    fn add_python(&mut self, install: bool) -> Result<(), String> {
        let venv = self.dir.join("python");
        let python = venv.join("bin/python");
        if !is_stamped(&venv, PYTHON_PACKAGE) {
            need("python3", install)?;
            Cmd::new("python3")
                .args(["-m", "venv", "--clear"])
                .arg(&venv)
                .capture()?;
            Cmd::new(&python)
                .args(["-m", "pip", "install", "--quiet", PYTHON_PACKAGE])
                .env("PIP_DISABLE_PIP_VERSION_CHECK", "1")
                .capture()?;
            stamp(&venv, PYTHON_PACKAGE)?;
        }
        let script = self.scripts.join("canon.py").display().to_string();
        for (seed, locale) in [("0", "C"), ("1", "C.UTF-8"), ("random", "tr_TR.UTF-8")] {
            self.processes.push(Process {
                name: format!("Python, hash seed {seed}, {locale}"),
                program: python.clone(),
                args: vec![script.clone()],
                envs: vec![
                    ("PYTHONHASHSEED", seed.to_owned()),
                    ("LC_ALL", locale.to_owned()),
                ],
            });
        }
        Ok(())
    }

    fn add_node(&mut self, install: bool) -> Result<(), String> {
        let dir = self.dir.join("node");
        need("node", true)?;
        if !is_stamped(&dir, NODE_PACKAGE) {
            need("npm", install)?;
            create_dir(&dir)?;
            Cmd::new("npm")
                .args(["install", "--no-save", "--no-package-lock", "--no-audit"])
                .args(["--no-fund", "--prefix"])
                .args([dir.as_os_str(), NODE_PACKAGE.as_ref()])
                .capture()?;
            stamp(&dir, NODE_PACKAGE)?;
        }
        let script = self.scripts.join("canon.mjs").display().to_string();
        for locale in ["C", "tr_TR.UTF-8", "sv_SE.UTF-8"] {
            self.processes.push(Process {
                name: format!("JavaScript, {locale}"),
                program: "node".into(),
                args: vec![script.clone(), dir.display().to_string()],
                envs: vec![("LC_ALL", locale.to_owned())],
            });
        }
        Ok(())
    }

    fn add_go(&mut self, _install: bool) -> Result<(), String> {
        need("go", true)?;
        let program = self.dir.join("canon-go");
        Cmd::new("go")
            .args(["build", "-o"])
            .arg(&program)
            .arg(self.scripts.join("canon.go"))
            .env("GOCACHE", self.dir.join("go-cache"))
            .capture()?;
        for (threads, locale) in [("1", "C"), ("4", "tr_TR.UTF-8")] {
            self.processes.push(Process {
                name: format!("Go, GOMAXPROCS {threads}, {locale}"),
                program: program.clone(),
                args: Vec::new(),
                envs: vec![
                    ("GOMAXPROCS", threads.to_owned()),
                    ("LC_ALL", locale.to_owned()),
                ],
            });
        }
        Ok(())
    }

    /// Runs all processes and holds their digests against the first one's.
    fn compare(&self) -> Result<String, String> {
        let digests = self.run_all()?;
        let expected = &digests[0];
        let mut wrong = Vec::new();
        for (process, digest) in self.processes.iter().zip(&digests) {
            println!("{digest}  {}", process.name);
            if digest != expected {
                wrong.push(process);
            }
        }
        for process in &wrong {
            self.show_differences(process)?;
        }
        if wrong.is_empty() {
            let short = expected.get(..16).unwrap_or_default();
            return Ok(format!("{} processes, one digest {short}", digests.len()));
        }
        Err(format!(
            "{} of {} processes differ",
            wrong.len(),
            digests.len()
        ))
    }

    /// The digests, in the order of the processes; as many at a time as there are processors.
    fn run_all(&self) -> Result<Vec<String>, String> {
        let at_a_time = std::thread::available_parallelism().map_or(1, |count| count.get());
        let waiting: Mutex<VecDeque<usize>> = Mutex::new((0..self.processes.len()).collect());
        let next = || waiting.lock().ok()?.pop_front();
        let mut results: Vec<(usize, Result<String, String>)> = std::thread::scope(|scope| {
            let work = || {
                let mut results = Vec::new();
                while let Some(at) = next() {
                    let result = self.processes[at].run(&self.documents, None);
                    results.push((at, result));
                }
                results
            };
            let workers: Vec<_> = (0..at_a_time).map(|_| scope.spawn(work)).collect();
            workers
                .into_iter()
                .flat_map(|worker| worker.join().expect("a worker reports its errors"))
                .collect()
        });
        results.sort_by_key(|(at, _)| *at);
        results.into_iter().map(|(_, result)| result).collect()
    }

    fn show_differences(&self, process: &Process) -> Result<(), String> {
        let (ours, theirs) = (self.dir.join("ours.txt"), self.dir.join("theirs.txt"));
        self.processes[0].run(&self.documents, Some(&ours))?;
        process.run(&self.documents, Some(&theirs))?;
        let (documents, ours, theirs) = (lines(&self.documents)?, lines(&ours)?, lines(&theirs)?);
        println!("{}:", process.name);
        let differing = documents
            .zip(ours.zip(theirs))
            .filter(|(_, (ours, theirs))| ours != theirs);
        for (document, (ours, theirs)) in differing.take(SHOWN_MAX) {
            println!("  document {document}\n  expected {ours}\n  gives    {theirs}");
        }
        Ok(())
    }

    /// Derives the golden hash of the given line of numbers.txt again: from Node, and from us where the test does not.
    fn numbers(&self, line: usize) -> Result<String, String> {
        let file = self.scripts.join("numbers.txt");
        let golden = lines(&file)?.nth(line).unwrap_or_default();
        let (count, expected) =
            golden
                .split_once(' ')
                .ok_or(format!("{} has no line {}", file.display(), line + 1))?;
        let node = Cmd::new("node")
            .arg(self.scripts.join("numbers.mjs"))
            .arg(count)
            .capture()?;
        let rust = Cmd::new(&self.rust).args(["numbers", count]).capture()?;
        for (who, digest) in [("Node", node.trim()), ("canon-ser", rust.trim())] {
            println!("{digest}  {count} doubles, {who}");
            if digest != expected {
                return Err(format!(
                    "{who} prints {count} doubles otherwise than {} has it",
                    file.display()
                ));
            }
        }
        Ok(format!("{count} doubles: printed as Node prints them"))
    }
}

type AddLanguage = fn(&mut Bench, bool) -> Result<(), String>;

impl Process {
    fn run(&self, documents: &Path, output: Option<&Path>) -> Result<String, String> {
        let cmd = Cmd::new(&self.program).args(&self.args).arg(documents);
        let cmd = self
            .envs
            .iter()
            .fold(cmd, |cmd, (key, value)| cmd.env(key, value));
        let digest = cmd.args(output).capture()?;
        Ok(digest.trim().to_owned())
    }
}

/// Whether a program may be used now: it is there, and what it would fetch may be fetched.
fn need(program: &str, install: bool) -> Result<(), String> {
    if !tools::on_path(program) {
        return Err(format!("{program} is not installed"));
    }
    if !install {
        return Err("its package is not there and --no-install was given".into());
    }
    Ok(())
}

fn is_stamped(dir: &Path, version: &str) -> bool {
    std::fs::read_to_string(dir.join("installed")).is_ok_and(|stamp| stamp == version)
}

fn stamp(dir: &Path, version: &str) -> Result<(), String> {
    std::fs::write(dir.join("installed"), version)
        .map_err(|error| format!("cannot write to {}: {error}", dir.display()))
}

fn create_dir(dir: &Path) -> Result<(), String> {
    std::fs::create_dir_all(dir)
        .map_err(|error| format!("cannot create {}: {error}", dir.display()))
}

fn lines(path: &Path) -> Result<impl Iterator<Item = String>, String> {
    let file = std::fs::File::open(path)
        .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    Ok(std::io::BufReader::new(file).lines().map_while(Result::ok))
}
