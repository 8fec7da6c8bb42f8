//! What an agent is started with, checked before anything is touched.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use ipnet::Ipv6Net;

use crate::guard::probe::{INTERVAL, LARGEST_INTERVAL, LEAST_INTERVAL};
use crate::ports::glob;

/// Longest interface and port name: `IFNAMSIZ` less the closing NUL (netdevice(7)).
pub const IFNAME_MAX: usize = 15;

/// Longest switch name: one RFC 1123 label, which is also what fits an LLDP chassis id.
pub const NAME_MAX: usize = 63;

/// Most DHCP servers of a protocol, and most prefixes in a router advertisement.
pub const RELAY_MAX: usize = 4;

/// Port number of P4Runtime (IANA).
pub const P4RUNTIME_PORT: u16 = 9559;

#[derive(Clone, Debug)]
pub struct Options {
    /// The switch's name; in managed mode the name of its certificate.
    pub name: String,
    /// Names the pins, `/sys/fs/bpf/selvedge/<instance>`, so that several switches fit on one
    /// machine.
    pub instance: String,
    pub ports: Vec<PortRule>,
    /// Where P4Runtime listens.
    pub p4runtime: SocketAddr,
    /// P4Runtime's number for this switch; a request for another is NOT_FOUND.
    pub device_id: u64,
    pub management: Management,
    /// `false`: nothing is dropped or marked for its rate (`--no-metering`).
    pub metering: bool,
    /// Between test packets to each neighbor; see [`crate::assure`].
    pub probe_interval: Duration,
    /// `None`: no hooks on this switch.
    pub compute: Option<ComputeOptions>,
    pub hosts: HostOptions,
    /// The lock file, and the modules of loaded hooks.
    pub run_dir: PathBuf,
}

/// What hosts on access ports are told and given.
#[derive(Clone, Debug, Default)]
pub struct HostOptions {
    /// DHCP servers, at most [`RELAY_MAX`]: each gets every message.
    pub dhcp_relay: Vec<Ipv4Addr>,
    /// As `dhcp_relay`, of DHCPv6.
    pub dhcpv6_relay: Vec<Ipv6Addr>,
    /// Hosts may make themselves addresses in these (RFC 4862), at most [`RELAY_MAX`]: 64 bits.
    pub ra_prefixes: Vec<Ipv6Net>,
}

/// Who may program the switch.
#[derive(Clone, Debug)]
pub enum Management {
    /// The controller alone, over mutual TLS: the client must present the certificate named
    /// `controller`. Generation and election id are kept in the switch, older ones refused.
    Managed {
        /// Directory with `ca.pem`, `<name>.pem` and `<name>.key`.
        tls: PathBuf,
        /// `https://host:port` of the southbound address of each controller.
        controllers: Vec<String>,
    },
    /// Any P4Runtime client, in the clear; neither generation nor election id is kept.
    Unmanaged,
}

#[derive(Clone, Debug)]
pub struct ComputeOptions {
    /// Seqpacket socket that the Wasm host connects to.
    pub socket: PathBuf,
    /// Processors, as reported to the controller.
    pub cpu: u32,
    /// As reported to the controller.
    pub memory_bytes: u64,
}

/// Which interfaces are ports: every one whose name matches, under its own name, or a given
/// one under a given name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortRule {
    /// Shell pattern over interface names: `*`, `?`, `[a-z]`, `[!a-z]`.
    Glob(String),
    Named {
        port: String,
        interface: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    #[error("switch name {0:?}: letters, digits and inner hyphens, at most {NAME_MAX}")]
    Name(String),
    #[error("instance {0:?}: letters, digits and inner hyphens, at most 127")]
    Instance(String),
    #[error("port {0:?}: expected NAME=INTERFACE, each of 1 to {IFNAME_MAX} characters")]
    Port(String),
    #[error("ports {0:?}: expected a pattern of 1 to 64 characters; {1}")]
    Glob(String, glob::GlobError),
    #[error("port name {0:?} is given twice")]
    PortTwice(String),
    #[error("interface {0:?} is given two port names")]
    InterfaceTwice(String),
    #[error("no ports: give --ports PATTERN or --port NAME=INTERFACE")]
    NoPorts,
    #[error("controller {0:?}: expected https://HOST:PORT")]
    Controller(String),
    #[error("device id 0 is reserved by P4Runtime")]
    DeviceId,
    #[error(
        "probe interval {0:?}: expected {LEAST_INTERVAL:?} to {LARGEST_INTERVAL:?}, such as {INTERVAL:?}"
    )]
    ProbeInterval(Duration),
    #[error("DHCP server {0}: expected the address of one machine, of any scope but link-local")]
    DhcpServer(IpAddr),
    #[error(
        "prefix {0} for router advertisements: expected 64 bits of global or unique local unicast"
    )]
    RaPrefix(Ipv6Net),
    #[error("{0} {1}: at most {RELAY_MAX}")]
    TooMany(usize, &'static str),
}

