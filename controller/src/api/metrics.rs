//! What a monitoring system scrapes: the status in figures, and promises beside what is measured,
//! in the text format of Prometheus (exposition format 0.0.4).

use std::fmt::Write as _;
use std::time::Duration;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use selvedge_core::assure::{DirectionView, Kind, LinkDelaysView, SliceAssurance};
use selvedge_core::view::{HookInstanceView, HookView, LinkView, Status};
use selvedge_core::{DiscoveryCounts, HookState};
use selvedge_pipeline::{CounterKind, DropReason};
use selvedge_southbound::client::CounterCell;
use selvedge_topology::NodeName;

use super::{Api, Problem};

/// From the question to a switch's answer. One that takes longer has no drops on the page.
const TIMEOUT: Duration = Duration::from_secs(2);

const CONTENT_TYPE: [(header::HeaderName, &str); 1] =
    [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];

/// Figures for Prometheus. A controller that follows has no switches, and says that alone.
#[utoipa::path(
    get, path = "/metrics", tag = "network",
    responses((status = 200, body = String, content_type = "text/plain"))
)]
pub(super) async fn metrics(State(api): State<Api>) -> Result<impl IntoResponse, Problem> {
    let leads = api.handle.role().borrow().election_id().is_some();
    if !leads {
        let mut page = Page(String::new());
        page.leads(false);
        return Ok((CONTENT_TYPE, page.0));
    }
    let mut figures = api
        .handle
        .query(|core| Figures {
            status: core.status(),
            slices: core.assurances(),
            discovery: core.discovery(),
            links: core.links(),
            delays: core.link_delays(),
            hooks: core.hooks(),
            joined: core.switches_joined(),
            drops: Vec::new(),
        })
        .await?;
    // All at once, each for itself.
    let cells = DropReason::ALL.map(|reason| (CounterKind::Drops, reason as u32));
    let drops = figures.joined.drain(..).map(|node| async {
        let read = api.handle.counters(node.clone(), cells.to_vec(), TIMEOUT).await;
        read.ok().map(|cells| (node, cells))
    });
    figures.drops = futures::future::join_all(drops).await.into_iter().flatten().collect();
    Ok((CONTENT_TYPE, figures.text(api.handle.writes())))
}

/// Powers of two of two-way nanoseconds: 8 us to 1 s, twice as much each.
const DELAY_BOUNDS: [u32; 18] =
    [14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31];

/// What is told, as of one moment but for the drops.
struct Figures {
    status: Status,
    slices: Vec<SliceAssurance>,
    discovery: Vec<(NodeName, DiscoveryCounts)>,
    links: Vec<LinkView>,
    delays: Vec<LinkDelaysView>,
    hooks: Vec<HookView>,
    joined: Vec<NodeName>,
    /// Of each switch that answered, its drops by reason.
    drops: Vec<(NodeName, Vec<CounterCell>)>,
}

