//! Networks as values: what a topology file says, snapshots of it, and paths through them.
//!
//! Pure but for [`read::from_path`], which reads one file. A [`Topology`] is what was written;
//! a [`Snapshot`] is that with dense indices, ready for path computation; [`shortest_path`],
//! [`Tree`], [`Forwarding`] and [`encode_segments`] compute on snapshots.

mod forwarding;
pub use hosts::HostsError;
mod hosts;
pub mod limits;
mod model;
mod names;
mod path;
pub mod problem;
pub mod read;
mod snapshot;
pub mod te;
mod units;
mod write;
pub mod yaml;

pub use forwarding::{EncodeError, Forwarding, Tree, encode_segments};
pub use model::{Compute, End, Host, Link, Node, Role, Switch, Topology};
pub use names::{NameError, NodeName, PortName};
pub use path::{Metric, NoPath, Path, Query, shortest_path};
pub use problem::{Problem, Problems};
pub use read::{Assumption, Format, Read};
pub use snapshot::{Arc, ArcIx, LinkIx, NodeIx, Snapshot};
pub use units::{BitRate, Bytes, Delay, Loss, Position, UnitError};

/// What a link without a `cost` counts in [`Metric::Cost`] (the default of IS-IS, RFC 1195).
pub const DEFAULT_COST: u32 = 10;
