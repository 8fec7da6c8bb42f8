//! What would be admitted instead of a slice that is refused: the nearest change of each kind.
//!
//! Each offer is found by admitting it to a copy, so it holds as long as nothing else changes.
//! That takes tens of decisions: whoever only asks yes or no leaves it out.

use selvedge_topology::{BitRate, Delay, Length, Metric, NodeName, Scratch, lengths_from};

use super::tries::{Tries, WAYS};
use super::{Ledger, Network, Protection, Refusal};
use crate::limits::MIN_RATE_BPS;
use crate::template::Attribute;
use crate::{Availability, Direction, NetworkSlice, ResourceSharingLevel, Side};

/// Sites that are tried in place of another.
const SITES_TRIED: usize = 16;
/// Less rate is offered to this part of what links have left, or of what was asked: each halving
/// is one try.
const RATE_PARTS: u64 = 8;

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
        let mut tries = Tries::new(self, network, slice);
        // Why it is refused is known where its promise was waived for that.
        let waived = self.get(slice.name.as_str()).filter(|known| known.slice == *slice);
        let refusal = waived.and_then(|known| known.waived.clone());
        let refusal = refusal.or_else(|| tries.refusal(slice).map(|refusal| *refusal));
        let Some(refusal) = refusal else { return Vec::new() };
        let left = match refusal {
            Refusal::Bandwidth { direction, fits, .. } => Some((direction, fits)),
            _ => None,
        };
        let mut offers = Vec::new();
        offers.extend(less_rate(slice, left, &mut tries));
        offers.extend(more_delay(slice, &mut tries));
        let mut admits = |offer: &Offer| tries.admits(&offer.applied(slice));
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

/// Guaranteed rates by direction, as in [`Direction::ALL`].
type Rates = [Option<BitRate>; 2];

/// Less guaranteed rate of one direction or of both, whichever gives up least; where one was found
/// to be too much, of that one if that will do. None where endpoints have guarantees of their own:
/// which of them should have less is not for us to say. `left`: the most that links have left
/// for a direction, if rates are what is wrong. That is offered if delays allow it, else the
/// largest of [`RATE_PARTS`] parts of it.
fn less_rate(
    slice: &NetworkSlice,
    left: Option<(Direction, BitRate)>,
    tries: &mut Tries<'_>,
) -> Option<Offer> {
    let own = |direction| slice.endpoints.iter().any(|e| e.rates(direction).guaranteed.is_some());
    if Direction::ALL.into_iter().any(own) {
        return None;
    }
    let asked: Rates = [slice.downlink.guaranteed, slice.uplink.guaranteed];
    let has_both = asked.iter().all(Option::is_some);
    let Some((direction, fits)) = left else {
        // What is too much at the least rates of both is so for one of them.
        let least = at_rates([Some(BitRate(MIN_RATE_BPS)); 2]);
        if has_both {
            tries.surely_admits(&least.applied(slice), &WAYS)?;
        }
        let mut found = None;
        for which in [[false, true], [true, false], [true, true]] {
            let above = found.as_ref().map_or(0, given);
            found = part_of(slice, asked, which, above, tries).or(found);
        }
        return found;
    };
    let mut which = Direction::ALL.map(|of| of == direction);
    let mut most = lowered(asked, direction, fits)?;
    // The other direction may be too much as well.
    if has_both && let Some((other, fits)) = tries.too_much(&at_rates(most).applied(slice)) {
        which = Direction::ALL.map(|of| of == direction || of == other);
        most = lowered(most, other, fits)?;
    }
    let offer = at_rates(most);
    if tries.surely_admits(&offer.applied(slice), &WAYS).is_some() {
        return Some(offer);
    }
    let found = part_of(slice, most, which, 0, tries);
    if found.is_some() || !has_both || which == [true; 2] {
        return found;
    }
    part_of(slice, most, [true; 2], 0, tries)
}

/// What a rate offer leaves of both directions together.
fn given(offer: &Offer) -> u64 {
    match offer {
        Offer::Rate { downlink, uplink } => {
            downlink.unwrap_or_default().0.saturating_add(uplink.unwrap_or_default().0)
        }
        _ => 0,
    }
}

fn at_rates([downlink, uplink]: Rates) -> Offer {
    Offer::Rate { downlink, uplink }
}

/// With this rate in a direction; `None`: it is none that can be guaranteed.
fn lowered(rates: Rates, direction: Direction, fits: BitRate) -> Option<Rates> {
    let lower = |(rate, of)| if of == direction { Some(fits) } else { rate };
    let mut each = rates.into_iter().zip(Direction::ALL).map(lower);
    (fits.0 >= MIN_RATE_BPS).then(|| std::array::from_fn(|_| each.next().flatten()))
}

/// The largest part that is admitted of what is between the least rates and these, which are too
/// much, in whole kbit/s; `which`: of what directions; `above`: only if it leaves more than this.
fn part_of(
    slice: &NetworkSlice,
    rates: Rates,
    which: [bool; 2],
    above: u64,
    tries: &mut Tries<'_>,
) -> Option<Offer> {
    let part = |part: u64| {
        at_rates(std::array::from_fn(|at| {
            let rate = rates[at].filter(|_| which[at]).map(|rate| {
                let more = rate.0.saturating_sub(MIN_RATE_BPS) / RATE_PARTS * part;
                BitRate((MIN_RATE_BPS + more) / 1000 * 1000)
            });
            rate.or(rates[at])
        }))
    };
    let has = |at: usize| rates[at].is_some_and(|rate| rate.0 > MIN_RATE_BPS);
    if (0..2).any(|at| which[at] && !has(at)) {
        return None;
    }
    // If the least is too much, every rate is.
    let first = (0..RATE_PARTS).find(|of| given(&part(*of)) > above)?;
    let by = tries.surely_admits(&part(first).applied(slice), &WAYS)?;
    let too_much = |of: u64| tries.surely_admits(&part(of).applied(slice), &[by]).is_none();
    Some(part(least(first, RATE_PARTS, too_much) - 1))
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

fn more_delay(slice: &NetworkSlice, tries: &mut Tries<'_>) -> Option<Offer> {
    let wanted = slice.latency?;
    tries.least_latency(slice).filter(|least| *least > wanted).map(Offer::Latency)
}
