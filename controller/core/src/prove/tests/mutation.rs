//! A thousand defects planted into plans: those that change what packets do are refused, and no
//! others.
//!
//! `SELVEDGE_MUTATIONS` is how many; 150 if it is not set.

use std::collections::BTreeSet;

use selvedge_pipeline::{
    Class, ClassifierAction, Direction, EndpointTag, Entry, LocalSidAction, NodeSid, PolicyId,
    PortId, PortKind, RouteAction, SliceId, SliceSet, TableKind,
};

use super::judge::{Truth, Wrong};
use super::*;

/// UEs behind gNBs.
const N3: &str = "name: n3
topology:
  nodes:
    s1: { kind: switch }
    s2: { kind: switch }
    s3: { kind: switch }
    gnb-1: { kind: host, ipv4: 192.0.2.1/32 }
    gnb-2: { kind: host, ipv4: 192.0.2.2/32 }
    plc: { kind: host, ipv4: 10.2.0.1/32 }
    robot: { kind: host, ipv4: 10.1.0.1/32 }
    phone: { kind: host, ipv4: 10.1.0.2/32 }
  links:
    - { endpoints: [\"s1:p1\", \"s3:p1\"], capacity: 1Gbps, delay: 100us }
    - { endpoints: [\"s2:p1\", \"s3:p2\"], capacity: 1Gbps, delay: 100us }
    - { endpoints: [\"s1:p3\", \"s2:p3\"], capacity: 1Gbps, delay: 100us }
    - { endpoints: [\"s1:p2\", \"gnb-1:eth0\"], capacity: 1Gbps }
    - { endpoints: [\"s2:p2\", \"gnb-2:eth0\"], capacity: 1Gbps }
    - { endpoints: [\"s3:p3\", \"plc:eth0\"], capacity: 1Gbps }
";

/// With a slice, and the sessions of its UEs: UE, gNB, and the TEIDs of up- and downlink.
fn n3(sessions: &[(&str, &str, u32, u32)]) -> Core {
    let ues: String = sessions.iter().map(|(ue, ..)| format!("{{ ue: {ue} }}, ")).collect();
    let mut objects = format!(
        "apiVersion: selvedge/v1\nkind: NetworkSlice\nmetadata: {{ name: factory }}\nspec:\n  \
         downlink: {{ guaranteed: 20Mbps }}\n  uplink: {{ guaranteed: 20Mbps }}\n  \
         endpoints: [{ues}{{ dn: plc }}]\n"
    );
    for (ue, gnb, uplink, downlink) in sessions {
        objects += &format!(
            "---\napiVersion: selvedge/v1\nkind: PduSession\nmetadata: {{ name: {ue} }}\nspec:\n  \
             ue: {ue}\n  slice: factory\n  gnb: {gnb}\n  n3: 198.51.100.1\n  \
             uplink: {{ teid: {uplink} }}\n  downlink: {{ teid: {downlink} }}\n  \
             qosFlows: [{{ qfi: 1, 5qi: 9 }}, {{ qfi: 2, 5qi: 3 }}]\n"
        );
    }
    core_of(N3, &objects)
}

/// xorshift64: every run plants the same.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % n.max(1)
    }
}

/// Two states between which a plan leads.
struct Case {
    truth: Truth,
    held: Tables,
    wanted: Tables,
}

impl Case {
    fn new(from: &Core, to: &Core) -> Self {
        let (held, wanted) = (from.derived.tables.clone(), to.derived.tables.clone());
        Self { truth: Truth::of(to.clone()), held, wanted }
    }

    fn steps(&self) -> Vec<Step> {
        let switches = self.held.iter().map(|(n, table)| (n, &**table, &*self.wanted[n]));
        plan::steps(switches, 1, false)
    }

    fn node(&self, random: &mut Random) -> NodeName {
        self.held.keys().nth(random.below(self.held.len())).expect("a switch").clone()
    }

    /// Of each sort as often, however many there are.
    fn entry_of(&self, node: &NodeName, random: &mut Random) -> Entry {
        let table = &self.wanted[node];
        let sorts: BTreeSet<TableKind> = table.values().map(Entry::table).collect();
        let sort = sorts.iter().nth(random.below(sorts.len())).expect("a sort");
        let entries: Vec<&Entry> = table.values().filter(|e| e.table() == *sort).collect();
        entries[random.below(entries.len())].clone()
    }

    /// One thing out of place in a plan; `None`: there was nothing of that kind.
    fn mutate(&self, steps: &mut [Step], random: &mut Random) -> Option<String> {
        let last = steps.iter().filter(|step| step.stage != Stage::Generation).count();
        match random.below(10) {
            // An update that does not come.
            0 => {
                let (step, node, at) = pick(steps, random)?;
                let gone = steps[step].updates.get_mut(&node)?.remove(at);
                Some(format!("step {} without {gone:?} at {node}", step + 1))
            }
            // Two steps the other way round.
            1 => {
                let (a, b) = (random.below(last), random.below(last));
                steps.swap(a, b);
                (a != b).then(|| format!("steps {} and {} swapped", a + 1, b + 1))
            }
            // What one switch gets in a step it gets in another.
            2 => {
                let (step, node, _) = pick(steps, random)?;
                let to = random.below(last);
                let moved = steps[step].updates.remove(&node)?;
                steps[to].updates.entry(node.clone()).or_default().extend(moved);
                Some(format!("{node}'s part of step {} in step {}", step + 1, to + 1))
            }
            // Something that is there, and should stay, goes.
            3 => {
                let node = self.node(random);
                let entry = self.entry_of(&node, random);
                let step = random.below(last);
                let text = format!("{entry:?} removed at {node} in step {}", step + 1);
                steps[step].updates.entry(node).or_default().push(Update::Delete(entry));
                Some(text)
            }
            // An entry of another switch.
            4 => {
                let (node, other) = (self.node(random), self.node(random));
                let entry = self.entry_of(&other, random);
                let step = random.below(last);
                let text = format!("{other}'s {entry:?} at {node} in step {}", step + 1);
                steps[step].updates.entry(node).or_default().push(Update::Insert(entry));
                Some(text)
            }
            // A wrong value: of an entry that the plan puts, or of one that stays.
            kind => {
                let (step, node, old) = if kind < 7 {
                    let (step, node, at) = pick(steps, random)?;
                    let update = steps[step].updates.get(&node)?[at].clone();
                    let (Update::Insert(entry) | Update::Modify(entry)) = update else {
                        return None;
                    };
                    (step, node, entry)
                } else {
                    let node = self.node(random);
                    let entry = self.entry_of(&node, random);
                    (random.below(last), node, entry)
                };
                let entry = self.wrong_value(&old, &node, random)?;
                let text = format!("{old:?} became {entry:?} at {node} in step {}", step + 1);
                let updates = steps[step].updates.entry(node).or_default();
                if entry.key() != old.key() {
                    updates.push(Update::Delete(old));
                }
                updates.push(Update::Modify(entry));
                Some(text)
            }
        }
    }

    fn wrong_value(&self, old: &Entry, node: &NodeName, random: &mut Random) -> Option<Entry> {
        let switches = &self.truth.core.network.switches;
        let ports: Vec<PortId> = switches[node].ports.keys().copied().collect();
        let port = ports[random.below(ports.len())];
        let slice = SliceId(1 + random.below(4) as u16);
        let sid = 1 + random.below(self.held.len()) as u16;
        let mut entry = old.clone();
        match &mut entry {
            Entry::Port(e) => {
                let access = e.kind == PortKind::Access;
                e.kind = if access { PortKind::Fabric } else { PortKind::Access };
            }
            Entry::Endpoint(e) => match random.below(3) {
                0 => e.port = port,
                1 => e.slice_set = SliceSet(slice.0),
                _ => {
                    let down = e.direction == Direction::Downlink;
                    e.direction = if down { Direction::Uplink } else { Direction::Downlink };
                }
            },
            Entry::Classifier(e) => match random.below(7) {
                0 => e.action = ClassifierAction::Pass,
                1 => e.action = ClassifierAction::Mark(10),
                2 => e.action = ClassifierAction::Steer(PolicyId(u32::from(sid))),
                3 => e.slice_set = Some(SliceSet(slice.0)),
                4 => e.endpoint_tag = Some(EndpointTag(sid)),
                5 => e.tunnel_id = Some(u32::from(sid)),
                _ => e.destination_ports = None,
            },
            Entry::SliceRoute(e) => match random.below(4) {
                0 => e.slice = slice,
                1 => e.action = RouteAction::Local,
                2 => e.action = RouteAction::Policy(PolicyId(u32::from(sid))),
                _ => e.slice_set = SliceSet(slice.0),
            },
            Entry::SliceMeter(e) => match random.below(3) {
                0 => e.guaranteed_bps *= 2,
                1 => e.guaranteed_bps = 0,
                _ => e.class = Class::BestEffort,
            },
            Entry::EndpointMeter(e) => match random.below(2) {
                0 => e.guaranteed_bps = e.guaranteed_bps.saturating_mul(1_000),
                _ => e.slice = slice,
            },
            Entry::Policy(e) => {
                // In place of the right path, or beside it.
                if random.below(2) == 0 {
                    e.paths.push(e.paths[0].clone());
                }
                let sids = &mut e.paths.last_mut().expect("one at least").sids;
                let (a, b) = (random.below(sids.len()), random.below(sids.len()));
                match random.below(3) {
                    0 => sids.swap(a, b),
                    1 => sids[a] = sid,
                    _ => drop(sids.remove(a)),
                }
            }
            Entry::LocalSid(e) => match random.below(2) {
                0 => e.sid = sid,
                _ => e.action = LocalSidAction::Node,
            },
            Entry::NextHop(e) => match (random.below(4), self.truth.mac_beyond(node, port)) {
                (0, _) => e.mac = [2, 6, 6, 6, 6, 6],
                (1, _) => e.node = NodeSid(sid),
                (_, mac) => (e.port, e.mac) = (port, mac.unwrap_or(e.mac)),
            },
            Entry::Backup(e) => e.port = port,
            Entry::Delivery(e) => match (random.below(4), &mut e.tunnel) {
                (0, _) => e.port = port,
                (1, _) => e.slice = slice,
                (2, Some(tunnel)) => match random.below(4) {
                    0 => tunnel.teid ^= 1,
                    1 => tunnel.qfi ^= 1,
                    2 => tunnel.mtu -= 1,
                    _ => tunnel.gnb = [192, 0, 2, 200].into(),
                },
                (3, tunnel) => *tunnel = None,
                _ => e.mac = [2, 6, 6, 6, 6, 6],
            },
            Entry::PortQueue(e) => e.rate_bps /= 2,
            Entry::N3Address(e) => e.address = [198, 51, 100, 9].into(),
            Entry::GtpSession(e) => match random.below(9) {
                0 => e.port = port,
                1 => e.gnb = [192, 0, 2, 200].into(),
                2 => e.ue_ipv4 = Some([10, 1, 0, 1 + random.below(3) as u8].into()),
                3 => e.slice_set = SliceSet(slice.0),
                4 => e.direction = Direction::Downlink,
                5 => e.qfis = 0,
                6 => e.qfis <<= 1,
                7 => e.teid ^= 1,
                // Which no rule asks for.
                _ => e.tag = EndpointTag(sid),
            },
            Entry::Generation(_) => {}
        }
        (entry != *old).then_some(entry)
    }

    /// What packets do wrong that they did not before, or at all in the result.
    fn harm(&self, steps: &[Step]) -> Option<String> {
        let states = states(&self.held, steps);
        let before = self.truth.wrong(&self.held);
        for (index, state) in states.iter().enumerate().skip(1) {
            let now = self.truth.wrong(state);
            let is_last = index + 1 == states.len();
            if let Some(new) = now.iter().find(|new| is_last || !excused(&before, new)) {
                return Some(format!("{} {} after step {index}", new.0, new.1));
            }
        }
        None
    }

    /// As a request is judged.
    fn refused(&self, steps: &[Step]) -> Option<CounterExample> {
        let world = self.truth.core.world();
        let result = states(&self.held, steps).pop().expect("the result");
        let wrong = check(&world, &result).into_iter().next();
        wrong.or_else(|| prove(&view(&world, &self.held), steps, ASKED).err())
    }
}

fn pick(steps: &[Step], random: &mut Random) -> Option<(usize, NodeName, usize)> {
    let last = steps.iter().filter(|step| step.stage != Stage::Generation).count();
    let step = random.below(last);
    let updates = &steps[step].updates;
    let node = updates.keys().nth(random.below(updates.len()))?.clone();
    let at = random.below(updates[&node].len());
    (!updates[&node].is_empty()).then_some((step, node, at))
}

/// What switches hold before the first step and after each.
fn states(held: &Tables, steps: &[Step]) -> Vec<Tables> {
    let mut states = vec![held.clone()];
    for step in steps {
        let mut state = states.last().expect("one").clone();
        for (name, updates) in &step.updates {
            plan::apply(Arc::make_mut(state.entry(name.clone()).or_default()), updates);
        }
        states.push(state);
    }
    states
}

/// What was wrong before may be wrong in another way on the way; but not go in circles.
fn excused(before: &Wrong, new: &(String, &'static str)) -> bool {
    before.iter().any(|old| old.0 == new.0 && (new.1 != "circles" || old.1 == new.1))
}

#[test]
fn defects_that_change_what_packets_do_are_refused_and_no_others() {
    let count = std::env::var("SELVEDGE_MUTATIONS").ok().and_then(|text| text.parse().ok());
    let count: usize = count.unwrap_or(150);
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let (with, without) = (core(true), core(false));
    // A hand-over, and a session that comes or goes.
    let (robot, phone) = (("robot", "gnb-1", 0x1001, 0x2001), ("phone", "gnb-1", 0x1002, 0x2002));
    let at_gnb_1 = n3(&[robot]);
    let at_gnb_2 = n3(&[("robot", "gnb-2", 0x1001, 0x3001), phone]);
    let cases = [
        Case::new(&with, &without),
        Case::new(&without, &with),
        Case::new(&at_gnb_1, &at_gnb_2),
        Case::new(&at_gnb_2, &at_gnb_1),
    ];
    for case in &cases {
        assert_eq!(case.harm(&case.steps()), None, "the judge agrees with the plan itself");
        assert_eq!(case.refused(&case.steps()), None);
    }
    let (mut planted, mut harms) = (0, 0);
    let (mut misses, mut alarms) = (Vec::new(), Vec::new());
    while planted < count {
        let case = &cases[random.below(cases.len())];
        let mut steps = case.steps();
        let Some(what) = case.mutate(&mut steps, &mut random) else { continue };
        planted += 1;
        let harm = case.harm(&steps);
        harms += usize::from(harm.is_some());
        match (harm, case.refused(&steps)) {
            (Some(harm), None) => misses.push(format!("{what}: {harm}")),
            // What packets do while ports are up is what the judge plays through.
            (None, Some(counter)) if counter.defect == Defect::Detour => {}
            (None, Some(counter)) => alarms.push(format!("{what}: {counter}")),
            _ => {}
        }
    }
    println!("{planted} planted, {harms} of them change what packets do");
    let (missed, false_alarms) = (misses.len(), alarms.len());
    assert!(
        misses.is_empty() && alarms.is_empty(),
        "{missed} not caught:\n{}\n\n{false_alarms} false alarms:\n{}",
        misses.join("\n"),
        alarms.join("\n")
    );
}
