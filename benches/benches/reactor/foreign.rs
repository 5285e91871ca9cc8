//! Servers in other languages, compiled by the bench where their tools are: for the table of memory.

use std::path::PathBuf;
use std::process::Command;

use super::Result;
use super::process::Server;

/// An echo server in another language.
pub(crate) struct Foreign {
    pub(crate) about: &'static str,
    /// Its one source file, and what that is called.
    source: &'static str,
    file: &'static str,
    /// The compiler, what stands before the output, and what behind the source.
    compiler: &'static [&'static str],
    libraries: &'static [&'static str],
}

pub(crate) const FOREIGN: [Foreign; 2] = [
    Foreign {
        about: "libuv, C",
        source: include_str!("servers/echo_uv.c"),
        file: "echo_uv.c",
        compiler: &["cc", "-O2"],
        libraries: &["-luv"],
    },
    Foreign {
        about: "Go, net",
        source: include_str!("servers/echo_go.go"),
        file: "echo_go.go",
        compiler: &["go", "build"],
        libraries: &[],
    },
];

impl Foreign {
    /// Compiles and starts it. `None`, and a word about it, where that is not possible.
    pub(crate) fn start(&self) -> Option<Result<Server>> {
        let directory = tempfile::tempdir().ok()?;
        let Some(program) = self.compile(directory.path().to_owned()) else {
            println!(
                "({} is left out: `{}` does not build {})",
                self.about,
                self.compiler.join(" "),
                self.file
            );
            return None;
        };
        // The file may go once the program runs.
        Some(Server::start_program(&program))
    }

    fn compile(&self, directory: PathBuf) -> Option<PathBuf> {
        let (source, program) = (directory.join(self.file), directory.join("server"));
        std::fs::write(&source, self.source).ok()?;
        let output = Command::new(self.compiler[0])
            .args(&self.compiler[1..])
            .arg("-o")
            .args([&program, &source])
            .args(self.libraries)
            .env("GOCACHE", directory.join("cache"))
            .output();
        output.ok()?.status.success().then_some(program)
    }
}
