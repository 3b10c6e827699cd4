//! Sizes as people write them: `256MiB`, `1GB`, `4096`.

/// Parses a number of bytes with an optional unit (B, kB, MB, GB, KiB, MiB, GiB; case does not matter).
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let bad =
        || format!("'{text}' is not a size: write a number and B, KiB, MiB, GiB, kB, MB or GB");
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| bad())?;
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1000,
        "mb" => 1000 * 1000,
        "gb" => 1000 * 1000 * 1000,
        "kib" | "k" => 1 << 10,
        "mib" | "m" => 1 << 20,
        "gib" | "g" => 1 << 30,
        _ => return Err(bad()),
    };
    number
        .checked_mul(factor)
        .filter(|bytes| *bytes > 0)
        .ok_or_else(bad)
}

/// `256 MiB`; with one decimal where it is not whole.
pub(crate) fn show(bytes: u64) -> String {
    for (unit, factor) in [("GiB", 1u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if bytes >= factor {
            return if bytes.is_multiple_of(factor) {
                format!("{} {unit}", bytes / factor)
            } else {
                format!("{:.1} {unit}", bytes as f64 / factor as f64)
            };
        }
    }
    format!("{bytes} B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_shown() {
        assert_eq!(parse("256MiB"), Ok(256 << 20));
        assert_eq!(parse("1 gib"), Ok(1 << 30));
        assert_eq!(parse("10MB"), Ok(10_000_000));
        assert_eq!(parse("4096"), Ok(4096));
        assert_eq!(show(256 << 20), "256 MiB");
        assert_eq!(show(1536), "1.5 KiB");
        assert_eq!(show(12), "12 B");
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for bad in [
            "",
            "MiB",
            "-1",
            "0",
            "1.5GiB",
            "10 parsecs",
            "99999999999GiB",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
