//! What would be admitted instead of a slice that is refused: the nearest change of each kind.
//!
//! Each offer is found by admitting it to a copy, so it holds as long as nothing else changes.
//! That takes tens of decisions: whoever only asks yes or no leaves it out.

use selvedge_topology::{BitRate, Delay, Metric, NodeName, Scratch, lengths_from};

use super::{Ledger, Network, Protection, Refusal, place};
use crate::limits::{MAX_LATENCY_US, MIN_RATE_BPS};
use crate::template::Attribute;
use crate::{Availability, Direction, NetworkSlice, ResourceSharingLevel, Side};

/// Changes one thing about a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Offer {
    /// The guaranteed rates; `None` where none was asked for.
    Rate { downlink: Option<BitRate>, uplink: Option<BitRate> },
    /// The least latency, to a microsecond.
    Latency(Delay),
    /// The strongest protection; the availability that asks for it.
    Protection(Protection, Option<Availability>),
    /// Backups whose capacity others may count on for other failures.
    Shared,
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
            Self::Shared => f.write_str("shared backups: resourceSharingLevel shared"),
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
            Self::Latency(latency) => {
                slice.latency = Some(*latency);
                if let Some(from) = &mut slice.template {
                    from.filled.retain(|attribute| *attribute != Attribute::Latency);
                }
            }
            Self::Protection(_, availability) => slice.availability = *availability,
            Self::Shared => slice.resource_sharing_level = ResourceSharingLevel::Shared,
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
    /// less rate, more delay, less availability, backups that are shared, another of `sites` in
    /// place of one of its `dn` endpoints (the first in order that will do). Empty when the slice itself is admitted.
    pub fn offers(
        &self,
        network: &Network<'_>,
        slice: &NetworkSlice,
        sites: &[NodeName],
    ) -> Vec<Offer> {
        let mut copy = self.clone();
        let Err(refusal) = copy.admit(network, slice) else { return Vec::new() };
        copy.remove(&slice.name);
        let slot = copy.slot(&slice.name);
        let mut admits =
            |offer: &Offer| place::fits(&mut copy, network, &offer.applied(slice), slot);
        let mut offers = Vec::new();
        offers.extend(less_rate(slice, &mut admits));
        let least = match *refusal {
            Refusal::Delay { least: Some(bound), .. } => Some(bound.total),
            _ => None,
        };
        offers.extend(more_delay(slice, least, &mut admits));
        let weaker = Protection::ALL.into_iter().rev();
        let weaker = weaker.filter(|level| *level < Protection::of(slice.availability));
        let mut weaker = weaker.map(|level| Offer::Protection(level, asking_for(level)));
        offers.extend(weaker.find(|offer| admits(offer)));
        let dedicated = slice.resource_sharing_level == ResourceSharingLevel::NonShared;
        offers.extend(dedicated.then_some(Offer::Shared).filter(|offer| admits(offer)));
        let near = near(network, slice);
        let mut others = slice.endpoints_on(Side::Dn).flat_map(|instead_of| {
            let taken = |site: &&NodeName| slice.endpoints.iter().any(|e| e.name == **site);
            let free = sites.iter().filter(move |site| !taken(site)).filter(|site| near(site));
            free.map(|site| Offer::Site { instead_of: instead_of.clone(), site: site.clone() })
        });
        offers.extend(others.find(|offer| admits(offer)));
        offers
    }
}

