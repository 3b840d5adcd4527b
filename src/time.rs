//! The two clocks of the program, as types.
//!
//! [`Wall`] is the time of records, [`Uptime`] that of deadlines and of NetFlow's SysUptime. Neither has a
//! `now()`: the event loop reads both clocks once per wake-up and hands a [`Now`] down, so that everything below it can
//! be tested without sleeping.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};

pub const NANOS_PER_SEC: u64 = 1_000_000_000;
pub const NANOS_PER_MILLI: u64 = 1_000_000;

/// RFC 3339 in UTC, to the millisecond.
const RFC3339: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// One reading of both clocks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Now {
    pub wall: Wall,
    pub up: Uptime,
}

impl Now {
    pub const fn new(wall: Wall, up: Uptime) -> Self {
        Self { wall, up }
    }
}

/// A point in civil time: nanoseconds since 1970-01-01T00:00:00Z, as `CLOCK_REALTIME` and the kernel's `CTA_TIMESTAMP`
/// give it. It may jump when the clock is set.
///
/// In JSON it is the text that [`Display`](fmt::Display) writes.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(into = "String", try_from = "String")]
pub struct Wall(u64);

impl Wall {
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(NANOS_PER_SEC))
    }

    pub const fn as_secs(self) -> u64 {
        self.0 / NANOS_PER_SEC
    }

    /// Nanoseconds within the second, below 1,000,000,000.
    pub const fn subsec_nanos(self) -> u32 {
        (self.0 % NANOS_PER_SEC) as u32
    }

    pub const fn saturating_sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(duration)))
    }

    /// The same point as a UTC date and time, for formatting.
    pub fn to_utc(self) -> OffsetDateTime {
        // 2^64 ns end in the year 2554, well within the range of OffsetDateTime.
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0))
            .unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }

    /// Reads what [`Display`](fmt::Display) writes; `None` for anything else, and for a time before 1970 or after 2554.
    pub fn parse(text: &str) -> Option<Self> {
        let time = PrimitiveDateTime::parse(text, RFC3339).ok()?.assume_utc();
        let nanos = u64::try_from(time.unix_timestamp_nanos()).ok()?;
        Some(Self(nanos))
    }
}

/// RFC 3339 in UTC, to the millisecond: `2026-11-20T14:03:07.123Z`.
impl fmt::Display for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Years have four digits up to 2554, where Wall ends.
        let text = self.to_utc().format(RFC3339).map_err(|_| fmt::Error)?;
        f.pad(&text)
    }
}

impl From<Wall> for String {
    fn from(time: Wall) -> Self {
        time.to_string()
    }
}

impl TryFrom<String> for Wall {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("expected a time in UTC, found \"{text}\""))
    }
}

/// A point in the machine's life: nanoseconds since boot on `CLOCK_BOOTTIME`. It never goes back.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Uptime(u64);

/// The functions that are the same for both clocks.
macro_rules! nanoseconds {
    ($($clock:ident)*) => {$(
        impl $clock {
            pub const fn from_nanos(nanos: u64) -> Self {
                Self(nanos)
            }

            pub const fn from_millis(millis: u64) -> Self {
                Self(millis.saturating_mul(NANOS_PER_MILLI))
            }

            pub const fn as_nanos(self) -> u64 {
                self.0
            }

            pub const fn as_millis(self) -> u64 {
                self.0 / NANOS_PER_MILLI
            }

            /// How much later this is than `earlier`; zero when it is not later.
            pub const fn saturating_since(self, earlier: Self) -> Duration {
                Duration::from_nanos(self.0.saturating_sub(earlier.0))
            }

            pub const fn saturating_add(self, duration: Duration) -> Self {
                Self(self.0.saturating_add(nanos(duration)))
            }
        }
    )*};
}

nanoseconds!(Wall Uptime);

/// A duration for people, in its two largest units: `2d04h`, `3h12m`, `5m03s`, `12s`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Age(pub Duration);

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
        if days > 0 {
            write!(f, "{days}d{:02}h", hours % 24)
        } else if hours > 0 {
            write!(f, "{hours}h{:02}m", minutes % 60)
        } else if minutes > 0 {
            write!(f, "{minutes}m{:02}s", seconds % 60)
        } else {
            write!(f, "{seconds}s")
        }
    }
}

