//! Whether the running daemon works, by its own metrics: an error while records are being lost or may be, a warning for
//! past losses.

use std::time::Duration;

use super::{Exit, Finding, Judgement, error, warning};
use crate::metrics::{Metrics, State};
use crate::session::GapCause;

/// Losses that ended longer ago are past.
const LATELY: Duration = Duration::from_secs(300);

pub(super) fn judge(metrics: &Metrics) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (cause, gaps) in metrics.gaps.iter().filter(|(_, gaps)| gaps.count > 0) {
        let advice = "nattrail-records(7) explains the cause, nattrail-guide(7) what to do";
        let last = gaps.last.unwrap_or_default();
        let found = format!("{} since the start, the last until {last}", gaps.count);
        // A start that finds such a gap also ends it.
        let over =
            cause == GapCause::Restart.name() || metrics.time.saturating_since(last) >= LATELY;
        let object = format!("gaps with cause {cause}");
        findings.push(Finding::new(object, flaw(!over, found, advice)));
    }
    if !metrics.store.available {
        let found = "expected to be available to the daemon, found that it cannot be written";
        let advice = "see the disk and the daemon's log";
        let flaw = error(Exit::Unavailable, found, advice);
        findings.push(Finding::new("database", flaw));
    }
    for output in &metrics.outputs {
        let (state, behind, lost) = (output.state, output.behind, output.lost);
        if state != State::Working || lost > 0 {
            let found = format!(
                "{} now, records behind: {behind}, lost: {lost}",
                state.name()
            );
            let flaw = flaw(state != State::Working, found, "see the daemon's log");
            findings.push(Finding::new(&output.name, flaw));
        }
    }
    if findings.is_empty() {
        let found = format!("no gap and no loss since {}", metrics.started);
        findings.push(Finding::new("records", Ok(found)));
    }
    findings
}

/// An error for the present, or a warning for the past.
fn flaw(now: bool, found: String, advice: &'static str) -> Judgement {
    match now {
        true => error(Exit::Unavailable, found, advice),
        false => warning(found, advice),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Gaps, Output, Store};
    use crate::time::Wall;

    const NOW: u64 = 1_700_000_000;

    fn healthy() -> Metrics {
        Metrics {
            time: Wall::from_secs(NOW),
            store: Store {
                available: true,
                ..Store::default()
            },
            outputs: vec![Output::default()],
            ..Metrics::default()
        }
    }

    fn verdicts(metrics: &Metrics) -> Vec<&'static str> {
        let findings = judge(metrics);
        findings.iter().map(|finding| finding.words().0).collect()
    }

    #[test]
    fn a_daemon_that_has_lost_nothing_is_well() {
        assert_eq!(verdicts(&healthy()), ["ok"]);
    }

    #[test]
    fn a_gap_of_the_last_minutes_is_an_error_and_an_earlier_one_a_warning() {
        let with_gap = |cause: &str, ago| {
            let gaps = Gaps {
                count: 1,
                lost: 0,
                last: Some(Wall::from_secs(NOW - ago)),
            };
            let mut metrics = healthy();
            metrics.gaps.insert(cause.to_owned(), gaps);
            verdicts(&metrics)
        };
        assert_eq!(with_gap("overflow", 299), ["error"]);
        assert_eq!(with_gap("overflow", 300), ["warning"]);
        assert_eq!(with_gap("restart", 0), ["warning"]);
    }

    #[test]
    fn a_store_that_cannot_be_written_is_an_error() {
        let mut metrics = healthy();
        metrics.store.available = false;
        assert_eq!(verdicts(&metrics), ["error"]);
    }

    #[test]
    fn an_output_that_does_not_work_is_an_error_and_one_that_lost_records_a_warning() {
        let with = |state, lost| {
            let mut metrics = healthy();
            metrics.outputs[0].state = state;
            metrics.outputs[0].lost = lost;
            verdicts(&metrics)
        };
        for state in [State::Failing, State::Refused, State::Ended] {
            assert_eq!(with(state, 0), ["error"]);
        }
        assert_eq!(with(State::Working, 1), ["warning"]);
    }
}