impl Figures {
    fn text(&self, writes: u64) -> String {
        let Self { status, slices, discovery, links, delays, hooks, drops, .. } = self;
        let mut page = Page(String::new());
        let count = |number: usize| number as u64;
        page.leads(true);
        page.gauge("converged", "1: every switch holds what it should", status.converged.into());
        page.gauge("intent_revision", "Counts up with every change of intent", status.revision);
        page.gauge(
            "switches_declared",
            "Switches of the topology",
            count(status.switches_declared),
        );
        page.gauge("switches_joined", "Switches with a session", count(status.switches_joined));
        page.gauge("links_declared", "Links between switches", count(status.links_declared));
        page.gauge("links_usable", "Links that carry packets", count(status.links_usable));
        page.gauge("endpoints_declared", "Hosts of the topology", count(status.endpoints_declared));
        page.gauge(
            "endpoints_attached",
            "Hosts that are reached",
            count(status.endpoints_attached),
        );
        page.gauge("slices", "Slices of the intent", count(status.slices));
        page.gauge(
            "slices_degraded",
            "Slices whose promise is not kept",
            count(status.slices_degraded),
        );
        page.gauge("drained", "Nodes and links that are drained", count(status.drained.len()));
        let unwritable = status.store_unwritable.is_some();
        page.gauge("store_unwritable", "1: every change is refused", unwritable.into());
        page.gauge(
            "plan_blocked",
            "1: the last plan was not written",
            status.blocked.is_some().into(),
        );
        page.counter("table_writes_total", "Table entries sent to switches", writes);
        if let Some(files) = &status.files {
            let refused = files.refused.is_some();
            page.gauge("intent_files_refused", "1: the files are not what runs", refused.into());
            page.counter("intent_files_refusals_total", "States of files refused", files.refusals);
        }
        for (name, help, value) in OF_SLICES {
            page.head("gauge", name, help);
            for (slice, direction, labels) in directions(slices) {
                if let Some(value) = value(slice, direction) {
                    page.sample(name, &labels, value);
                }
            }
        }
        let name = "slice_breach";
        page.head("gauge", name, "1: the promise of that kind is not kept now");
        for (_, direction, labels) in directions(slices) {
            for kind in Kind::ALL {
                let broken = direction.breaches.iter().any(|breach| breach.kind == kind);
                let labels = format!("{labels},kind=\"{}\"", kind.as_str());
                page.sample(name, &labels, u64::from(broken));
            }
        }
        let name = "link_usable";
        page.head("gauge", name, "0: it carries no packets");
        for link in links {
            let ((a, at_a), (b, at_b)) = (&link.a, &link.b);
            let labels = format!("link=\"{a}:{at_a} - {b}:{at_b}\"");
            page.sample(name, &labels, u64::from(link.usable));
        }
        page.link_delays(delays);
        let name = "hook_state";
        page.head("gauge", name, "1: the hook is in that state");
        for (hook, instance) in hooks.iter().flat_map(|h| h.instances.iter().map(move |i| (h, i))) {
            let HookInstanceView { slice, switch, state, .. } = instance;
            for of in HookState::ALL {
                let labels = format!(
                    "hook=\"{}\",slice=\"{slice}\",node=\"{switch}\",state=\"{}\"",
                    hook.name,
                    of.as_str()
                );
                page.sample(name, &labels, u64::from(*state == Some(of)));
            }
        }
        let name = "drops_total";
        page.head("counter", name, "Packets that a switch dropped, since its maps were made");
        for (node, cells) in drops {
            for (reason, cell) in DropReason::ALL.iter().zip(cells) {
                let labels = format!("node=\"{node}\",reason=\"{}\"", reason.name());
                page.sample(name, &labels, cell.packets);
            }
        }
        let name = "lldp_received_total";
        page.head("counter", name, "LLDP frames, since the agent's start");
        for (node, counts) in discovery {
            page.sample(name, &format!("node=\"{node}\""), counts.received);
        }
        let name = "lldp_discarded_total";
        page.head("counter", name, "LLDP frames that said nothing, since the agent's start");
        for (node, counts) in discovery {
            for (reason, count) in counts.by_reason() {
                page.sample(name, &format!("node=\"{node}\",reason=\"{reason}\""), count);
            }
        }
        let name = "host_messages_total";
        let help = "Router solicitations and DHCP of hosts, since the agent's start";
        page.head("counter", name, help);
        for (node, counts) in discovery {
            for (what, count) in DiscoveryCounts::OF_HOSTS.into_iter().zip(counts.hosts) {
                page.sample(name, &format!("node=\"{node}\",what=\"{what}\""), count);
            }
        }
        page.0
    }
}

/// Each with its labels.
fn directions(
    slices: &[SliceAssurance],
) -> impl Iterator<Item = (&SliceAssurance, &DirectionView, String)> {
    slices.iter().flat_map(|slice| {
        slice.directions.iter().map(move |direction| {
            // A slice's name has nothing that would have to be escaped (RFC 1123 labels).
            let labels = format!("slice=\"{}\",direction=\"{}\"", slice.slice, direction.direction);
            (slice, direction, labels)
        })
    })
}

struct Page(String);

impl Page {
    fn leads(&mut self, leads: bool) {
        self.gauge("leads", "1: this controller does, 0: another or none", leads.into());
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.metric("gauge", name, help, value);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.metric("counter", name, help, value);
    }

    fn metric(&mut self, kind: &str, name: &str, help: &str, value: u64) {
        self.head(kind, name, help);
        self.line(format_args!("selvedge_{name} {value}"));
    }

    fn head(&mut self, kind: &str, name: &str, help: &str) {
        self.line(format_args!("# HELP selvedge_{name} {help}"));
        self.line(format_args!("# TYPE selvedge_{name} {kind}"));
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        self.line(format_args!("selvedge_{name}{{{labels}}} {value}"));
    }

    /// One way is taken as half of there and back, so bounds are too.
    fn link_delays(&mut self, links: &[LinkDelaysView]) {
        let name = "link_delay_seconds";
        self.head(
            "histogram",
            name,
            "Delay of test packets, one way, since the controller's start",
        );
        for LinkDelaysView { link, delays, sum_ns } in links {
            for two_way_ns in DELAY_BOUNDS.map(|power| 1u64 << power) {
                let labels = format!("link=\"{link}\",le=\"{}\"", two_way_ns as f64 / 2e9);
                self.sample("link_delay_seconds_bucket", &labels, delays.up_to(two_way_ns - 1));
            }
            let total = delays.total();
            let labels = format!("link=\"{link}\",le=\"+Inf\"");
            self.sample("link_delay_seconds_bucket", &labels, total);
            let labels = format!("link=\"{link}\"");
            self.sample("link_delay_seconds_sum", &labels, *sum_ns as f64 / 2e9);
            self.sample("link_delay_seconds_count", &labels, total);
        }
    }

