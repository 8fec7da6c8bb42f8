//! Slices as managed objects of 3GPP TS 28.541, and back (OpenAPI: TS28541_SliceNrm.yaml).
//!
//! A slice is a `NetworkSlice` with one `ServiceProfile`. Rates are kbit/s, latencies
//! milliseconds, availability percent. What the standard has no attribute for (endpoints, class,
//! bursts, hooks ...) stands in a `VsDataContainer` (TS 28.622 §4.3.9), so that what is exported
//! comes back whole. What a ServiceProfile asks for and a transport network does not keep is
//! named on the way in.

mod export;
mod import;

pub use export::{Exported, Plmn, PlmnError, export};
pub use import::{Imported, import};

/// `vsDataType` of what the standard has no attribute for.
const VS_DATA_TYPE: &str = "selvedge/v1";
