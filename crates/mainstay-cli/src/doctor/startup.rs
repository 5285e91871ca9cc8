//! Which start-up file of a shell put a folder on PATH, as far as its text tells.

use std::path::Path;

/// Relative to the home folder, then below the root, in the order that shells read them.
const OF_THE_USER: &[&str] = &[
    ".profile",
    ".bash_profile",
    ".bash_login",
    ".bashrc",
    ".zshenv",
    ".zprofile",
    ".zshrc",
    ".config/fish/config.fish",
];
const OF_THE_MACHINE: &[&str] = &[
    "etc/environment",
    "etc/profile",
    "etc/bash.bashrc",
    "etc/zsh/zshenv",
];

/// Nobody's start-up file is larger; what is, is not read.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// `FILE:LINE` of each line that puts `dir` on PATH.
pub(super) fn places(root: &Path, home: Option<&Path>, dir: &Path) -> Vec<String> {
    let dir = dir.to_string_lossy();
    let users = home.into_iter().flat_map(|home| {
        OF_THE_USER
            .iter()
            .map(move |name| (home.join(name), format!("~/{name}")))
    });
    let machines = OF_THE_MACHINE
        .iter()
        .map(|name| (root.join(name), format!("/{name}")));
    let mut found = Vec::new();
    for (file, shown) in users.chain(machines) {
        if std::fs::metadata(&file).is_ok_and(|meta| meta.len() > FILE_BYTES_MAX) {
            continue;
        }
        let Ok(text) = std::fs::read_to_string(&file) else {
            continue;
        };
        for (number, line) in text.lines().enumerate() {
            if puts(line, &dir, home) {
                found.push(format!("{shown}:{}", number + 1));
            }
        }
    }
    found
}

/// Whether a line of a shell script puts `dir` on PATH: it says so, or it sources rustup's script that does.
fn puts(line: &str, dir: &str, home: Option<&Path>) -> bool {
    let code = line.trim_start();
    if code.starts_with('#') {
        return false;
    }
    let mut code = code.to_owned();
    if let Some(home) = home.and_then(Path::to_str) {
        for name in ["${HOME}", "$HOME", "~"] {
            code = code.replace(name, home);
        }
    }
    if let Some(cargo_home) = dir.strip_suffix("/bin")
        && code.contains(&format!("{cargo_home}/env"))
    {
        return true;
    }
    // `/usr/bin` must not be found in `/opt/usr/bin2`.
    let goes_on = |letter: char| letter.is_alphanumeric() || "/_-.}".contains(letter);
    let names_dir = code.match_indices(dir).any(|(at, _)| {
        !code[..at].ends_with(goes_on) && !code[at + dir.len()..].starts_with(goes_on)
    });
    let sets_path = code.contains("PATH") || code.contains("path");
    names_dir && sets_path
}

#[cfg(test)]
mod tests {
    use super::puts;
    use std::path::Path;

    #[test]
    fn the_line_that_sets_the_folder_is_told_from_others() {
        let home = Some(Path::new("/home/u"));
        let dir = "/home/u/.cargo/bin";
        for line in [
            "export PATH=\"/home/u/.cargo/bin:$PATH\"",
            "  PATH=$PATH:${HOME}/.cargo/bin",
            ". \"$HOME/.cargo/env\"",
            "fish_add_path ~/.cargo/bin",
        ] {
            assert!(puts(line, dir, home), "{line}");
        }
        for line in [
            "# PATH=~/.cargo/bin",
            "PATH=~/.cargo/bin2:$PATH",
            "PATH=/opt~/.cargo/bin",
            "ls ~/.cargo/bin",
        ] {
            assert!(!puts(line, dir, home), "{line}");
        }
        assert!(puts("PATH=\"/usr/local/bin:/usr/bin\"", "/usr/bin", None));
    }
}
