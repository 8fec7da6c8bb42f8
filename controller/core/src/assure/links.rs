//! What links and ports do, whatever is promised of them: delays by bucket, and rates.

use std::collections::{BTreeMap, VecDeque};

use selvedge_pipeline::PortId;
use selvedge_pipeline::delay::Delays;
use selvedge_topology::{ArcIx, LinkIx, NodeName};

use super::judge::bits_per_second;
use super::{Assurance, LINK_SECONDS};
use crate::Core;
use crate::event::{LinkCount, Measured};

/// Two-way delays of a link's test packets, both ends together.
#[derive(Clone, Debug, Default)]
pub(super) struct LinkDelays {
    /// The last seconds, oldest first.
    last: VecDeque<(u64, Delays)>,
    /// Since the controller's start, with their sum.
    all: Delays,
    sum_ns: u64,
}

/// What came by a port and left by it, a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortRate {
    pub in_packets: u64,
    pub in_bps: u64,
    pub out_packets: u64,
    pub out_bps: u64,
}

/// One way, nanoseconds, over the last 5 s; at most an eighth too large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DelayView {
    pub median_ns: u64,
    pub p99_ns: u64,
    pub max_ns: u64,
}

/// Every delay of a link that was measured since the controller's start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkDelaysView {
    /// Both ends, as in [`LinkView`](crate::view::LinkView).
    pub link: String,
    /// Two-way, and their sum.
    pub delays: Delays,
    pub sum_ns: u64,
}

fn within(second: u64, at: u64) -> bool {
    second + LINK_SECONDS as u64 > at
}

impl Assurance {
    /// What a switch told of one port in second `at`.
    pub(super) fn add_port(
        &mut self,
        at: u64,
        (switch, port): (&NodeName, PortId),
        link: Option<LinkIx>,
        count: &LinkCount,
        told: &Measured,
    ) {
        let per_second = |packets: u64| {
            packets.saturating_mul(1000).checked_div(told.interval_ms.into()).unwrap_or(0)
        };
        let rate = PortRate {
            in_packets: per_second(count.came.packets),
            in_bps: bits_per_second(count.came.bytes, told.interval_ms),
            out_packets: per_second(count.left.packets),
            out_bps: bits_per_second(count.left.bytes, told.interval_ms),
        };
        self.ports.insert((switch.clone(), port), (at, rate));
        let Some(link) = link.filter(|_| count.answered > 0) else { return };
        let delays = self.delays.entry(link).or_default();
        match delays.last.back_mut().filter(|(second, _)| *second == at) {
            Some((_, so_far)) => so_far.merge(&count.delays),
            None => delays.last.push_back((at, count.delays.clone())),
        }
        delays.all.merge(&count.delays);
        let sum_ns = count.delay_ns.saturating_mul(count.answered.into());
        delays.sum_ns = delays.sum_ns.saturating_add(sum_ns);
    }

    /// Forgets rates and delays of before the last seconds.
    pub(super) fn forget(&mut self, at: u64) {
        self.ports.retain(|_, (second, _)| within(*second, at));
        for delays in self.delays.values_mut() {
            delays.last.retain(|(second, _)| within(*second, at));
        }
    }

    pub(super) fn delay(&self, link: LinkIx) -> Option<DelayView> {
        let mut sum = Delays::default();
        self.delays.get(&link)?.last.iter().for_each(|(_, delays)| sum.merge(delays));
        let one_way = |per_mille| Some(sum.quantile_ns(per_mille)? / 2);
        Some(DelayView { median_ns: one_way(500)?, p99_ns: one_way(990)?, max_ns: one_way(1000)? })
    }
}

impl Core {
    /// Of a switch's ports that told something in the last seconds, by port.
    pub fn port_rates(&self, switch: &str) -> BTreeMap<PortId, PortRate> {
        let ports = self.assurance.ports.iter().filter(|((of, _), _)| of.as_str() == switch);
        ports.map(|((_, port), (_, rate))| (*port, *rate)).collect()
    }

    /// From the near end of a link to the far one; `None`: the near switch told nothing.
    pub(crate) fn arc_rate_bps(&self, arc: ArcIx) -> Option<u64> {
        let link = self.network.link(arc.link());
        let near = if arc == ArcIx::new(arc.link(), true) { &link.a } else { &link.b };
        let ports = &self.network.switches.get(&near.node)?.ports;
        let (port, _) = ports.iter().find(|(_, port)| port.name == near.port.as_str())?;
        let (_, rate) = self.assurance.ports.get(&(near.node.clone(), *port))?;
        Some(rate.out_bps)
    }

    pub(crate) fn link_delay(&self, link: LinkIx) -> Option<DelayView> {
        self.assurance.delay(link)
    }

    /// Of links with any.
    pub fn link_delays(&self) -> Vec<LinkDelaysView> {
        let view = |(ix, delays): (&LinkIx, &LinkDelays)| {
            let link = self.network.link(*ix);
            let (a, b) = (&link.a, &link.b);
            LinkDelaysView {
                link: format!("{}:{} - {}:{}", a.node, a.port, b.node, b.port),
                delays: delays.all.clone(),
                sum_ns: delays.sum_ns,
            }
        };
        self.assurance.delays.iter().map(view).collect()
    }
}
