//! What a switch measures of its links, as it tells the controller.

use std::time::Duration;

use selvedge_dataplane::Options;
use selvedge_pipeline::{Entry, PortEntry, PortId, PortKind};
use selvedge_southbound::client::CONTROLLER_ROLE;
use v1::from_switch::Message;

use super::managed::{Listener, dial, managed};
use super::support::{Agent, Place, block_on, certificates, in_netns, inserts, ip, until};
use selvedge_southbound::selvedge::v1;

#[test]
fn delay_and_loss_of_links_are_told_each_second() {
    in_netns(|| {
        let place = Place::new();
        let pki = place.dir.path();
        certificates(pki, &["controller", "s1"]);
        // A switch that is its own neighbor, and a port that nobody answers on.
        ip("link add p1 type veth peer name p2");
        ip("link add p3 type veth peer name silent");
        for name in ["p1", "p2", "p3", "silent"] {
            ip(&format!("link set {name} up"));
        }
        let probe_interval = Duration::from_millis(50);
        let agent = Agent::start(Options { probe_interval, ..managed(&place) });
        block_on(async {
            let listener = Listener::default();
            let _serving = listener.start(pki);
            until("P4Runtime listens", async || {
                dial(pki, "controller", CONTROLLER_ROLE, 7).await.is_ok()
            })
            .await;
            let (client, _channel) = dial(pki, "controller", CONTROLLER_ROLE, 8).await.unwrap();
            let fabric = |id| Entry::Port(PortEntry { port: PortId(id), kind: PortKind::Fabric });
            client.write(&inserts([1, 2, 3].map(fabric))).await.unwrap();
            let told = |wanted: &dyn Fn(&v1::Telemetry) -> bool| {
                listener.has(|message| matches!(message, Message::Telemetry(told) if wanted(told)))
            };
            let port = |told: &v1::Telemetry, port| {
                told.links.iter().find(|link| link.port == port).cloned().unwrap_or_default()
            };
            until("both ends of a link have answers, with a delay", async || {
                told(&|told| {
                    [1, 2].map(|n| port(told, n)).iter().all(|link| {
                        link.answered > 0
                            && link.delay_ns > 0
                            && link.delay_ns <= link.delay_max_ns
                            && link.delay_max_ns < 1_000_000_000
                    })
                })
            })
            .await;
            until("a silent link has none", async || {
                told(&|told| port(told, 3).probes >= 10 && port(told, 3).answered == 0)
            })
            .await;
            until("seconds are told apart by their marks", async || {
                told(&|told| told.exact && told.last && told.interval_ms > 0)
            })
            .await;
        });
        agent.kill();
    });
}
