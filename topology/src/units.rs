//! Quantities with their units. Text in, text out; every number says what it counts.
//!
//! Prefixes are decimal (k, M, G, T) for rates and for `B` sizes, binary (Ki, Mi, Gi, Ti) for
//! sizes written as Kubernetes writes them. What cannot be held exactly is refused.

use std::fmt;
use std::str::FromStr;

/// Bits per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BitRate(pub u64);

/// Microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Delay(pub u64);

/// Bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub u64);

/// Milliwatts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Power(pub u64);

/// Thousandths of a processor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cpu(pub u64);

/// A share of packets, in parts per million; at most 1,000,000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Loss(u32);

/// A place on Earth, in millionths of a degree (about 0.1 m).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    latitude: i32,  // within ±90,000,000
    longitude: i32, // within ±180,000,000
}

/// Why a text is not a quantity. `suggestion` is a text that would be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {what}")]
pub struct UnitError {
    pub text: String,
    pub what: &'static str,
    pub suggestion: Option<String>,
}

/// (suffix, multiplier in the base unit), the canonical spelling of each multiplier first.
type Units = &'static [(&'static str, u64)];

const RATE_UNITS: Units = &[
    ("bps", 1),
    ("kbps", 1_000),
    ("Kbps", 1_000), // TS 29.571, type BitRate
    ("Mbps", 1_000_000),
    ("Gbps", 1_000_000_000),
    ("Tbps", 1_000_000_000_000),
];
const DELAY_UNITS: Units = &[("us", 1), ("µs", 1), ("ms", 1_000), ("s", 1_000_000)];
const SIZE_UNITS: Units = &[
    ("B", 1),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("Ki", 1 << 10),
    ("KiB", 1 << 10),
    ("Mi", 1 << 20),
    ("MiB", 1 << 20),
    ("Gi", 1 << 30),
    ("GiB", 1 << 30),
    ("Ti", 1 << 40),
    ("TiB", 1 << 40),
];

const POWER_UNITS: Units = &[("mW", 1), ("W", 1_000), ("kW", 1_000_000)];

/// A decimal number (`12`, `1.5`) times a unit, exactly, in integers.
fn quantity(
    text: &str,
    what: &'static str,
    units: Units,
    usual: &str,
    by_habit: &[(&str, &'static str)],
) -> Result<u64, UnitError> {
    let error = |suggestion| UnitError { text: text.to_owned(), what, suggestion };
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = (&text[..split], text[split..].trim());
    let Some(&(_, factor)) = units.iter().find(|(name, _)| *name == unit) else {
        let habit = by_habit.iter().find(|(habit, _)| *habit == unit).map(|(_, unit)| *unit);
        let case = || units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit));
        let meant = if unit.is_empty() {
            Some(usual)
        } else {
            habit.or_else(|| case().map(|(name, _)| *name))
        };
        return Err(error(
            meant.filter(|_| decimal(number, 1).is_some()).map(|unit| format!("{number}{unit}")),
        ));
    };
    decimal(number, factor).ok_or_else(|| error(None))
}

/// `number * factor` when that is a whole number that fits.
fn decimal(number: &str, factor: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 18 {
        return None;
    }
    let scale = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    let scaled: u128 = whole.parse::<u64>().ok()?.into();
    let numerator = (scaled * scale + fraction.parse::<u128>().ok()?) * u128::from(factor);
    numerator.is_multiple_of(scale).then(|| u64::try_from(numerator / scale).ok()).flatten()
}

/// The largest unit that divides `value`, or the base unit.
fn write_quantity(f: &mut fmt::Formatter<'_>, value: u64, units: &[(&str, u64)]) -> fmt::Result {
    let unit = units.iter().rev().find(|(_, factor)| value != 0 && value.is_multiple_of(*factor));
    let (name, factor) = unit.unwrap_or(&units[0]);
    f.pad(&format!("{}{name}", value / factor))
}

impl BitRate {
    pub const fn from_mbps(mbps: u64) -> Self {
        Self(mbps * 1_000_000)
    }

    pub const fn bps(self) -> u64 {
        self.0
    }
}

impl FromStr for BitRate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let habits = [
            ("M", "Mbps"),
            ("G", "Gbps"),
            ("k", "kbps"),
            ("K", "kbps"),
            ("Mbit", "Mbps"),
            ("Gbit", "Gbps"),
            ("kbit", "kbps"),
            ("Mbit/s", "Mbps"),
            ("Gbit/s", "Gbps"),
            ("kbit/s", "kbps"),
            ("Mb/s", "Mbps"),
            ("Gb/s", "Gbps"),
        ];
        quantity(text, "a bit rate such as 20Mbps", RATE_UNITS, "Mbps", &habits).map(Self)
    }
}