impl Options {
    /// Default of `run_dir` for `instance`.
    pub fn default_run_dir(instance: &str) -> PathBuf {
        Path::new("/run/selvedge-switch").join(instance)
    }

    /// # Errors
    /// Every [`OptionError`] that applies, in the order of the fields.
    pub fn check(&self) -> Result<(), Vec<OptionError>> {
        let mut problems = Vec::new();
        if !is_label(&self.name, NAME_MAX) {
            problems.push(OptionError::Name(self.name.clone()));
        }
        if !is_instance(&self.instance) {
            problems.push(OptionError::Instance(self.instance.clone()));
        }
        if self.ports.is_empty() {
            problems.push(OptionError::NoPorts);
        }
        let (mut names, mut interfaces) = (Vec::new(), Vec::new());
        for rule in &self.ports {
            match rule {
                PortRule::Glob(pattern) => {
                    if let Err(error) = glob::check(pattern) {
                        problems.push(OptionError::Glob(pattern.clone(), error));
                    }
                }
                PortRule::Named { port, interface } => {
                    if !is_ifname(port) || !is_ifname(interface) {
                        problems.push(OptionError::Port(rule.to_string()));
                    }
                    if names.contains(&port) {
                        problems.push(OptionError::PortTwice(port.clone()));
                    }
                    if interfaces.contains(&interface) {
                        problems.push(OptionError::InterfaceTwice(interface.clone()));
                    }
                    names.push(port);
                    interfaces.push(interface);
                }
            }
        }
        let controllers = match &self.management {
            Management::Managed { controllers, .. } => controllers.as_slice(),
            Management::Unmanaged => &[],
        };
        for controller in controllers {
            let authority = controller.strip_prefix("https://").map(|a| a.trim_end_matches('/'));
            let complete =
                authority.and_then(|a| a.rsplit_once(':')).is_some_and(|(host, port)| {
                    !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok()
                });
            if !complete {
                problems.push(OptionError::Controller(controller.clone()));
            }
        }
        if self.device_id == 0 {
            problems.push(OptionError::DeviceId);
        }
        if !(LEAST_INTERVAL..=LARGEST_INTERVAL).contains(&self.probe_interval) {
            problems.push(OptionError::ProbeInterval(self.probe_interval));
        }
        let HostOptions { dhcp_relay, dhcpv6_relay, ra_prefixes } = &self.hosts;
        let servers = dhcp_relay.iter().map(|server| IpAddr::V4(*server));
        for server in servers.chain(dhcpv6_relay.iter().map(|server| IpAddr::V6(*server))) {
            let link = match server {
                IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
                IpAddr::V6(v6) => v6.is_unicast_link_local(),
            };
            if link || server.is_multicast() || server.is_unspecified() {
                problems.push(OptionError::DhcpServer(server));
            }
        }
        for prefix in ra_prefixes {
            let address = prefix.network();
            let unicast = !(address.is_multicast()
                || address.is_unicast_link_local()
                || address.is_unspecified());
            if prefix.prefix_len() != 64 || !unicast {
                problems.push(OptionError::RaPrefix(*prefix));
            }
        }
        let counts = [
            (dhcp_relay.len(), "DHCP servers"),
            (dhcpv6_relay.len(), "DHCPv6 servers"),
            (ra_prefixes.len(), "prefixes for router advertisements"),
        ];
        let too_many = counts.into_iter().filter(|(count, _)| *count > RELAY_MAX);
        problems.extend(too_many.map(|(count, what)| OptionError::TooMany(count, what)));
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }
}

impl FromStr for PortRule {
    type Err = OptionError;

    /// `NAME=INTERFACE`; a glob has its own flag.
    fn from_str(text: &str) -> Result<Self, OptionError> {
        match text.split_once('=') {
            Some((port, interface)) if is_ifname(port) && is_ifname(interface) => {
                Ok(Self::Named { port: port.to_owned(), interface: interface.to_owned() })
            }
            _ => Err(OptionError::Port(text.to_owned())),
        }
    }
}

impl fmt::Display for PortRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Glob(pattern) => f.write_str(pattern),
            Self::Named { port, interface } => write!(f, "{port}={interface}"),
        }
    }
}

/// One RFC 1123 label of at most `max` characters.
pub(crate) fn is_label(text: &str, max: usize) -> bool {
    let bytes = text.as_bytes();
    (1..=max).contains(&bytes.len())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
        && bytes[0] != b'-'
        && bytes[bytes.len() - 1] != b'-'
}

