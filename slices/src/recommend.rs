//! What would be accepted in place of a slice that is refused: less rate, or more delay
//! (TS 28.541 §6.3.36, recommendedRequirements).

use selvedge_topology::{BitRate, Delay};

use crate::limits::{MAX_LATENCY_US, MIN_RATE_BPS};
use crate::template::Attribute;
use crate::{Direction, Endpoint, NetworkSlice, Refusal};

impl NetworkSlice {
    /// The slice with what the refusal names relaxed as far as it says; `None`: nothing of the
    /// kind would help. Whether the whole then fits has to be asked again.
    pub fn relaxed(&self, refusal: &Refusal) -> Option<Self> {
        let mut slice = self.clone();
        match refusal {
            Refusal::Bandwidth { direction, fits, .. } => {
                let rates = match direction {
                    Direction::Downlink => &mut slice.downlink,
                    Direction::Uplink => &mut slice.uplink,
                };
                // Whole kbit/s, as TS 28.541 counts; nothing below what a meter holds.
                let fits = fits.0 / 1_000 * 1_000;
                let wanted = rates.guaranteed?;
                // Which of its endpoints should be guaranteed less is not for us to say.
                let own = |endpoint: &Endpoint| endpoint.rates(*direction).guaranteed.is_some();
                if fits < MIN_RATE_BPS || fits >= wanted.0 || self.endpoints.iter().any(own) {
                    return None;
                }
                rates.guaranteed = Some(BitRate(fits));
            }
            Refusal::Delay { least: Some(least), .. } => {
                let whole_ms = least.total.us().div_ceil(1_000);
                let latency = Delay::from_ms(whole_ms);
                if latency.us() > MAX_LATENCY_US || slice.latency? >= latency {
                    return None;
                }
                slice.latency = Some(latency);
                if let Some(from) = &mut slice.template {
                    from.filled.retain(|attribute| *attribute != Attribute::Latency);
                }
            }
            _ => return None,
        }
        Some(slice)
    }

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
