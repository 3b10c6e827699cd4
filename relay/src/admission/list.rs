//! A list of revocations: a token's `jti` or a node's id a line, `#` begins a comment.
//!
//! The list shuts people out, so what is wrong with it lets them in. A line that could be meant as something else than one entry is refused
//! rather than kept as an entry that nobody has. And a file that is being written looks like a shorter one: what it adds counts at once, what it no longer
//! holds only when nobody has touched it for a while.

use std::collections::BTreeSet;

use byway_wire::NodeId;

/// Most entries: what stays in memory is some hundred bytes each.
const MAX_REVOKED: usize = 200_000;

/// A list as its file holds it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct List {
    /// Entries whose line ends.
    whole: BTreeSet<String>,
    /// That of the last line, which has no end: perhaps half of one.
    last: Option<String>,
    /// Every line ends.
    ends: bool,
    /// It holds a comment: somebody wrote it, even if nobody is on it.
    commented: bool,
}

/// That of a relay that has none: nobody is on it, and nobody is writing it.
impl Default for List {
    fn default() -> Self {
        Self {
            whole: BTreeSet::new(),
            last: None,
            ends: true,
            commented: false,
        }
    }
}

/// What a list means to one that is in force.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Change {
    /// It holds.
    Holds(BTreeSet<String>),
    /// It may be half-written: this holds until it is seen once more.
    Unsure(BTreeSet<String>),
}

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum ListError {
    #[error(
        "line {0}: spaces, quotes and commas are in no entry; write one token's 'jti' or one node's id a line, bare"
    )]
    Line(usize),
    #[error(
        "{0} entries; let tokens expire sooner, so that fewer need to be revoked ({MAX_REVOKED} at the most)"
    )]
    TooMany(usize),
    #[error(
        "it is empty where {0} entries are in force, which are kept; if nobody is to be revoked any more, write a comment line that says so"
    )]
    Empty(usize),
}

impl List {
    pub(super) fn parse(text: &str) -> Result<Self, ListError> {
        let mut list = Self {
            ends: text.is_empty() || text.ends_with('\n'),
            ..Self::default()
        };
        let mut lines = text.lines().enumerate().peekable();
        while let Some((number, line)) = lines.next() {
            let (entry, commented) = split(line);
            list.commented |= commented;
            let strange = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | ',');
            if entry.contains(strange) {
                return Err(ListError::Line(number + 1));
            }
            if entry.is_empty() {
                continue;
            }
            if list.ends || lines.peek().is_some() {
                list.whole.insert(canonical(entry));
            } else {
                list.last = Some(canonical(entry));
            }
        }
        let entries = list.whole.len() + usize::from(list.last.is_some());
        if entries > MAX_REVOKED {
            return Err(ListError::TooMany(entries));
        }
        Ok(list)
    }

    /// All entries, the last line's too: what holds where there was no list before.
    pub(super) fn entries(mut self) -> BTreeSet<String> {
        self.whole.extend(self.last);
        self.whole
    }

    /// What follows from it where `in_force` was. `settled`: the file is what it was at the look before.
    pub(super) fn after(
        self,
        in_force: &BTreeSet<String>,
        settled: bool,
    ) -> Result<Change, ListError> {
        let empty = self.whole.is_empty() && self.last.is_none();
        if empty && !self.commented && !in_force.is_empty() {
            return Err(ListError::Empty(in_force.len()));
        }
        let lost = in_force
            .iter()
            .any(|entry| !self.whole.contains(entry) && self.last.as_ref() != Some(entry));
        if settled || (self.ends && !lost) {
            return Ok(Change::Holds(self.entries()));
        }
        // Half an entry may be another's whole one.
        Ok(Change::Unsure(&self.whole | in_force))
    }
}

/// A line's entry, and whether it has a comment. A token's id may hold any sign, so `#` begins one only where a word could begin.
fn split(line: &str) -> (&str, bool) {
    let comment = line.match_indices('#').find(|(at, _)| {
        let before = line[..*at].chars().next_back();
        before.is_none_or(char::is_whitespace)
    });
    let end = comment.map_or(line.len(), |(at, _)| at);
    (line[..end].trim(), comment.is_some())
}

/// A node is written in one way in the rules, and may be in several here: one that is shut out in capitals must not come in.
fn canonical(entry: &str) -> String {
    let node = entry
        .parse::<NodeId>()
        .or_else(|_| entry.to_lowercase().parse());
    node.map_or_else(|_| entry.to_owned(), |id| id.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(entries: &[&str]) -> BTreeSet<String> {
        entries.iter().map(|entry| (*entry).to_owned()).collect()
    }
    fn entries(text: &str) -> Vec<String> {
        let list = List::parse(text).unwrap();
        list.entries().into_iter().collect()
    }
    fn after(text: &str, in_force: &[&str], settled: bool) -> Result<Change, ListError> {
        List::parse(text).unwrap().after(&set(in_force), settled)
    }

    #[test]
    fn a_list_has_comments_and_blank_lines() {
        let list = "# lost laptop\nabc  # Eve's, \"the\" laptop\n\n  def\nabc\r\nx#1 # y\nlast";
        assert_eq!(entries(list), ["abc", "def", "last", "x#1"]);
        let id = byway_wire::SecretKey::from_bytes(&[1; 32])
            .node_id()
            .to_string();
        let capitals = format!(" {} # a node", id.to_uppercase());
        assert_eq!(entries(&capitals), [id]);
    }

    /// Kept as they are they would be entries that no token has, and nobody would notice.
    #[test]
    fn a_line_that_is_more_than_one_bare_entry_is_refused() {
        for line in ["a b", "a\tb", "\"a\"", "'a'", "`a`", "a,b", "a,"] {
            let list = List::parse(&format!("# people\nok\n{line}\n"));
            assert_eq!(list, Err(ListError::Line(3)), "{line}");
        }
    }

    #[test]
    fn too_many_entries_are_refused() {
        let list: String = (0..=MAX_REVOKED).map(|n| format!("{n}\n")).collect();
        let error = List::parse(&list).unwrap_err();
        assert_eq!(error, ListError::TooMany(MAX_REVOKED + 1));
    }

    #[test]
    fn what_is_added_holds_at_once_and_what_is_lost_when_the_list_has_settled() {
        let holds = |entries: &[&str]| Ok(Change::Holds(set(entries)));
        let unsure = |entries: &[&str]| Ok(Change::Unsure(set(entries)));
        assert_eq!(after("a\nb\n", &["a"], false), holds(&["a", "b"]));
        assert_eq!(after("b\n", &["a"], false), unsure(&["a", "b"]));
        assert_eq!(after("b\n", &["a"], true), holds(&["b"]));
        // `b` may be the beginning of `bob`.
        assert_eq!(after("a\nc\nb", &["a"], false), unsure(&["a", "c"]));
        assert_eq!(after("a\nc\nb", &["a"], true), holds(&["a", "b", "c"]));
        assert_eq!(after("a", &["a"], false), unsure(&["a"]));
        assert_eq!(after("", &[], false), holds(&[]));
    }

    #[test]
    fn an_empty_list_lets_everybody_in_again_only_if_it_says_so() {
        for settled in [false, true] {
            for empty in ["", "\n", "  \n\n"] {
                let error = after(empty, &["a", "b"], settled);
                assert_eq!(error, Err(ListError::Empty(2)), "{empty:?}");
            }
        }
        let said = |settled| after("# nobody\n", &["a"], settled);
        assert_eq!(said(false), Ok(Change::Unsure(set(&["a"]))));
        assert_eq!(said(true), Ok(Change::Holds(set(&[]))));
    }
}
