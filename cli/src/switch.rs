//! `selvedge switch`: runs a switch's agent until SIGTERM or SIGINT, or takes a switch off.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use ipnet::Ipv6Net;
use selvedge_dataplane::{
    ComputeOptions, HostOptions, Management, Options, PortRule, options::P4RUNTIME_PORT,
};

use crate::Output;

/// The switch forwards in XDP programs that are pinned under /sys/fs/bpf/selvedge: when the
/// agent ends, or dies, forwarding goes on, and the next agent takes it over. `--remove` ends
/// it.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Name of the switch; its certificate's name too.
    #[arg(long, required_unless_present = "remove")]
    name: Option<String>,
    /// Names the pins, where several switches share a machine. Default: the name.
    #[arg(long, required_if_eq("remove", "true"))]
    instance: Option<String>,
    /// Interfaces whose names match are ports, as they come and go; '*', '?' and '[a-z]' mean
    /// what they do in a shell. May be given several times.
    #[arg(long, value_name = "PATTERN")]
    ports: Vec<String>,
    /// One interface under a port name of its own. May be given several times.
    #[arg(long, value_name = "PORT=INTERFACE")]
    port: Vec<PortRule>,
    /// Directory with ca.pem, NAME.pem and NAME.key; see `selvedge pki init`.
    #[arg(long, value_name = "DIR", required_unless_present_any = ["unmanaged", "remove"])]
    tls: Option<PathBuf>,
    /// The controller's southbound address; given several times, the controllers': the one
    /// that leads is found.
    #[arg(
        long,
        value_name = "https://HOST:PORT",
        required_unless_present_any = ["unmanaged", "remove"]
    )]
    controller: Vec<String>,
    /// Obey any P4Runtime client, in the clear; keep neither generation nor election id.
    #[arg(long, conflicts_with_all = ["tls", "controller"])]
    unmanaged: bool,
    /// Where P4Runtime listens. Default: port 9559 of every address; unmanaged, of 127.0.0.1.
    #[arg(long, value_name = "ADDR:PORT")]
    p4runtime: Option<SocketAddr>,
    /// P4Runtime's number for this switch.
    #[arg(long, value_name = "N", default_value_t = 1)]
    device_id: u64,
    /// Drop and mark nothing for its rate; packets are still classed and counted.
    #[arg(long)]
    no_metering: bool,
    /// Milliseconds between test packets to each neighbor, 7 to 1000: delay and loss of links
    /// are measured by them (STAMP, RFC 8762), and packets go around a port on which three in a
    /// row are not answered.
    #[arg(long, value_name = "MS", default_value_t = 10)]
    probe_interval: u64,
    /// A DHCP server, reached over this machine's own network: what clients on access ports say is
    /// relayed to it. May be given up to four times.
    #[arg(long, value_name = "ADDRESS")]
    dhcp_relay: Vec<Ipv4Addr>,
    /// As --dhcp-relay, for DHCPv6; router advertisements then say that there is one.
    #[arg(long, value_name = "ADDRESS")]
    dhcpv6_relay: Vec<Ipv6Addr>,
    /// Have router advertisements tell hosts to make themselves addresses in this prefix of 64
    /// bits. May be given up to four times.
    #[arg(long, value_name = "PREFIX", value_parser = ipv6_prefix)]
    ra_prefix: Vec<Ipv6Net>,
    /// Run compute hooks: where `selvedge compute` finds this agent. One switch with hooks
    /// fits in a network namespace.
    #[arg(long, value_name = "PATH", requires_all = ["cpu", "memory"])]
    compute_socket: Option<PathBuf>,
    /// Processors for hooks, as told to the controller.
    #[arg(long, value_name = "N", requires = "compute_socket")]
    cpu: Option<u32>,
    /// Memory for hooks, as told to the controller.
    #[arg(long, value_name = "BYTES", requires = "compute_socket")]
    memory: Option<u64>,
    /// The agent's lock and the modules of its hooks. Default: /run/selvedge-switch/INSTANCE.
    #[arg(long, value_name = "DIR")]
    run_dir: Option<PathBuf>,
    /// Take the switch of --instance off its ports and delete its pins; its traffic stops.
    #[arg(long)]
    remove: bool,
}

fn ipv6_prefix(text: &str) -> Result<Ipv6Net, String> {
    text.parse().map_err(|_| "not an IPv6 prefix such as 2001:db8::/64".to_owned())
}

pub(crate) fn run(args: Args, _output: Output) -> anyhow::Result<ExitCode> {
    crate::out::log();
    // One thread is plenty: packets do not come here.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    if args.remove {
        let instance = args.instance.context("--remove needs --instance")?;
        let run_dir = args.run_dir.unwrap_or_else(|| Options::default_run_dir(&instance));
        runtime.block_on(selvedge_dataplane::remove(&instance, &run_dir))?;
    } else {
        let options = options(args)?;
        runtime.block_on(selvedge_dataplane::run(options))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn options(args: Args) -> anyhow::Result<Options> {
    let name = args.name.context("a switch needs a --name")?;
    let instance = args.instance.unwrap_or_else(|| name.clone());
    let management = match (args.unmanaged, args.tls, args.controller) {
        (false, Some(tls), controllers) if !controllers.is_empty() => {
            Management::Managed { tls, controllers }
        }
        (true, None, _) => Management::Unmanaged,
        _ => anyhow::bail!("give --tls and --controller, or --unmanaged"),
    };
    let compute = match (args.compute_socket, args.cpu, args.memory) {
        (Some(socket), Some(cpu), Some(memory_bytes)) => {
            Some(ComputeOptions { socket, cpu, memory_bytes })
        }
        _ => None,
    };
    let any = if args.unmanaged { Ipv4Addr::LOCALHOST } else { Ipv4Addr::UNSPECIFIED };
    let globs = args.ports.into_iter().map(PortRule::Glob);
    Ok(Options {
        run_dir: args.run_dir.unwrap_or_else(|| Options::default_run_dir(&instance)),
        name,
        instance,
        ports: args.port.into_iter().chain(globs).collect(),
        p4runtime: args.p4runtime.unwrap_or((any, P4RUNTIME_PORT).into()),
        device_id: args.device_id,
        management,
        metering: !args.no_metering,
        probe_interval: Duration::from_millis(args.probe_interval),
        compute,
        hosts: HostOptions {
            dhcp_relay: args.dhcp_relay,
            dhcpv6_relay: args.dhcpv6_relay,
            ra_prefixes: args.ra_prefix,
        },
    })
}
