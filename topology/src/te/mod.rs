//! Traffic engineering by segment routing: which intermediate nodes each demand passes, so that
//! the fullest link is as empty as possible.
//!
//! A demand without a policy takes its shortest paths. With one, shares of it go from segment to
//! segment, at most [`MAX_SEGMENTS`] of them between its ends, and between two segments over all
//! shortest paths by the links' weights, split evenly at each node over its next hops (each of
//! two parallel links is one), as REPETITA evaluates it.
//!
//! Units: rates are bit/s, utilisation is load divided by capacity (1 = full), shares are
//! hundredths of a demand ([`SHARES`]). Nodes, links and demands are indices, in the order of
//! [`Network`] and of the list of demands.
//!
//! Pure: time and randomness come in as a closure that says when to stop and as a seed. The same
//! input, seed and number of rounds give the same result, whatever the machine, as long as the
//! closure does not stop a round half-way.

mod bound;
mod change;
mod network;
mod plan;
mod routes;
mod search;
mod state;
mod worker;

#[cfg(test)]
mod tests;

pub use change::{Change, MAX_MOVES, Move, Refused, change};
pub use network::{Demand, Edge, Network, Unroutable};
pub use plan::{Plan, PlanError, Share};
pub use search::{Options, Outcome, Progress, optimise};

/// Intermediate nodes of a policy.
pub const MAX_SEGMENTS: usize = 2;
/// A demand is split in hundredths of its rate.
pub const SHARES: u32 = 100;
/// Paths that one demand is split over.
pub const MAX_PATHS: usize = 8;
/// Entries (ordered pair of nodes, link that its shortest paths use) that are kept in memory, at
/// 24 bytes each: 1.5 GiB. Cogentco, 197 nodes, has 0.6 million.
pub const MAX_ENTRIES: usize = 64 << 20;
