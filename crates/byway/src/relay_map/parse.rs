//! From the text of a map to its regions.
//!
//! The parsed TOML is walked by hand rather than by serde: every value keeps its place in the text, so that an error names its
//! line, and what is not known is seen and skipped.

use std::ops::Range;
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{MAX_FILE, MappedRelay, Region, RelayMap, RelayMapError, RelayMapFault as Fault};

/// The version of the format that is read here.
const VERSION: &str = "1";

impl FromStr for RelayMap {
    type Err = RelayMapError;
    fn from_str(text: &str) -> Result<Self, RelayMapError> {
        if text.len() > MAX_FILE {
            return Err(Fault::TooLong.into());
        }
        let (map, places) = Reader { text }.map()?;
        map.check().map_err(|((region, relay), fault)| {
            let place = places.get(region).map(|(region, relays)| {
                let relay = relay.and_then(|n| relays.get(n));
                relay.unwrap_or(region).clone()
            });
            Reader { text }.error(place, fault)
        })?;
        Ok(map)
    }
}

type Place = Range<usize>;
type Value<'v, 't> = &'v Spanned<DeValue<'t>>;

/// Where a region and its relays stand in the text.
type Places = Vec<(Place, Vec<Place>)>;

#[derive(Clone, Copy)]
struct Reader<'t> {
    text: &'t str,
}

impl<'t> Reader<'t> {
    fn map(self) -> Result<(RelayMap, Places), RelayMapError> {
        let table = DeTable::parse(self.text).map_err(|error| {
            let fault = Fault::Syntax(error.message().to_owned());
            self.error(error.span(), fault)
        })?;
        // Before all else: what a later version means by the rest is not known.
        if let Some(version) = table.get_ref().get("version") {
            self.version(version)?;
        }
        let mut map = RelayMap {
            regions: Vec::new(),
        };
        let mut places = Vec::new();
        for (key, value) in table.get_ref() {
            match key.get_ref().as_ref() {
                "version" => {}
                "region" => {
                    for region in self.list(value, "region", "tables, each [[region]]")? {
                        let (region, place) = self.region(region)?;
                        map.regions.push(region);
                        places.push(place);
                    }
                }
                other => self.skip(key.span(), other),
            }
        }
        Ok((map, places))
    }

    fn version(self, value: Value<'_, 't>) -> Result<(), RelayMapError> {
        let Some(version) = value.get_ref().as_integer() else {
            return Err(self.mistyped(value, "version", "a whole number"));
        };
        if version.as_str() == VERSION {
            return Ok(());
        }
        let fault = Fault::Version(version.to_string());
        Err(self.error(Some(value.span()), fault))
    }

    fn region(self, value: Value<'_, 't>) -> Result<(Region, (Place, Vec<Place>)), RelayMapError> {
        let mut name = None;
        let mut relays = Vec::new();
        let mut places = Vec::new();
        for (key, value) in self.table(value, "region", "a table")? {
            match key.get_ref().as_ref() {
                "name" => name = Some((self.quoted(value, "name")?, value.span())),
                "relay" => {
                    for relay in self.list(value, "relay", "tables, each [[region.relay]]")? {
                        relays.push(self.relay(relay)?);
                        places.push(relay.span());
                    }
                }
                other => self.skip(key.span(), other),
            }
        }
        let (name, place) = name.ok_or_else(|| {
            let fault = Fault::Missing {
                of: "a [[region]]",
                field: "name",
            };
            self.error(Some(value.span()), fault)
        })?;
        let name = name.to_owned();
        Ok((Region { name, relays }, (place, places)))
    }

    fn relay(self, value: Value<'_, 't>) -> Result<MappedRelay, RelayMapError> {
        let mut url = None;
        let mut addresses = Vec::new();
        for (key, value) in self.table(value, "relay", "a table")? {
            match key.get_ref().as_ref() {
                "url" => {
                    let text = self.quoted(value, "url")?;
                    let parsed = text.parse().map_err(|why| {
                        let text = text.to_owned();
                        self.error(Some(value.span()), Fault::Url { text, why })
                    });
                    url = Some(parsed?);
                }
                "addresses" => {
                    for address in self.list(value, "addresses", "a list of texts in quotes")? {
                        let text = self.quoted(address, "addresses")?;
                        let parsed = text.parse().map_err(|_| {
                            self.error(Some(address.span()), Fault::Address(text.to_owned()))
                        });
                        addresses.push(parsed?);
                    }
                }
                other => self.skip(key.span(), other),
            }
        }
        let url = url.ok_or_else(|| {
            let fault = Fault::Missing {
                of: "a [[region.relay]]",
                field: "url",
            };
            self.error(Some(value.span()), fault)
        })?;
        Ok(MappedRelay { url, addresses })
    }

