//! The selection of the sessions that are logged.

use crate::config::Selection;
use crate::session::Session;

/// The selections of `[capture]` and of the outputs; a session is logged when any of them accepts it.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter(Vec<Selection>);

impl Filter {
    pub fn new(selections: impl Into<Vec<Selection>>) -> Self {
        Self(selections.into())
    }

    /// Whether it may have rejected the session at its beginning: with another mark, none of its selections accepted it.
    pub fn may_have_rejected(&self, session: &Session) -> bool {
        let mut unmarked = self.0.iter().filter(|selection| selection.mark.is_none());
        !unmarked.any(|selection| selection.accepts(session))
    }

    pub fn accepts(&self, session: &Session) -> bool {
        self.0.iter().any(|selection| selection.accepts(session))
    }
}
