//! What operators promise and applications ask for: slices, hooks, applications; whether the
//! network can keep it, where it runs, and why.
//!
//! Pure but for [`check`], which reads one file.

pub mod admission;
pub mod class;
pub mod class_map;
pub mod document;
pub mod limits;
mod names;
mod notes;
mod object;
pub mod placement;
mod read;
mod recommend;
pub mod rules;
pub mod schedule;
mod schema;
mod session;
pub mod template;
pub mod ts28541;

pub use admission::{Admitted, Explanation, Ledger, Refusal};
pub use class::Class;
pub use class_map::ClassMap;
pub use names::{ObjectName, ObjectNameError, Snssai, SnssaiError};
pub use object::{
    Application, Availability, Direction, Endpoint, Hook, NetworkSlice, Object, ObjectKind,
    OnFailure, Rates, ResourceSharingLevel, Side, Through,
};
pub use read::{check, parse, parse_lines};
pub use rules::{TrafficFilter, TrafficRule};
pub use schema::json_schema;
pub use session::PduSession;
pub use template::Template;
