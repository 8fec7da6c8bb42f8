//! Table `classifier`: application traffic rules, the highest priority that matches first.
//!
//! The programs scan the rules in order. A change writes all of them, sorted, to the half of
//! the map that is not in use, and then switches halves with one word: a packet sees the rules
//! before or after, never between.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use selvedge_ebpf_common::value::{
    ConfigValue, RULE_ANY, RULE_DROP, RULE_PASS, RULE_SET_SLICE, RuleValue, rule_fields,
};
use selvedge_ebpf_common::{MAX_RULES, MAX_SLICE_ID};

use super::Table;
use super::prefix::{address_words, bytes, mapped_bits, net};
use crate::Error;
use crate::error::within;
use crate::maps::Maps;

/// `None` matches anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    pub source: Option<IpNet>,
    pub destination: Option<IpNet>,
    pub protocol: Option<u8>,
    pub source_port: Option<u16>,
    pub destination_port: Option<u16>,
    pub dscp: Option<u8>,
    pub action: RuleAction,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RuleAction {
    Drop,
    Pass,
    SetSlice(u16),
}

/// By priority.
#[derive(Clone, Debug)]
pub struct Classifier(pub(crate) Arc<Maps>);

impl Classifier {
    fn active(&self) -> Result<(u32, Vec<RuleValue>), Error> {
        let config = self.0.config()?;
        let (bank, count) = (config.rule_bank(), config.rule_count());
        let map = self.0.get("RULE");
        let rules: Result<_, _> = (0..count).map(|n| map.at(bank * MAX_RULES + n)).collect();
        Ok((bank, rules?))
    }

    fn replace(&self, change: impl FnOnce(&mut Vec<RuleValue>) -> bool) -> Result<bool, Error> {
        let writer = self.0.write();
        let (bank, mut rules) = self.active()?;
        let before = rules.clone();
        let result = change(&mut rules);
        if rules == before {
            return Ok(result);
        }
        if rules.len() > MAX_RULES as usize {
            return Err(Error::Full { table: "RULE", capacity: MAX_RULES });
        }
        rules.sort_by_key(|rule| std::cmp::Reverse(rule.priority));
        let idle = 1 - bank;
        for (index, rule) in (idle * MAX_RULES..).zip(&rules) {
            self.0.get("RULE").put(&index, rule)?;
        }
        let count = u32::try_from(rules.len()).expect("checked");
        self.0.set_config(&writer, |config| config.rules = ConfigValue::rules(idle, count))?;
        Ok(result)
    }
}

impl Table for Classifier {
    type Key = u32;
    type Value = Rule;

    fn put(&self, priority: u32, rule: &Rule) -> Result<(), Error> {
        let value = encode(priority, rule)?;
        self.replace(|rules| {
            rules.retain(|old| old.priority != priority);
            rules.push(value);
            true
        })
        .map(drop)
    }

    fn remove(&self, priority: u32) -> Result<bool, Error> {
        self.replace(|rules| {
            let before = rules.len();
            rules.retain(|old| old.priority != priority);
            rules.len() != before
        })
    }

    fn get(&self, priority: u32) -> Result<Option<Rule>, Error> {
        let (_, rules) = self.active()?;
        Ok(rules.iter().find(|rule| rule.priority == priority).map(decode))
    }

    /// By falling priority.
    fn entries(&self) -> Result<Vec<(u32, Rule)>, Error> {
        let (_, rules) = self.active()?;
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
    let (action, slice) = match rule.action {
        RuleAction::Drop => (RULE_DROP, 0),
        RuleAction::Pass => (RULE_PASS, 0),
        RuleAction::SetSlice(slice) => {
            within("slice", slice, 1, MAX_SLICE_ID.into())?;
            (RULE_SET_SLICE, slice)
        }
    };
    let (source, source_mask, source_bits) = words(rule.source);
    let (destination, destination_mask, destination_bits) = words(rule.destination);
    let port =
        |port: Option<u16>| (u32::from(port.unwrap_or(0)), if port.is_some() { 0xffff } else { 0 });
    let (source_port, source_port_mask) = port(rule.source_port);
    let (destination_port, destination_port_mask) = port(rule.destination_port);
    // A packet without ports matches no rule that names one.
    let needs_ports = rule.source_port.is_some() || rule.destination_port.is_some();
    let byte_mask = |field: Option<u8>| field.map_or(0, |_| 0xff);
    Ok(RuleValue {
        source,
        source_mask,
        destination,
        destination_mask,
        fields: rule_fields(
            source_port << 16 | destination_port,
            needs_ports,
            rule.protocol.unwrap_or(0),
            rule.dscp.unwrap_or(0),
        ),
        fields_mask: rule_fields(
            source_port_mask << 16 | destination_port_mask,
            needs_ports,
            byte_mask(rule.protocol),
            byte_mask(rule.dscp),
        ),
        priority,
        slice,
        action,
        source_bits,
        destination_bits,
        _pad: [0; 7],
    })
}

fn decode(rule: &RuleValue) -> Rule {
    let prefix =
        |words: [u64; 2], bits: u8| (bits != RULE_ANY).then(|| net(bytes(words), u32::from(bits)));
    let field = |shift: u32, mask: u64| {
        (rule.fields_mask >> shift & mask != 0).then_some(rule.fields >> shift & mask)
    };
    let byte = |shift| field(shift, 0xff).map(|v| u8::try_from(v).expect("masked"));
    let port = |shift| field(shift, 0xffff).map(|v| u16::try_from(v).expect("masked"));
    Rule {
        source: prefix(rule.source, rule.source_bits),
        destination: prefix(rule.destination, rule.destination_bits),
        protocol: byte(24),
        source_port: port(48),
        destination_port: port(32),
        dscp: byte(16),
        action: match rule.action {
            RULE_PASS => RuleAction::Pass,
            RULE_SET_SLICE => RuleAction::SetSlice(rule.slice),
            _ => RuleAction::Drop,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule() -> Rule {
        Rule {
            source: None,
            destination: None,
            protocol: None,
            source_port: None,
            destination_port: None,
            dscp: None,
            action: RuleAction::Drop,
        }
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
            Rule { protocol: Some(0), source_port: Some(0), dscp: Some(0), ..rule() },
            Rule { protocol: Some(17), destination_port: Some(65535), dscp: Some(63), ..rule() },
            Rule { action: RuleAction::SetSlice(4095), ..rule() },
            Rule { action: RuleAction::Pass, source_port: Some(1), ..rule() },
        ];
        for case in cases {
            assert_eq!(decode(&encode(7, &case).unwrap()), case);
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let dscp = Rule { dscp: Some(64), ..rule() };
        assert!(matches!(encode(1, &dscp), Err(Error::Range { field: "DSCP", .. })));
        let slice = Rule { action: RuleAction::SetSlice(0), ..rule() };
        assert!(matches!(encode(1, &slice), Err(Error::Range { field: "slice", .. })));
    }
}
