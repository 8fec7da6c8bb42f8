//! Moments in time as operators write them, and when a slice is to start and to end.

use std::fmt;
use std::str::FromStr;

use selvedge_topology::yaml::Wrong;

/// A moment: milliseconds since the Unix epoch, leap seconds not counted.
///
/// Text form: RFC 3339 from 1970 to 9999, printed in UTC and without a fraction where that is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a moment such as 2026-11-24T13:00:00Z (RFC 3339)")]
pub struct TimestampError(String);

/// When a slice is active. At least one is stated, and `start` is before `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// `None`: at once.
    pub start: Option<Timestamp>,
    /// `None`: until it is deactivated.
    pub end: Option<Timestamp>,
}

const DAY_MS: u64 = 86_400_000;

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_in(year: u64, month: u64) -> u64 {
    match month {
        2 => 28 + u64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from the epoch to the first of January.
fn days_before(year: u64) -> u64 {
    let leaps = |year: u64| year / 4 - year / 100 + year / 400;
    365 * (year - 1970) + leaps(year - 1) - leaps(1969)
}

/// A number of exactly `len` digits at the front of `text`, which it leaves.
fn digits(text: &mut &str, len: usize) -> Option<u64> {
    let (front, rest) = text.split_at_checked(len)?;
    *text = rest;
    front.bytes().all(|b| b.is_ascii_digit()).then(|| front.parse().ok()).flatten()
}

fn one_of(text: &mut &str, marks: &[char]) -> Option<()> {
    *text = text.strip_prefix(marks)?;
    Some(())
}

/// RFC 3339 §5.6, `date-time`.
fn parse(mut text: &str) -> Option<u64> {
    let text = &mut text;
    let year = digits(text, 4)?;
    one_of(text, &['-'])?;
    let month = digits(text, 2)?;
    one_of(text, &['-'])?;
    let day = digits(text, 2)?;
    one_of(text, &['T', 't', ' '])?;
    let hour = digits(text, 2)?;
    one_of(text, &[':'])?;
    let minute = digits(text, 2)?;
    one_of(text, &[':'])?;
    let second = digits(text, 2)?;
    let mut ms = 0;
    if one_of(text, &['.']).is_some() {
        let len = text.bytes().take_while(u8::is_ascii_digit).count();
        let (fraction, rest) = text.split_at(len);
        *text = rest;
        let padded: String = fraction.chars().chain("000".chars()).take(3).collect();
        ms = padded.parse().ok().filter(|_| len > 0)?;
    }
    let in_range = year >= 1970
        && (1..=12).contains(&month)
        && (1..=days_in(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    if !in_range {
        return None;
    }
    let months = (1..month).map(|month| days_in(year, month)).sum::<u64>();
    let days = days_before(year) + months + day - 1;
    let local = days * DAY_MS + ((hour * 60 + minute) * 60 + second) * 1_000 + ms;
    if one_of(text, &['Z', 'z']).is_some() {
        return text.is_empty().then_some(local);
    }
    let east = text.starts_with('+');
    one_of(text, &['+', '-'])?;
    let hours = digits(text, 2).filter(|hours| *hours < 24)?;
    one_of(text, &[':'])?;
    let minutes = digits(text, 2).filter(|minutes| *minutes < 60)?;
    let offset = (hours * 60 + minutes) * 60_000;
    let utc = if east { local.checked_sub(offset)? } else { local + offset };
    text.is_empty().then_some(utc)
}

impl FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, TimestampError> {
        parse(text).map(Self).ok_or_else(|| TimestampError(text.to_owned()))
    }
}

impl From<TimestampError> for Wrong {
    fn from(error: TimestampError) -> Self {
        Self::new(error.to_string())
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, in_day) = (self.0 / DAY_MS, self.0 % DAY_MS);
        // No year has more days than that, so this is the year or one before it.
        let mut year = 1970 + days / 366;
        while days_before(year + 1) <= days {
            year += 1;
        }
        let (mut month, mut day) = (1, days - days_before(year));
        while day >= days_in(year, month) {
            day -= days_in(year, month);
            month += 1;
        }
        let (seconds, ms) = (in_day / 1_000, in_day % 1_000);
        let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
        write!(f, "{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}", day + 1)?;
        if ms > 0 {
            write!(f, ".{ms:03}")?;
        }
        f.write_str("Z")
    }
}

impl Schedule {
    /// In words, for people.
    pub fn told(&self) -> String {
        match (self.start, self.end) {
            (Some(start), Some(end)) => format!("from {start} to {end}"),
            (Some(start), None) => format!("from {start}"),
            (None, Some(end)) => format!("to {end}"),
            (None, None) => "always".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments() {
        // (text, milliseconds, canonical text)
        let cases = [
            ("1970-01-01T00:00:00Z", Some(0), "1970-01-01T00:00:00Z"),
            ("2000-02-29T12:00:00Z", Some(951_825_600_000), "2000-02-29T12:00:00Z"),
            ("2026-11-24t13:00:00+01:00", Some(1_795_521_600_000), "2026-11-24T12:00:00Z"),
            ("2026-11-24 12:00:00.5-00:30", Some(1_795_523_400_500), "2026-11-24T12:30:00.500Z"),
            ("9999-12-31T23:59:59.999Z", Some(253_402_300_799_999), "9999-12-31T23:59:59.999Z"),
            ("2100-02-29T00:00:00Z", None, ""),
            ("1969-12-31T23:59:59Z", None, ""),
            ("1970-01-01T00:00:00+00:01", None, ""),
            ("2026-13-01T00:00:00Z", None, ""),
            ("2026-11-24T24:00:00Z", None, ""),
            ("2026-11-24T12:00:00", None, ""),
            ("2026-11-24T12:00:00.Z", None, ""),
            ("2026-11-24T12:00:00Z!", None, ""),
            ("2026-11-24", None, ""),
            ("1795521600", None, ""),
            ("", None, ""),
        ];
        for (text, ms, canonical) in cases {
            let parsed = text.parse::<Timestamp>().ok();
            assert_eq!(parsed.map(|t| t.0), ms, "{text:?}");
            if let Some(parsed) = parsed {
                assert_eq!(parsed.to_string(), canonical, "{text:?}");
            }
        }
    }

    #[test]
    fn every_day_comes_back() {
        for day in (0..3_000_000u64).step_by(97) {
            let moment = Timestamp(day * DAY_MS);
            let text = moment.to_string();
            if day < days_before(10_000) {
                assert_eq!(text.parse(), Ok(moment), "day {day}: {text}");
            }
        }
    }
}
