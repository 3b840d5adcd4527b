//! The form in which metrics are declared, and in which the code that prints them reads them.

use super::{ByProtocol, Histogram, State};
use crate::time::Wall;

pub(super) type Number = u64;
pub(super) type Octets = u64;
pub(super) type Micros = u64;
pub(super) type Rate = f64;
pub(super) type Flag = bool;
pub(super) type Word = String;
pub(super) type Moment = Option<Wall>;

/// Declares a struct with a field for each line `name: kind Type, "meaning";`, where the kind is one of [`Kind`] and the
/// type one of [`Value`].
macro_rules! section {
    ($(#[$meta:meta])* $struct:ident $name:literal {
        $($field:ident: $kind:ident $type:ident, $help:literal;)*
    }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
        #[serde(default)]
        pub struct $struct {
            $(#[doc = $help] pub $field: $type,)*
        }

        impl $crate::metrics::section::Section for $struct {
            fn name(&self) -> &'static str {
                $name
            }

            fn metrics(&self) -> Vec<$crate::metrics::section::Metric<'_>> {
                use $crate::metrics::section::{Kind, Metric, Value};
                vec![$(Metric {
                    name: stringify!($field),
                    kind: Kind::$kind,
                    help: $help,
                    value: Value::$type(&self.$field),
                },)*]
            }
        }
    };
}
pub(super) use section;

/// A table of metrics with their values.
pub(super) trait Section {
    /// Its name in JSON, unless it is one of a list.
    fn name(&self) -> &'static str;

    /// Its metrics, in the order of the table.
    fn metrics(&self) -> Vec<Metric<'_>>;
}

pub(super) struct Metric<'a> {
    /// The field's name, with the unit.
    pub name: &'static str,
    pub kind: Kind,
    pub help: &'static str,
    pub value: Value<'a>,
}

#[allow(non_camel_case_types, reason = "as the tables write them")]
#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) enum Kind {
    /// It only grows.
    counter,
    gauge,
    histogram,
    /// It tells one of several alike from the others.
    label,
    /// Prometheus has it in another form, or computes it itself.
    detail,
}

#[derive(Clone, Copy)]
pub(super) enum Value<'a> {
    Number(&'a Number),
    Octets(&'a Octets),
    Micros(&'a Micros),
    Rate(&'a Rate),
    Flag(&'a Flag),
    Word(&'a Word),
    Moment(&'a Moment),
    State(&'a State),
    Histogram(&'a Histogram),
    ByProtocol(&'a ByProtocol),
}

impl Value<'_> {
    /// The unit that ends the name of such a metric, here and in Prometheus.
    pub(super) const fn unit(self) -> (&'static str, &'static str) {
        match self {
            Self::Octets(_) => ("octets", "bytes"),
            Self::Micros(_) => ("microseconds", "seconds"),
            Self::Moment(_) => ("time", "timestamp_seconds"),
            Self::Histogram(_) => ("histogram", "duration_seconds"),
            Self::ByProtocol(_) => ("by_protocol", ""),
            _ => ("", ""),
        }
    }
}

impl Metric<'_> {
    /// The name without the unit; empty when the unit is the whole name.
    pub(super) fn stem(&self) -> &'static str {
        let stem = self.name.strip_suffix(self.value.unit().0);
        stem.unwrap_or(self.name).trim_end_matches('_')
    }
}
