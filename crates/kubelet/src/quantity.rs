//! Kubernetes quantities as numbers, as far as a node needs them: sums of requests, limits and
//! the values of `resourceFieldRef`. Formatting and validation are the API server's.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// A quantity in thousandths, rounded up; `None` if it is not one.
pub(crate) fn millis(quantity: &Quantity) -> Option<i128> {
    parse_millis(&quantity.0)
}

/// A quantity in whole units, rounded up.
pub(crate) fn units(quantity: &Quantity) -> Option<i128> {
    millis(quantity).map(|m| ceil_div(m, 1000))
}

/// `a / b`, rounded up.
pub(crate) fn ceil_div(a: i128, b: i128) -> i128 {
    a.div_euclid(b) + i128::from(a.rem_euclid(b) != 0)
}

fn parse_millis(text: &str) -> Option<i128> {
    let text = text.trim();
    let digits_end = text
        .find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-')))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits_end);
    // Millionths of a unit, times the suffix: enough for nano without losing the rounding up.
    let (numerator, denominator): (i128, i128) = match suffix {
        "" => (1, 1),
        "n" => (1, 1_000_000_000),
        "u" => (1, 1_000_000),
        "m" => (1, 1_000),
        "k" => (1_000, 1),
        "M" => (1_000_000, 1),
        "G" => (1_000_000_000, 1),
        "T" => (1_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000, 1),
        "E" => (1_000_000_000_000_000_000, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        exponent => {
            let power: i32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            let scale = 10_i128.checked_pow(power.unsigned_abs())?;
            if power < 0 { (1, scale) } else { (scale, 1) }
        }
    };
    let (negative, number) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let fraction = fraction.get(..fraction.len().min(9))?;
    let scale = 10_i128.checked_pow(fraction.len() as u32)?;
    let parse = |part: &str| match part {
        "" => Some(0),
        digits if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse::<i128>().ok(),
        _ => None,
    };
    let mantissa = parse(whole)?
        .checked_mul(scale)?
        .checked_add(parse(fraction)?)?;
    let thousandths = mantissa.checked_mul(numerator)?.checked_mul(1000)?;
    let value = ceil_div(thousandths, scale.checked_mul(denominator)?);
    Some(if negative { -value } else { value })
}

/// Bytes in the form people write: the largest binary unit that divides them.
pub(crate) fn bytes(value: u64) -> String {
    for (unit, suffix) in [(1 << 30, "Gi"), (1 << 20, "Mi"), (1 << 10, "Ki")] {
        if value >= unit && value.is_multiple_of(unit) {
            return format!("{}{suffix}", value / unit);
        }
    }
    value.to_string()
}

/// Thousandths in the form people write: `2`, `1500m`.
pub(crate) fn milli_units(value: u64) -> String {
    if value.is_multiple_of(1000) {
        (value / 1000).to_string()
    } else {
        format!("{value}m")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_with_every_kind_of_suffix() {
        let cases = [
            ("100m", 100),
            ("0.5", 500),
            ("2", 2000),
            ("1Ki", 1_024_000),
            ("1.5Gi", 1_610_612_736_000),
            ("1e3", 1_000_000),
            ("1E-3", 1),
            ("1n", 1),
            ("1k", 1_000_000),
            ("-2", -2000),
            (".5", 500),
        ];
        for (text, expect) in cases {
            assert_eq!(parse_millis(text), Some(expect), "{text}");
        }
        for text in ["", "abc", "1Q", "1e", "1Kii", "--1", "1.2.3"] {
            assert_eq!(parse_millis(text), None, "{text}");
        }
    }

    #[test]
    fn amounts_are_written_in_their_largest_unit() {
        assert_eq!(bytes(2 << 30), "2Gi");
        assert_eq!(bytes(1500), "1500");
        assert_eq!(milli_units(2000), "2");
        assert_eq!(milli_units(1500), "1500m");
    }
}
