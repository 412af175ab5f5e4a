//! Resource quantities as exact numbers of thousandths, for comparing and adding.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Parses a quantity into thousandths, rounded up. Amounts beyond the range saturate.
pub(crate) fn milli(quantity: &Quantity) -> Option<i128> {
    let text = quantity.0.trim();
    let end = text
        .char_indices()
        .find(|(i, c)| {
            let sign = matches!(c, '+' | '-') && *i == 0;
            !(c.is_ascii_digit() || *c == '.' || sign)
        })
        .map_or(text.len(), |(i, _)| i);
    let (number, suffix) = text.split_at(end);
    let (negative, number) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.len() > 18 {
        return None;
    }
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let scale = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    // The suffix as a fraction of thousandths: multiply by the first, divide by the second.
    let (multiply, divide) = match suffix {
        "n" => (1, 1_000_000),
        "u" => (1, 1000),
        "m" => (1, 1),
        "" => (1000, 1),
        "k" => (1_000_000, 1),
        "M" => (1_000_000_000, 1),
        "G" => (1_000_000_000_000, 1),
        "T" => (1_000_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000_000, 1),
        "E" => (1_000_000_000_000_000_000_000, 1),
        "Ki" => (1000 << 10, 1),
        "Mi" => (1000 << 20, 1),
        "Gi" => (1000 << 30, 1),
        "Ti" => (1000 << 40, 1),
        "Pi" => (1000_i128 << 50, 1),
        "Ei" => (1000_i128 << 60, 1),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            let power = 10_i128.checked_pow(exponent.unsigned_abs())?;
            if exponent < 0 {
                (1000, power)
            } else {
                (1000_i128.checked_mul(power)?, 1)
            }
        }
    };
    let divide = scale.checked_mul(divide)?;
    let product = digits.saturating_mul(multiply);
    let value = product / divide + i128::from(product % divide != 0);
    Some(if negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_and_exponents_mean_what_they_mean() {
        let parsed = |text: &str| milli(&Quantity(text.to_owned()));
        assert_eq!(parsed("250m"), Some(250));
        assert_eq!(parsed("1.5"), Some(1500));
        assert_eq!(parsed("10Gi"), Some(1000 * 10 * (1 << 30)));
        assert_eq!(parsed("2k"), Some(2_000_000));
        assert_eq!(parsed("3e3"), Some(3_000_000));
        assert_eq!(parsed("1u"), Some(1), "rounded up");
        assert_eq!(parsed("-2"), Some(-2000));
        assert_eq!(parsed("0.5Mi"), Some(1000 * (1 << 19)));
        for bad in ["", "Gi", "1x", "ten", "."] {
            assert_eq!(parsed(bad), None, "{bad:?}");
        }
    }
}