impl fmt::Display for BitRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [
            ("bps", 1),
            ("kbps", 1_000),
            ("Mbps", 1_000_000),
            ("Gbps", 1_000_000_000),
            ("Tbps", 1_000_000_000_000),
        ];
        write_quantity(f, self.0, &units)
    }
}

impl Delay {
    pub const fn from_ms(ms: u64) -> Self {
        Self(ms * 1_000)
    }

    pub const fn us(self) -> u64 {
        self.0
    }
}

impl FromStr for Delay {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let habits = [("msec", "ms"), ("usec", "us"), ("sec", "s"), ("μs", "us")];
        quantity(text, "a time in whole microseconds such as 5ms", DELAY_UNITS, "ms", &habits)
            .map(Self)
    }
}

impl fmt::Display for Delay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_quantity(f, self.0, &[("us", 1), ("ms", 1_000), ("s", 1_000_000)])
    }
}

impl FromStr for Power {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        quantity(text, "a power such as 12W", POWER_UNITS, "W", &[("watt", "W")]).map(Self)
    }
}

impl fmt::Display for Power {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_quantity(f, self.0, POWER_UNITS)
    }
}

impl FromStr for Cpu {
    type Err = UnitError;

    /// Processors such as `2` and `1.5`, or thousandths such as `500m`.
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let milli = match text.strip_suffix('m') {
            Some(thousandths) => decimal(thousandths, 1),
            None => decimal(text, 1_000),
        };
        let error = || UnitError {
            text: text.to_owned(),
            what: "a number of processors such as 2, 1.5 or 500m",
            suggestion: None,
        };
        milli.map(Self).ok_or_else(error)
    }
}

impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / 1000, format!("{:03}", self.0 % 1000));
        match rest.trim_end_matches('0') {
            "" => f.pad(&whole.to_string()),
            rest => f.pad(&format!("{whole}.{rest}")),
        }
    }
}

impl FromStr for Bytes {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let habits = [("k", "kB"), ("K", "kB"), ("M", "MB"), ("G", "GB")];
        quantity(text, "a size such as 30kB or 4Gi", SIZE_UNITS, "B", &habits).map(Self)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Whichever of the two families divides further makes the shorter text.
        let binary = [("B", 1), ("Ki", 1 << 10), ("Mi", 1 << 20), ("Gi", 1 << 30), ("Ti", 1 << 40)];
        let decimal = [("B", 1), ("kB", 1_000), ("MB", 1_000_000), ("GB", 1_000_000_000)];
        if self.0.is_multiple_of(1 << 10) && !self.0.is_multiple_of(1_000) {
            write_quantity(f, self.0, &binary)
        } else {
            write_quantity(f, self.0, &decimal)
        }
    }
}

impl Loss {
    pub fn from_ppm(ppm: u32) -> Option<Self> {
        (ppm <= 1_000_000).then_some(Self(ppm))
    }

    pub const fn ppm(self) -> u32 {
        self.0
    }
}

impl FromStr for Loss {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let what = "a percentage from 0% to 100% such as 0.1%";
        let ppm = quantity(text, what, &[("%", 10_000)], "%", &[])?;
        let loss = u32::try_from(ppm).ok().and_then(Self::from_ppm);
        loss.ok_or_else(|| UnitError { text: text.to_owned(), what, suggestion: None })
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / 10_000, self.0 % 10_000);
        if rest == 0 {
            write!(f, "{whole}%")
        } else {
            write!(f, "{whole}.{}%", format!("{rest:04}").trim_end_matches('0'))
        }
    }
}

impl Position {
    /// Degrees, north and east positive.
    pub fn from_degrees(latitude: f64, longitude: f64) -> Option<Self> {
        let fits = latitude.abs() <= 90.0 && longitude.abs() <= 180.0; // false for NaN
        #[expect(clippy::cast_possible_truncation, reason = "bounded by the line above")]
        let micro = |degrees: f64| (degrees * 1e6).round() as i32;
        fits.then(|| Self { latitude: micro(latitude), longitude: micro(longitude) })
    }

    pub fn latitude_degrees(self) -> f64 {
        f64::from(self.latitude) / 1e6
    }

    pub fn longitude_degrees(self) -> f64 {
        f64::from(self.longitude) / 1e6
    }

    /// Great-circle distance on a sphere of 6,371 km.
    pub fn distance_km(self, other: Self) -> f64 {
        let (lat1, lat2) =
            (self.latitude_degrees().to_radians(), other.latitude_degrees().to_radians());
        let dlon = (other.longitude_degrees() - self.longitude_degrees()).to_radians();
        let h = ((lat2 - lat1) / 2.0).sin().powi(2)
            + lat1.cos() * lat2.cos() * (dlon / 2.0).sin().powi(2);
        2.0 * 6_371.0 * h.sqrt().min(1.0).asin()
    }

