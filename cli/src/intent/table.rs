//! Answers as tables for people.

use comfy_table::{Table, presets};
use selvedge_controller::api::wire::{
    Application, ClassMap, Endpoint, Hook, Link, LogLine, Node, PduSession, QosFlow, RoleName,
    Share, Slice, SliceState, Status,
};
use selvedge_controller::api::wire_counters::{Counters, PortRate};
use selvedge_controller::api::wire_history::Touched;
use selvedge_controller::api::wire_intent::{Entry, Plan};
use selvedge_controller::api::wire_placement::Placed;

use super::assurance;
use crate::client::Answer;

pub(crate) use selvedge_controller::rate;

pub(crate) fn print_json<T>(answer: &Answer<T>) -> anyhow::Result<()> {
    println!("{}", answer.pretty()?);
    Ok(())
}

/// Columns two spaces apart, no lines.
pub(crate) fn new<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    narrow(&mut table);
    table
}

fn narrow(table: &mut Table) {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
}

/// A name as a path segment: everything but unreserved characters in percent (RFC 3986 §2.1).
pub(crate) fn segment(name: &str) -> String {
    name.bytes().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
        text
    })
}

pub(super) fn delay(us: u64) -> String {
    if us >= 1_000 {
        let (whole, fraction) = (us / 1_000, format!(".{:03}", us % 1_000));
        format!("{whole}{} ms", fraction.trim_end_matches('0').trim_end_matches('.'))
    } else {
        format!("{us} us")
    }
}

pub(super) fn optional_rate(bps: Option<u64>) -> String {
    bps.map_or_else(|| "no limit".to_owned(), rate)
}

fn yes_no(yes: bool) -> String {
    if yes { "yes" } else { "no" }.to_owned()
}

pub(super) fn or_dash(text: Option<&str>) -> String {
    text.filter(|text| !text.is_empty()).unwrap_or("-").to_owned()
}

pub(super) fn status(status: &Status) {
    let share = |Share { ready, declared }: Share| format!("{ready} of {declared}");
    println!("{}", if status.converged { "converged" } else { "not converged" });
    match (status.role, &status.leader) {
        (RoleName::Follower, leader) => {
            let leader = leader.as_deref().unwrap_or("nobody at this moment");
            println!("role       follower; the leader is {leader}");
        }
        (RoleName::Leader, Some(_)) => println!("role       leader"),
        (RoleName::Leader, None) => {}
    }
    println!("revision   {}, generation {}", status.revision, status.generation);
    println!("switches   {} joined", share(status.switches));
    println!("links      {} usable", share(status.links));
    println!("endpoints  {} attached", share(status.endpoints));
    println!("slices     {}, {} degraded", status.slices, status.slices_degraded);
    if let Some(why) = &status.store_unwritable {
        println!("store      cannot be written, every change is refused: {why}");
    }
    if let Some(blocked) = &status.blocked {
        println!("blocked    {blocked}");
    }
    for drained in &status.drained {
        println!("drained    {drained}");
    }
    if let Some(files) = &status.intent_files {
        match &files.refused {
            None => println!("intent     the files in {}", files.dir),
            Some(why) => println!("intent     the files in {} are REFUSED: {why}", files.dir),
        }
    }
    for reason in &status.waiting_for {
        println!("waits for  {reason}");
    }
}

pub(super) fn nodes(nodes: &[Node]) {
    let mut table = new([
        "node", "sid", "role", "site", "joined", "in sync", "entries", "ports", "drained",
        "version",
    ]);
    for node in nodes {
        let up = node.ports.iter().filter(|port| port.up).count();
        table.add_row([
            node.name.clone(),
            node.sid.to_string(),
            or_dash(Some(&node.role)),
            or_dash(node.site.as_deref()),
            yes_no(node.joined),
            yes_no(node.in_sync),
            format!("{} of {}", node.entries, node.entries_desired),
            format!("{up} of {} up", node.ports.len()),
            or_dash(node.drained.as_deref()),
            or_dash(Some(&node.version)),
        ]);
    }
    println!("{}", table.trim_fmt());
    if let [Node { ports, discovery, .. }] = nodes {
        let mut table = new(["port", "id", "kind", "up", "mac", "neighbor"]);
        for port in ports {
            let neighbor = port.neighbor.as_ref();
            table.add_row([
                port.name.clone(),
                port.id.to_string(),
                port.kind.clone(),
                yes_no(port.up),
                port.mac.clone(),
                neighbor.map_or_else(
                    || "-".to_owned(),
                    |n| {
                        let claimed = if n.authenticated { "" } else { " (claimed)" };
                        format!("{}:{}{claimed}", n.chassis, n.port)
                    },
                ),
            ]);
        }
        println!("\n{}", table.trim_fmt());
        let reasons = discovery.discarded.iter().filter(|(_, count)| **count > 0);
        let reasons: Vec<String> =
            reasons.map(|(reason, count)| format!("{count} {reason}")).collect();
        println!(
            "\nLLDP frames: {}; {}",
            discovery.received,
            match reasons.is_empty() {
                true => "none was without meaning".to_owned(),
                false => format!("without meaning: {}", reasons.join(", ")),
            }
        );
    }
}

