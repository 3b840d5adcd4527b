//! Whether the daemon that runs does its work, by its own metrics: an error while records are being lost or may be, a
//! warning for what is past.

use std::time::Duration;

use super::{Exit, Finding};
use crate::metrics::{Metrics, Output, State};
use crate::session::GapCause;

/// A loss that was over before is past.
const LATELY: Duration = Duration::from_secs(300);

pub(super) fn judge(metrics: &Metrics) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (cause, gaps) in metrics.gaps.iter().filter(|(_, gaps)| gaps.count > 0) {
        let advice = "nattrail-records(7) explains the cause, nattrail-guide(7) what to do";
        let last = gaps.last.unwrap_or_default();
        let found = format!("{} since the start, the last until {last}", gaps.count);
        let object = format!("gaps with cause {cause}");
        // A start that found one has ended it.
        let over = cause == GapCause::Restart.name();
        findings.push(
            if !over && metrics.time.0.saturating_since(last.0) < LATELY {
                Finding::error(Exit::Unavailable, object, found, advice)
            } else {
                Finding::warning(object, found, advice)
            },
        );
    }
    if !metrics.store.available {
        let found = "expected to be available to the daemon, found that it cannot be written";
        let advice = "see the disk and the daemon's log";
        findings.push(Finding::error(Exit::Unavailable, "store", found, advice));
    }
    findings.extend(metrics.outputs.iter().filter_map(output));
    if findings.is_empty() {
        let found = format!("no gap and no loss since {}", metrics.started);
        findings.push(Finding::ok("records", found));
    }
    findings
}

/// What is wrong with an output.
fn output(output: &Output) -> Option<Finding> {
    let Output {
        name,
        state,
        behind,
        lost,
        ..
    } = output;
    let found = format!("{} now, {behind} records behind, {lost} lost", state.name());
    let advice = "see the daemon's log";
    match state {
        State::Working if *lost == 0 => None,
        State::Working => Some(Finding::warning(name, found, advice)),
        _ => Some(Finding::error(Exit::Unavailable, name, found, advice)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;
    use crate::metrics::{Gaps, Store, Time};
    use crate::time::Wall;

    const NOW: u64 = 1_700_000_000;

    fn healthy() -> Metrics {
        Metrics {
            time: Time(Wall::from_secs(NOW)),
            store: Store {
                available: true,
                ..Store::default()
            },
            outputs: vec![Output::default()],
            ..Metrics::default()
        }
    }

    fn verdicts(metrics: &Metrics) -> Vec<Verdict> {
        let findings = judge(metrics);
        findings
            .into_iter()
            .map(|finding| finding.verdict)
            .collect()
    }

    const FAILED: Verdict = Verdict::Error(Exit::Unavailable);

    #[test]
    fn a_daemon_that_has_lost_nothing_is_well() {
        assert_eq!(verdicts(&healthy()), [Verdict::Ok]);
    }

    #[test]
    fn a_gap_of_the_last_minutes_is_an_error_and_an_earlier_one_a_warning() {
        let with_gap = |cause: &str, ago| {
            let gaps = Gaps {
                count: 1,
                lost: 0,
                last: Some(Time(Wall::from_secs(NOW - ago))),
            };
            let mut metrics = healthy();
            metrics.gaps.insert(cause.to_owned(), gaps);
            verdicts(&metrics)
        };
        assert_eq!(with_gap("overflow", 299), [FAILED]);
        assert_eq!(with_gap("overflow", 300), [Verdict::Warning]);
        assert_eq!(with_gap("restart", 0), [Verdict::Warning]);
    }

    #[test]
    fn a_store_that_cannot_be_written_is_an_error() {
        let mut metrics = healthy();
        metrics.store.available = false;
        assert_eq!(verdicts(&metrics), [FAILED]);
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
            assert_eq!(with(state, 0), [FAILED]);
        }
        assert_eq!(with(State::Working, 1), [Verdict::Warning]);
    }
}
