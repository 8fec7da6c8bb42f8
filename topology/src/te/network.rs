//! What is optimised: a directed network with weights and capacities, and demands on it.

use crate::BitRate;

/// Nodes `0..labels.len()` and directed links between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    labels: Vec<String>,
    edges: Vec<Edge>,
}

/// One direction of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    pub label: String,
    pub from: u32,
    pub to: u32,
    /// At least 1.
    pub weight: u32,
    /// More than 0.
    pub capacity: BitRate,
}

/// Traffic from a node to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    pub label: String,
    pub from: u32,
    pub to: u32,
    pub rate: BitRate,
}

/// A demand whose ends no path joins.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no path leads from {from} to {to}, as demand {demand} needs")]
pub struct Unroutable {
    pub demand: String,
    pub from: String,
    pub to: String,
}

impl Network {
    /// # Panics
    /// If an edge names a node that is not there, joins a node with itself, or has a weight or a
    /// capacity of 0.
    pub fn new(labels: Vec<String>, edges: Vec<Edge>) -> Self {
        for edge in &edges {
            let inside = |node: u32| (node as usize) < labels.len();
            assert!(inside(edge.from) && inside(edge.to), "{}: its ends exist", edge.label);
            assert!(edge.from != edge.to, "{}: joins two nodes", edge.label);
            assert!(edge.weight > 0 && edge.capacity.0 > 0, "{}: has figures", edge.label);
        }
        Self { labels, edges }
    }

    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    pub fn edges(&self) -> &[Edge] {
        &self.edges
    }

    pub fn len(&self) -> usize {
        self.labels.len()
    }

    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    pub fn label(&self, node: u32) -> &str {
        &self.labels[node as usize]
    }
}
