//! The archive: finished sessions and gaps, for years.
//!
//! [`row`] is one finished session and its canonical octets, [`table`] a sealed file of them, [`tree`] the paths of files,
//! [`spool`] what is not sealed yet. [`follow`] brings records from the daemon's log to there. [`question`] and [`answer`]
//! are `nattrail who` without its command line, [`wanted`] the selection of rows that a question asks for, [`sources`] the
//! places that it asks; [`report`] has the sums of a day. [`proof`] is the signed log that shows what was archived, and
//! [`evidence`] puts the seals into it; [`acts`] are what people did with the archive, and [`audit`] checks all of it.

pub mod acts;
pub mod answer;
pub mod audit;
mod disk;
pub mod evidence;
pub mod follow;
mod gather;
pub mod proof;
pub mod question;
pub mod report;
pub mod row;
mod seal;
pub mod sources;
pub mod spool;
pub mod table;
pub mod tree;
pub mod wanted;