    /// What later nodes know.
    fn skip(self, place: Place, field: &str) {
        tracing::debug!(
            line = self.line(place.start),
            field,
            "the relay map says something that this version does not know: it is skipped"
        );
    }

    fn quoted<'v>(
        self,
        value: Value<'v, 't>,
        field: &'static str,
    ) -> Result<&'v str, RelayMapError> {
        let text = value.get_ref().as_str();
        text.ok_or_else(|| self.mistyped(value, field, "a text in quotes"))
    }

    fn table<'v>(
        self,
        value: Value<'v, 't>,
        field: &'static str,
        expected: &'static str,
    ) -> Result<&'v DeTable<'t>, RelayMapError> {
        let table = value.get_ref().as_table();
        table.ok_or_else(|| self.mistyped(value, field, expected))
    }

    fn list<'v>(
        self,
        value: Value<'v, 't>,
        field: &'static str,
        expected: &'static str,
    ) -> Result<impl Iterator<Item = Value<'v, 't>>, RelayMapError> {
        let list = value.get_ref().as_array();
        let list = list.ok_or_else(|| self.mistyped(value, field, expected))?;
        Ok(list.iter())
    }

    fn mistyped(
        self,
        value: Value<'_, 't>,
        field: &'static str,
        expected: &'static str,
    ) -> RelayMapError {
        self.error(Some(value.span()), Fault::Type { field, expected })
    }

    fn error(self, place: Option<Place>, fault: Fault) -> RelayMapError {
        RelayMapError {
            path: None,
            line: place.map(|place| self.line(place.start)),
            fault,
        }
    }

    /// Counted from 1.
    fn line(self, at: usize) -> usize {
        let before = self.text.as_bytes().iter().take(at);
        1 + before.filter(|byte| **byte == b'\n').count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay_map::{MAX_ADDRESSES, MAX_REGIONS, MAX_RELAYS};

    const TWO: &str = r#"
[[region]]
name = "eu"
[[region.relay]]
url = "https://a.test"
addresses = ["192.0.2.1", "2001:db8::1"]
[[region.relay]]
url = "https://b.test:8443"
[[region]]
name = "us"
[[region.relay]]
url = "https://198.51.100.7"
"#;

    fn parse(text: &str) -> Result<RelayMap, RelayMapError> {
        text.parse()
    }
    /// What is said of a text that is no map.
    #[track_caller]
    fn fault(text: &str) -> String {
        let error = parse(text).unwrap_err();
        let rest = error.fault.to_string();
        let said = error.to_string();
        assert!(said.ends_with(&rest), "{said}");
        said
    }

    #[test]
    fn regions_and_relays_come_in_the_files_order() {
        let map = parse(TWO).unwrap();
        let relays = map.relays().map(|(region, relay)| {
            (
                region.name.as_str(),
                relay.url.to_string(),
                relay.addresses.len(),
            )
        });
        let expected = [
            ("eu", "https://a.test:443".to_owned(), 2),
            ("eu", "https://b.test:8443".to_owned(), 0),
            ("us", "https://198.51.100.7:443".to_owned(), 0),
        ];
        assert_eq!(relays.collect::<Vec<_>>(), expected);
        let b = "https://b.test:8443".parse().unwrap();
        assert_eq!(map.region_of(&b), Some("eu"));
        let other = "https://b.test".parse().unwrap();
        assert_eq!(map.region_of(&other), None);
        assert_eq!(RelayMap::new(map.regions().to_vec()), Ok(map));
    }

    #[test]
    fn a_relay_has_its_port_at_all_its_addresses() {
        let map = parse(TWO).unwrap();
        let addrs = map.relays().map(|(_, relay)| relay.socket_addrs());
        let addrs: Vec<Vec<String>> = addrs
            .map(|all| all.iter().map(ToString::to_string).collect())
            .collect();
        assert_eq!(addrs[0], ["192.0.2.1:443", "[2001:db8::1]:443"]);
        assert!(addrs[1].is_empty());
        assert_eq!(addrs[2], ["198.51.100.7:443"]);
    }

    /// The annotated example is a map.
    #[test]
    fn the_example_in_the_documentation_is_read() {
        let example = include_str!("../../../../docs/operations/relays.toml");
        let map = parse(example).unwrap();
        assert!(map.regions().len() >= 2);
        assert!(map.relays().any(|(_, relay)| relay.url.pin().is_some()));
        assert!(map.relays().any(|(_, relay)| !relay.addresses.is_empty()));
    }

    /// Nodes of different ages read one map.
    #[test]
    fn what_is_not_known_is_skipped_wherever_it_stands() {
        let later = r#"
version = 1
published = 2031-01-01
[policy]
home = "nearest"
[[region]]
name = "eu"
latitude = 50.1
[[region.relay]]
url = "https://a.test"
weight = 3
[[region.gateway]]
url = "quic://later.test"
"#;
        let map = parse(later).unwrap();
        assert_eq!(map.relays().count(), 1);
    }

    #[test]
    fn a_later_version_is_refused_whatever_else_it_says() {
        let said = fault("region = 7\nversion = 2\n");
        assert!(
            said.starts_with("line 2: ") && said.contains("upgrade"),
            "{said}"
        );
        assert!(fault("version = \"1\"").contains("whole number"));
    }

    #[test]
    fn what_is_known_and_wrong_is_an_error_with_its_line_and_the_mend() {
        let relay = "[[region]]\nname = 'eu'\n[[region.relay]]\n";
        for (text, line, words) in [
            ("[[region]\n".to_owned(), 1, ""),
            ("region = 'eu'\n".to_owned(), 1, "[[region]]"),
            ("region = ['eu']\n".to_owned(), 1, "a table"),
            ("\n[[region]]\nname = 7\n".to_owned(), 3, "a text in quotes"),
            (
                "\n[[region]]\n[[region.relay]]\nurl = 'https://a.test'\n".to_owned(),
                2,
                "needs 'name'",
            ),
            (format!("{relay}addresses = []\n"), 3, "needs 'url'"),
            (
                format!("{relay}url = 'http://a.test'\n"),
                4,
                "begins with https://",
            ),
            (
                format!("{relay}url = 'https://a.test/#short'\n"),
                4,
                "52 characters",
            ),
            (
                format!("{relay}url = 'https://a.test'\naddresses = '192.0.2.1'\n"),
                5,
                "a list",
            ),
            (
                format!("{relay}url = 'https://a.test'\naddresses = [\n'192.0.2.1:443']\n"),
                6,
                "the port is the URL's",
            ),
            ("\n[[region]]\nname = 'eu'\n".to_owned(), 3, "has no relay"),
            ("\n[[region]]\nname = ''\n".to_owned(), 3, "1 to 64"),
            (
                format!("{relay}url = 'https://a.test'\n[[region]]\nname = 'eu'\n"),
                6,
                "already",
            ),
            (
                format!(
                    "{relay}url = 'https://a.test'\n[[region.relay]]\nurl = 'https://A.test:443#{}'\n",
                    "a".repeat(52)
                ),
                5,
                "one pin",
            ),
        ] {
            let said = fault(&text);
            let place = format!("line {line}: ");
            assert!(said.starts_with(&place), "{text:?}: {said}");
            assert!(said.contains(words), "{text:?}: {said}");
        }
    }

    #[test]
    fn what_steers_a_terminal_is_not_repeated_as_it_is() {
        let said = fault("[[region]]\nname = 'eu'\n[[region.relay]]\nurl = \"\\u001b[2J\"\n");
        assert!(!said.chars().any(char::is_control), "{said:?}");
    }

    #[test]
    fn a_map_without_a_relay_is_none() {
        for text in ["", "# nothing\n", "version = 1\n", "region = []\n"] {
            let error = parse(text).unwrap_err();
            assert_eq!((error.fault, error.line), (Fault::Empty, None), "{text:?}");
        }
    }

    #[test]
    fn a_map_has_its_bounds() {
        let regions = |n: usize, relays: usize| {
            let one = |n: usize| {
                let relays = (0..relays)
                    .map(|m| format!("[[region.relay]]\nurl = 'https://r{m}.x{n}.test'\n"));
                format!("[[region]]\nname = 'x{n}'\n{}", relays.collect::<String>())
            };
            (0..n).map(one).collect::<String>()
        };
        assert!(parse(&regions(MAX_REGIONS, 1)).is_ok());
        assert!(parse(&regions(1, MAX_RELAYS)).is_ok());
        let error = |text: &str| parse(text).unwrap_err().fault;
        assert_eq!(error(&regions(MAX_REGIONS + 1, 1)), Fault::TooManyRegions);
        assert_eq!(error(&regions(2, MAX_RELAYS / 2 + 1)), Fault::TooManyRelays);
        let many = ["'192.0.2.1'"; MAX_ADDRESSES + 1].join(",");
        let many = format!("{}addresses = [{many}]\n", regions(1, 1));
        assert_eq!(error(&many), Fault::TooManyAddresses);
        assert_eq!(error(&"#".repeat(MAX_FILE + 1)), Fault::TooLong);
    }
}
