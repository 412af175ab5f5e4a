//! Durations as kubectl shows them: `5s`, `3m20s`, `4h`, `2d3h`, `400d`, `3y`.

use jiff::SignedDuration;

/// A duration to about two significant units. Clocks may differ by two seconds; beyond that a
/// negative duration is `<invalid>`.
pub fn human_duration(duration: SignedDuration) -> String {
    let seconds = duration.as_secs();
    if seconds < -1 {
        return "<invalid>".to_owned();
    }
    if seconds < 0 {
        return "0s".to_owned();
    }
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let (days, years) = (hours / 24, hours / 24 / 365);
    if seconds < 120 {
        format!("{seconds}s")
    } else if minutes < 10 {
        two((minutes, "m"), (seconds % 60, "s"))
    } else if minutes < 180 {
        format!("{minutes}m")
    } else if hours < 8 {
        two((hours, "h"), (minutes % 60, "m"))
    } else if hours < 48 {
        format!("{hours}h")
    } else if hours < 24 * 8 {
        two((days, "d"), (hours % 24, "h"))
    } else if hours < 24 * 365 * 2 {
        format!("{days}d")
    } else if hours < 24 * 365 * 8 {
        two((years, "y"), (days % 365, "d"))
    } else {
        format!("{years}y")
    }
}

fn two(large: (i64, &str), small: (i64, &str)) -> String {
    if small.0 == 0 {
        return format!("{}{}", large.0, large.1);
    }
    format!("{}{}{}{}", large.0, large.1, small.0, small.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spelled() {
        let (m, h, d) = (60, 3600, 86_400);
        let cases = [
            (-2, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (2 * m, "2m"),
            (3 * m + 20, "3m20s"),
            (10 * m, "10m"),
            (179 * m, "179m"),
            (3 * h, "3h"),
            (3 * h + 5 * m, "3h5m"),
            (8 * h, "8h"),
            (47 * h, "47h"),
            (2 * d, "2d"),
            (2 * d + 3 * h, "2d3h"),
            (8 * d, "8d"),
            (400 * d, "400d"),
            (730 * d, "2y"),
            (731 * d, "2y1d"),
            (9 * 365 * d, "9y"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(
                human_duration(SignedDuration::from_secs(seconds)),
                expected,
                "{seconds}"
            );
        }
    }
}
