//! What would be admitted instead of a slice that is refused: the nearest change of each kind.
//!
//! Each offer is found by admitting it to a copy, so it holds as long as nothing else changes.
//! That takes tens of decisions: whoever only asks yes or no leaves it out.

use selvedge_topology::{BitRate, Delay, Length, Metric, NodeName, Scratch, lengths_from};

use super::{Ledger, Network, Protection, Refusal, place};
use crate::limits::{MAX_LATENCY_US, MIN_RATE_BPS};
use crate::template::Attribute;
use crate::{Availability, Direction, NetworkSlice, ResourceSharingLevel, Side};

/// Sites that are tried in place of another.
const SITES_TRIED: usize = 16;

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
    /// place of one of its `dn` endpoints: the nearest that will do, of the 16
    /// nearest. Empty when the slice itself is admitted.
    pub fn offers<'s>(
        &self,
        network: &Network<'_>,
        slice: &NetworkSlice,
        sites: impl IntoIterator<Item = &'s NodeName>,
    ) -> Vec<Offer> {
        let mut copy = self.clone();
        let Err(refusal) = copy.admit(network, slice) else { return Vec::new() };
        copy.remove(&slice.name);
        let slot = copy.slot(&slice.name);
        let mut admits =
            |offer: &Offer| place::fits(&mut copy, network, &offer.applied(slice), slot);
        let mut offers = Vec::new();
        let (fits, least) = match *refusal {
            Refusal::Bandwidth { direction, wanted, fits, .. } => {
                (Some((direction, fits, wanted)), None)
            }
            Refusal::Delay { least: Some(bound), .. } => (None, Some(bound.total)),
            _ => (None, None),
        };
        offers.extend(less_rate(slice, fits, &mut admits));
        offers.extend(more_delay(slice, least, &mut admits));
        let weaker = Protection::ALL.into_iter().rev();
        let weaker = weaker.filter(|level| *level < Protection::of(slice.availability));
        let mut weaker = weaker.map(|level| Offer::Protection(level, asking_for(level)));
        offers.extend(weaker.find(|offer| admits(offer)));
        let dedicated = slice.resource_sharing_level == ResourceSharingLevel::NonShared;
        offers.extend(dedicated.then_some(Offer::Shared).filter(|offer| admits(offer)));
        let sites = nearest(network, slice, sites);
        let mut others = slice.endpoints_on(Side::Dn).flat_map(|instead_of| {
            let (instead_of, sites) = (instead_of.clone(), sites.iter().copied().cloned());
            sites.map(move |site| Offer::Site { instead_of: instead_of.clone(), site })
        });
        offers.extend(others.find(|offer| admits(offer)));
        offers
    }
}

/// Sites that a slice does not have, by propagation from its first `ue` endpoint; without those
/// that are too far for its latency by that alone.
fn nearest<'s>(
    network: &Network<'_>,
    slice: &NetworkSlice,
    sites: impl IntoIterator<Item = &'s NodeName>,
) -> Vec<&'s NodeName> {
    let switch = |endpoint: &NodeName| Some(network.endpoints.get(endpoint)?.switch);
    let from = slice.endpoints_on(Side::Ue).find_map(switch);
    let graph = network.snapshot.graph();
    let lengths = from.map(|from| lengths_from(graph, &mut Scratch::new(), from, Metric::Delay));
    let us = |site: &NodeName| {
        let at = switch(site)?.index();
        let length = lengths.as_ref().map_or(Length::ZERO, |of| of[at]);
        Some(length).filter(|length| !length.is_none()).map(Length::sum)
    };
    let most = slice.latency.map_or(u64::MAX, Delay::us);
    let free = sites.into_iter().filter(|site| slice.endpoints.iter().all(|e| e.name != **site));
    let near = free.filter_map(|site| Some((us(site)?, site)));
    let mut near: Vec<(u64, &NodeName)> = near.filter(|(us, _)| *us <= most).collect();
    near.sort_unstable();
    near.truncate(SITES_TRIED);
    near.into_iter().map(|(_, site)| site).collect()
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
/// gives up least; where one was found to be too much, of that one less if that will do. None where endpoints have guarantees of their own: which of them should have
/// less is not for us to say. `left`: what was found to be left for how much, if rates were what
/// is wrong.
fn less_rate(
    slice: &NetworkSlice,
    known: Option<(Direction, BitRate, BitRate)>,
    admits: &mut impl FnMut(&Offer) -> bool,
) -> Option<Offer> {
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
    let guess = known.map(|(_, fits, wanted)| {
        let share = u128::from(fits.0) * 1000 / u128::from(wanted.0.max(1));
        u64::try_from(share).unwrap_or(u64::MAX).clamp(1, 999)
    });
    let less = |less: [bool; 2]| {
        let none = |(less, rate): (bool, Option<BitRate>)| less && rate.is_none();
        let rates = [slice.downlink.guaranteed, slice.uplink.guaranteed];
        (!less.into_iter().zip(rates).any(none)).then_some(less)
    };
    if let Some((direction, ..)) = known {
        // Mostly the other direction fits.
        let one = less(Direction::ALL.map(|other| other == direction));
        let found = one.and_then(|one| less_of(slice, one, guess, admits));
        return found.or_else(|| less_of(slice, less([true, true])?, guess, admits));
    }
    // What is too much at the least rates of both is so for one of them.
    let both = less([true, true]).map(|both| less_of(slice, both, guess, admits));
    if both == Some(None) {
        return None;
    }
    let ones = [[true, false], [false, true]].into_iter().filter_map(less);
    let ones: Vec<Offer> = ones.filter_map(|one| less_of(slice, one, guess, admits)).collect();
    both.flatten().into_iter().chain(ones).max_by_key(given)
}

/// `guess`: a share, per mille, that may be the largest.
fn less_of(
    slice: &NetworkSlice,
    [down, up]: [bool; 2],
    guess: Option<u64>,
    admits: &mut impl FnMut(&Offer) -> bool,
) -> Option<Offer> {
    let offer = |share: u64| {
        let scaled = |rate: BitRate| {
            let bps = u128::from(rate.0) * u128::from(share) / 1000 / 1000 * 1000;
            BitRate(u64::try_from(bps).expect("a share is not more than the whole"))
        };
        let (downlink, uplink) = (slice.downlink.guaranteed, slice.uplink.guaranteed);
        let downlink = if down { downlink.map(scaled) } else { downlink };
        let uplink = if up { uplink.map(scaled) } else { uplink };
        let large = |rate: &BitRate| rate.0 >= MIN_RATE_BPS;
        let both = downlink.iter().chain(&uplink);
        both.clone().all(large).then_some(Offer::Rate { downlink, uplink })
    };
    let mut too_much = |share: u64| !offer(share).is_some_and(|offer| admits(&offer));
    // The least share that is a rate at all. If that is too much, every rate is.
    let mut fits = least(0, 1000, |share| offer(share).is_some());
    if fits == 1000 || too_much(fits) {
        return None;
    }
    let mut most = 1000;
    for guess in guess.into_iter().flat_map(|guess| [guess, guess + 1]) {
        if fits < guess && guess < most {
            *(if too_much(guess) { &mut most } else { &mut fits }) = guess;
        }
    }
    offer(least(fits, most, too_much) - 1)
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
