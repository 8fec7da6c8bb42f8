//! Hosts that expect a router and DHCP: Linux's own autoconfiguration and ISC's client, with
//! dnsmasq for a server in the agent's own network.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use selvedge_dataplane::packet::{FRAME_MAX, PacketSocket};
use selvedge_dataplane::{HostOptions, Options};

use super::support::{
    Agent, Host, Place, access, block_on, endpoint, in_netns, ip, program, until,
};

const ADDRESS: &str = "10.1.0.11";
const ADDRESS6: &str = "fd10::11";

/// What `COMMAND ARGS` prints on the host.
fn output(host: &Host, command: &str) -> String {
    let command = command.to_owned();
    host.run(move || {
        let words: Vec<&str> = command.split(' ').collect();
        let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    })
}

/// Ends with the test.
struct Process(Child);

impl Process {
    fn start(host: &Host, program: &'static str, args: &[String]) -> Self {
        let args = args.to_vec();
        Self(host.run(move || {
            let mut command = Command::new(program);
            command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command.spawn().unwrap_or_else(|error| panic!("{program}: {error}"))
        }))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        self.0.wait().unwrap();
    }
}

/// Serves `s1/p1` one address of each version, to relays at the agent's addresses.
fn server(dir: &Path) -> (Host, Process) {
    let host = Host::new("server");
    ip(&format!("link add mgmt type veth peer name server0 netns {}", host.tid));
    for address in ["192.0.2.7/24", "2001:db8::7/64 nodad"] {
        ip(&format!("address add {address} dev mgmt"));
    }
    ip("link set mgmt up");
    host.run(|| {
        for address in ["192.0.2.1/24", "2001:db8::1/64 nodad"] {
            ip(&format!("address add {address} dev server0"));
        }
        ip("link set server0 up");
    });
    let leases = format!("--dhcp-leasefile={}", dir.join("leases").display());
    let options = [
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--pid-file=",
        "--user=root",
        "--port=0",
        "--dhcp-authoritative",
        &leases,
        "--dhcp-circuitid=set:here,s1/p1",
        "--dhcp-range=tag:here,10.1.0.11,10.1.0.11,255.255.255.0,1h",
        "--shared-network=192.0.2.7,10.1.0.0",
        "--dhcp-option=option:netmask,255.255.255.255",
        "--dhcp-option=option:router,169.254.1.1",
        "--dhcp-range=fd10::11,fd10::11,64,1h",
        "--shared-network=2001:db8::7,fd10::",
    ];
    let process = Process::start(&host, "dnsmasq", &options.map(str::to_owned));
    (host, process)
}

fn client(host: &Host, dir: &Path, args: &str) -> Process {
    let script = dir.join("script");
    let text = r#"#!/bin/sh
case "$reason" in
BOUND | REBOOT)
    ip address replace "$new_ip_address/$new_subnet_mask" dev eth0
    ip route replace default via "$new_routers" dev eth0 onlink
    ;;
BOUND6) ip address replace "$new_ip6_address/128" dev eth0 nodad ;;
esac
"#;
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let family = &args[..2];
    let file = |name: &str| dir.join(format!("{name}{family}")).display().to_string();
    let mut all: Vec<String> = args.split(' ').map(str::to_owned).collect();
    all.extend(["-sf".into(), script.display().to_string()]);
    all.extend(["-lf".into(), file("lease"), "-pf".into(), file("pid"), "eth0".into()]);
    Process::start(host, "dhclient", &all)
}

