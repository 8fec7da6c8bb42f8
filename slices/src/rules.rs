//! Traffic rules of ETSI GS MEC 011 §7.1.2.2 and §7.1.5.2, as far as a switch carries them out.

use std::net::IpAddr;

use ipnet::IpNet;
use selvedge_topology::yaml::Wrong;

use crate::limits::{MAX_FILTERS, MAX_MATCHES, MAX_RULE_ID_BYTES};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrafficRule {
    /// `trafficRuleId`, unique in its application.
    pub id: String,
    pub filter_type: FilterType,
    /// 0 is the highest, 255 the lowest (§7.1.2.2, note 1).
    pub priority: u8,
    /// Any of them matches.
    pub filters: Vec<TrafficFilter>,
    pub action: RuleAction,
    pub state: RuleState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FilterType {
    /// The filter matches packets of both directions of a flow.
    Flow,
    /// It matches packets as they are.
    Packet,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RuleAction {
    Drop,
    Passthrough,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RuleState {
    Active,
    Inactive,
}

/// Every list that is not empty has to match, by any of its members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrafficFilter {
    pub src_address: Vec<IpNet>,
    pub dst_address: Vec<IpNet>,
    /// First and last.
    pub src_port: Vec<[u16; 2]>,
    pub dst_port: Vec<[u16; 2]>,
    /// IP protocol numbers.
    pub protocol: Vec<u8>,
    pub dscp: Option<u8>,
}

/// One row of a switch's classifier: `None` matches anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Match {
    pub source: Option<IpNet>,
    pub destination: Option<IpNet>,
    pub protocol: Option<u8>,
    /// First and last.
    pub source_ports: Option<[u16; 2]>,
    pub destination_ports: Option<[u16; 2]>,
    pub dscp: Option<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    #[error("{0:?} is not a traffic rule's id: 1 to {MAX_RULE_ID_BYTES} visible ASCII characters")]
    Id(String),
    #[error("a traffic rule has 1 to {MAX_FILTERS} filters, not {0}")]
    Filters(usize),
    #[error("the lists of a rule's filters multiply to {0} matches: at most {MAX_MATCHES} fit")]
    TooManyMatches(usize),
    #[error("a filter whose addresses are of two IP versions matches nothing")]
    MatchesNothing,
}

impl TrafficRule {
    /// What [`TrafficRule::matches`] and the switches rely on.
    pub fn check(&self) -> Result<(), RuleError> {
        let visible = self.id.bytes().all(|b| b.is_ascii_graphic());
        if !(1..=MAX_RULE_ID_BYTES).contains(&self.id.len()) || !visible {
            return Err(RuleError::Id(self.id.clone()));
        }
        if !(1..=MAX_FILTERS).contains(&self.filters.len()) {
            return Err(RuleError::Filters(self.filters.len()));
        }
        let both = if self.filter_type == FilterType::Flow { 2 } else { 1 };
        let count: usize = self.filters.iter().map(|f| f.count().saturating_mul(both)).sum();
        if count > MAX_MATCHES {
            return Err(RuleError::TooManyMatches(count));
        }
        if self.filters.iter().any(|filter| filter.matches().is_empty()) {
            return Err(RuleError::MatchesNothing);
        }
        Ok(())
    }

    /// The rows of a classifier that do the same; any of them matches.
    pub fn matches(&self) -> Vec<Match> {
        let mut all: Vec<Match> = Vec::new();
        for one in self.filters.iter().flat_map(TrafficFilter::matches) {
            let back = (self.filter_type == FilterType::Flow).then(|| one.reversed());
            for one in std::iter::once(one).chain(back) {
                if !all.contains(&one) {
                    all.push(one);
                }
            }
        }
        all
    }
}

impl Match {
    fn reversed(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_ports: self.destination_ports,
            destination_ports: self.source_ports,
            ..self
        }
    }
}

impl TrafficFilter {
    fn count(&self) -> usize {
        [
            self.src_address.len(),
            self.dst_address.len(),
            self.src_port.len(),
            self.dst_port.len(),
            self.protocol.len(),
        ]
        .iter()
        .fold(1, |product, len| product.saturating_mul((*len).max(1)))
    }

