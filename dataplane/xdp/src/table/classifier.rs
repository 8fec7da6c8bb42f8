//! Table `classifier`: application traffic rules, the highest priority that matches first.
//!
//! A change writes all rules, sorted, and the tree by which packets find them ([`tree`]) to the
//! halves of their maps that are not in use, and then switches halves with one word: a packet
//! sees the rules before or after, never between. A packet that still looks at the other half is
//! waited for first.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;
use selvedge_ebpf_common::rule::{
    MAX_RULE_NODES, RULE_ANY, RULE_DROP, RULE_MARK, RULE_NAMES_DESTINATION_PORT,
    RULE_NAMES_SOURCE_PORT, RULE_NAMES_TAG, RULE_NAMES_TEID, RULE_PASS, RULE_SET_SLICE, RULE_STEER,
    RuleValue, rule_fields, slice_set_of,
};
use selvedge_ebpf_common::value::{ConfigValue, rules_in_force};
use selvedge_ebpf_common::{MAX_RULES, MAX_SLICE_ID};

use super::Table;
use super::prefix::{address_words, bytes, mapped_bits, net};
use crate::error::within;
use crate::maps::Maps;
use crate::{Error, sys};

mod tree;

/// `None` matches anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    pub source: Option<IpNet>,
    pub destination: Option<IpNet>,
    pub protocol: Option<u8>,
    /// First and last. Packets that show no ports do not match.
    pub source_ports: Option<[u16; 2]>,
    pub destination_ports: Option<[u16; 2]>,
    pub dscp: Option<u8>,
    /// Of the endpoint or the PDU session.
    pub slice_set: Option<u16>,
    /// Of who sends the packet.
    pub tag: Option<u16>,
    /// Of the tunnel that it came in.
    pub teid: Option<u32>,
    pub action: RuleAction,
}

