//! What would be admitted instead of a slice that is refused: the nearest change of each kind.
//!
//! Each offer is found by admitting it to a copy, so it holds as long as nothing else changes.
//! That takes tens of decisions, and is for a feasibility check rather than for every refusal.

use selvedge_topology::{BitRate, Delay, NodeName};

use super::{Ledger, Network, Protection};
use crate::limits::{MAX_LATENCY_US, MIN_RATE_BPS};
use crate::{Availability, NetworkSlice, Side};

/// Changes one thing about a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Offer {
    /// The guaranteed rates, both scaled by the same share; `None` where none was asked for.
    Rate { downlink: Option<BitRate>, uplink: Option<BitRate> },
    /// The least latency, to a microsecond.
    Latency(Delay),
    /// The strongest protection; the availability that asks for it.
    Protection(Protection, Option<Availability>),
    /// Another endpoint on the data network's side.
    Site { instead_of: NodeName, site: NodeName },
}

impl std::fmt::Display for Offer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rate { downlink, uplink } => {
                let rate = |name, rate: &Option<BitRate>| rate.map(|rate| format!("{name} {rate}"));
                let rates = [rate("downlink", downlink), rate("uplink", uplink)];
                let rates: Vec<String> = rates.into_iter().flatten().collect();
                write!(f, "less rate: {}", rates.join(", "))
            }
            Self::Latency(latency) => write!(f, "more delay: {latency}"),
            Self::Protection(level, _) => write!(f, "less availability: {level} protection"),
            Self::Site { instead_of, site } => {
                write!(f, "another site: {site} instead of {instead_of}")
            }
        }
    }
}

impl Offer {
    /// The slice with the change.
    #[must_use]
    pub fn applied(&self, slice: &NetworkSlice) -> NetworkSlice {
        let mut slice = slice.clone();
        match self {
            Self::Rate { downlink, uplink } => {
                (slice.downlink.guaranteed, slice.uplink.guaranteed) = (*downlink, *uplink);
            }
            Self::Latency(latency) => slice.latency = Some(*latency),
            Self::Protection(_, availability) => slice.availability = *availability,
            Self::Site { instead_of, site } => {
                for endpoint in &mut slice.endpoints {
                    if endpoint.name == *instead_of {
                        endpoint.name = site.clone();
                    }
                }
            }
        }
        slice
    }
}

impl Ledger {
    /// What would be admitted instead of a slice that is refused, at most one offer of each kind:
    /// less rate, more delay, less availability, another of `sites` in place of one of its `dn`
    /// endpoints (the first in order that will do). Empty when the slice itself is admitted.
    pub fn offers(
        &self,
        network: &Network<'_>,
        slice: &NetworkSlice,
        sites: &[NodeName],
    ) -> Vec<Offer> {
        let mut copy = self.clone();
        copy.remove(&slice.name);
        let mut admits = |offer: &Offer| {
            let admitted = copy.admit(network, &offer.applied(slice)).is_ok();
            copy.remove(&slice.name);
            admitted
        };
        let same =
            Offer::Rate { downlink: slice.downlink.guaranteed, uplink: slice.uplink.guaranteed };
        if admits(&same) {
            return Vec::new();
        }
        let mut offers = Vec::new();
        offers.extend(less_rate(slice, &mut admits));
        offers.extend(more_delay(slice, &mut admits));
        let weaker = Protection::ALL.into_iter().rev();
        let weaker = weaker.filter(|level| *level < Protection::of(slice.availability));
        let mut weaker = weaker.map(|level| Offer::Protection(level, asking_for(level)));
        offers.extend(weaker.find(|offer| admits(offer)));
        let mut others = slice.endpoints_on(Side::Dn).flat_map(|instead_of| {
            let taken = |site: &&NodeName| slice.endpoints.iter().any(|e| e.name == **site);
            let free = sites.iter().filter(move |site| !taken(site));
            free.map(|site| Offer::Site { instead_of: instead_of.clone(), site: site.clone() })
        });
        offers.extend(others.find(|offer| admits(offer)));
        offers
    }
}

/// The least availability that asks for a level.
fn asking_for(level: Protection) -> Option<Availability> {
    let ppm = match level {
        Protection::None => return None,
        Protection::Link => 999_000,
        Protection::Node => 999_900,
        Protection::Srlg => 999_990,
    };
    Some(Availability(ppm))
}

/// The largest share of the rates in thousandths, if any.
fn less_rate(slice: &NetworkSlice, admits: &mut impl FnMut(&Offer) -> bool) -> Option<Offer> {
    let offer = |share: u64| {
        let scaled = |rate: BitRate| BitRate(rate.0 / 1000 * share);
        let large = |rate: &BitRate| rate.0 >= MIN_RATE_BPS;
        let downlink = slice.downlink.guaranteed.map(scaled);
        let uplink = slice.uplink.guaranteed.map(scaled);
        let both = downlink.iter().chain(&uplink);
        (both.clone().count() > 0 && both.clone().all(large))
            .then_some(Offer::Rate { downlink, uplink })
    };
    // Every rate is too much or none is: between them one half after the other.
    let (mut fits, mut too_much) = (0, 1000);
    while too_much - fits > 1 {
        let middle = fits + (too_much - fits) / 2;
        match offer(middle) {
            Some(offer) if !admits(&offer) => too_much = middle,
            _ => fits = middle,
        }
    }
    offer(fits).filter(|offer| admits(offer))
}

fn more_delay(slice: &NetworkSlice, admits: &mut impl FnMut(&Offer) -> bool) -> Option<Offer> {
    let wanted = slice.latency?;
    let (mut fits, mut too_little) = (MAX_LATENCY_US, wanted.us());
    if !admits(&Offer::Latency(Delay(fits))) {
        return None;
    }
    while fits - too_little > 1 {
        let middle = too_little + (fits - too_little) / 2;
        if admits(&Offer::Latency(Delay(middle))) {
            fits = middle;
        } else {
            too_little = middle;
        }
    }
    Some(Offer::Latency(Delay(fits)))
}