/// The boot time in whole milliseconds, to which the times of one message are relative.
///
/// A collector gets a time back as header time - SysUptime + first. So a message must use one boot time, even when the
/// clock is set while it fills.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct BootTime {
    /// Since 1970; negative while the clock of a machine has not been set yet.
    millis: i64,
    /// Since 1970; an earlier time would look like a recent one.
    oldest: i64,
}

impl BootTime {
    /// How far back SysUptime reaches: 2^32 ms less an hour, in which the message may fill and leave.
    pub const SPAN: Duration = Duration::from_millis((1 << 32) - 3_600_000);

    pub const fn new(now: Now) -> Self {
        // 64 bits of nanoseconds are 45 bits of milliseconds.
        let wall = now.wall.as_millis() as i64;
        let millis = wall - now.up.as_millis() as i64;
        let oldest = wall - Self::SPAN.as_millis() as i64;
        Self { millis, oldest }
    }

    /// SysUptime at `time`, modulo 2^32 ms (49.7 days) like the field in the header; also for times before boot. A time
    /// more than [`Self::SPAN`] ago would look like a recent one, and is clamped to that.
    pub fn sys_uptime(self, time: Wall) -> u32 {
        let millis = (time.as_millis() as i64).max(self.oldest);
        (millis - self.millis) as u32
    }

    /// Civil time in whole milliseconds at `up`.
    pub const fn unix_millis(self, up: Uptime) -> u64 {
        let millis = self.millis + up.as_millis() as i64;
        if millis < 0 { 0 } else { millis as u64 }
    }
}

const fn nanos(duration: Duration) -> u64 {
    let nanos = duration.as_nanos();
    if nanos > u64::MAX as u128 {
        u64::MAX
    } else {
        nanos as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_in_utc_and_read_back() {
        let time = Wall::from_millis(1_700_000_000_123);
        assert_eq!(time.to_string(), "2023-11-14T22:13:20.123Z");
        assert_eq!(Wall::parse(&time.to_string()), Some(time));
        for wrong in ["", "2023-11-14", "1969-12-31T23:59:59.999Z"] {
            assert_eq!(Wall::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_age_has_its_two_largest_units() {
        let cases = [
            (0, "0s"),
            (59, "59s"),
            (63, "1m03s"),
            (3_720, "1h02m"),
            (187_200, "2d04h"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(Age(Duration::from_secs(seconds)).to_string(), expected);
        }
    }

    #[test]
    fn sys_uptime_wraps_after_49_days() {
        let now = Now::new(
            Wall::from_millis(1_000_000),
            Uptime::from_millis((1 << 32) + 5),
        );
        let boot = BootTime::new(now);
        assert_eq!(boot.sys_uptime(now.wall), 5);
        assert_eq!(boot.sys_uptime(Wall::from_millis(999_990)), u32::MAX - 4);
        assert_eq!(boot.sys_uptime(Wall::from_millis(1_000_010)), 15);
    }

    #[test]
    fn a_time_too_long_ago_is_the_oldest_that_can_be_said() {
        let now = Now::new(
            Wall::from_millis(1 << 40),
            Uptime::from_millis((1 << 33) + 7),
        );
        let boot = BootTime::new(now);
        let age = |ago| 7_u32.wrapping_sub(boot.sys_uptime(now.wall.saturating_sub(ago)));
        let most = BootTime::SPAN.as_millis() as u32;
        assert_eq!(age(BootTime::SPAN - Duration::from_millis(1)), most - 1);
        for longer in [0, 1, 3_600_000, 1 << 33] {
            assert_eq!(age(BootTime::SPAN + Duration::from_millis(longer)), most);
        }
    }

    #[test]
    fn a_time_before_boot_is_right_modulo_the_wrap() {
        let now = Now::new(Wall::from_millis(1_000_000), Uptime::from_millis(10));
        let first = BootTime::new(now).sys_uptime(Wall::from_millis(0));
        assert_eq!(10_u32.wrapping_sub(first), 1_000_000);
    }
}
