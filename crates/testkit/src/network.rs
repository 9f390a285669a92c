//! The bridge of a test's daemon: a name, a firewall table and a subnet that no other test has, what of it is
//! left on the machine, and its end. A daemon leaves its bridge standing, as its containers may use it.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::Path;

use db::Db;
use network::{Config, Network};

/// The bridge that belongs to one test directory.
#[derive(Debug, Clone)]
pub struct Bridge {
    /// Name of the interface.
    pub name: String,
    /// The bridge's own address; the subnet has 24 bits.
    pub address: Ipv4Addr,
}

impl Bridge {
    /// The one of a directory with a random name.
    pub fn of(directory: &Path) -> Self {
        let name = directory.file_name().expect("a named directory");
        let name = name.to_string_lossy();
        Self::named(&format!("ct{}", &name[name.len().saturating_sub(6)..]))
    }

    /// The one of this name.
    pub fn named(name: &str) -> Self {
        // FNV-1a; spread over 100.64.0.0/10, which no ordinary network uses.
        let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
            (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
        });
        let [a, b, ..] = hash.to_le_bytes();
        Self {
            name: name.to_owned(),
            address: Ipv4Addr::new(100, 64 + a % 64, b, 1),
        }
    }

    /// The name of its firewall table and of all that hangs on it.
    pub fn instance(&self) -> String {
        format!("cooper-{}", self.name)
    }

    /// What is there of it, one line each.
    pub fn left(&self) -> BTreeSet<String> {
        let links = output("ip", &["-o", "link", "show"]);
        let rules = output("nft", &["list", "ruleset"]);
        let instance = self.instance();
        let aliases = format!("{instance}:");
        let link = |line: &&str| {
            line.contains(&format!(" {}:", self.name))
                || line.contains(&format!("master {} ", self.name))
                || line.contains(&aliases)
        };
        let rule = |line: &&str| {
            line.contains(&format!("\"{}\"", self.name))
                || line.contains(&format!("table inet {instance} "))
        };
        links
            .lines()
            .filter(link)
            .chain(rules.lines().filter(rule))
            .map(str::to_owned)
            .collect()
    }

    /// Removes it for good; the daemon has ended.
    pub fn remove(&self, data_root: &Path) {
        self.try_remove(data_root).expect("remove the bridge");
    }

    /// As [`Bridge::remove`], for a test that has failed already.
    ///
    /// # Errors
    /// What stands in the way: the database cannot be opened, or the kernel refuses.
    pub fn try_remove(&self, data_root: &Path) -> anyhow::Result<()> {
        if self.left().is_empty() {
            return Ok(());
        }
        self.take_down(data_root)
    }

    /// Removes whatever the database of this data root knows of it.
    ///
    /// # Errors
    /// As [`Bridge::try_remove`].
    pub fn take_down(&self, data_root: &Path) -> anyhow::Result<()> {
        let path = data_root.join("cooper.db");
        if !path.exists() {
            return Ok(());
        }
        let mut config = Config::new(Db::open(&path)?, data_root.display().to_string());
        config.bridge.clone_from(&self.name);
        config.instance = self.instance();
        Ok(Network::open(config).and_then(Network::remove)?)
    }
}

fn output(program: &str, arguments: &[&str]) -> String {
    let mut command = sys::command::Command::new(program);
    for argument in arguments {
        command = command.arg(argument);
    }
    let output = command
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
