//! Where in a configuration file a value stands, for errors that are found after it was read.

use toml::de::{DeTable, DeValue};

/// The line of a key, counted from 1; `table.key` for one in a table. None if the file does not say it.
pub(super) fn line_of(text: &str, key: &str) -> Option<usize> {
    let parsed = DeTable::parse(text).ok()?;
    let mut table = parsed.get_ref();
    let mut parts = key.split('.').peekable();
    loop {
        let part = parts.next()?;
        let (name, value) = table.iter().find(|(name, _)| name.get_ref() == part)?;
        if parts.peek().is_none() {
            let before = text.get(..name.span().start)?;
            return Some(before.matches('\n').count() + 1);
        }
        match value.get_ref() {
            DeValue::Table(inner) => table = inner,
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_where_it_stands() {
        let text = "# a comment\nname = \"a\"\n\n[tokens]\nkeys = [\n  \"b\",\n]\naudiences = []\n";
        assert_eq!(line_of(text, "name"), Some(2));
        assert_eq!(line_of(text, "tokens"), Some(4));
        assert_eq!(line_of(text, "tokens.keys"), Some(5));
        assert_eq!(line_of(text, "tokens.audiences"), Some(8));
        assert_eq!(line_of(text, "tokens.issuer"), None);
        assert_eq!(line_of(text, "region"), None);
        assert_eq!(line_of("not toml", "name"), None);
        assert_eq!(line_of("tokens.keys = []", "tokens.keys"), Some(1));
    }
}
