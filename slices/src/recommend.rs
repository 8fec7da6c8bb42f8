//! What a slice that would be accepted has otherwise than the one that was refused
//! (TS 28.541 §6.3.36, recommendedRequirements).

use crate::{Direction, NetworkSlice, ResourceSharingLevel};

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
        if self.resource_sharing_level != wanted.resource_sharing_level {
            let word = |slice: &Self| {
                let mut words = ResourceSharingLevel::WORDS.into_iter();
                words
                    .find(|(_, level)| *level == slice.resource_sharing_level)
                    .map(|(word, _)| word)
            };
            let (here, there) = (word(self).unwrap_or_default(), word(wanted).unwrap_or_default());
            lines.push(format!("resourceSharingLevel {here} instead of {there}"));
        }
        lines
    }
}
