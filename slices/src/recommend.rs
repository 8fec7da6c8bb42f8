//! What a slice that would be accepted has otherwise than the one that was refused
//! (TS 28.541 §6.3.36, recommendedRequirements).

use crate::{Direction, NetworkSlice};

impl NetworkSlice {
    /// What differs from `wanted`, for people.
    pub fn differences(&self, wanted: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        for direction in Direction::ALL {
            let (here, there) =
                (self.rates(direction).guaranteed, wanted.rates(direction).guaranteed);
            if let (Some(here), Some(there)) = (here, there)
                && here != there
            {
                lines.push(format!("{direction} guaranteed {here} instead of {there}"));
            }
        }
        if let (Some(here), Some(there)) = (self.latency, wanted.latency)
            && here != there
        {
            lines.push(format!("latency {here} instead of {there}"));
        }
        lines
    }
}
