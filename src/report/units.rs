//! Numbers as people read them.

/// Bytes with a unit: `17 bytes`, `4.5 KiB`, `120.0 MiB`.
#[must_use]
pub fn bytes(n: usize) -> String {
    if n < 1024 {
        return format!("{n} bytes");
    }
    let (mut value, mut unit) = (n as f64 / 1024.0, "KiB");
    for next in ["MiB", "GiB", "TiB"] {
        // What would be rounded to 1024.0 belongs to the next unit.
        if value < 1023.95 {
            break;
        }
        (value, unit) = (value / 1024.0, next);
    }
    format!("{value:.1} {unit}")
}

/// Bytes as people write them: `50331648`, `48MiB`, `0.5GiB`, `64MB`.
///
/// # Errors
///
/// What was expected.
pub fn parse_bytes(text: &str) -> Result<usize, String> {
    const UNITS: [(&str, f64); 9] = [
        ("", 1.0),
        ("B", 1.0),
        ("KB", 1e3),
        ("MB", 1e6),
        ("GB", 1e9),
        ("KIB", 1024.0),
        ("MIB", 1_048_576.0),
        ("GIB", 1_073_741_824.0),
        ("BYTES", 1.0),
    ];
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.trim().to_ascii_uppercase();
    let factor = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| factor);
    match (number.parse::<f64>(), factor) {
        (Ok(number), Some(factor)) if number * factor >= 1.0 && number * factor < 2f64.powi(53) => {
            Ok((number * factor) as usize)
        }
        _ => Err("expected bytes, as 48MiB, 0.5GiB, 64MB or 50331648".into()),
    }
}

/// A time: `12.3 ms`, `4.5 s`.
#[must_use]
pub fn seconds(seconds: f64) -> String {
    if seconds < 0.9995 { format!("{:.1} ms", 1e3 * seconds) } else { format!("{seconds:.1} s") }
}

/// A count with its thousands apart: `11,689,512`.
#[must_use]
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A share as a percentage with two decimals: `93.50 %`.
#[must_use]
pub fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

/// A probability: four decimals, or `< 0.0001`.
#[must_use]
pub fn probability(p: f64) -> String {
    if p < 1e-4 { "< 0.0001".into() } else { format!("{p:.4}") }
}

/// A shape as people write it: `16x28x28`.
#[must_use]
pub fn shape(shape: &[usize]) -> String {
    shape.iter().map(ToString::to_string).collect::<Vec<_>>().join("x")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("50331648", 50_331_648),
            ("48MiB", 48 << 20),
            ("0.5 GiB", 1 << 29),
            ("64mb", 64_000_000),
            ("1kib", 1024),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "MiB", "-1", "0", "1.2.3", "4 parsec", "1e400", "99999999999GiB"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn bytes_carry_the_unit_that_keeps_them_short() {
        let texts = [0, 1023, 1024, 4608, (1 << 20) - 1, 1 << 20, 5 << 30].map(bytes);
        assert_eq!(texts, ["0 bytes", "1023 bytes", "1.0 KiB", "4.5 KiB", "1.0 MiB", "1.0 MiB", "5.0 GiB"]);
    }

    #[test]
    fn times_are_in_seconds_or_thousandths() {
        assert_eq!([0.0123, 0.9994, 0.9996, 61.0].map(seconds), ["12.3 ms", "999.4 ms", "1.0 s", "61.0 s"]);
    }

    #[test]
    fn thousands_stand_apart() {
        assert_eq!([0, 999, 1000, 11_689_512].map(count), ["0", "999", "1,000", "11,689,512"]);
    }

    #[test]
    fn shares_and_shapes_are_plain() {
        assert_eq!(percent(0.935), "93.50 %");
        assert_eq!([0.25, 1e-9].map(probability), ["0.2500", "< 0.0001"]);
        assert_eq!(shape(&[16, 28, 28]), "16x28x28");
    }
}
