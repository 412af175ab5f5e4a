//! `resource.Quantity`: parsing, comparison, arithmetic and the canonical text that a server answers.
//!
//! Values are kept in whole nano-units; anything finer is rounded up, as Kubernetes does.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value};

use crate::tree;

const NANO: i128 = 1_000_000_000;
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
const BINARY: [(&str, u32); 6] = [
    ("Ki", 10),
    ("Mi", 20),
    ("Gi", 30),
    ("Ti", 40),
    ("Pi", 50),
    ("Ei", 60),
];

/// How a quantity was written, which its canonical form keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    DecimalSi,
    BinarySi,
    DecimalExponent,
}

/// An amount of something: `500m`, `3Gi`, `1e3`.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nano: i128,
    format: Format,
}

/// Why a text is not a quantity, in Kubernetes' words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    #[error(
        "quantities must match the regular expression \
         '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
    )]
    Format,
    #[error("unable to parse quantity's suffix")]
    Suffix,
    #[error("unable to parse numeric part of quantity")]
    Numeric,
}

impl Quantity {
    pub const ZERO: Self = Self {
        nano: 0,
        format: Format::DecimalSi,
    };

    /// A whole number of units.
    pub fn from_units(units: i64) -> Self {
        Self {
            nano: i128::from(units) * NANO,
            format: Format::DecimalSi,
        }
    }

    /// The quantity in a JSON string or number.
    pub fn from_json(value: &Value) -> Result<Self, QuantityError> {
        match value {
            Value::String(text) => text.parse(),
            Value::Number(number) => number.to_string().parse(),
            _ => Err(QuantityError::Format),
        }
    }

    /// The value in whole units, rounded up.
    pub fn units(self) -> i64 {
        let whole = self.nano.div_euclid(NANO) + i128::from(self.nano.rem_euclid(NANO) != 0);
        i64::try_from(whole).unwrap_or(i64::MAX)
    }

    /// The value in thousandths, rounded up.
    pub fn milli(self) -> i64 {
        let step = NANO / 1000;
        let whole = self.nano.div_euclid(step) + i128::from(self.nano.rem_euclid(step) != 0);
        i64::try_from(whole).unwrap_or(i64::MAX)
    }

    pub fn is_zero(self) -> bool {
        self.nano == 0
    }

    pub fn is_negative(self) -> bool {
        self.nano < 0
    }

    /// Whether the value is a whole number of units.
    pub fn is_whole(self) -> bool {
        self.nano % NANO == 0
    }

    /// The sum, in this quantity's format.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            nano: self.nano.saturating_add(other.nano),
            format: self.format,
        }
    }

    /// The difference, in this quantity's format.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self {
            nano: self.nano.saturating_sub(other.nano),
            format: self.format,
        }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nano == other.nano
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nano.cmp(&other.nano)
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let (negative, rest) = match text.strip_prefix(['+', '-']) {
            Some(rest) => (text.starts_with('-'), rest),
            None => (false, text),
        };
        let split = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(split);
        if number.is_empty() || !is_suffix_shaped(suffix) {
            return Err(QuantityError::Format);
        }
        let (scale, format) = parse_suffix(suffix).ok_or(QuantityError::Suffix)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
            return Err(QuantityError::Numeric);
        }
        let magnitude = scaled(whole, fraction, scale);
        Ok(Self {
            nano: if negative { -magnitude } else { magnitude },
            format,
        })
    }
}

#[derive(Clone, Copy)]
enum Scale {
    Ten(i32),
    Two(u32),
}

fn is_suffix_shaped(suffix: &str) -> bool {
    let letters = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let digits = letters.strip_prefix(['+', '-']).unwrap_or(letters);
    digits.chars().all(|c| c.is_ascii_digit())
}

fn parse_suffix(suffix: &str) -> Option<(Scale, Format)> {
    if let Some((_, exponent)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
        return Some((Scale::Ten(*exponent), Format::DecimalSi));
    }
    if let Some((_, bits)) = BINARY.iter().find(|(name, _)| *name == suffix) {
        return Some((Scale::Two(*bits), Format::BinarySi));
    }
    let exponent = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    Some((Scale::Ten(exponent), Format::DecimalExponent))
}

