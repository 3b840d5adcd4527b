//! The only place that reads the clocks.

#![expect(
    clippy::disallowed_methods,
    reason = "everything else takes `now` as an argument"
)]

use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::time::{NANOS_PER_SEC, Now, Uptime, Wall};

/// Reads both clocks. The event loop calls this once per wake-up, and uses the result until the next.
pub fn read() -> Now {
    let wall = Wall::from_nanos(nanos(clock_gettime(ClockId::Realtime)));
    Now::new(wall, uptime())
}

/// Reads the one clock that never goes back, to measure how long a piece of work takes.
pub fn uptime() -> Uptime {
    Uptime::from_nanos(nanos(clock_gettime(ClockId::Boottime)))
}

/// Microseconds on the clock by which the service manager measures a reload (`MONOTONIC_USEC=` in sd_notify(3)). Unlike
/// [`Uptime`] it stands still while the machine sleeps.
pub fn monotonic_micros() -> u64 {
    nanos(clock_gettime(ClockId::Monotonic)) / 1000
}

/// Neither clock is before its zero; a civil time before 1970 counts as 1970.
fn nanos(time: Timespec) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds * NANOS_PER_SEC + nanos
}