pub(super) fn links(links: &[Link]) {
    let mut table = new([
        "link",
        "usable",
        "capacity",
        "delay",
        "measured: half / 99 % / all below",
        "promised >",
        "promised <",
        "used >",
        "used <",
        "drained",
        "why",
    ]);
    for link in links {
        table.add_row([
            format!("{} - {}", link.a, link.b),
            yes_no(link.usable),
            optional_rate(link.capacity_bps),
            link.delay_us.map_or_else(|| "-".to_owned(), delay),
            assurance::delays(link.measured),
            rate(link.reserved_ab_bps),
            rate(link.reserved_ba_bps),
            used(link.rate_ab_bps, link.capacity_bps),
            used(link.rate_ba_bps, link.capacity_bps),
            or_dash(link.drained.as_deref()),
            or_dash(link.reason.as_deref()),
        ]);
    }
    println!("{}", table.trim_fmt());
}

/// A rate, and its share of what there is.
pub(crate) fn used(bps: Option<u64>, capacity_bps: Option<u64>) -> String {
    match (bps, capacity_bps) {
        (None, _) => "-".to_owned(),
        (Some(bps), Some(capacity @ 1..)) => {
            format!("{} ({:.1} %)", rate(bps), 100.0 * bps as f64 / capacity as f64)
        }
        (Some(bps), _) => rate(bps),
    }
}

pub(super) fn endpoints(endpoints: &[Endpoint]) {
    let mut table = new(["endpoint", "addresses", "at", "attached", "mac", "slices"]);
    for endpoint in endpoints {
        let addresses: Vec<String> = endpoint.addresses.iter().map(ToString::to_string).collect();
        let at = match (&endpoint.switch, &endpoint.port) {
            (Some(switch), Some(port)) if endpoint.moved => format!("{switch}:{port} (moved)"),
            (Some(switch), Some(port)) => format!("{switch}:{port}"),
            _ => "-".to_owned(),
        };
        table.add_row([
            endpoint.name.clone(),
            addresses.join(" "),
            at,
            yes_no(endpoint.attached),
            or_dash(endpoint.mac.as_deref()),
            endpoint.slices.join(" "),
        ]);
    }
    println!("{}", table.trim_fmt());
}

pub(super) fn slices(slices: &[Slice]) {
    let mut table =
        new(["slice", "id", "class", "life", "state", "endpoints", "hooks", "revision", "by"]);
    for slice in slices {
        let state = match slice.state {
            SliceState::Kept if slice.lifecycle == "designed" => "-".to_owned(),
            SliceState::Kept => "kept".to_owned(),
            SliceState::Degraded => format!("degraded: {}", slice.reasons.join("; ")),
        };
        table.add_row([
            slice.name.clone(),
            slice.id.to_string(),
            slice.class.clone(),
            life(slice),
            state,
            slice.endpoints.join(" "),
            or_dash(Some(&slice.hooks.join(" "))),
            slice.revision.to_string(),
            slice.author.clone(),
        ]);
    }
    println!("{}", table.trim_fmt());
}

/// `active`, `reserved until 2026-11-24T13:00:00Z` ...
fn life(slice: &Slice) -> String {
    let until = slice.reserved_until.as_ref().map(|at| format!(" until {at}"));
    let start = slice.start.as_ref().filter(|_| slice.lifecycle == "reserved" && until.is_none());
    let start = start.map(|at| format!(", starts {at}"));
    format!("{}{}", slice.lifecycle, until.or(start).unwrap_or_default())
}