    fn line(&mut self, text: std::fmt::Arguments<'_>) {
        writeln!(self.0, "{text}").expect("a String takes all");
    }
}

/// Its name, what it says, and the value for one direction of one slice.
type OfSlice = (&'static str, &'static str, fn(&SliceAssurance, &DirectionView) -> Option<f64>);

const OF_SLICES: [OfSlice; 10] = [
    ("slice_promised_bits_per_second", "Guaranteed rate of IP packets", |_, direction| {
        Some(direction.guaranteed_bps? as f64)
    }),
    ("slice_offered_bits_per_second", "IP bits that entered, last 5 s", |_, direction| {
        Some(direction.windows.first()?.offered_bps? as f64)
    }),
    ("slice_delivered_bits_per_second", "IP bits delivered, last 5 s", |_, direction| {
        Some(direction.windows.first()?.delivered_bps? as f64)
    }),
    (
        "slice_loss_ratio",
        "Share of the packets within the guarantee that were lost, last 5 s",
        |_, direction| Some(direction.windows.first()?.loss_ppm? as f64 / 1e6),
    ),
    ("slice_promised_delay_seconds", "Latency, one way", |_, direction| {
        Some(direction.latency_us? as f64 / 1e6)
    }),
    ("slice_delay_seconds", "Mean delay of the worst path, one way, last 5 s", |_, direction| {
        Some(direction.windows.first()?.delay_ns? as f64 / 1e9)
    }),
    (
        "slice_delay_max_seconds",
        "Sum of the largest delay on each link of the worst path, one way, last 5 s",
        |_, direction| Some(direction.windows.first()?.delay_max_ns? as f64 / 1e9),
    ),
    ("slice_promised_availability_ratio", "Share of time", |slice, _| {
        Some(f64::from(slice.availability_ppm?) / 1e6)
    }),
    (
        "slice_availability_ratio",
        "Share of the seconds watched in which the slice worked, last 15 min",
        |_, direction| Some(direction.windows.last()?.availability_ppm? as f64 / 1e6),
    ),
    ("slice_measured_ratio", "Share of the last 5 s that was measured", |_, direction| {
        let window = direction.windows.first()?;
        Some(f64::from(window.measured_seconds) / window.seconds as f64)
    }),
];

#[cfg(test)]
mod tests {
    use super::*;
    use selvedge_pipeline::delay::{Delays, bucket};

    #[test]
    fn a_histogram_is_cumulative_and_its_bounds_are_of_one_way() {
        let mut delays = Delays::default();
        // Two-way: 20 us, 2 ms and 4 s.
        for (two_way_ns, count) in [(20_000, 3), (2_000_000, 4), (4_000_000_000, 1)] {
            delays.add(bucket(two_way_ns), count);
        }
        let view = LinkDelaysView { link: "a:p1 - b:p1".into(), delays, sum_ns: 4_008_060_000 };
        let mut page = Page(String::new());
        page.link_delays(&[view]);
        for line in [
            "# TYPE selvedge_link_delay_seconds histogram",
            "selvedge_link_delay_seconds_bucket{link=\"a:p1 - b:p1\",le=\"0.000008192\"} 0",
            "selvedge_link_delay_seconds_bucket{link=\"a:p1 - b:p1\",le=\"0.000016384\"} 3",
            "selvedge_link_delay_seconds_bucket{link=\"a:p1 - b:p1\",le=\"0.000524288\"} 3",
            "selvedge_link_delay_seconds_bucket{link=\"a:p1 - b:p1\",le=\"0.001048576\"} 7",
            "selvedge_link_delay_seconds_bucket{link=\"a:p1 - b:p1\",le=\"1.073741824\"} 7",
            "selvedge_link_delay_seconds_bucket{link=\"a:p1 - b:p1\",le=\"+Inf\"} 8",
            "selvedge_link_delay_seconds_sum{link=\"a:p1 - b:p1\"} 2.00403",
            "selvedge_link_delay_seconds_count{link=\"a:p1 - b:p1\"} 8",
        ] {
            assert!(page.0.lines().any(|found| found == line), "{line} in\n{}", page.0);
        }
    }
}
