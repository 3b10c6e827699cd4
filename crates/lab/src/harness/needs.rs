//! What a scenario cannot do without, and how that is found out: by trying, not by who we are. Root in a container may
//! lack the capability, and a user with it may be allowed.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;
use std::time::SystemTime;

use anyhow::{Context, Result};
use byway_sim::model::Access;

use crate::debian;
use crate::leftovers::unique;
use crate::netns::Namespace;
use crate::programs;
use crate::router::Router;
use crate::world::CLIENT_PUBLIC;

/// Something without which a scenario cannot run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Network namespaces with NATs and a switch in them.
    Namespaces,
    /// A program in the table of Debian's, [`debian::TOOLS`].
    Tool(&'static str),
    /// Release builds of `byway` and `byway-relay`, as new as their sources.
    Binaries,
    /// The same of what is compared with iroh: both sides, and both relays.
    IrohBinaries,
}

/// The programs under every namespace.
const UNDER_NAMESPACES: [&str; 5] = ["ip", "nft", "setpriv", "sysctl", "kill"];

impl Need {
    /// What is lacking and what to do about it, or none.
    pub(super) fn lacking(self) -> Option<String> {
        match self {
            Self::Namespaces => {
                // Once for a run: its answer does not change.
                static PROBED: OnceLock<Option<String>> = OnceLock::new();
                PROBED.get_or_init(no_namespaces).clone()
            }
            Self::Tool(tool) => no_tool(tool),
            Self::Binaries => {
                const BUILD: &str = "cargo build --release -p byway-cli -p byway-relay";
                let ours = ["byway", "byway-relay"].map(programs::binary);
                ours.iter().find_map(|binary| no_binary(binary, BUILD))
            }
            Self::IrohBinaries => {
                let ours = ["bare-peer", "byway-peer", "byway-relay"].map(programs::binary);
                let theirs = ["iroh-peer", "iroh-relay"].map(programs::peer_binary);
                let all = ours.iter().chain(&theirs);
                all.into_iter()
                    .find_map(|binary| no_binary(binary, "cargo xtask bench iroh"))
            }
        }
    }
}

fn no_tool(tool: &'static str) -> Option<String> {
    let install = || debian::install(&[debian::package(tool)]);
    debian::find(tool)
        .is_none()
        .then(|| format!("needs {tool}: {}", install()))
}

fn no_namespaces() -> Option<String> {
    if let Some(why) = UNDER_NAMESPACES.into_iter().find_map(no_tool) {
        return Some(why);
    }
    let error = probe().err()?;
    let told = format!("{error:#}");
    // One line: it is a reason behind a test's name.
    let first = told.lines().next().unwrap_or_default();
    Some(format!(
        "cannot make a network here (run as root?): {first}"
    ))
}

/// All that a world asks of the kernel, once: a namespace, its parameters, a NAT's rules, a TAP port.
fn probe() -> Result<()> {
    let namespace = Namespace::create(&unique(), "probe").context("a namespace")?;
    let router = Router {
        access: Access::Symmetric,
        public: CLIENT_PUBLIC,
        hairpins: true,
        forgets: Router::FORGETS,
    };
    namespace.nft(&router.rules()).context("a NAT's rules")?;
    namespace
        .ip("tuntap add dev probe mode tap\n")
        .context("a TAP port")
}

fn no_binary(binary: &Path, build: &str) -> Option<String> {
    let name = binary.display();
    if !binary.is_file() {
        return Some(format!("needs {name}: {build}"));
    }
    newer_source(binary).map(|source| format!("{name} is stale, {source} is newer: {build}"))
}

/// A source that was changed after the binary was built, by the list that cargo leaves beside it. A binary without such
/// a list was brought here by somebody who knows what it is.
fn newer_source(binary: &Path) -> Option<String> {
    let list = fs::read_to_string(binary.with_extension("d")).ok()?;
    let changed = |path: &str| -> Option<SystemTime> { fs::metadata(path).ok()?.modified().ok() };
    let built = fs::metadata(binary).ok()?.modified().ok()?;
    sources(&list)
        .into_iter()
        .find(|source| changed(source).is_none_or(|at| at > built))
}

/// The paths after the colon of a makefile's rule; a space within one has a backslash before it.
fn sources(rule: &str) -> Vec<String> {
    const SPACE: &str = "\u{0}";
    let line = rule.lines().next().unwrap_or_default();
    let (_, sources) = line.split_once(": ").unwrap_or_default();
    sources
        .replace("\\ ", SPACE)
        .split_whitespace()
        .map(|path| path.replace(SPACE, " "))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_tool_that_a_scenario_needs_is_in_a_package() {
        let scenarios = crate::scenario::all();
        let needs = scenarios.iter().flat_map(|s| s.needs);
        for need in needs.chain(&UNDER_NAMESPACES.map(Need::Tool)) {
            if let Need::Tool(tool) = need {
                assert!(debian::TOOLS.iter().any(|(name, _)| name == tool), "{tool}");
            }
        }
    }

    #[test]
    fn what_lacks_is_told_with_what_helps() {
        let why = Need::Tool("no-such-tool-at-all").lacking().unwrap();
        assert!(why.contains("needs no-such-tool-at-all") && why.contains("apt-get install"));
        assert_eq!(Need::Tool("kill").lacking(), None);
    }

    #[test]
    fn a_binary_older_than_one_of_its_sources_is_stale() {
        let dir = std::env::temp_dir().join(format!("byway-lab-stale-{}", std::process::id()));
        fs::create_dir_all(dir.join("a b")).unwrap();
        let (binary, source) = (dir.join("byway"), dir.join("a b/main.rs"));
        fs::write(&source, "fn main() {}").unwrap();
        fs::write(&binary, "").unwrap();
        // Without a list nothing is said.
        assert_eq!(newer_source(&binary), None);
        let escaped = source.to_string_lossy().replace(' ', "\\ ");
        fs::write(
            dir.join("byway.d"),
            format!("{}: {escaped}\n", binary.display()),
        )
        .unwrap();
        let built = fs::metadata(&binary).unwrap().modified().unwrap();
        let change = |at| {
            let file = fs::File::options().write(true).open(&source).unwrap();
            file.set_modified(at).unwrap();
        };
        change(built - Duration::from_secs(1));
        assert_eq!(newer_source(&binary), None);
        change(built + Duration::from_secs(1));
        assert_eq!(
            newer_source(&binary),
            Some(source.to_string_lossy().into_owned())
        );
        // One that is gone was there when it was built.
        fs::remove_file(&source).unwrap();
        assert!(newer_source(&binary).is_some());
        fs::remove_dir_all(dir).unwrap();
    }
}
