//! Following one packet over the network: the pipeline's model, switch after switch, over the
//! entries that the switches were last seen to hold. Nothing is sent.
//!
//! A port leads where a neighbor that has shown who it is says by LLDP, or else where the topology says. A hook is taken to forward
//! what it gets unchanged: what a module does to a packet only the module knows.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use selvedge_core::view::{EndpointView, NodeView, PortView};
use selvedge_core::{Core, HookState};
use selvedge_pipeline::model::{self, Ingress, Switch, Verdict};
use selvedge_pipeline::{HookId, PortId};
use selvedge_topology::{End, Topology};

use crate::api::Problem;
use crate::api::wire_trace::{Trace, TraceHit, TraceResult, TraceStep};

pub(crate) mod packet;
pub(crate) mod sampled;

/// Steps after which a packet counts as endless: its hop limit is 64, and a hook at each
/// switch doubles that.
const MAX_STEPS: usize = 130;

/// The network as a packet meets it, copied out of the core.
pub(crate) struct Network {
    topology: Arc<Topology>,
    nodes: BTreeMap<String, NodeView>,
    switches: BTreeMap<String, Switch>,
    endpoints: Vec<EndpointView>,
}

/// Where a packet comes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Start {
    pub(crate) node: String,
    pub(crate) ingress: Ingress,
}

/// What is behind a port.
enum Behind {
    Switch(Start),
    Endpoint(String),
    Nothing(String),
}

impl Network {
    pub(crate) fn of(core: &Core, topology: Arc<Topology>) -> Self {
        let running: Vec<(String, HookId)> = core
            .hooks()
            .into_iter()
            .flat_map(|hook| hook.instances)
            .filter(|instance| instance.state == Some(HookState::Running))
            .map(|instance| (instance.switch.to_string(), instance.hook))
            .collect();
        let nodes: BTreeMap<String, NodeView> =
            core.nodes().into_iter().map(|node| (node.name.to_string(), node)).collect();
        let switch = |(name, view): (&String, &NodeView)| {
            let entries = core.entries_held(name).into_iter().flat_map(|table| table.values());
            let mut switch = Switch::new(entries.cloned());
            for port in &view.ports {
                switch.set_port(port.id, model::Port { mac: port.mac, up: true });
            }
            for (_, hook) in running.iter().filter(|(at, _)| at == name) {
                switch.set_hook(*hook, true);
            }
            (name.clone(), switch)
        };
        let switches = nodes.iter().map(switch).collect();
        Self { topology, switches, nodes, endpoints: core.endpoints() }
    }

    pub(crate) fn port(&self, node: &str, port: &str) -> Result<Start, Problem> {
        let view = self.nodes.get(node).ok_or_else(|| Problem::not_found("switch", node))?;
        let found = view.ports.iter().find(|found| found.name == port).ok_or_else(|| {
            let known: Vec<&str> = view.ports.iter().map(|port| port.name.as_str()).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            let detail = format!("switch {node} reports no port {port:?}; it has: {known}");
            Problem::new(axum::http::StatusCode::NOT_FOUND, detail)
        })?;
        Ok(Start { node: node.to_owned(), ingress: found.id.into() })
    }

    pub(crate) fn endpoint(&self, name: &str) -> Result<&EndpointView, Problem> {
        self.endpoints
            .iter()
            .find(|endpoint| endpoint.name.as_str() == name)
            .ok_or_else(|| Problem::not_found("endpoint", name))
    }

    fn port_view(&self, node: &str, port: PortId) -> Option<&PortView> {
        self.nodes.get(node)?.ports.iter().find(|found| found.id == port)
    }

    fn port_name(&self, node: &str, port: PortId) -> String {
        let view = self.port_view(node, port);
        view.map_or_else(|| format!("port {}", port.0), |view| view.name.clone())
    }

    fn behind(&self, node: &str, port: PortId) -> Behind {
        let name = self.port_name(node, port);
        let Some(view) = self.port_view(node, port) else {
            return Behind::Nothing(format!("{node} has no {name}"));
        };
        if !view.up {
            return Behind::Nothing(format!("{node}:{name} has no carrier"));
        }
        let attached = self.endpoints.iter().find(|endpoint| {
            let at = endpoint.attachment.as_ref();
            at.is_some_and(|(switch, port)| switch.as_str() == node && *port == name)
        });
        if let Some(endpoint) = attached {
            return Behind::Endpoint(endpoint.name.to_string());
        }
        let believed = view.neighbor.clone().filter(|neighbor| neighbor.authenticated);
        let believed = believed.map(|neighbor| (neighbor.chassis, neighbor.port));
        let Some((peer, peer_port)) = believed.or_else(|| self.declared(node, &name)) else {
            return Behind::Nothing(format!("nothing is known to be behind {node}:{name}"));
        };
        match self.port(&peer, &peer_port) {
            Ok(start) => Behind::Switch(start),
            Err(_) => Behind::Nothing(format!("{peer}:{peer_port} is not there")),
        }
    }

