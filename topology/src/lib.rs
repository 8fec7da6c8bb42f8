//! Networks as values: what a topology file says, snapshots of it, and paths through them.
//!
//! Pure but for [`read::from_path`], which reads one file. A [`Topology`] is what was written;
//! a [`Snapshot`] is that with dense indices; its [`Graph`] is what paths are computed on:
//! [`cheapest`] under [`Constraints`], [`explain`] why there is none, [`k_shortest`],
//! [`disjoint_pair`], [`AllPairs`], [`EqualCost`]. [`Tree`] and [`Forwarding`] are what the
//! fabric does by itself, [`encode`] spells a path for it, and [`Live`] follows link failures.

mod all_pairs;
mod backups;
mod constrained;
mod constraints;
mod detour;
mod disjoint;
mod encode;
mod explain;
mod forwarding;
mod graph;
mod heap;
pub use hosts::HostsError;
mod hosts;
pub mod limits;
mod live;
mod model;
mod names;
mod path;
pub mod problem;
pub mod read;
mod routes;
mod snapshot;
pub mod sorted;
mod sssp;
pub mod te;
mod units;
mod write;
pub mod yaml;
mod yen;

pub use all_pairs::AllPairs;
pub use backups::{Backup, Backups, MAX_REPAIR_SIDS};
pub use constrained::{MAX_LABELS, NotFound, Query, cheapest};
pub use constraints::{Affinity, Constraints, Elements, Kind, MAX_INCLUDES};
pub use disjoint::{Disjoint, MAX_FIRST_PATHS, NoPair, Pair, Shared, disjoint_pair, is_disjoint};
pub use encode::{EncodeError, MAX_SIDS, Sid, encode, encode_segments, follow};
pub use explain::{Never, NoPath, Relaxation, explain, explain_pair};
pub use forwarding::{Forwarding, Tree};
pub use graph::{Edge, Figures, Graph, GraphLink, Length, Totals};
pub use live::{Changes, Live, Placed, Policy};
pub use model::{Compute, End, Host, Link, Node, Role, Shaped, Switch, Topology};
pub use names::{NameError, NodeName, PortName};
pub use path::{Metric, Path};
pub use problem::{Problem, Problems};
pub use read::{Assumption, Format, Read};
pub use routes::Routes;
pub use snapshot::{Arc, ArcIx, LinkIx, NodeIx, Snapshot};
pub use sssp::{EqualCost, Scratch, lengths_from};
pub use units::{BitRate, Bytes, Cpu, Delay, Loss, Position, Power, UnitError};
pub use yen::{Shortest, k_shortest};

/// What a link without a `cost` counts in [`Metric::Cost`] (the default of IS-IS, RFC 1195).
pub const DEFAULT_COST: u32 = 10;