/// An instance is a folder's name; `<lab>-<node>` in a lab.
pub(crate) fn is_instance(text: &str) -> bool {
    is_label(text, 2 * NAME_MAX + 1)
}

/// What the kernel takes as an interface's name (`dev_valid_name`), and we as a port's.
pub(crate) fn is_ifname(text: &str) -> bool {
    (1..=IFNAME_MAX).contains(&text.len())
        && text != "."
        && text != ".."
        && text.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'/' | b':' | b'='))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Options {
        Options {
            name: "s1".into(),
            instance: "metro-s1".into(),
            ports: vec![PortRule::Glob("p*".into())],
            p4runtime: "127.0.0.1:9559".parse().unwrap(),
            device_id: 1,
            management: Management::Unmanaged,
            metering: true,
            probe_interval: INTERVAL,
            compute: None,
            hosts: HostOptions::default(),
            run_dir: Options::default_run_dir("metro-s1"),
        }
    }

    fn managed(controller: &str) -> Management {
        Management::Managed { tls: "pki".into(), controllers: vec![controller.into()] }
    }

    #[test]
    fn every_problem_is_reported_at_once() {
        assert_eq!(options().check(), Ok(()));
        let link_local = || OptionError::DhcpServer("fe80::1".parse().unwrap());
        let bad = Options {
            name: "-s1".into(),
            instance: "../x".into(),
            ports: vec![
                "p1=eth0".parse().unwrap(),
                "p1=eth1".parse().unwrap(),
                "p2=eth1".parse().unwrap(),
                PortRule::Glob("p[".into()),
            ],
            device_id: 0,
            management: managed("http://192.0.2.1:9558"),
            probe_interval: Duration::from_millis(6),
            hosts: HostOptions {
                dhcp_relay: vec![Ipv4Addr::BROADCAST],
                dhcpv6_relay: vec!["fe80::1".parse().unwrap(); 5],
                ra_prefixes: vec!["fd10::/48".parse().unwrap()],
            },
            ..options()
        };
        assert_eq!(
            bad.check().unwrap_err(),
            [
                OptionError::Name("-s1".into()),
                OptionError::Instance("../x".into()),
                OptionError::PortTwice("p1".into()),
                OptionError::InterfaceTwice("eth1".into()),
                OptionError::Glob("p[".into(), glob::GlobError::OpenClass),
                OptionError::Controller("http://192.0.2.1:9558".into()),
                OptionError::DeviceId,
                OptionError::ProbeInterval(Duration::from_millis(6)),
                OptionError::DhcpServer(Ipv4Addr::BROADCAST.into()),
                link_local(),
                link_local(),
                link_local(),
                link_local(),
                link_local(),
                OptionError::RaPrefix("fd10::/48".parse().unwrap()),
                OptionError::TooMany(5, "DHCPv6 servers"),
            ]
        );
        assert_eq!(
            Options { ports: vec![], ..options() }.check().unwrap_err(),
            [OptionError::NoPorts]
        );
    }

    #[test]
    fn controller_addresses() {
        // (address, accepted)
        let cases = [
            ("https://192.0.2.1:9558", true),
            ("https://controller:9558/", true),
            ("https://[2001:db8::1]:9558", true),
            ("https://controller", false),
            ("https://:9558", false),
            ("https://a/b:9558", false),
            ("https://controller:99999", false),
            ("controller:9558", false),
        ];
        for (address, accepted) in cases {
            let checked = Options { management: managed(address), ..options() }.check();
            assert_eq!(checked.is_ok(), accepted, "{address}");
        }
    }

    #[test]
    fn port_rules_parse() {
        let named = |port: &str, interface: &str| {
            Ok(PortRule::Named { port: port.into(), interface: interface.into() })
        };
        let cases = [
            ("p1=eth0", named("p1", "eth0")),
            ("p1=enp3s0f0np0.1000", Err(OptionError::Port("p1=enp3s0f0np0.1000".into()))),
            ("p1=enp3s0.100", named("p1", "enp3s0.100")),
            ("p1", Err(OptionError::Port("p1".into()))),
            ("=eth0", Err(OptionError::Port("=eth0".into()))),
            ("p1=", Err(OptionError::Port("p1=".into()))),
            ("p1=a=b", Err(OptionError::Port("p1=a=b".into()))),
            ("p1=a/b", Err(OptionError::Port("p1=a/b".into()))),
        ];
        for (text, want) in cases {
            assert_eq!(text.parse::<PortRule>(), want, "{text}");
        }
    }
}
