//! Quantities (`500m`, `1Gi`): parsed and written in the canonical form Go writes. Comparing and
//! adding them is not done here.

/// What Go says of text that is no quantity.
pub(crate) const FORMAT_ERROR: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
const SUFFIX_ERROR: &str = "unable to parse quantity's suffix";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Decimal,
    Binary,
    Exponent,
}

const DECIMAL: [(&str, i32); 10] = [
    ("n", -9),
    ("u", -6),
    ("m", -3),
    ("", 0),
    ("k", 3),
    ("M", 6),
    ("G", 9),
    ("T", 12),
    ("P", 15),
    ("E", 18),
];
const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

/// The canonical text of `text`, or Go's error.
pub(crate) fn canonical(text: &str) -> Result<String, &'static str> {
    let text = text.trim();
    if text == "0" {
        return Ok("0".to_owned());
    }
    let (negative, rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        Some(_) => (false, text),
        None => return Err(FORMAT_ERROR),
    };
    let end = rest
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(rest.len());
    let (number, suffix) = rest.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if number.is_empty() || fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
        return Err(FORMAT_ERROR);
    }
    let (form, exponent) = read_suffix(suffix)?;
    let digits = format!("{whole}{fraction}");
    let scale = -i32::try_from(fraction.len()).unwrap_or(i32::MAX);
    if is_canonical(form, exponent, &digits, scale) {
        return Ok(text.to_owned());
    }
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return Ok("0".to_owned());
    }
    let sign = if negative { "-" } else { "" };
    let written = digits.parse::<i128>().ok().and_then(|value| {
        if form == Form::Binary {
            binary(sign, value, scale, exponent)
        } else {
            decimal(sign, value, scale + exponent, form)
        }
    });
    // Beyond what fits, Go saturates; such texts stay as they are.
    Ok(written.unwrap_or_else(|| text.to_owned()))
}

/// Whether Go takes the text for canonical at a glance and keeps it.
fn is_canonical(form: Form, exponent: i32, digits: &str, scale: i32) -> bool {
    let length = i32::try_from(digits.len()).unwrap_or(i32::MAX);
    if form == Form::Binary {
        let precision = 15 - length - exponent * 3 / 10 - 1;
        let value: i64 = digits.parse().unwrap_or(0);
        return scale == 0 && precision >= 0 && value & 7 != 0;
    }
    let power = scale.saturating_add(exponent);
    length <= 18
        && power >= -9
        && power % 3 == 0
        && !digits.ends_with("000")
        && !digits.starts_with('0')
}

/// `value` × 10^`power` with the largest suffix that keeps the number whole.
fn decimal(sign: &str, mut value: i128, mut power: i32, form: Form) -> Option<String> {
    while value % 10 == 0 {
        value /= 10;
        power += 1;
    }
    // Nothing is finer than nano: rounded up.
    while power < -9 {
        value = value / 10 + i128::from(value % 10 != 0);
        power += 1;
    }
    while value % 10 == 0 {
        value /= 10;
        power += 1;
    }
    while power.rem_euclid(3) != 0 || power > 18 {
        value = value.checked_mul(10)?;
        power -= 1;
    }
    if form == Form::Exponent {
        return Some(match power {
            0 => format!("{sign}{value}"),
            power => format!("{sign}{value}e{power}"),
        });
    }
    let (suffix, _) = DECIMAL.iter().find(|(_, exponent)| *exponent == power)?;
    Some(format!("{sign}{value}{suffix}"))
}

fn read_suffix(suffix: &str) -> Result<(Form, i32), &'static str> {
    if let Some((_, exponent)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
        return Ok((Form::Decimal, *exponent));
    }
    if let Some(index) = BINARY.iter().position(|name| *name == suffix) {
        return Ok((
            Form::Binary,
            10 * i32::try_from(index).expect("invariant: seven suffixes"),
        ));
    }
    if let Some(exponent) = suffix.strip_prefix(['e', 'E']) {
        return exponent
            .parse::<i16>()
            .map(|exponent| (Form::Exponent, i32::from(exponent)))
            .map_err(|_| SUFFIX_ERROR);
    }
    let known = |c: char| "eEinumkKMGTP+-".contains(c) || c.is_ascii_digit();
    Err(if suffix.chars().all(known) {
        SUFFIX_ERROR
    } else {
        FORMAT_ERROR
    })
}

/// `value` × 10^`scale` × 2^`bits`; as a decimal where that is below 1024 or not whole.
fn binary(sign: &str, value: i128, scale: i32, bits: i32) -> Option<String> {
    let value = value.checked_mul(1_i128.checked_shl(u32::try_from(bits).ok()?)?)?;
    let fraction = 10_i128.checked_pow(scale.unsigned_abs())?;
    let mut whole = value / fraction;
    if value % fraction != 0 || whole < 1024 {
        return decimal(sign, value, scale, Form::Decimal);
    }
    let mut index = 0;
    while whole % 1024 == 0 && index + 1 < BINARY.len() {
        whole /= 1024;
        index += 1;
    }
    Some(format!("{sign}{whole}{}", BINARY[index]))
}

#[cfg(test)]
mod tests {
    use super::{FORMAT_ERROR, canonical};

    #[test]
    fn quantities_are_written_as_go_writes_them() {
        for (given, want) in [
            ("1", "1"),
            ("1000m", "1"),
            ("0.5", "500m"),
            ("1.5Gi", "1536Mi"),
            ("1024Mi", "1Gi"),
            ("10Gi", "10Gi"),
            ("100Mi", "100Mi"),
            ("1000k", "1M"),
            ("1e3", "1e3"),
            ("12e4", "120e3"),
            ("3E3", "3E3"),
            ("1.500", "1.500"),
            ("0.1Ki", "102400m"),
            ("12Ki", "12Ki"),
            ("0", "0"),
            ("0Gi", "0"),
            ("1500", "1500"),
            ("2000", "2k"),
            ("+5", "+5"),
            ("+50.0", "50"),
            ("-0.25", "-250m"),
            (".5", "500m"),
            ("512Ki", "512Ki"),
            ("1023", "1023"),
        ] {
            assert_eq!(canonical(given).as_deref(), Ok(want), "{given}");
        }
        assert_eq!(canonical("abc"), Err(FORMAT_ERROR));
        assert_eq!(canonical(""), Err(FORMAT_ERROR));
        assert!(canonical("1Qi").is_err());
    }
}
