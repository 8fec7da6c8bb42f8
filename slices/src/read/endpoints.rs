//! A slice's endpoints, and whether their own rates go with the slice's.

use std::collections::HashMap;
use std::ops::Range;

use selvedge_topology::yaml::{Fields, Value};
use selvedge_topology::{BitRate, NodeName, Problem};

use super::Reader;
use crate::limits::MAX_ENDPOINTS;
use crate::{Direction, Endpoint, NetworkSlice, Rates, Side};

impl Reader {
    /// `of`: the slice, with everything but its endpoints.
    pub(super) fn endpoints(&mut self, value: &Value, of: &NetworkSlice) -> Vec<Endpoint> {
        let items = self.d.items(value, "endpoints");
        if !(2..=MAX_ENDPOINTS).contains(&items.len()) {
            let message =
                format!("a slice has 2 to {MAX_ENDPOINTS} endpoints, not {}", items.len());
            let end = value.span.end.min(value.span.start + 40);
            self.d.problem(Problem::new(value.span.start..end, message));
        }
        let mut seen: HashMap<NodeName, Range<usize>> = HashMap::new();
        let mut endpoints = Vec::new();
        for item in items {
            let Some((endpoint, span)) = self.endpoint(item, of) else { continue };
            if let Some(first) = seen.insert(endpoint.name.clone(), span.clone()) {
                let message = format!("endpoint {} is here twice", endpoint.name);
                let problem = Problem::new(span, message).label("again here");
                self.d.problem(problem.also(first, "first here"));
                continue;
            }
            endpoints.push(endpoint);
        }
        let end = value.span.end.min(value.span.start + 40);
        for direction in Direction::ALL {
            self.sum_fits(value.span.start..end, direction, of, &endpoints);
        }
        endpoints
    }

    /// The endpoint and the place of its name.
    fn endpoint(&mut self, item: &Value, of: &NetworkSlice) -> Option<(Endpoint, Range<usize>)> {
        let mut fields = self.d.fields(item, "an endpoint")?;
        let sides = [(Side::Ue, fields.optional("ue")), (Side::Dn, fields.optional("dn"))];
        let span = fields.span.clone();
        let downlink = self.own_rates(&mut fields, "downlink", of.rates(Direction::Downlink));
        let uplink = self.own_rates(&mut fields, "uplink", of.rates(Direction::Uplink));
        let rated = fields.key("downlink").or_else(|| fields.key("uplink"));
        fields.finish(&mut self.d);
        let stated: Vec<_> = sides.iter().filter_map(|(s, v)| Some((*s, (*v)?))).collect();
        let [(side, value)] = stated[..] else {
            let problem = Problem::new(span, "an endpoint is either a ue or a dn");
            self.d.problem(problem.help("such as { ue: robot-1 } or { dn: plc }"));
            return None;
        };
        if let (Side::Dn, Some(span)) = (side, rated) {
            // TS 28.541: rates are per UE.
            let problem = Problem::new(span, "a dn has no rates of its own").label("of a dn");
            self.d.problem(problem.help("state them at each ue, or as the slice's"));
        }
        let name = self.d.parse::<NodeName>(value, "an endpoint's name")?;
        Some((Endpoint { side, name, downlink, uplink }, value.span.clone()))
    }

    fn own_rates(&mut self, fields: &mut Fields<'_>, key: &'static str, slice: &Rates) -> Rates {
        let Some(value) = fields.optional(key) else { return Rates::default() };
        let rates = self.rates(value, key);
        let problem = |message: String| Problem::new(value.span.clone(), message);
        if rates.burst.is_some() {
            let problem = problem("an endpoint's rates have no burst".to_owned());
            self.d.problem(problem.help("state the slice's burst: its endpoints share it"));
        }
        if let (Some(own), Some(all)) = (rates.maximum, slice.maximum)
            && own > all
        {
            let message =
                format!("the maximum {own} is above the slice's {key} maximum {all}, which holds");
            self.d.problem(problem(message).label("too large"));
        }
        Rates { burst: None, ..rates }
    }

    /// What `ue` endpoints are guaranteed together, as many as may be attached at one time, is
    /// part of the slice's guarantee.
    fn sum_fits(
        &mut self,
        span: Range<usize>,
        direction: Direction,
        slice: &NetworkSlice,
        endpoints: &[Endpoint],
    ) {
        let own = endpoints.iter().filter_map(|endpoint| endpoint.rates(direction).guaranteed);
        let mut own: Vec<u64> = own.map(|rate| rate.0).collect();
        own.sort_unstable_by(|a, b| b.cmp(a));
        let at_once = slice.most_ues().unwrap_or(usize::MAX);
        let sum = own.iter().take(at_once).fold(0u64, |sum, rate| sum.saturating_add(*rate));
        let all = slice.rates(direction).guaranteed.unwrap_or_default();
        if sum > all.0 {
            let message = format!(
                "endpoints are guaranteed {} {direction} together, the slice {all}",
                BitRate(sum)
            );
            let problem = Problem::new(span, message).label("more than there is");
            self.d.problem(problem.help(format!(
                "guarantee the slice {} {direction}, or its endpoints less",
                BitRate(sum)
            )));
        }
    }
}
