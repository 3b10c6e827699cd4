//! Names for tickets: one `NAME TICKET` a line, in a file that only its owner can read, since tickets hold secrets.

use std::collections::BTreeMap;
use std::path::PathBuf;

use byway::Ticket;

use crate::failure::{Code, Failure};
use crate::state;

/// All aliases.
#[derive(Debug)]
pub(crate) struct Aliases {
    path: PathBuf,
    map: BTreeMap<String, Ticket>,
}

impl Aliases {
    pub(crate) fn load() -> Result<Self, Failure> {
        let path = state::file("aliases")?;
        check_mode(&path)?;
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => {
                return Err(Failure::new(Code::Failed, "cannot read the aliases")
                    .why(format!("{}: {error}", path.display())));
            }
        };
        let map = parse(&text).map_err(|line| {
            Failure::new(Code::Failed, "cannot read the aliases")
                .why(format!("{}: line {line} is damaged", path.display()))
                .hint("correct or remove that line")
        })?;
        Ok(Self { path, map })
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Ticket> {
        self.map.get(name)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Ticket)> {
        self.map
            .iter()
            .map(|(name, ticket)| (name.as_str(), ticket))
    }

    /// Adds or replaces; true if it replaced. The name must have passed [`check_name`].
    pub(crate) fn insert(name: &str, ticket: Ticket) -> Result<bool, Failure> {
        let _locked = lock()?;
        let mut aliases = Self::load()?;
        let replaced = aliases.map.insert(name.to_owned(), ticket).is_some();
        aliases.save()?;
        Ok(replaced)
    }

    /// True if there was such an alias.
    pub(crate) fn remove(name: &str) -> Result<bool, Failure> {
        let _locked = lock()?;
        let mut aliases = Self::load()?;
        let removed = aliases.map.remove(name).is_some();
        if removed {
            aliases.save()?;
        }
        Ok(removed)
    }

    fn save(&self) -> Result<(), Failure> {
        let text: String = self
            .map
            .iter()
            .map(|(name, ticket)| format!("{name} {ticket}\n"))
            .collect();
        state::replace(&self.path, text.as_bytes()).map_err(|error| {
            Failure::new(Code::Failed, "cannot store the alias")
                .why(format!("{}: {error}", self.path.display()))
        })
    }
}

/// Two that add at the same moment must not lose each other's.
fn lock() -> Result<std::fs::File, Failure> {
    state::lock(&state::file("aliases")?)
        .map_err(|error| Failure::new(Code::Failed, "cannot change the aliases").why(error))
}

/// Tickets hold secrets: as with a key, others must not be able to read them.
fn check_mode(path: &std::path::Path) -> Result<(), Failure> {
    use std::os::unix::fs::PermissionsExt;
    let open = std::fs::metadata(path).is_ok_and(|known| known.permissions().mode() & 0o077 != 0);
    if !open {
        return Ok(());
    }
    Err(Failure::new(Code::Failed, "cannot use the aliases")
        .why(format!("others can read the tickets in {}", path.display()))
        .hint(format!("chmod 600 {}", path.display())))
}

/// The map, or the number of the first line that is damaged.
fn parse(text: &str) -> Result<BTreeMap<String, Ticket>, usize> {
    let mut map = BTreeMap::new();
    for (number, line) in (1_usize..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, ticket) = line.split_once(char::is_whitespace).ok_or(number)?;
        let ticket = ticket.trim().parse().map_err(|_| number)?;
        map.insert(name.to_owned(), ticket);
    }
    Ok(map)
}

/// A name must not look like a ticket, a file, or an option, and must be usable in a host name.
pub(crate) fn check_name(name: &str) -> Result<(), Failure> {
    let plain = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if plain && starts_well && name.len() <= 63 && !name.starts_with("byway1") {
        return Ok(());
    }
    Err(
        Failure::new(Code::Usage, format!("'{name}' cannot be an alias")).why(
            "an alias is 1-63 letters, digits, '-', '_' and '.', and does not begin with 'byway1'",
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_be_mistaken_are_refused() {
        for good in ["work", "a", "my-box.2", "X_1"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "-v",
            "@file",
            "byway1abc",
            "a b",
            "a/b",
            "h\u{e9}",
            &"x".repeat(64),
        ] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_damaged_line_is_named() {
        assert_eq!(parse("# note\n\nwork not-a-ticket\n").err(), Some(3));
        assert_eq!(parse("alone\n").err(), Some(1));
        assert!(parse("# only comments\n\n").is_ok_and(|map| map.is_empty()));
    }
}
