//! Which sessions are logged.

use super::*;
use crate::config::{Prefix, Selection};

#[test]
fn untranslated_sessions_are_logged_only_when_all_are_wanted() {
    let mut engine = engine();
    engine.handle_events(&[new(untranslated(1))], at(1));
    assert_eq!(
        (records(&mut engine).len(), engine.statistics().filtered),
        (0, 1)
    );

    let mut capture = capture();
    capture.log = LogScope::All;
    engine.reconfigure(Filter::new([capture.selection()]), POLICY, at(1));
    engine.handle_events(&[new(untranslated(2))], at(1));
    assert_eq!(records(&mut engine).len(), 1);
}

#[test]
fn each_filter_leaves_out_what_it_does_not_name() {
    let filter = |change: &dyn Fn(&mut crate::config::Capture)| {
        let mut capture = capture();
        change(&mut capture);
        Filter::new([capture.selection()]).accepts(&Session {
            mark: 0x17,
            ..session(1)
        })
    };
    let net = |text: &str, length| Prefix {
        address: address(text),
        length,
    };
    assert!(filter(&|capture| capture.mark = Some(MarkFilter {
        value: 0x10,
        mask: 0xf0
    })));
    assert!(!filter(&|capture| capture.mark = Some(MarkFilter {
        value: 0x20,
        mask: 0xf0
    })));
    assert!(filter(
        &|capture| capture.protocols = vec![Protocol::TCP, Protocol::UDP]
    ));
    assert!(!filter(&|capture| capture.protocols = vec![Protocol::TCP]));
    assert!(filter(&|capture| capture.source = vec![net("10.0.0.0", 8)]));
    assert!(!filter(
        &|capture| capture.source = vec![net("10.1.0.0", 16), net("::", 0)]
    ));
    assert!(filter(
        &|capture| capture.destination = vec![net("::", 0), net("198.51.100.7", 32)]
    ));
    assert!(!filter(
        &|capture| capture.destination = vec![net("203.0.113.0", 24)]
    ));
}

#[test]
fn a_session_that_any_selection_accepts_is_logged() {
    let mut marked = Selection::ANY;
    marked.mark = Some(MarkFilter { value: 7, mask: 7 });
    let filter = Filter::new([capture().selection(), marked]);
    let marked = |mark| Session {
        mark,
        ..untranslated(1)
    };
    assert!(filter.accepts(&session(1)));
    assert!(filter.accepts(&marked(7)));
    assert!(!filter.accepts(&marked(1)));
}