    fn declared(&self, node: &str, port: &str) -> Option<(String, String)> {
        let is = |end: &End| end.node.as_str() == node && end.port.as_str() == port;
        self.topology.links.iter().find_map(|link| {
            let peer = match (is(&link.a), is(&link.b)) {
                (true, _) => &link.b,
                (_, true) => &link.a,
                _ => return None,
            };
            Some((peer.node.to_string(), peer.port.to_string()))
        })
    }
}

/// The packet's way from `start` to its end.
pub(crate) fn follow(network: &Network, start: Start, frame: Vec<u8>) -> Trace {
    let frame_in = hex(&frame);
    let mut steps = Vec::new();
    let mut at = start;
    let mut frame = frame;
    let (result, detail, frame_out) = loop {
        if steps.len() >= MAX_STEPS {
            let detail = format!("on its way for {MAX_STEPS} steps");
            break (TraceResult::Endless, detail, Some(frame));
        }
        let Some(switch) = network.switches.get(&at.node) else {
            let detail = format!("there is no switch {}", at.node);
            break (TraceResult::Lost, detail, Some(frame));
        };
        let outcome = model::process(switch, at.ingress, &frame);
        let out = match &outcome.verdict {
            Verdict::Out { frame, .. } | Verdict::Answer { frame, .. } => Some(frame),
            Verdict::ToHook { frame, .. } => Some(frame),
            Verdict::Drop(_) | Verdict::PassToKernel => None,
        };
        steps.push(step(network, &at, &outcome.hits, &outcome.verdict, out));
        match outcome.verdict {
            Verdict::Drop(reason) => {
                break (TraceResult::Dropped, format!("{reason} at {}", at.node), None);
            }
            Verdict::PassToKernel => break (TraceResult::Local, at.node, Some(frame)),
            Verdict::Answer { frame: answer, .. } => {
                break (TraceResult::Answered, at.node, Some(answer));
            }
            Verdict::ToHook { hook, frame: out } => {
                frame = out;
                at.ingress = Ingress::Compute(hook);
            }
            Verdict::Out { port, frame: out } => {
                frame = out;
                match network.behind(&at.node, port) {
                    Behind::Switch(next) => at = next,
                    Behind::Endpoint(name) => break (TraceResult::Delivered, name, Some(frame)),
                    Behind::Nothing(why) => break (TraceResult::Lost, why, Some(frame)),
                }
            }
        }
    };
    Trace { steps, result, detail, frame_in, frame_out: frame_out.as_deref().map(hex) }
}

/// A verdict as people read it: what, and which port, reason or hook.
fn said(network: &Network, node: &str, verdict: &Verdict) -> (&'static str, String) {
    match verdict {
        Verdict::Drop(reason) => ("drop", reason.to_string()),
        Verdict::PassToKernel => ("local", "to the switch itself".to_owned()),
        Verdict::Answer { port, .. } => ("answer", network.port_name(node, *port)),
        Verdict::ToHook { hook, .. } => ("hook", format!("hook {}", hook.0)),
        Verdict::Out { port, .. } => ("forward", network.port_name(node, *port)),
    }
}

fn step(
    network: &Network,
    at: &Start,
    hits: &[model::Hit],
    verdict: &Verdict,
    frame: Option<&Vec<u8>>,
) -> TraceStep {
    let ingress = match at.ingress {
        Ingress::Port(port) => network.port_name(&at.node, port),
        Ingress::Compute(hook) => format!("hook {}", hook.0),
    };
    let hit = |hit: &model::Hit| TraceHit {
        table: hit.table.name().to_owned(),
        key: hit.key.clone(),
        detail: hit.detail.clone(),
    };
    let (verdict, detail) = said(network, &at.node, verdict);
    TraceStep {
        node: at.node.clone(),
        ingress,
        hits: hits.iter().map(hit).collect(),
        verdict: verdict.to_owned(),
        detail,
        frame: frame.map(|frame| hex(frame)),
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string never fails");
        text
    })
}
