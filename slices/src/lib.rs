//! What operators promise and applications ask for: slices, hooks, applications; whether the
//! network can keep it, where it runs, and why.
//!
//! Pure but for [`check`], which reads one file.

pub mod admission;
pub mod class;
pub mod limits;
mod names;
mod object;
pub mod placement;
mod read;
pub mod rules;
mod schema;

pub use admission::{Admitted, Explanation, Ledger, Refusal};
pub use class::Class;
pub use names::{ObjectName, ObjectNameError, Snssai, SnssaiError};
pub use object::{
    Application, Availability, Direction, Endpoint, Hook, NetworkSlice, Object, ObjectKind,
    OnFailure, Rates, Side, Through,
};
pub use read::{check, parse};
pub use rules::{TrafficFilter, TrafficRule};
pub use schema::json_schema;