    fn matches(&self) -> Vec<Match> {
        fn each<T: Copy>(list: &[T]) -> Vec<Option<T>> {
            if list.is_empty() { vec![None] } else { list.iter().copied().map(Some).collect() }
        }
        let mut all = vec![Match { dscp: self.dscp, ..Match::default() }];
        let mut multiply = |set: &dyn Fn(Match) -> Vec<Match>| {
            all = all.iter().flat_map(|one| set(*one)).collect();
        };
        let with = |values: &[IpNet], put: fn(Match, Option<IpNet>) -> Match, one: Match| {
            each(values).into_iter().map(|value| put(one, value)).collect::<Vec<_>>()
        };
        multiply(&|one| with(&self.src_address, |m, source| Match { source, ..m }, one));
        multiply(&|one| with(&self.dst_address, |m, destination| Match { destination, ..m }, one));
        multiply(&|one| {
            let ports = each(&self.src_port).into_iter();
            ports.map(|source_ports| Match { source_ports, ..one }).collect()
        });
        multiply(&|one| {
            let ports = each(&self.dst_port).into_iter();
            ports.map(|destination_ports| Match { destination_ports, ..one }).collect()
        });
        multiply(&|one| {
            let protocols = each(&self.protocol).into_iter();
            protocols.map(|protocol| Match { protocol, ..one }).collect()
        });
        let same_version = |one: &Match| match (one.source, one.destination) {
            (Some(source), Some(destination)) => {
                source.addr().is_ipv4() == destination.addr().is_ipv4()
            }
            _ => true,
        };
        all.retain(same_version);
        all
    }
}