    /// Propagation over the great circle at 5 µs/km, the speed of light in fibre.
    pub fn propagation(self, other: Self) -> Delay {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "half the Earth's circumference is 100,000 µs, never negative"
        )]
        Delay((self.distance_km(other) * 5.0).round() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_and_power() {
        // (input, thousandths and as it is written)
        let cpus = [
            ("2", Some((2_000, "2"))),
            ("1.5", Some((1_500, "1.5"))),
            ("500m", Some((500, "0.5"))),
            ("0.001", Some((1, "0.001"))),
            ("0", Some((0, "0"))),
            ("0.0001", None),
            ("0.5m", None),
            ("m", None),
            ("-1", None),
            ("2 cores", None),
        ];
        for (text, want) in cpus {
            let got = text.parse::<Cpu>().ok().map(|cpu| (cpu.0, cpu.to_string()));
            assert_eq!(got.as_ref().map(|(n, t)| (*n, t.as_str())), want, "{text:?}");
        }
        let powers =
            [("12W", Some((12_000, "12W"))), ("1.5W", Some((1_500, "1500mW"))), ("12", None)];
        for (text, want) in powers {
            let got = text.parse::<Power>().ok().map(|power| (power.0, power.to_string()));
            assert_eq!(got.as_ref().map(|(n, t)| (*n, t.as_str())), want, "{text:?}");
        }
    }

    #[test]
    fn rates() {
        // (input, bits per second or the suggestion)
        let cases: &[(&str, Result<u64, Option<&str>>)] = &[
            ("20Mbps", Ok(20_000_000)),
            ("1.5Gbps", Ok(1_500_000_000)),
            ("100 Mbps", Ok(100_000_000)),
            ("0bps", Ok(0)),
            ("18446744073709551615bps", Ok(u64::MAX)),
            ("18446744073709551616bps", Err(None)),
            ("20", Err(Some("20Mbps"))),
            ("20mbps", Err(Some("20Mbps"))),
            ("20M", Err(Some("20Mbps"))),
            ("20Mbit/s", Err(Some("20Mbps"))),
            ("20ms", Err(None)),
            ("1.5bps", Err(None)),
            ("-1Mbps", Err(None)),
            (".5Mbps", Err(None)),
            ("1.Mbps", Err(None)),
            ("Mbps", Err(None)),
            ("", Err(None)),
            ("1e3bps", Err(None)),
        ];
        for (input, want) in cases {
            let got = input.parse::<BitRate>();
            let got = got.as_ref().map(|r| r.0).map_err(|e| e.suggestion.as_deref());
            assert_eq!(got, *want, "input {input:?}");
        }
    }

    #[test]
    fn delays_and_sizes() {
        for (input, want) in [("300us", Some(300)), ("5ms", Some(5_000)), ("0.0001ms", None)] {
            assert_eq!(input.parse::<Delay>().ok().map(Delay::us), want, "input {input:?}");
        }
        for (input, want) in
            [("30kB", Some(30_000)), ("4Gi", Some(4 << 30)), ("4GiB", Some(4 << 30)), ("4", None)]
        {
            assert_eq!(input.parse::<Bytes>().ok().map(|b| b.0), want, "input {input:?}");
        }
        for (input, want) in [("1%", Some(10_000)), ("0.0001%", Some(1)), ("101%", None)] {
            assert_eq!(input.parse::<Loss>().ok().map(Loss::ppm), want, "input {input:?}");
        }
    }

    #[test]
    fn distance() {
        // New York to Los Angeles: 3,936 km.
        let ny = Position::from_degrees(40.7128, -74.0060).unwrap();
        let la = Position::from_degrees(34.0522, -118.2437).unwrap();
        assert!((ny.distance_km(la) - 3_936.0).abs() < 5.0);
        assert_eq!(ny.propagation(ny), Delay(0));
        assert!(Position::from_degrees(f64::NAN, 0.0).is_none());
        assert!(Position::from_degrees(90.1, 0.0).is_none());
    }

    proptest::proptest! {
        #[test]
        fn quantities_print_what_they_parse(n in 0u64..=u64::MAX, shift in 0u32..64) {
            let n = n >> shift;
            assert_eq!(BitRate(n).to_string().parse(), Ok(BitRate(n)));
            assert_eq!(Delay(n).to_string().parse(), Ok(Delay(n)));
            assert_eq!(Bytes(n).to_string().parse(), Ok(Bytes(n)));
            let loss = Loss::from_ppm(u32::try_from(n % 1_000_001).unwrap()).unwrap();
            assert_eq!(loss.to_string().parse(), Ok(loss));
        }
    }
}
