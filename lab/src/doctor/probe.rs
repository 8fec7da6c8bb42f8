//! Things that are tried out, in namespaces that go afterwards.

use std::sync::atomic::{AtomicU32, Ordering};

use selvedge_topology::BitRate;

use super::{Check, Found, Group};
use crate::cable::{Spaces, Work, bench_pair};
use crate::error::{LabError, Result};
use crate::host::Role;
use crate::netlink::{Netlink, Request};
use crate::netns::{self, NetNs};
use crate::{run, tc, up};

/// A namespace with a veth pair in it, [`Bench::PORTS`], to try something on. It goes with this
/// value.
#[derive(Debug)]
pub struct Bench {
    spaces: Spaces,
    name: String,
}

impl Bench {
    /// Name and interface index of each end.
    pub const PORTS: [(&str, u32); 2] = [("t0", 10), ("t1", 20)];

    /// # Errors
    /// [`LabError::Privilege`]; what the kernel cannot do.
    pub fn new() -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);

        run::privileged()?;
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("selvedge-doctor-{}-{count}", std::process::id());
        netns::prepare_dir().map_err(|source| LabError::System {
            doing: "prepare",
            object: netns::DIR.to_owned(),
            source,
        })?;
        let mut bench = Self { spaces: Spaces::default(), name };
        bench.spaces.insert(up::space(&bench.name, Role::Wire)?);
        let mut work = Work::default();
        bench_pair(&mut work, bench.spaces.get(&bench.name), Self::PORTS);
        work.run(&bench.spaces)?;
        Ok(bench)
    }

    /// The MAC address of an end.
    pub fn mac(index: u32) -> [u8; 6] {
        crate::cable::mac(crate::cable::MacKind::Port, index)
    }

    pub fn netns(&self) -> &NetNs {
        self.spaces.get(&self.name)
    }

    fn ask(&self, requests: Vec<Request>) -> Result<()> {
        Netlink::route(self.netns())?.send(requests)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // A name that stays behind is seen in `ip netns`, and harms nobody.
        let _ = NetNs::delete(&self.name);
    }
}

pub(super) fn checks() -> Vec<Check> {
    let bench = match Bench::new() {
        Ok(bench) => bench,
        Err(error) => {
            let found = match &error {
                LabError::Privilege => Found::Unknown("needs root".to_owned()),
                _ => Found::Missing(chain(&error)),
            };
            let fix = "a kernel with namespaces, veth and ethtool's netlink interface";
            return vec![Check::new(Group::Kernel, "namespaces and veth pairs", found, true, fix)];
        }
    };
    let tried = |what: &str, result: Result<()>, fix: &str| {
        let found = match result {
            Ok(()) => Found::Present("tried".to_owned()),
            Err(error) => Found::Missing(chain(&error)),
        };
        Check::new(Group::Kernel, what, found, true, fix)
    };
    let [(_, from), (_, to)] = Bench::PORTS;
    vec![
        tried("namespaces and veth pairs", Ok(()), "-"),
        tried(
            "redirecting wires (clsact, u32, mirred)",
            bench.ask(tc::redirect(from, to)),
            "a kernel with CONFIG_NET_SCH_INGRESS, CONFIG_NET_CLS_U32, CONFIG_NET_ACT_MIRRED",
        ),
        tried(
            "wires with a rate (TBF)",
            bench.ask(vec![tc::shape(to, BitRate(100_000_000))]),
            "a kernel with CONFIG_NET_SCH_TBF",
        ),
    ]
}

/// An error with its causes, in a line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}