pub(super) fn hooks(hooks: &[Hook]) {
    let mut table = new(["hook", "module", "fuel/packet", "memory", "slice", "switch", "state"]);
    for hook in hooks {
        let first = [
            hook.name.clone(),
            hook.sha256.chars().take(12).collect(),
            hook.fuel_per_packet.to_string(),
            format!("{} KiB", hook.memory_bytes / 1024),
        ];
        if hook.instances.is_empty() {
            let [name, module, fuel, memory] = first.clone();
            let unused = "not used".to_owned();
            table.add_row([name, module, fuel, memory, "-".to_owned(), "-".to_owned(), unused]);
        }
        for instance in &hook.instances {
            let [name, module, fuel, memory] = first.clone();
            let state = instance.state.as_deref().unwrap_or("unknown");
            let state = match instance.reason.as_str() {
                "" => state.to_owned(),
                reason => format!("{state}: {reason}"),
            };
            let (slice, switch) = (instance.slice.clone(), instance.switch.clone());
            table.add_row([name, module, fuel, memory, slice, switch, state]);
        }
    }
    println!("{}", table.trim_fmt());
}

pub(super) fn applications(applications: &[Application]) {
    let mut table = new(["application", "endpoint", "node", "rule", "state", "revision", "by"]);
    for application in applications {
        let rules = application.rules.iter().map(|rule| {
            let state = if rule.active { "ACTIVE" } else { "INACTIVE" };
            (rule.id.clone(), state.to_owned())
        });
        let none = application.rules.is_empty().then(|| ("-".to_owned(), "-".to_owned()));
        for (rule, state) in rules.chain(none) {
            table.add_row([
                application.name.clone(),
                application.endpoint.clone(),
                application.placement.as_ref().map_or("-".to_owned(), placed),
                rule,
                state,
                application.revision.to_string(),
                application.author.clone(),
            ]);
        }
    }
    println!("{}", table.trim_fmt());
}

/// Where an application is, in a few words.
fn placed(placed: &Placed) -> String {
    match (&placed.node, placed.seen, &placed.reason) {
        (None, ..) => "NONE".to_owned(),
        (Some(node), _, Some(_)) => format!("{node}, UNKEPT"),
        (Some(node), true, None) => format!("{node}, seen"),
        (Some(node), false, None) => node.clone(),
    }
}

pub(super) fn class_map(map: &ClassMap) {
    match &map.name {
        Some(name) => println!("ClassMap {name} over the tables of 3GPP TS 23.501"),
        None => println!("no ClassMap: the tables of 3GPP TS 23.501 hold"),
    }
    let mut table = new(["by", "number", "class", "stated"]);
    for row in &map.rows {
        let stated = if row.stated { "ClassMap" } else { "3GPP" };
        let cells = [row.by.clone(), row.number.to_string(), row.class.clone(), stated.to_owned()];
        table.add_row(cells);
    }
    println!("{}", table.trim_fmt());
}

pub(super) fn pdu_sessions(sessions: &[PduSession]) {
    let mut table =
        new(["session", "ue", "slice", "gnb", "at", "uplink teid", "downlink teid", "flows"]);
    for session in sessions {
        let flow = |flow: &QosFlow| format!("{} (5QI {})", flow.qfi, flow.five_qi);
        let flows: Vec<String> = session.flows.iter().map(flow).collect();
        let at = session.attachment.clone().filter(|_| session.attached);
        table.add_row([
            session.name.clone(),
            session.ue.clone(),
            session.slice.clone(),
            session.gnb.clone(),
            at.unwrap_or_else(|| "-".to_owned()),
            session.uplink_teid.to_string(),
            session.downlink_teid.to_string(),
            flows.join(", "),
        ]);
    }
    println!("{}", table.trim_fmt());
}

pub(super) fn events(lines: &[LogLine]) {
    let mut table = new(["#", "ago", "severity", "kind", "about", "what"]);
    for line in lines {
        table.add_row([
            line.sequence.to_string(),
            ago_of(line.at_ms),
            line.severity.clone(),
            line.kind.clone(),
            line.subject.clone(),
            line.text.clone(),
        ]);
    }
    println!("{}", table.trim_fmt());
}

pub(super) fn ago_of(at_ms: u64) -> String {
    ago(now_ms().saturating_sub(at_ms))
}

fn now_ms() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}

fn ago(ms: u64) -> String {
    match ms / 1_000 {
        0 => format!("{ms} ms"),
        s @ 1..120 => format!("{s} s"),
        s @ 120..7_200 => format!("{} min", s / 60),
        s @ 7_200..172_800 => format!("{} h", s / 3_600),
        s => format!("{} d", s / 86_400),
    }
}

pub(super) fn entries(entries: &[Entry]) {
    let mut table = new(["table", "match", "action"]);
    for entry in entries {
        table.add_row([entry.table.clone(), entry.key.clone(), entry.value.clone()]);
    }
    println!("{}", table.trim_fmt());
}

