//! A plan: how each demand is routed, and what that does to the links.

use super::network::{Demand, Network, Unroutable};
use super::routes::Routes;
use super::state::Via;
use super::{MAX_PATHS, MAX_SEGMENTS, SHARES};

/// A part of one demand and its intermediate nodes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share {
    /// In the order of travel; none for the shortest paths.
    pub segments: Vec<u32>,
    /// Of [`SHARES`].
    pub hundredths: u32,
}

/// For each demand its shares, in order and no two with the same segments; they add up to
/// [`SHARES`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub demands: Vec<Vec<Share>>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    #[error(transparent)]
    Unroutable(#[from] Unroutable),
    #[error("the shortest paths among {nodes} nodes take more memory than allowed")]
    TooLarge { nodes: usize },
    #[error("demand {demand}: its shares add up to {sum} hundredths, not to 100")]
    Shares { demand: String, sum: u64 },
    #[error("demand {demand}: two shares take the same segments")]
    Twice { demand: String },
    #[error("demand {demand}: {count} segments, of at most {MAX_SEGMENTS}")]
    Segments { demand: String, count: usize },
    #[error("demand {demand}: {count} paths, of at most {MAX_PATHS}")]
    Paths { demand: String, count: usize },
}

impl Plan {
    /// Every demand on its shortest paths.
    pub fn shortest(demands: usize) -> Self {
        Self { demands: vec![vec![Share { hundredths: SHARES, segments: Vec::new() }]; demands] }
    }

    /// Demands that do not just take their shortest paths.
    pub fn policies(&self) -> impl Iterator<Item = (usize, &[Share])> {
        self.demands
            .iter()
            .enumerate()
            .map(|(demand, shares)| (demand, shares.as_slice()))
            .filter(|(_, shares)| shares.iter().any(|share| !share.segments.is_empty()))
    }

    pub(super) fn check(
        &self,
        network: &Network,
        routes: &Routes,
        demands: &[Demand],
    ) -> Result<(), PlanError> {
        assert_eq!(self.demands.len(), demands.len(), "a plan is of these demands");
        for (shares, demand) in self.demands.iter().zip(demands) {
            let label = || demand.label.clone();
            let sum: u64 = shares.iter().map(|share| u64::from(share.hundredths)).sum();
            if sum != u64::from(SHARES) {
                return Err(PlanError::Shares { demand: label(), sum });
            }
            if shares.len() > MAX_PATHS {
                return Err(PlanError::Paths { demand: label(), count: shares.len() });
            }
            if !shares.is_sorted_by(|a, b| a.segments < b.segments) {
                return Err(PlanError::Twice { demand: label() });
            }
            for Share { segments, .. } in shares {
                if segments.len() > MAX_SEGMENTS {
                    return Err(PlanError::Segments { demand: label(), count: segments.len() });
                }
                for (from, to) in Via::new(segments).legs(demand.from, demand.to) {
                    if !routes.joined(from, to) {
                        let name = |node| network.label(node).to_owned();
                        let (from, to) = (name(from), name(to));
                        return Err(Unroutable { demand: label(), from, to }.into());
                    }
                }
            }
        }
        Ok(())
    }

    /// The utilisation of every link, summed up anew.
    pub(super) fn utilisation(&self, routes: &Routes, demands: &[Demand]) -> Vec<f64> {
        let mut utilisation = vec![0.0; routes.links];
        for (shares, demand) in self.demands.iter().zip(demands) {
            for share in shares {
                let bps = part(demand, share.hundredths);
                for (from, to) in Via::new(&share.segments).legs(demand.from, demand.to) {
                    for (link, per_bps) in routes.entries(routes.pair(from, to)) {
                        utilisation[link] += bps * per_bps;
                    }
                }
            }
        }
        utilisation
    }
}

/// So many hundredths of a demand, in bit/s.
#[expect(clippy::cast_precision_loss, reason = "rates are below 2^53, by 10 Tbit/s")]
pub(super) fn part(demand: &Demand, hundredths: u32) -> f64 {
    demand.rate.0 as f64 * (f64::from(hundredths) / f64::from(SHARES))
}
