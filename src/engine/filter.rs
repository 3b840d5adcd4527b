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

    /// Whether it may reject a session at its beginning and accept it at its end.
    pub fn has_mark(&self) -> bool {
        self.0.iter().any(|selection| selection.mark.is_some())
    }

    pub fn accepts(&self, session: &Session) -> bool {
        self.0.iter().any(|selection| selection.accepts(session))
    }
}