/// `whole.fraction` times the scale in nano-units, rounded up, capped far beyond any real amount.
fn scaled(whole: &str, fraction: &str, scale: Scale) -> i128 {
    const CAP: i128 = i64::MAX as i128 * NANO;
    let digits: String = [whole, fraction].concat();
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return 0;
    }
    let (exponent, factor) = match scale {
        Scale::Ten(exponent) => (exponent, 1),
        Scale::Two(bits) => (0, 1_i128 << bits),
    };
    let shift = exponent
        .saturating_add(9)
        .saturating_sub(fraction.len() as i32);
    let Ok(mut value) = digits.parse::<i128>() else {
        return CAP;
    };
    value = match value.checked_mul(factor) {
        Some(value) => value,
        None => return CAP,
    };
    if shift >= 0 {
        let power = 10_i128.checked_pow(shift as u32);
        return power
            .and_then(|power| value.checked_mul(power))
            .map_or(CAP, |v| v.min(CAP));
    }
    match 10_i128.checked_pow(shift.unsigned_abs()) {
        Some(power) => (value / power + i128::from(value % power != 0)).min(CAP),
        None => 1,
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nano == 0 {
            return f.write_str("0");
        }
        if self.format == Format::BinarySi && self.is_whole() && self.nano.abs() >= 1024 * NANO {
            let (mut number, mut at) = (self.nano / NANO, 0);
            while number % 1024 == 0 && at < BINARY.len() {
                number /= 1024;
                at += 1;
            }
            let suffix = if at == 0 { "" } else { BINARY[at - 1].0 };
            return write!(f, "{number}{suffix}");
        }
        let (mut number, mut exponent) = (self.nano, -9);
        while number % 1000 == 0 && exponent < 18 {
            number /= 1000;
            exponent += 3;
        }
        if self.format == Format::DecimalExponent {
            return if exponent == 0 {
                write!(f, "{number}")
            } else {
                write!(f, "{number}e{exponent}")
            };
        }
        let suffix = DECIMAL
            .iter()
            .find(|(_, e)| *e == exponent)
            .map_or("", |(name, _)| name);
        write!(f, "{number}{suffix}")
    }
}

/// Rewrites a quantity in place to its canonical form; what is not one stays as it is.
pub fn canonicalise(value: &mut Value) {
    if let Ok(quantity) = Quantity::from_json(value) {
        *value = Value::String(quantity.to_string());
    }
}

/// Rewrites every quantity of the map under a dotted path.
pub fn canonicalise_map(object: &mut Value, path: &str) {
    if let Some(map) = tree::get_mut(object, path).and_then(Value::as_object_mut) {
        map.values_mut().for_each(canonicalise);
    }
}

/// The quantity of `name` in a resource list such as `requests`.
pub fn of(list: Option<&Map<String, Value>>, name: &str) -> Option<Quantity> {
    list?
        .get(name)
        .and_then(|value| Quantity::from_json(value).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canonical(text: &str) -> String {
        text.parse::<Quantity>().unwrap().to_string()
    }

    #[test]
    fn canonical_forms() {
        let cases = [
            ("0.5", "500m"),
            ("1000m", "1"),
            ("1024Mi", "1Gi"),
            ("1500Mi", "1500Mi"),
            ("0.5Gi", "512Mi"),
            ("1.5Gi", "1536Mi"),
            ("100", "100"),
            ("1000", "1k"),
            ("1e3", "1e3"),
            ("1E6", "1e6"),
            ("12e2", "1200"),
            ("0", "0"),
            ("-5", "-5"),
            ("+5k", "5k"),
            ("512", "512"),
            ("1Ki", "1Ki"),
            ("0.1Ki", "102400m"),
            ("0.0000000001", "1n"),
            ("3Gi", "3Gi"),
            ("4096", "4096"),
        ];
        for (given, expected) in cases {
            assert_eq!(canonical(given), expected, "{given}");
        }
    }

    #[test]
    fn errors() {
        let cases = [
            ("ten", QuantityError::Format),
            ("", QuantityError::Format),
            ("1 Gi", QuantityError::Format),
            ("1KiB", QuantityError::Format),
            ("1mm", QuantityError::Suffix),
            ("1.2.3", QuantityError::Numeric),
        ];
        for (given, expected) in cases {
            assert_eq!(given.parse::<Quantity>().unwrap_err(), expected, "{given}");
        }
    }

    proptest! {
        #[test]
        fn canonical_text_means_the_same(number in -1_000_000_i64..1_000_000, suffix in "[numkMG]|[KMG]i|e[0-9]|") {
            let given: Quantity = format!("{number}{suffix}").parse().unwrap();
            let again: Quantity = given.to_string().parse().unwrap();
            prop_assert_eq!(given, again);
            prop_assert_eq!(given.to_string(), again.to_string());
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,12}") {
            let _ = text.parse::<Quantity>();
        }
    }
}
