//! The relay map: one file that tells nodes which relays there are, in which regions, and how each is known.
//!
//! An operator publishes it instead of a flag for each relay, and changes it while nodes run: what is new is linked, what is
//! gone is left once something else has its place ([`crate::Endpoint::set_relay_map`], and [`crate::Builder::relay_map_file`],
//! which follows the file).
//!
//! ```toml
//! [[region]]
//! name = "eu-central"
//! [[region.relay]]
//! url = "https://relay-1.example.com"
//! addresses = ["192.0.2.1", "2001:db8::1"]
//! ```
//!
//! Nodes of different ages read one map. So what a node does not know is skipped, with a line in the log at level `debug`;
//! what it knows and cannot read is an error that names the line and the mend, and so is everything that contradicts itself.
//! `version`, 1 where it is not said, is for what must not be skipped: a map of a later version is refused.
//!
//! | file | idea |
//! |---|---|
//! | `read` | what a file holds, if it is a file |
//! | `parse` | from the text to regions, with the line of what is wrong |
//! | `follow` | the file is read again when it changes |
//! | `notice` | when that may be |

pub(crate) mod follow;
mod notice;
mod parse;
mod read;

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use byway_wire::relay::RelayUrlError;
use byway_wire::text::printable;
use byway_wire::{RelayUrl, relay, ticket};
use read::read;

/// Most regions: more than any provider has.
pub const MAX_REGIONS: usize = 64;
/// Most relays: half of what a node knows at once, so that there is room for those that tickets name.
pub const MAX_RELAYS: usize = 128;
/// Most addresses of one relay: as many as a ticket keeps beside a name.
pub const MAX_ADDRESSES: usize = ticket::MAX_ADDRS;
/// Longest name of a region, in bytes: as relays have it.
pub const MAX_NAME: usize = relay::control::MAX_NAME;
/// Longest file, in bytes: the largest map takes a third of it, and comments are welcome.
const MAX_FILE: usize = 256 * 1024;

/// Relays by regions. There is at least one relay, and none is there twice.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RelayMap {
    regions: Vec<Region>,
}

/// A place with relays: what fails together, and what people are told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Region {
    /// Its name, 1 to 64 bytes.
    pub name: String,
    /// Its relays.
    pub relays: Vec<MappedRelay>,
}

/// One relay of a map.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MappedRelay {
    /// Where it is, and its pin.
    pub url: RelayUrl,
    /// Addresses to be tried when its name does not resolve, or not soon; at most 4.
    pub addresses: Vec<IpAddr>,
}

impl MappedRelay {
    /// One that is found by its name alone.
    pub fn new(url: RelayUrl) -> Self {
        Self {
            url,
            addresses: Vec::new(),
        }
    }

    /// Its addresses with the port; that of a relay which has no name is its URL's.
    pub(crate) fn socket_addrs(&self) -> Vec<SocketAddr> {
        let own = self.url.host().parse::<IpAddr>().ok();
        let all = own.into_iter().chain(self.addresses.iter().copied());
        all.map(|ip| SocketAddr::new(ip.to_canonical(), self.url.port()))
            .collect()
    }
}

impl RelayMap {
    /// A map of these regions, for programs that get it otherwise than as a file.
    pub fn new(regions: Vec<Region>) -> Result<Self, RelayMapFault> {
        let map = Self { regions };
        // Without a text there are no lines.
        map.check().map_err(|(_, fault)| fault)?;
        Ok(map)
    }

    /// Reads a file. Errors name it, and the line.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, RelayMapError> {
        let path = path.as_ref();
        of_text(path, read(path)).map(|(_, map)| map)
    }

    /// The regions, in the map's order.
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// All relays, in the map's order, each with its region.
    pub fn relays(&self) -> impl Iterator<Item = (&Region, &MappedRelay)> {
        self.regions
            .iter()
            .flat_map(|region| region.relays.iter().map(move |relay| (region, relay)))
    }

    /// The name of a relay's region; none if the map does not have the relay.
    pub fn region_of(&self, url: &RelayUrl) -> Option<&str> {
        let mut relays = self.relays();
        relays.find_map(|(region, relay)| (relay.url == *url).then_some(region.name.as_str()))
    }

    /// Refuses what no map may be, with where: the region, and the relay in it if it is that one.
    fn check(&self) -> Result<(), (Place, RelayMapFault)> {
        let mut names = BTreeSet::new();
        let mut relays = BTreeSet::new();
        for (n, region) in self.regions.iter().enumerate() {
            let fault = |fault| Err(((n, None), fault));
            let name = &region.name;
            if n >= MAX_REGIONS {
                return fault(RelayMapFault::TooManyRegions);
            }
            if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
                return fault(RelayMapFault::Name);
            }
            if !names.insert(name) {
                return fault(RelayMapFault::RegionTwice(name.clone()));
            }
            if region.relays.is_empty() {
                return fault(RelayMapFault::NoRelay(name.clone()));
            }
            for (m, relay) in region.relays.iter().enumerate() {
                let fault = |fault| Err(((n, Some(m)), fault));
                let authority = relay.url.authority();
                if relays.len() >= MAX_RELAYS {
                    return fault(RelayMapFault::TooManyRelays);
                }
                if relay.addresses.len() > MAX_ADDRESSES {
                    return fault(RelayMapFault::TooManyAddresses);
                }
                if !relays.insert(authority.clone()) {
                    return fault(RelayMapFault::RelayTwice(authority));
                }
            }
        }
        if relays.is_empty() {
            return Err(((0, None), RelayMapFault::Empty));
        }
        Ok(())
    }
}