/// Ports, and of drops and slices those that there are.
pub(super) fn counters(counters: &Counters) {
    let mut table =
        new(["port", "id", "rx packets", "rx bytes", "tx packets", "tx bytes", "tx errors"]);
    for port in &counters.ports {
        table.add_row([
            port.name.clone(),
            port.port.to_string(),
            port.rx_packets.to_string(),
            port.rx_bytes.to_string(),
            port.tx_packets.to_string(),
            port.tx_bytes.to_string(),
            port.tx_errors.to_string(),
        ]);
    }
    println!("{}", table.trim_fmt());
    let mut table = new(["port", "capacity", "rx", "rx packets/s", "tx", "tx packets/s"]);
    for port in &counters.ports {
        let Some(PortRate { rx_packets, rx_bps, tx_packets, tx_bps }) = port.rate else { continue };
        table.add_row([
            port.name.clone(),
            optional_rate(port.capacity_bps),
            used(Some(rx_bps), port.capacity_bps),
            rx_packets.to_string(),
            used(Some(tx_bps), port.capacity_bps),
            tx_packets.to_string(),
        ]);
    }
    if !table.is_empty() {
        println!("\nin the last second\n{}", table.trim_fmt());
    }
    let mut table = new(["slice", "direction", "packets", "bytes", "dropped", "dropped bytes"]);
    for slice in &counters.slices {
        if slice.packets > 0 || slice.dropped_packets > 0 {
            table.add_row([
                slice.slice.clone(),
                slice.direction.clone(),
                slice.packets.to_string(),
                slice.bytes.to_string(),
                slice.dropped_packets.to_string(),
                slice.dropped_bytes.to_string(),
            ]);
        }
    }
    if !table.is_empty() {
        println!("\n{}", table.trim_fmt());
    }
    let mut table = new(["dropped because", "packets"]);
    for (reason, packets) in counters.drops.iter().filter(|(_, packets)| **packets > 0) {
        table.add_row([reason.clone(), packets.to_string()]);
    }
    match table.is_empty() {
        true => println!("\nnothing dropped"),
        false => println!("\n{}", table.trim_fmt()),
    }
}

/// `+ NetworkSlice factory-control`.
pub(super) fn touched(object: &Touched) -> String {
    let sign = match object.verb.as_str() {
        "added" => '+',
        "deleted" => '-',
        _ => '~',
    };
    format!("{sign} {} {}", object.kind, object.name)
}

pub(super) fn plan(plan: &Plan) {
    for note in &plan.notes {
        println!("{note}");
    }
    for warning in &plan.warnings {
        println!("warning: {warning}");
    }
    if plan.refusal.is_some() {
        return;
    }
    for object in &plan.objects {
        println!("{}", touched(object));
    }
    for operation in &plan.operations {
        println!("{operation}");
    }
    let (mut added, mut changed, mut removed) = (0, 0, 0);
    for (switch, difference) in &plan.switches {
        println!("{switch}");
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        let mut row = |sign: &str, entry: &Entry, value: String| {
            table.add_row([format!("  {sign}"), entry.table.clone(), entry.key.clone(), value]);
        };
        for entry in &difference.added {
            row("+", entry, entry.value.clone());
        }
        for change in &difference.changed {
            let value = format!("{} -> {}", change.before.value, change.after.value);
            row("~", &change.after, value);
        }
        for entry in &difference.removed {
            row("-", entry, entry.value.clone());
        }
        narrow(&mut table);
        println!("{}", table.trim_fmt());
        added += difference.added.len();
        changed += difference.changed.len();
        removed += difference.removed.len();
    }
    let switches = plan.switches.len();
    println!(
        "plan {}: {switches} switches, {added} entries to add, {changed} to change, {removed} to \
         remove",
        plan.id
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_for_people() {
        for (us, want) in [(0, "0 us"), (999, "999 us"), (1_000, "1 ms"), (1_250, "1.25 ms")] {
            assert_eq!(delay(us), want);
        }
        for (ms, want) in [
            (5, "5 ms"),
            (1_000, "1 s"),
            (120_000, "2 min"),
            (7_200_000, "2 h"),
            (172_800_000, "2 d"),
        ] {
            assert_eq!(ago(ms), want);
        }
        assert_eq!(segment("a-b.c"), "a-b.c");
        assert_eq!(segment("a/b c"), "a%2Fb%20c");
    }
}