impl Rule {
    /// Of every packet.
    pub const fn any(action: RuleAction) -> Self {
        Self {
            source: None,
            destination: None,
            protocol: None,
            source_ports: None,
            destination_ports: None,
            dscp: None,
            slice_set: None,
            tag: None,
            teid: None,
            action,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RuleAction {
    Drop,
    Pass,
    SetSlice(u16),
    /// DSCP.
    Mark(u8),
    /// Policy id.
    Steer(u16),
}

/// By priority.
#[derive(Clone, Debug)]
pub struct Classifier {
    maps: Arc<Maps>,
    batch: Arc<Mutex<Batch>>,
}

#[derive(Debug, Default)]
struct Batch {
    /// Within [`Classifier::batch`].
    open: bool,
    /// The rules as they will be, once one has changed.
    rules: Option<Vec<RuleValue>>,
}

impl Classifier {
    pub(crate) fn new(maps: Arc<Maps>) -> Self {
        Self { maps, batch: Arc::default() }
    }

    /// Carries out all changes that `work` makes in one step, when it is over; on an error, none.
    /// Until then they are read back from here.
    pub fn batch<T>(&self, work: impl FnOnce() -> T) -> (T, Result<(), Error>) {
        *self.batched() = Batch { open: true, rules: None };
        let done = work();
        let batch = std::mem::take(&mut *self.batched());
        (done, batch.rules.map_or(Ok(()), |rules| self.write(&rules)))
    }

    fn batched(&self) -> MutexGuard<'_, Batch> {
        // A panic elsewhere left rules that are whole.
        self.batch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn active(&self) -> Result<(u32, Vec<RuleValue>), Error> {
        let (bank, count) = rules_in_force(self.maps.config()?.rules);
        if count == 0 {
            return Ok((bank, Vec::new()));
        }
        let all: Vec<RuleValue> = self.maps.get("RULE").array()?;
        let (first, count) = ((bank * MAX_RULES) as usize, count as usize);
        Ok((bank, all.into_iter().skip(first).take(count).collect()))
    }

    /// By falling priority.
    fn rules(&self) -> Result<Vec<RuleValue>, Error> {
        match &self.batched().rules {
            Some(rules) => Ok(rules.clone()),
            None => Ok(self.active()?.1),
        }
    }

    fn change(&self, priority: u32, new: Option<RuleValue>) -> Result<bool, Error> {
        let mut rules = self.rules()?;
        let place = rules.partition_point(|rule| rule.priority > priority);
        let held = rules.get(place).is_some_and(|rule| rule.priority == priority);
        match new {
            Some(new) if held && rules[place] == new => return Ok(true),
            Some(new) if held => rules[place] = new,
            Some(_) if rules.len() >= MAX_RULES as usize => {
                return Err(Error::Full { table: "RULE", capacity: MAX_RULES });
            }
            Some(new) => rules.insert(place, new),
            None if held => drop(rules.remove(place)),
            None => return Ok(false),
        }
        let mut batch = self.batched();
        if batch.open {
            batch.rules = Some(rules);
            return Ok(held);
        }
        drop(batch);
        self.write(&rules)?;
        Ok(held)
    }

    /// Writes a half that no packet looks at.
    pub(crate) fn fill(&self, bank: u32, rules: &[RuleValue]) -> Result<(), Error> {
        let base = bank * MAX_RULE_NODES;
        let nodes = if rules.is_empty() { Vec::new() } else { tree::nodes(rules, base) };
        self.maps.get("RULE").put_array(bank * MAX_RULES, rules)?;
        self.maps.get("RULE_NODE").put_array(base, &nodes)
    }

    fn write(&self, rules: &[RuleValue]) -> Result<(), Error> {
        let writer = self.maps.write();
        let idle = 1 - rules_in_force(self.maps.config()?.rules).0;
        // Packets that came before the last change may be on this half yet.
        sys::wait_for_programs().map_err(Error::map("wait for the readers of", "RULE"))?;
        self.fill(idle, rules)?;
        let count = u32::try_from(rules.len()).expect("checked when they were put");
        self.maps.set_config(&writer, |config| config.rules = ConfigValue::rules(idle, count))
    }
}

impl Table for Classifier {
    type Key = u32;
    type Value = Rule;

    fn put(&self, priority: u32, rule: &Rule) -> Result<(), Error> {
        self.change(priority, Some(encode(priority, rule)?)).map(drop)
    }

    fn remove(&self, priority: u32) -> Result<bool, Error> {
        self.change(priority, None)
    }

    fn get(&self, priority: u32) -> Result<Option<Rule>, Error> {
        let rules = self.rules()?;
        Ok(rules.iter().find(|rule| rule.priority == priority).map(decode))
    }

    /// By falling priority.
    fn entries(&self) -> Result<Vec<(u32, Rule)>, Error> {
        let rules = self.rules()?;
        Ok(rules.iter().map(|rule| (rule.priority, decode(rule))).collect())
    }
}

/// A prefix as words, its mask, and its length.
fn words(net: Option<IpNet>) -> ([u64; 2], [u64; 2], u8) {
    let Some(net) = net else { return ([0; 2], [0; 2], RULE_ANY) };
    let net = net.trunc();
    let bits = mapped_bits(net);
    let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
    let mask = address_words(IpAddr::from(mask.to_be_bytes()));
    let address = address_words(net.addr());
    let bits = u8::try_from(bits).expect("at most 128");
    (std::array::from_fn(|n| address[n] & mask[n]), mask, bits)
}

fn encode(priority: u32, rule: &Rule) -> Result<RuleValue, Error> {
    if let Some(dscp) = rule.dscp {
        within("DSCP", dscp, 0, 63)?;
    }
    if let Some(set) = rule.slice_set {
        within("slice set", set, 1, u16::MAX.into())?;
    }
    if let Some(tag) = rule.tag {
        within("tag", tag, 1, u16::MAX.into())?;
    }
    if let Some(teid) = rule.teid {
        within("teid", teid, 1, u32::MAX.into())?;
    }
    let (action, argument) = match rule.action {
        RuleAction::Drop => (RULE_DROP, 0),
        RuleAction::Pass => (RULE_PASS, 0),
        RuleAction::SetSlice(slice) => {
            within("slice", slice, 1, MAX_SLICE_ID.into())?;
            (RULE_SET_SLICE, slice)
        }
        RuleAction::Mark(dscp) => {
            within("DSCP", dscp, 0, 63)?;
            (RULE_MARK, dscp.into())
        }
        RuleAction::Steer(policy) => {
            within("policy", policy, 1, u16::MAX.into())?;
            (RULE_STEER, policy)
        }
    };
    let (source, source_mask, source_bits) = words(rule.source);
    let (destination, destination_mask, destination_bits) = words(rule.destination);
    let mut names = 0;
    let mut range = |name: u8, field: &'static str, range: Option<[u16; 2]>| {
        let Some([first, last]) = range else { return Ok((0, 0, [0, u16::MAX])) };
        within(field, last, first.into(), u16::MAX.into())?;
        names |= name;
        if first == last {
            return Ok((u32::from(first), u32::from(u16::MAX), [first, last]));
        }
        Ok((0, 0, [first, last]))
    };
    let (from, from_mask, source_ports) =
        range(RULE_NAMES_SOURCE_PORT, "last source port", rule.source_ports)?;
    let (to, to_mask, destination_ports) =
        range(RULE_NAMES_DESTINATION_PORT, "last destination port", rule.destination_ports)?;
    // A packet without ports matches no rule that names one.
    let needs_ports = names != 0;
    names |= rule.tag.map_or(0, |_| RULE_NAMES_TAG) | rule.teid.map_or(0, |_| RULE_NAMES_TEID);
    let fields = [(rule.protocol, 0xff), (rule.dscp, 0x3f)];
    let [(protocol, protocol_mask), (dscp, dscp_mask)] =
        fields.map(|(field, mask)| field.map_or((0, 0), |value| (value, mask)));
    let (set, set_mask) = rule.slice_set.map_or((0, 0), |set| (set, u16::MAX));
    let (from_to, from_to_mask) = (from << 16 | to, from_mask << 16 | to_mask);
    Ok(RuleValue {
        source,
        source_mask,
        destination,
        destination_mask,
        fields: rule_fields(from_to, needs_ports, protocol, dscp, set),
        fields_mask: rule_fields(from_to_mask, needs_ports, protocol_mask, dscp_mask, set_mask),
        source_ports,
        destination_ports,
        priority,
        argument,
        action,
        source_bits,
        destination_bits,
        names,
        tag: rule.tag.unwrap_or(0),
        teid: rule.teid.unwrap_or(0),
    })
}

fn decode(rule: &RuleValue) -> Rule {
    let prefix =
        |words: [u64; 2], bits: u8| (bits != RULE_ANY).then(|| net(bytes(words), u32::from(bits)));
    let byte = |shift: u32, mask: u8| {
        let field = |word: u64| (word >> shift) as u8 & mask;
        (field(rule.fields_mask) != 0).then(|| field(rule.fields))
    };
    let names_set = slice_set_of(rule.fields_mask & !(0xff << 16)) != 0;
    let dscp = |argument: u16| u8::try_from(argument & 0x3f).expect("six bits");
    let names = |name: u8| rule.names & name != 0;
    let ports = |name: u8, range: [u16; 2]| names(name).then_some(range);
    Rule {
        source: prefix(rule.source, rule.source_bits),
        destination: prefix(rule.destination, rule.destination_bits),
        protocol: byte(24, 0xff),
        source_ports: ports(RULE_NAMES_SOURCE_PORT, rule.source_ports),
        destination_ports: ports(RULE_NAMES_DESTINATION_PORT, rule.destination_ports),
        dscp: byte(16, 0x3f),
        slice_set: names_set.then(|| slice_set_of(rule.fields)),
        tag: names(RULE_NAMES_TAG).then_some(rule.tag),
        teid: names(RULE_NAMES_TEID).then_some(rule.teid),
        action: match rule.action {
            RULE_PASS => RuleAction::Pass,
            RULE_SET_SLICE => RuleAction::SetSlice(rule.argument),
            RULE_MARK => RuleAction::Mark(dscp(rule.argument)),
            RULE_STEER => RuleAction::Steer(rule.argument),
            _ => RuleAction::Drop,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule() -> Rule {
        Rule::any(RuleAction::Drop)
    }

    #[test]
    fn rules_are_read_back_as_written() {
        let net = |text: &str| Some(text.parse::<IpNet>().unwrap());
        let cases = [
            rule(),
            Rule { source: net("0.0.0.0/0"), ..rule() },
            Rule { source: net("::/0"), destination: net("fd10::/64"), ..rule() },
            Rule { source: net("10.0.0.0/8"), destination: net("10.1.0.11/32"), ..rule() },
            Rule { source: net("::/0"), destination: net("1.2.3.4/32"), ..rule() },
            Rule { protocol: Some(0), source_ports: Some([0, 0]), dscp: Some(0), ..rule() },
            Rule { protocol: Some(17), destination_ports: Some([65535; 2]), ..rule() },
            Rule { destination_ports: Some([0, 65535]), dscp: Some(63), ..rule() },
            Rule { source_ports: Some([1, 2]), destination_ports: Some([80, 8080]), ..rule() },
            Rule { action: RuleAction::SetSlice(4095), ..rule() },
            Rule { action: RuleAction::Mark(0), slice_set: Some(1), ..rule() },
            Rule { action: RuleAction::Mark(63), slice_set: Some(0xffff), ..rule() },
            Rule { action: RuleAction::Steer(1), dscp: Some(63), slice_set: Some(1), ..rule() },
            Rule { action: RuleAction::Steer(0xffff), protocol: Some(0xff), ..rule() },
            Rule { action: RuleAction::Pass, source_ports: Some([1, 1]), ..rule() },
            Rule { tag: Some(1), ..rule() },
            Rule { teid: Some(u32::MAX), slice_set: Some(3), ..rule() },
            Rule { teid: Some(1), tag: Some(u16::MAX), source_ports: Some([1, 2]), ..rule() },
        ];
        for case in cases {
            assert_eq!(decode(&encode(7, &case).unwrap()), case);
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let dscp = Rule { dscp: Some(64), ..rule() };
        assert!(matches!(encode(1, &dscp), Err(Error::Range { field: "DSCP", .. })));
        let ports = Rule { source_ports: Some([2, 1]), ..rule() };
        let why = encode(1, &ports);
        assert!(matches!(why, Err(Error::Range { field: "last source port", .. })));
        let slice = Rule { action: RuleAction::SetSlice(0), ..rule() };
        assert!(matches!(encode(1, &slice), Err(Error::Range { field: "slice", .. })));
        let mark = Rule { action: RuleAction::Mark(64), ..rule() };
        assert!(matches!(encode(1, &mark), Err(Error::Range { field: "DSCP", .. })));
        let steer = Rule { action: RuleAction::Steer(0), ..rule() };
        assert!(matches!(encode(1, &steer), Err(Error::Range { field: "policy", .. })));
        let set = Rule { slice_set: Some(0), ..rule() };
        assert!(matches!(encode(1, &set), Err(Error::Range { field: "slice set", .. })));
        let tag = Rule { tag: Some(0), ..rule() };
        assert!(matches!(encode(1, &tag), Err(Error::Range { field: "tag", .. })));
        let teid = Rule { teid: Some(0), ..rule() };
        assert!(matches!(encode(1, &teid), Err(Error::Range { field: "teid", .. })));
    }
}
