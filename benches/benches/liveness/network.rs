//! Two namespaces with two links between them: one to be cut, one that stays.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::{Fault, Result, succeed};

/// Names and the server's and the peers' addresses.
const TO_BE_CUT: Link = Link {
    server: ("cut0", "10.77.0.1"),
    peers: ("cut1", "10.77.0.2"),
};
const TO_STAY: Link = Link {
    server: ("whole0", "10.77.1.1"),
    peers: ("whole1", "10.77.1.2"),
};

struct Link {
    server: (&'static str, &'static str),
    peers: (&'static str, &'static str),
}

/// Why this machine cannot do it.
pub(crate) fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("network namespaces need root".to_owned());
    }
    let tools = [("ip", "-V"), ("nsenter", "-V"), ("unshare", "-V")];
    for (tool, version) in tools {
        let ran = Command::new(tool)
            .arg(version)
            .stdout(Stdio::null())
            .status();
        if let Err(error) = ran {
            return Some(format!("cannot run {tool}: {error}"));
        }
    }
    let allowed = Command::new("unshare")
        .args(["--net", "ip", "link", "add", "v0", "type", "veth"])
        .status();
    match allowed {
        Ok(status) if status.success() => None,
        _ => Some("this kernel, or this container, lets nobody make veth links".to_owned()),
    }
}

/// Measures in a namespace of its own.
pub(crate) fn alone(this: &Path) -> Result<()> {
    let mut command = Command::new("unshare");
    succeed(command.args(["--net", "--"]).arg(this).arg("measure"))
}

/// Keeps a namespace until stdin ends.
pub(crate) fn hold() -> Result<()> {
    println!("ready");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// The peers' namespace, and the links to it from this process's.
pub(crate) struct Network {
    /// Ends with this one, and the namespace and the links with it.
    holder: Child,
}

impl Network {
    pub(crate) fn build() -> Result<Self> {
        let mut holder = Command::new("unshare")
            .args(["--net", "--"])
            .arg(std::env::current_exe()?)
            .arg("hold")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = holder.stdout.take().ok_or("the child has no stdout")?;
        BufReader::new(stdout).read_line(&mut String::new())?;
        let network = Network { holder };
        for link in [TO_BE_CUT, TO_STAY] {
            network.connect(&link)?;
        }
        Ok(network)
    }

    fn connect(&self, link: &Link) -> Result<()> {
        let holder = self.holder.id();
        let (here, server) = link.server;
        let (there, peers) = link.peers;
        ip(
            Command::new("ip"),
            &format!("link add {here} type veth peer name {there} netns {holder}"),
        )?;
        ip(
            Command::new("ip"),
            &format!("address add {server}/30 dev {here}"),
        )?;
        ip(Command::new("ip"), &format!("link set {here} up"))?;
        ip(
            self.there("ip"),
            &format!("address add {peers}/30 dev {there}"),
        )?;
        ip(self.there("ip"), &format!("link set {there} up"))
    }

    /// Takes the peers' end of the first link down.
    pub(crate) fn cut(&self) -> Result<()> {
        let (there, _) = TO_BE_CUT.peers;
        ip(self.there("ip"), &format!("link set {there} down"))
    }

    /// Starts the peers that will suffer this.
    pub(crate) fn start_peer(&self, fault: Fault, doors: &[String]) -> Result<Child> {
        let link = match fault {
            Fault::Cut => TO_BE_CUT,
            _ => TO_STAY,
        };
        let this = std::env::current_exe()?;
        let child = self
            .there(this.to_str().ok_or("the bench's path is not UTF-8")?)
            .args(["peer", &(fault as u8).to_string(), link.server.1])
            .args(doors)
            .stdin(Stdio::piped())
            .spawn()?;
        Ok(child)
    }

    /// A program in the peers' namespace; nsenter becomes it, so that its process id is that of the child.
    fn there(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/proc/{}/ns/net", self.holder.id()))
            .args(["--", program]);
        command
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        // It ends by itself when its stdin does.
        let _ = self.holder.wait();
    }
}

fn ip(mut command: Command, words: &str) -> Result<()> {
    succeed(command.args(words.split(' ')))
}