impl FilterType {
    pub const WORDS: [(&'static str, Self); 2] = [("FLOW", Self::Flow), ("PACKET", Self::Packet)];
}

impl RuleState {
    pub const WORDS: [(&'static str, Self); 2] =
        [("ACTIVE", Self::Active), ("INACTIVE", Self::Inactive)];
}

impl RuleAction {
    pub const WORDS: [(&'static str, Self); 2] =
        [("DROP", Self::Drop), ("PASSTHROUGH", Self::Passthrough)];
}

/// `action`.
pub fn action(text: &str) -> Result<RuleAction, Wrong> {
    if let Some((_, action)) = RuleAction::WORDS.iter().find(|(word, _)| *word == text) {
        return Ok(*action);
    }
    let why = match text {
        "FORWARD_DECAPSULATED" | "FORWARD_ENCAPSULATED" => {
            "forwarding to another interface is not offered: packets go to their destination"
        }
        "DUPLICATE_DECAPSULATED" | "DUPLICATE_ENCAPSULATED" => "packets are not duplicated",
        _ => "it is not an action of MEC 011",
    };
    Err(Wrong {
        message: format!("action {text:?}: {why}"),
        help: Some("offered are DROP and PASSTHROUGH".to_owned()),
    })
}

/// `srcAddress`, `dstAddress`: an address or a prefix.
///
/// Switches hold IPv4 addresses as `::ffff:a.b.c.d`, so an all-zero IPv6 prefix of at most 80
/// bits would match those as well: it is refused, as is `0.0.0.0/0`, which says nothing.
pub fn address(text: &str) -> Result<IpNet, Wrong> {
    let net = any_address(text)?;
    let everything = if net.addr().is_ipv4() { 0 } else { 80 };
    if net.addr().is_unspecified() && net.prefix_len() <= everything {
        return Err(Wrong {
            message: format!("{text} matches more than addresses of one kind"),
            help: Some("leave the attribute out to match every address".to_owned()),
        });
    }
    Ok(net)
}

fn any_address(text: &str) -> Result<IpNet, Wrong> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.into());
    }
    match text.parse::<IpNet>() {
        Ok(net) if net.trunc() == net => Ok(net),
        Ok(net) => Err(Wrong {
            message: format!("{text} has bits beyond its prefix length"),
            help: Some(format!("did you mean {} or {}?", net.trunc(), net.addr())),
        }),
        Err(_) if text.contains('-') => Err(Wrong {
            message: format!("{text:?}: address ranges are not offered"),
            help: Some("write the range as prefixes, such as 10.0.0.0/24".to_owned()),
        }),
        Err(_) => Err(Wrong::new(format!("{text:?} is not an IP address or prefix"))),
    }
}

/// `srcPort`, `dstPort`: a port, or a range of them; first and last.
pub fn ports(text: &str) -> Result<[u16; 2], Wrong> {
    let number = |text: &str| -> Option<u16> {
        text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = number(first).zip(number(last)).filter(|(first, last)| first <= last);
    match range {
        Some((0, u16::MAX)) => Err(Wrong::new(format!("{text} are all ports: leave it out"))),
        Some((first, last)) => Ok([first, last]),
        None => Err(Wrong::new(format!(
            "{text:?} is not a port from 0 to 65535, or a range such as 80-90"
        ))),
    }
}

/// As [`ports`] reads it.
pub fn ports_text([first, last]: [u16; 2]) -> String {
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}

/// `protocol`: a name or an IP protocol number.
pub fn protocol(text: &str) -> Result<u8, Wrong> {
    let named = [("TCP", 6), ("UDP", 17), ("SCTP", 132), ("ICMP", 1), ("ICMPV6", 58)];
    let name = named.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    let number = || text.parse().ok().filter(|_| digits);
    name.map(|(_, number)| *number).or_else(number).ok_or_else(|| {
        Wrong::new(format!("{text:?} is not TCP, UDP, SCTP, ICMP, ICMPv6 or a number to 255"))
    })
}

/// Keys of a filter that MEC 011 has and a switch does not match, with the reason.
pub const NOT_MATCHED: [(&str, &str); 7] = [
    ("tag", "packets carry no tags here"),
    ("srcTunnelAddress", "tunnels are not looked into"),
    ("tgtTunnelAddress", "tunnels are not looked into"),
    ("srcTunnelPort", "tunnels are not looked into"),
    ("dstTunnelPort", "tunnels are not looked into"),
    ("qCI", "a slice stands for its quality of service"),
    ("tC", "write dSCP: it matches both IP versions"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(filter_type: FilterType, filter: TrafficFilter) -> TrafficRule {
        TrafficRule {
            id: "r".into(),
            filter_type,
            priority: 0,
            filters: vec![filter],
            action: RuleAction::Drop,
            state: RuleState::Active,
        }
    }

    #[test]
    fn texts() {
        assert_eq!(address("10.0.0.1").unwrap().to_string(), "10.0.0.1/32");
        assert_eq!(address("fd10::/64").unwrap().to_string(), "fd10::/64");
        for bad in ["10.0.0.1/8", "10.0.0.1-10.0.0.9", "robot", "", "10.0.0.0/33"] {
            assert!(address(bad).is_err(), "{bad:?}");
        }
        assert_eq!(ports("80").unwrap(), [80, 80]);
        assert_eq!(ports("1024-65535").unwrap(), [1024, 65535]);
        assert_eq!(ports_text(ports("80-82").unwrap()), "80-82");
        assert_eq!(ports_text([80, 80]), "80");
        for bad in ["", "-", "80-", "90-80", "65536", "+80", "0-65535", "80-81-82"] {
            assert!(ports(bad).is_err(), "{bad:?}");
        }
        for (text, want) in
            [("udp", Some(17)), ("TCP", Some(6)), ("255", Some(255)), ("256", None), ("", None)]
        {
            assert_eq!(protocol(text).ok(), want, "{text:?}");
        }
        assert_eq!(action("DROP"), Ok(RuleAction::Drop));
        for refused in ["FORWARD_ENCAPSULATED", "DUPLICATE_DECAPSULATED", "drop", ""] {
            assert!(action(refused).is_err(), "{refused:?}");
        }
    }

    #[test]
    fn matches_multiply_and_mirror() {
        let filter = TrafficFilter {
            src_address: vec![address("10.0.0.1").unwrap(), address("fd10::1").unwrap()],
            dst_address: vec![address("10.0.0.2").unwrap()],
            dst_port: vec![[80, 80], [90, 99]],
            protocol: vec![6],
            ..TrafficFilter::default()
        };
        let packet = rule(FilterType::Packet, filter.clone());
        assert_eq!(packet.check(), Ok(()));
        assert_eq!(packet.matches().len(), 2, "IPv6 to IPv4 is no match");
        let flow = rule(FilterType::Flow, filter);
        let matches = flow.matches();
        assert_eq!(matches.len(), 4);
        assert!(matches.iter().any(|m| m.source_ports == Some([80, 80])));
        let all = rule(FilterType::Flow, TrafficFilter::default());
        assert_eq!(all.matches(), [Match::default()]);
    }

    #[test]
    fn what_is_refused() {
        let six = || vec![address("fd10::1").unwrap()];
        let four = || vec![address("10.0.0.1").unwrap()];
        let crossed =
            TrafficFilter { src_address: six(), dst_address: four(), ..TrafficFilter::default() };
        assert_eq!(rule(FilterType::Packet, crossed).check(), Err(RuleError::MatchesNothing));
        let many = TrafficFilter {
            src_port: (0..8).map(|port| [port, port]).collect(),
            dst_port: (0..8).map(|port| [port, port]).collect(),
            ..TrafficFilter::default()
        };
        assert_eq!(rule(FilterType::Packet, many.clone()).check(), Ok(()));
        assert_eq!(rule(FilterType::Flow, many).check(), Err(RuleError::TooManyMatches(128)));
        for id in ["", "a b", "é", &"x".repeat(65)] {
            let rule = TrafficRule {
                id: id.to_owned(),
                ..rule(FilterType::Packet, TrafficFilter::default())
            };
            assert_eq!(rule.check(), Err(RuleError::Id(id.to_owned())));
        }
        let none =
            TrafficRule { filters: vec![], ..rule(FilterType::Packet, TrafficFilter::default()) };
        assert_eq!(none.check(), Err(RuleError::Filters(0)));
    }
}