/// A client gets its address through the relay, by the port that it is at, and gives it back to the
/// server that the relay says to be.
#[test]
fn addresses_come_from_a_server_behind_the_agent() {
    in_netns(|| {
        let place = Place::new();
        let host = Host::new("a");
        host.cable("p1");
        let dir = place.dir.path();
        let (_server, _process) = server(dir);
        let hosts = HostOptions {
            dhcp_relay: vec!["192.0.2.1".parse().unwrap()],
            dhcpv6_relay: vec!["2001:db8::1".parse().unwrap()],
            ..HostOptions::default()
        };
        let agent = Agent::start(Options { hosts, ..place.unmanaged() });
        let mut entries = vec![access(1)];
        entries.extend(endpoint(1, ADDRESS, host.mac()));
        program(&entries);

        let has = |address: &str| output(&host, "ip address show dev eth0").contains(address);
        let first = client(&host, dir, "-4 -d -1");
        block_on(until("an address of IPv4", async || has(ADDRESS)));
        let of6 = client(&host, dir, "-6 -d -1");
        block_on(until("an address of IPv6", async || has(ADDRESS6)));
        let leased =
            || std::fs::read_to_string(dir.join("leases")).unwrap_or_default().contains(ADDRESS);
        assert!(leased());
        drop((first, of6));

        let _last = client(&host, dir, "-4 -d -r");
        block_on(until("the address is given back", async || !leased()));
        agent.kill();
    });
}

/// Linux takes the gateway for its router, makes itself an address, and is told again when it asks.
#[test]
fn hosts_learn_of_their_router() {
    in_netns(|| {
        let place = Place::new();
        let host = Host::new("a");
        host.cable("p1");
        host.run(|| {
            std::fs::write("/proc/sys/net/ipv6/conf/eth0/accept_ra", "2").unwrap();
            ip("link set eth0 mtu 1600");
        });
        let hosts = HostOptions {
            ra_prefixes: vec!["fd10:0:0:7::/64".parse().unwrap()],
            ..HostOptions::default()
        };
        let agent = Agent::start(Options { hosts, ..place.unmanaged() });
        program(&[access(1)]);
        block_on(until("a default route", async || {
            let routes = output(&host, "ip -6 route show default");
            routes.contains("via fe80::1 dev eth0 proto ra")
        }));
        let mtu = host.run(|| std::fs::read_to_string("/proc/sys/net/ipv6/conf/eth0/mtu").unwrap());
        assert_eq!(mtu.trim(), "1500");
        let made = output(&host, "ip -6 address show dev eth0");
        assert!(made.contains("fd10::7:") && made.contains("/64"), "{made}");

        // The next that comes unasked is 16 s away.
        let answered = host.run(|| {
            block_on(async {
                let mut socket = PacketSocket::open(0x86DD).unwrap();
                socket.refresh().unwrap();
                let index = nix::net::if_::if_nametoindex("eth0").unwrap();
                let mut frame = vec![0x33, 0x33, 0, 0, 0, 2, 2, 0, 0, 0, 0, 9, 0x86, 0xDD];
                frame.extend([0x60, 0, 0, 0, 0, 8, 58, 255]);
                frame.extend("fe80::9".parse::<std::net::Ipv6Addr>().unwrap().octets());
                frame.extend("ff02::2".parse::<std::net::Ipv6Addr>().unwrap().octets());
                frame.extend([133, 0, 0, 0, 0, 0, 0, 0]);
                socket.send(index, &frame).unwrap();
                let advertised = async {
                    let mut bytes = [0; FRAME_MAX];
                    loop {
                        let (len, _) = socket.recv(&mut bytes).await.unwrap();
                        if bytes[..len].get(54) == Some(&134) {
                            return;
                        }
                    }
                };
                tokio::time::timeout(Duration::from_secs(6), advertised).await.is_ok()
            })
        });
        assert!(answered);
        agent.kill();
    });
}

/// Two switches in one namespace cannot both hear the answers of servers.
#[test]
fn a_taken_port_is_said_before_anything_is_touched() {
    in_netns(|| {
        let place = Place::new();
        let _taken = std::net::UdpSocket::bind(("0.0.0.0", 67)).unwrap();
        let dhcp_relay = vec!["192.0.2.1".parse().unwrap()];
        let hosts = HostOptions { dhcp_relay, ..HostOptions::default() };
        let failure = Agent::start(Options { hosts, ..place.unmanaged() }).failure();
        assert!(failure.starts_with("the DHCP relay cannot listen on UDP port 67"), "{failure}");
        let pins = Path::new("/sys/fs/bpf/selvedge").join(&place.instance);
        assert!(!pins.exists());
    });
}
