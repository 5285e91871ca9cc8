//! The root file system of a machine: the static init, test binaries and the shared libraries they need, as an
//! uncompressed cpio archive.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::cmd::Cmd;
use crate::tools;

/// Programs of the host that tests may start.
const PROGRAMS: &[&str] = &["sh", "cat", "sleep", "true"];

const FOLDERS: &[&str] = &["bin", "dev", "etc", "proc", "root", "sys", "tmp", "var"];

/// An archive in the making: absolute paths and their contents.
#[derive(Default)]
pub(crate) struct Image {
    files: BTreeMap<String, Vec<u8>>,
}

impl Image {
    /// The base of every machine.
    pub(crate) fn new(init: &Path) -> Result<Self, String> {
        let mut image = Self::default();
        image.file("/init", read(init)?);
        for name in PROGRAMS {
            if let Some(program) = tools::find_program(name) {
                image.program(&format!("/bin/{name}"), &program)?;
            }
        }
        Ok(image)
    }

    pub(crate) fn file(&mut self, path: &str, content: Vec<u8>) {
        self.files.insert(path.into(), content);
    }

    /// A program with the libraries that the host's loader finds for it.
    pub(crate) fn program(&mut self, path: &str, from: &Path) -> Result<(), String> {
        self.file(path, read(from)?);
        // It fails for a static program, which needs nothing.
        let listed = Cmd::new("ldd").arg(from).capture().unwrap_or_default();
        let libraries = listed
            .split_whitespace()
            .filter(|word| word.starts_with('/'));
        for library in libraries {
            if !self.files.contains_key(library) {
                self.file(library, read(library.as_ref())?);
            }
        }
        Ok(())
    }

    /// The archive in the format that the kernel unpacks ("newc").
    pub(crate) fn into_archive(self) -> Vec<u8> {
        const FOLDER: u32 = 0o040_755;
        const PROGRAM: u32 = 0o100_755;
        let mut archive = Archive::default();
        let mut folders: Vec<String> = FOLDERS.iter().map(|name| (*name).into()).collect();
        for path in self.files.keys() {
            let path = path.trim_start_matches('/');
            folders.extend(path.match_indices('/').map(|(at, _)| path[..at].to_owned()));
        }
        // Sorted, a folder stands before what is in it.
        folders.sort();
        folders.dedup();
        for folder in folders {
            archive.entry(&folder, FOLDER, &[]);
        }
        for (path, content) in &self.files {
            archive.entry(path.trim_start_matches('/'), PROGRAM, content);
        }
        archive.entry("TRAILER!!!", 0, &[]);
        archive.bytes
    }
}

#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let size = |bytes: usize| u32::try_from(bytes).expect("no file of ours has 4 GiB");
        // inode, mode, owner, group, links, time, size, four device numbers, length of the name with its NUL, checksum
        let fields = [
            self.entries,
            mode,
            0,
            0,
            1,
            0,
            size(content.len()),
            0,
            0,
            0,
            0,
            size(name.len() + 1),
            0,
        ];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        let padded = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(padded, 0);
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::Image;

    #[test]
    fn cpio_reads_what_was_written() {
        let mut image = Image::default();
        image.file("/usr/lib/a", b"one".to_vec());
        image.file("/b", Vec::new());
        let archive = image.into_archive();
        assert_eq!(archive.len() % 4, 0);
        let text = String::from_utf8(archive).expect("all of it is text here");
        assert!(text.starts_with("070701"));
        let at = |what: &str| {
            text.find(what)
                .unwrap_or_else(|| panic!("{what} is missing"))
        };
        assert!(at("usr\0") < at("usr/lib\0") && at("usr/lib\0") < at("usr/lib/a\0"));
        // The content begins at the next multiple of four after the name.
        let name = at("usr/lib/a\0");
        let content = (name + "usr/lib/a\0".len()).next_multiple_of(4);
        assert_eq!(&text[content..content + 3], "one");
        assert!(at("TRAILER!!!\0") > content);
    }
}
