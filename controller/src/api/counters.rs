//! What a switch has counted. The core knows what its ports and slices are called; the counts
//! come from the switch, now, over P4Runtime.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use selvedge_core::{Core, assure};
use selvedge_pipeline::tables::slice_counter_index;
use selvedge_pipeline::{CounterKind, Direction, DropReason, PortId, SliceId};
use selvedge_southbound::client::CounterCell;
use selvedge_topology::{BitRate, End, NodeName};

use super::problem::ProblemDetails;
use super::wire_counters::{Counters, PortCounters, PortRate, SliceCounters};
use super::{Api, Problem};
use crate::engine::CountersError;
use crate::text;

/// From the question to the switch's answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What a switch has counted: drops by reason, packets and bytes by port and by slice.
#[utoipa::path(
    get, path = "/v1/nodes/{name}/counters", tag = "network",
    params(("name" = String, Path, description = "The switch")),
    responses(
        (status = 200, body = Counters),
        (status = 404, body = ProblemDetails),
        (status = 502, description = "The switch did not let them be read", body = ProblemDetails),
        (status = 503, description = "The switch is not joined", body = ProblemDetails),
        (status = 504, description = "No answer within 5 s", body = ProblemDetails),
    )
)]
pub(super) async fn counters(
    State(api): State<Api>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<Counters>, Problem> {
    let Path(name) = name?;
    let wanted = name.clone();
    let Some(names) = api.handle.query(move |core| Names::of(core, &wanted)).await? else {
        return Err(Problem::not_found("switch", &name));
    };
    let read = api.handle.counters(names.switch.clone(), names.cells(), TIMEOUT).await;
    match read {
        Ok(cells) => Ok(Json(names.counters(&cells))),
        Err(error) => Err(problem(&name, &error)),
    }
}

fn problem(name: &str, error: &CountersError) -> Problem {
    let status = match error {
        CountersError::NotJoined | CountersError::Busy | CountersError::Stopping => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        CountersError::Switch(_) => StatusCode::BAD_GATEWAY,
        CountersError::Timeout(_) => StatusCode::GATEWAY_TIMEOUT,
    };
    Problem::new(status, format!("cannot read the counters of switch {name:?}: {error}"))
}

/// What there is to count at a switch.
struct Names {
    switch: NodeName,
    ports: BTreeMap<PortId, String>,
    slices: BTreeMap<SliceId, String>,
    rates: BTreeMap<PortId, assure::PortRate>,
    /// By the port's name, bits a second.
    capacities: BTreeMap<String, u64>,
}

impl Names {
    /// `None`: there is no such switch.
    fn of(core: &Core, name: &str) -> Option<Self> {
        let node = core.nodes().into_iter().find(|node| node.name.as_str() == name)?;
        let default = (SliceId::DEFAULT, "default".to_owned());
        let slices = core.slices().into_iter().map(|slice| (SliceId(slice.id), slice.name));
        let ends = core
            .topology()
            .links
            .iter()
            .flat_map(|link| [&link.a, &link.b].map(|end| (end, link.capacity)));
        let own = ends.filter(|(end, _)| end.node.as_str() == name);
        let capacity = |(end, capacity): (&End, Option<BitRate>)| {
            Some((end.port.to_string(), capacity?.bps()))
        };
        Some(Self {
            rates: core.port_rates(name),
            capacities: own.filter_map(capacity).collect(),
            switch: node.name,
            ports: node.ports.into_iter().map(|port| (port.id, port.name)).collect(),
            slices: std::iter::once(default).chain(slices).collect(),
        })
    }

    fn cells(&self) -> Vec<(CounterKind, u32)> {
        let drops = DropReason::ALL.map(|reason| (CounterKind::Drops, reason as u32));
        let ports = self.ports.keys().flat_map(|port| {
            [CounterKind::PortRx, CounterKind::PortTx, CounterKind::PortTxErrors]
                .map(|kind| (kind, u32::from(port.0)))
        });
        let slices = self.slice_cells().flat_map(|(_, _, index)| {
            [CounterKind::SliceIn, CounterKind::SliceDropped].map(|kind| (kind, index))
        });
        drops.into_iter().chain(ports).chain(slices).collect()
    }

    /// Slice, direction, and their index.
    fn slice_cells(&self) -> impl Iterator<Item = (&str, Direction, u32)> {
        self.slices.iter().flat_map(|(id, name)| {
            [Direction::Uplink, Direction::Downlink]
                .map(|direction| (name.as_str(), direction, slice_counter_index(*id, direction)))
        })
    }

    fn counters(&self, cells: &[CounterCell]) -> Counters {
        let cells: BTreeMap<_, _> = cells
            .iter()
            .map(|cell| ((cell.counter, cell.index), (cell.packets, cell.bytes)))
            .collect();
        let count = |kind, index| cells.get(&(kind, index)).copied().unwrap_or_default();
        let drops = DropReason::ALL.map(|reason| {
            let (packets, _) = count(CounterKind::Drops, reason as u32);
            (reason.name().to_owned(), packets)
        });
        let ports = self.ports.iter().map(|(port, name)| {
            let (rx_packets, rx_bytes) = count(CounterKind::PortRx, port.0.into());
            let (tx_packets, tx_bytes) = count(CounterKind::PortTx, port.0.into());
            let (tx_errors, _) = count(CounterKind::PortTxErrors, port.0.into());
            PortCounters {
                port: port.0,
                name: name.clone(),
                rx_packets,
                rx_bytes,
                tx_packets,
                tx_bytes,
                tx_errors,
                rate: self.rates.get(port).map(|rate| PortRate {
                    rx_packets: rate.in_packets,
                    rx_bps: rate.in_bps,
                    tx_packets: rate.out_packets,
                    tx_bps: rate.out_bps,
                }),
                capacity_bps: self.capacities.get(name).copied(),
            }
        });
        let slices = self.slice_cells().map(|(slice, direction, index)| {
            let (packets, bytes) = count(CounterKind::SliceIn, index);
            let (dropped_packets, dropped_bytes) = count(CounterKind::SliceDropped, index);
            SliceCounters {
                slice: slice.to_owned(),
                direction: text::direction(direction).to_owned(),
                packets,
                bytes,
                dropped_packets,
                dropped_bytes,
            }
        });
        Counters {
            node: self.switch.to_string(),
            drops: drops.into_iter().collect(),
            ports: ports.collect(),
            slices: slices.collect(),
        }
    }
}
