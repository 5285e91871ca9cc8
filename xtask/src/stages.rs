//! Stages: each prints its name and how long it took; a table closes the run.

use std::time::{Duration, Instant};

/// How a stage ended when it did not fail.
pub(crate) enum Outcome {
    /// Passed; the note says what was covered, or is empty.
    Passed(String),
    /// Nothing was checked, for this reason. Counted and printed, never silent.
    Skipped(String),
}

impl Outcome {
    pub(crate) fn passed() -> Result<Self, String> {
        Ok(Self::Passed(String::new()))
    }
}

enum Verdict {
    Passed,
    Skipped,
    Failed,
}

struct Line {
    name: &'static str,
    verdict: Verdict,
    note: String,
    took: Duration,
}

/// Runs stages one after the other and remembers how they ended.
pub(crate) struct Stages {
    keep_going: bool,
    only: Vec<String>,
    /// Every name that came by, run or not.
    offered: Vec<&'static str>,
    lines: Vec<Line>,
    started: Instant,
}

impl Stages {
    /// `only`: names of the stages to run; empty runs all.
    pub(crate) fn new(keep_going: bool, only: Vec<String>) -> Self {
        Self {
            keep_going,
            only,
            offered: Vec::new(),
            lines: Vec::new(),
            started: Instant::now(),
        }
    }

    /// Runs one stage. An error comes back only when the run must stop here.
    pub(crate) fn run(
        &mut self,
        name: &'static str,
        stage: impl FnOnce() -> Result<Outcome, String>,
    ) -> Result<(), String> {
        self.offered.push(name);
        if !self.only.is_empty() && !self.only.iter().any(|wanted| wanted == name) {
            return Ok(());
        }
        println!("\n== {name}");
        let began = Instant::now();
        let result = stage();
        let took = began.elapsed();
        let (verdict, note) = match result {
            Ok(Outcome::Passed(note)) => (Verdict::Passed, note),
            Ok(Outcome::Skipped(reason)) => (Verdict::Skipped, reason),
            Err(error) => (Verdict::Failed, error),
        };
        println!("== {name}: {}, {} {}", word(&verdict), seconds(took), note);
        let failed = matches!(verdict, Verdict::Failed);
        // The table shows one line; the whole text stands above.
        let note = note.lines().next().unwrap_or_default().to_owned();
        self.lines.push(Line {
            name,
            verdict,
            note,
            took,
        });
        if failed && !self.keep_going {
            Err(format!("stage `{name}` failed"))
        } else {
            Ok(())
        }
    }

    /// As [`run`](Self::run), but only where the stage is asked for by its name.
    pub(crate) fn run_if_named(
        &mut self,
        name: &'static str,
        stage: impl FnOnce() -> Result<Outcome, String>,
    ) -> Result<(), String> {
        if self.only.is_empty() {
            return Ok(());
        }
        self.run(name, stage)
    }

    /// Prints the table; an error when any stage failed or nothing ran.
    pub(crate) fn finish(self) -> Result<(), String> {
        println!("\n{:<12} {:<8} {:>8}", "stage", "result", "took");
        for line in &self.lines {
            let row = format!(
                "{:<12} {:<8} {:>8}  {}",
                line.name,
                word(&line.verdict),
                seconds(line.took),
                line.note
            );
            println!("{}", row.trim_end());
        }
        let count = |wanted: &str| {
            self.lines
                .iter()
                .filter(|line| word(&line.verdict) == wanted)
                .count()
        };
        let (passed, skipped, failed) = (count("passed"), count("skipped"), count("FAILED"));
        println!(
            "{passed} passed, {skipped} skipped, {failed} failed in {}",
            seconds(self.started.elapsed())
        );
        if failed > 0 {
            Err(format!("{failed} stage(s) failed"))
        } else {
            self.every_name_exists()
        }
    }

    /// A misspelt stage must not pass for one that ran.
    fn every_name_exists(&self) -> Result<(), String> {
        match self
            .only
            .iter()
            .find(|name| !self.offered.contains(&name.as_str()))
        {
            Some(name) => Err(format!(
                "no stage is called `{name}`; there are {}",
                self.offered.join(" ")
            )),
            None => Ok(()),
        }
    }
}

fn word(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Passed => "passed",
        Verdict::Skipped => "skipped",
        Verdict::Failed => "FAILED",
    }
}

fn seconds(took: Duration) -> String {
    format!("{:.1} s", took.as_secs_f64())
}
