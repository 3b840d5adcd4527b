//! Plots for a page: SVG without script or style of its own. Each has a title and a description for those who do not see it.

use std::fmt::Write as _;

use super::text::{clock, grouped};
use crate::archive::report::MINUTES;
use crate::cli::page::escaped;

/// In units of the view box. So narrow that text can be read on a telephone.
const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 150.0;
/// Room for the labels of the axes.
const LEFT: f64 = 52.0;
const BELOW: f64 = 22.0;
const ABOVE: f64 = 12.0;
const RIGHT: f64 = 14.0;
const BAR: f64 = 34.0;
const LANE: f64 = 36.0;

const DATA: &str = "#1d5fa8";
const ALARM: &str = "#b3261e";
const GRID: &str = "#ccc";
const TRACK: &str = "#e8e8e8";

/// A bar: `share` is of the whole width.
pub(super) struct Bar {
    pub(super) label: String,
    pub(super) value: String,
    pub(super) share: f64,
}

/// A value for each minute of the day.
pub(super) fn minutes(title: &str, description: &str, values: &[u64]) -> String {
    let most = rounded(values.iter().copied().max().unwrap_or_default());
    let mut svg = begin(title, description, HEIGHT + ABOVE + BELOW);
    let y = |value: f64| ABOVE + HEIGHT - value / most as f64 * HEIGHT;
    for value in [0.0, 0.5, 1.0].map(|part| most as f64 * part) {
        let (y, label) = (y(value), short(value));
        let end = WIDTH - RIGHT;
        // Writing into a string cannot fail.
        let _ = writeln!(
            svg,
            "<path d=\"M{LEFT} {y:.1}H{end}\" stroke=\"{GRID}\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
            LEFT - 6.0,
            y + 4.0
        );
    }
    let mut path = format!("M{LEFT} {:.1}", y(0.0));
    for (minute, value) in values.iter().enumerate() {
        let _ = write!(path, "L{:.1} {:.1}", x(minute), y(*value as f64));
    }
    let _ = writeln!(
        svg,
        "<path d=\"{path}L{:.1} {:.1}Z\" fill=\"{DATA}\" stroke=\"{DATA}\" stroke-width=\".5\"/>",
        x(MINUTES),
        y(0.0)
    );
    hours(HEIGHT + ABOVE, &mut svg);
    svg + "</svg>\n"
}

/// Bars, one below the other.
pub(super) fn bars(title: &str, description: &str, bars: &[Bar]) -> String {
    let mut svg = begin(title, description, BAR * bars.len() as f64);
    for (place, bar) in bars.iter().enumerate() {
        let top = place as f64 * BAR;
        let width = (bar.share.clamp(0.0, 1.0) * WIDTH).max(1.0);
        let (label, value) = (escaped(&bar.label), escaped(&bar.value));
        let (text, rect) = (top + 13.0, top + 18.0);
        let _ = writeln!(
            svg,
            "<text x=\"0\" y=\"{text}\">{label}</text><text x=\"{WIDTH}\" y=\"{text}\" text-anchor=\"end\">{value}</text>\
             <rect x=\"0\" y=\"{rect}\" width=\"{WIDTH}\" height=\"10\" fill=\"{TRACK}\"/>\
             <rect x=\"0\" y=\"{rect}\" width=\"{width:.1}\" height=\"10\" fill=\"{DATA}\"/>"
        );
    }
    svg + "</svg>\n"
}

/// Minutes that are marked, a lane for each kind.
pub(super) fn timeline(title: &str, description: &str, lanes: &[(String, Vec<bool>)]) -> String {
    let height = LANE * lanes.len() as f64;
    let mut svg = begin(title, description, height + BELOW);
    for (place, (name, marked)) in lanes.iter().enumerate() {
        let top = place as f64 * LANE;
        let _ = writeln!(
            svg,
            "<text x=\"{LEFT}\" y=\"{}\">{}</text>\
             <rect x=\"{LEFT}\" y=\"{}\" width=\"{}\" height=\"14\" fill=\"{TRACK}\"/>",
            top + 13.0,
            escaped(name),
            top + 18.0,
            WIDTH - LEFT - RIGHT
        );
        let mut minute = 0;
        for run in marked.chunk_by(|a, b| a == b) {
            let end = minute + run.len();
            if run[0] {
                // A minute alone would be thinner than a line.
                let width = (x(end) - x(minute)).max(1.5);
                let _ = writeln!(
                    svg,
                    "<rect x=\"{:.1}\" y=\"{}\" width=\"{width:.1}\" height=\"14\" fill=\"{ALARM}\"><title>{} to {}</title></rect>",
                    x(minute),
                    top + 18.0,
                    clock(minute),
                    clock(end)
                );
            }
            minute = end;
        }
    }
    hours(height, &mut svg);
    svg + "</svg>\n"
}

fn begin(title: &str, description: &str, height: f64) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\n\
         <title>{}</title>\n<desc>{}</desc>\n",
        escaped(title),
        escaped(description)
    )
}

/// The axis of the day.
fn hours(top: f64, svg: &mut String) {
    for hour in (0..=24).step_by(4) {
        let x = x(hour * 60);
        let _ = writeln!(
            svg,
            "<path d=\"M{x:.1} {top}v4\" stroke=\"#111\"/>\
             <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{hour:02}</text>",
            top + 18.0
        );
    }
}

fn x(minute: usize) -> f64 {
    LEFT + minute as f64 / MINUTES as f64 * (WIDTH - LEFT - RIGHT)
}

/// The next round number of which a half is one, too.
fn rounded(most: u64) -> u64 {
    let most = most.max(2);
    let power = 10_u64.pow(most.ilog10());
    let steps = [power, 2 * power, 4 * power, 6 * power, 8 * power];
    let step = steps.into_iter().find(|step| *step >= most);
    step.unwrap_or(power.saturating_mul(10))
}

/// `1.5 k`
fn short(value: f64) -> String {
    let units = [(" G", 1e9), (" M", 1e6), (" k", 1e3)];
    match units.into_iter().find(|(_, size)| value >= *size) {
        Some((unit, size)) => format!("{}{unit}", value / size),
        None => grouped(value as u64),
    }
}
