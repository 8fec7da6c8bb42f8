//! What an application needs of the node that it is placed on.

use std::collections::BTreeMap;

use selvedge_topology::yaml::{Fields, Kind, Value, Wrong, word};
use selvedge_topology::{Bytes, Cpu, Delay, Position, Power, Problem};

use super::Reader;
use crate::limits::{
    MAX_ACCELERATOR_COUNT, MAX_CPU_MILLI, MAX_INSTANCE_BYTES, MAX_LATENCY_US, MAX_MOVING_MW,
    MAX_RADIUS_M, MAX_WORDS, MIN_INSTANCE_BYTES, MIN_LATENCY_US,
};
use crate::placement::{Area, Demand};

impl Reader {
    /// `None`: it is not placed by the controller.
    pub(super) fn demand(&mut self, spec: &mut Fields<'_>) -> Option<Demand> {
        let descriptor = spec.optional("computeDescriptor");
        let latency_value = spec.optional("latency");
        let placement = spec.optional("placement");
        if descriptor.is_none() {
            for (value, what) in [(latency_value, "latency"), (placement, "placement")] {
                let Some(value) = value else { continue };
                let message = format!("{what} goes with a computeDescriptor");
                let span = value.span.start..value.span.end.min(value.span.start + 40);
                let problem = Problem::new(span, message).label("nothing is placed here");
                self.d.problem(
                    problem.help("such as computeDescriptor: { cpu: 500m, memory: 256Mi }"),
                );
            }
        }
        let latency = latency_value.and_then(|value| {
            let range = Delay(MIN_LATENCY_US)..=Delay(MAX_LATENCY_US);
            self.d.parse_in(value, "a latency", range)
        });
        let mut demand = Demand { latency, ..self.compute(descriptor?).unwrap_or_default() };
        if let Some(value) = placement {
            self.placement(value, &mut demand);
        }
        Some(demand)
    }

    fn compute(&mut self, value: &Value) -> Option<Demand> {
        let mut fields = self.d.fields(value, "computeDescriptor")?;
        let cpu = fields.required(&mut self.d, "cpu");
        let cpu = cpu.and_then(|v| self.d.parse_in(v, "processors", Cpu(1)..=Cpu(MAX_CPU_MILLI)));
        let memory = fields.required(&mut self.d, "memory");
        let range = Bytes(MIN_INSTANCE_BYTES)..=Bytes(MAX_INSTANCE_BYTES);
        let memory = memory.and_then(|v| self.d.parse_in(v, "memory", range));
        let architectures = fields.optional("architecture");
        let architectures = architectures.map(|v| self.words(v, "an architecture"));
        let accelerators = fields.optional("accelerators").map(|v| self.accelerators(v));
        fields.finish(&mut self.d);
        Some(Demand {
            cpu_milli: cpu?.0,
            memory: memory?,
            architectures: architectures.unwrap_or_default(),
            accelerators: accelerators.unwrap_or_default(),
            ..Demand::default()
        })
    }

    fn accelerators(&mut self, value: &Value) -> BTreeMap<String, u64> {
        let mut accelerators = BTreeMap::new();
        let entries = self.d.entries(value, "accelerators");
        if entries.len() > MAX_WORDS {
            let message = format!("an application has at most {MAX_WORDS} kinds of accelerators");
            self.d.problem(Problem::new(entries[MAX_WORDS].0.span.clone(), message));
        }
        for (key, value) in entries {
            if let Err(wrong) = word(&key.text) {
                self.d.problem(Problem::new(key.span.clone(), wrong.message));
            }
            let range = 1..=MAX_ACCELERATOR_COUNT;
            let count = self.d.integer(value, "a number of accelerators", range);
            accelerators.extend(count.map(|count| (key.text.clone(), count)));
        }
        accelerators
    }

    fn placement(&mut self, value: &Value, demand: &mut Demand) {
        let Some(mut fields) = self.d.fields(value, "placement") else { return };
        let mut words = |key, what| {
            let value = fields.optional(key)?;
            Some(self.words(value, what))
        };
        demand.sites = words("sites", "a site").unwrap_or_default();
        demand.preferred_sites = words("preferredSites", "a site").unwrap_or_default();
        demand.anti_affinity = words("antiAffinity", "a group's name").unwrap_or_default();
        demand.area = fields.optional("area").and_then(|value| self.area(value));
        let moving = fields.optional("movingCost");
        let range = Power(0)..=Power(MAX_MOVING_MW);
        if let Some(moving) = moving.and_then(|v| self.d.parse_in(v, "a moving cost", range)) {
            demand.moving_mw = moving.0;
        }
        fields.finish(&mut self.d);
    }

    /// One or a list, without duplicates.
    fn words(&mut self, value: &Value, what: &'static str) -> Vec<String> {
        let items = match &value.kind {
            Kind::Sequence(items) => items.as_slice(),
            _ => std::slice::from_ref(value),
        };
        if items.len() > MAX_WORDS {
            let message = format!("at most {MAX_WORDS} can be listed here");
            self.d.problem(Problem::new(items[MAX_WORDS].span.clone(), message));
        }
        let mut words = Vec::new();
        for item in items {
            let Some(text) = self.d.text(item, what) else { continue };
            if text.is_empty() || text.len() > selvedge_topology::limits::MAX_TEXT {
                let most = selvedge_topology::limits::MAX_TEXT;
                let message = format!("{what} is a text of 1 to {most} bytes");
                self.d.problem(Problem::new(item.span.clone(), message));
            } else if words.iter().any(|known| known == text) {
                let message = format!("{text:?} is here twice");
                self.d.problem(Problem::new(item.span.clone(), message));
            } else {
                words.push(text.to_owned());
            }
        }
        words
    }

    fn area(&mut self, value: &Value) -> Option<Area> {
        let mut fields = self.d.fields(value, "an area")?;
        let position = fields.required(&mut self.d, "position");
        let center = position.and_then(|value| self.position(value));
        let radius = fields.required(&mut self.d, "radius");
        let radius_m = radius.and_then(|v| self.d.parse_with(v, "a radius", metres));
        fields.finish(&mut self.d);
        Some(Area { center: center?, radius_m: radius_m? })
    }

    fn position(&mut self, value: &Value) -> Option<Position> {
        let items = self.d.items(value, "a position");
        let mut degrees = items.iter().map(|item| {
            self.d.parse_with(item, "degrees", |text| {
                text.parse::<f64>().map_err(|_| Wrong::new(format!("{text:?} is not a number")))
            })
        });
        let (latitude, longitude) = (degrees.next().flatten(), degrees.next().flatten());
        let rest = degrees.count();
        let position = Position::from_degrees(latitude?, longitude?).filter(|_| rest == 0);
        if position.is_none() {
            let message = "a position is [latitude, longitude] in degrees, such as [49.61, 6.13]";
            self.d.problem(Problem::new(value.span.clone(), message));
        }
        position
    }
}

fn metres(text: &str) -> Result<u64, Wrong> {
    let (number, factor) = match text.strip_suffix("km") {
        Some(number) => (number, 1_000),
        None => (text.strip_suffix('m').unwrap_or(""), 1),
    };
    let metres = number.trim().parse::<u64>().ok().and_then(|n| n.checked_mul(factor));
    metres.filter(|metres| *metres <= MAX_RADIUS_M).ok_or_else(|| {
        let most = MAX_RADIUS_M / 1_000;
        Wrong::new(format!("{text:?} is not a distance such as 20km or 500m, up to {most}km"))
    })
}