/// A region by its position, and a relay by that in it.
type Place = (usize, Option<usize>);

/// The map that a file's text is; or the fault of that file.
fn of_text(
    path: &Path,
    text: Result<String, RelayMapFault>,
) -> Result<(String, RelayMap), RelayMapError> {
    let text = text.map_err(RelayMapError::from);
    let map = text.and_then(|text| {
        let map = text.parse()?;
        Ok((text, map))
    });
    map.map_err(|error: RelayMapError| RelayMapError {
        path: Some(path.to_owned()),
        ..error
    })
}

/// Why there is no map: what is wrong, in which line of which file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RelayMapError {
    /// The file, if it came from one.
    pub path: Option<PathBuf>,
    /// The line, counted from 1, if it is one line's fault.
    pub line: Option<usize>,
    /// What is wrong.
    pub fault: RelayMapFault,
}

impl std::error::Error for RelayMapError {}

impl fmt::Display for RelayMapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(path) = &self.path {
            write!(f, "{}: ", path.display())?;
        }
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        write!(f, "{}", self.fault)
    }
}

impl From<RelayMapFault> for RelayMapError {
    fn from(fault: RelayMapFault) -> Self {
        Self {
            path: None,
            line: None,
            fault,
        }
    }
}

/// What is wrong with a map, and how to mend it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RelayMapFault {
    /// The file cannot be read.
    #[error("the relay map cannot be read: {0}")]
    Read(String),
    /// It is a pipe, a folder or a device.
    #[error(
        "a relay map is a file, and this is none: a node follows it, and reads it again and again"
    )]
    NoFile,
    /// It is something else.
    #[error("a relay map has at most {MAX_FILE} bytes, and this is longer")]
    TooLong,
    /// It is something else.
    #[error("a relay map is text in UTF-8, and this is not")]
    NoText,
    /// It is no TOML.
    #[error("{}", printable(.0))]
    Syntax(String),
    /// It was written for later nodes.
    #[error("the map is of version {}, and this node reads version 1: upgrade it, or give it a map of version 1", printable(.0))]
    Version(String),
    /// A value is of the wrong type.
    #[error("'{field}' must be {expected}")]
    Type {
        /// The name of the value.
        field: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// Something must be said.
    #[error("{of} needs '{field}'")]
    Missing {
        /// Of what.
        of: &'static str,
        /// What is missing.
        field: &'static str,
    },
    /// A relay's URL is none.
    #[error("'{}': {why}; write it as the relay prints it, https://HOST[:PORT][#PIN]", printable(.text))]
    Url {
        /// What is written.
        text: String,
        /// Why it is none.
        why: RelayUrlError,
    },
    /// An address is none.
    #[error("'{}' is no IP address; write 192.0.2.1 or 2001:db8::1, the port is the URL's", printable(.0))]
    Address(String),
    /// A region's name is none.
    #[error("a region's name has 1 to {MAX_NAME} bytes and no control characters")]
    Name,
    /// Two regions of one name.
    #[error("there is a region '{}' already: put its relays together, or give it another name", printable(.0))]
    RegionTwice(String),
    /// Two relays at one host and port.
    #[error("{0} is there already: each host and port is one relay, with one pin")]
    RelayTwice(String),
    /// A region without relays; perhaps the file is cut off.
    #[error("the region '{}' has no relay: add a [[region.relay]], or remove it", printable(.0))]
    NoRelay(String),
    /// No relay at all.
    #[error("the map names no relay: add a [[region]] and a [[region.relay]] in it")]
    Empty,
    /// See [`MAX_REGIONS`].
    #[error("a map has at most {MAX_REGIONS} regions")]
    TooManyRegions,
    /// See [`MAX_RELAYS`].
    #[error("a map has at most {MAX_RELAYS} relays: give nodes of different places different maps")]
    TooManyRelays,
    /// See [`MAX_ADDRESSES`].
    #[error("a relay has at most {MAX_ADDRESSES} addresses")]
    TooManyAddresses,
}