/// Whether an endpoint is near enough for a slice's latency, as far as propagation alone says:
/// no place for it is tried where it cannot be in time.
fn near<'a>(network: &'a Network<'_>, slice: &NetworkSlice) -> impl Fn(&NodeName) -> bool + 'a {
    let graph = network.snapshot.graph();
    let switch = |endpoint: &NodeName| Some(network.endpoints.get(endpoint)?.switch);
    let from = slice.endpoints_on(Side::Ue).find_map(switch);
    let wanted = slice.latency.map(|latency| u64::from(latency.us()));
    let lengths = from.zip(wanted).map(|(from, wanted)| {
        (lengths_from(graph, &mut Scratch::new(), from, Metric::Delay), wanted)
    });
    move |site| match (&lengths, switch(site)) {
        (Some((lengths, wanted)), Some(switch)) => lengths[switch.index()].sum() <= *wanted,
        _ => true,
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

/// The largest guaranteed rates, in whole kbit/s: of one direction less or of both, whichever
/// gives up least. None where endpoints have guarantees of their own: which of them should have
/// less is not for us to say.
fn less_rate(slice: &NetworkSlice, admits: &mut impl FnMut(&Offer) -> bool) -> Option<Offer> {
    let own = |direction| slice.endpoints.iter().any(|e| e.rates(direction).guaranteed.is_some());
    if Direction::ALL.into_iter().any(own) {
        return None;
    }
    let given = |offer: &Offer| match offer {
        Offer::Rate { downlink, uplink } => {
            downlink.unwrap_or_default().0.saturating_add(uplink.unwrap_or_default().0)
        }
        _ => 0,
    };
    let choices = [[true, false], [false, true], [true, true]];
    let offers = choices.into_iter().filter_map(|less| less_of(slice, less, admits));
    offers.max_by_key(given)
}

fn less_of(
    slice: &NetworkSlice,
    [down, up]: [bool; 2],
    admits: &mut impl FnMut(&Offer) -> bool,
) -> Option<Offer> {
    let (downlink, uplink) = (slice.downlink.guaranteed, slice.uplink.guaranteed);
    if (down && downlink.is_none()) || (up && uplink.is_none()) {
        return None;
    }
    let offer = |share: u64| {
        let scaled = |rate: BitRate| {
            let bps = u128::from(rate.0) * u128::from(share) / 1000 / 1000 * 1000;
            BitRate(u64::try_from(bps).expect("a share is not more than the whole"))
        };
        let downlink = if down { downlink.map(scaled) } else { downlink };
        let uplink = if up { uplink.map(scaled) } else { uplink };
        let large = |rate: &BitRate| rate.0 >= MIN_RATE_BPS;
        let both = downlink.iter().chain(&uplink);
        both.clone().all(large).then_some(Offer::Rate { downlink, uplink })
    };
    // The least share that is a rate at all. If that is too much, every rate is.
    let least = least(0, 1000, |share| offer(share).is_some());
    if !offer(least).is_some_and(|offer| admits(&offer)) {
        return None;
    }
    let too_much = self::least(least, 1000, |share| !offer(share).is_some_and(|o| admits(&o)));
    offer(too_much - 1)
}

/// The least number above `from` of which something holds that holds of all above it, and of
/// `to`.
fn least(mut from: u64, mut to: u64, mut holds: impl FnMut(u64) -> bool) -> u64 {
    while to - from > 1 {
        let middle = from + (to - from) / 2;
        if holds(middle) {
            to = middle;
        } else {
            from = middle;
        }
    }
    to
}

/// `known`: the bound of the ways that were found to be late.
fn more_delay(
    slice: &NetworkSlice,
    known: Option<Delay>,
    admits: &mut impl FnMut(&Offer) -> bool,
) -> Option<Offer> {
    let wanted = slice.latency?.us();
    let mut admits = |us: u64| admits(&Offer::Latency(Delay(us)));
    // Mostly those ways are the best there are, and nobody else is in the way.
    let known =
        known.map(|known| known.us()).filter(|known| (wanted..=MAX_LATENCY_US).contains(known));
    if let Some(known) = known.filter(|known| admits(*known))
        && (known == wanted + 1 || !admits(known - 1))
    {
        return Some(Offer::Latency(Delay(known)));
    }
    if !admits(MAX_LATENCY_US) {
        return None;
    }
    Some(Offer::Latency(Delay(least(wanted, MAX_LATENCY_US, admits))))
}
