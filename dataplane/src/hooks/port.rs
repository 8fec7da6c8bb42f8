//! A hook's compute port: the veth pair `hk<N>` (pipeline end) and `hk<N>x` (socket end).
//!
//! One queue at each end, because a socket sees one queue only and veth picks it by CPU. The
//! names are of the network namespace, so one switch with compute fits in each.

use selvedge_xdp as xdp;

use crate::ports::netlink::Netlink;
use crate::ports::table::Link;
use crate::ports::{SharedSwitch, chain, silence, with};

/// A full inner packet (1500 bytes) in its outer header, and room: what fabric links have.
const MTU: u32 = 1600;

/// Name of the pipeline end.
pub fn switch_end(hook: u32) -> String {
    format!("hk{hook}")
}

/// Name of the socket end.
pub fn socket_end(hook: u32) -> String {
    format!("hk{hook}x")
}

/// Makes the pair if it is not whole, and puts the programs on it. One that is there and in
/// use is left as it is.
///
/// # Errors
/// What failed, in words for the operator.
pub async fn ensure(hook: u32, switch: &SharedSwitch, netlink: &Netlink) -> Result<(), String> {
    let (near, far) = match ends(hook, netlink).await? {
        (Some(near), Some(far)) => (near, far),
        (near, far) => {
            for half in [near, far].into_iter().flatten() {
                delete(&half, netlink).await?;
            }
            let (near, far) = (switch_end(hook), socket_end(hook));
            netlink.add_veth(&near, &far).await.map_err(|error| {
                format!("cannot make the interfaces {near} and {far}: {}", chain(&error))
            })?;
            match ends(hook, netlink).await? {
                (Some(near), Some(far)) => (near, far),
                _ => return Err(format!("the interfaces {near} and {far} vanished")),
            }
        }
    };
    for link in [&near, &far] {
        silence(&link.name);
        xdp::offload::prepare_veth(&link.name).map_err(|error| chain(&error))?;
        let failed = |error| format!("cannot set up {}: {}", link.name, chain(&error));
        netlink.set_mtu(link.ifindex, MTU).await.map_err(failed)?;
        netlink.set_up(link.ifindex, false).await.map_err(failed)?;
    }
    let (near, far) = (interface(&near)?, interface(&far)?);
    let hook = u16::try_from(hook).map_err(|_| "no hook of that number".to_owned())?;
    with(switch, |switch| switch.attach_hook(hook, &near, &far)).map_err(|error| chain(&error))
}

/// Takes the programs off and deletes the pair. What is not there is as good.
///
/// # Errors
/// What failed, in words for the operator.
pub async fn remove(hook: u32, switch: &SharedSwitch, netlink: &Netlink) -> Result<(), String> {
    let id = u16::try_from(hook).map_err(|_| "no hook of that number".to_owned())?;
    with(switch, |switch| switch.detach_hook(id)).map_err(|error| chain(&error))?;
    delete_pair(hook, netlink).await
}

/// Deletes the pair alone.
pub async fn delete_pair(hook: u32, netlink: &Netlink) -> Result<(), String> {
    let (near, far) = ends(hook, netlink).await?;
    match near.or(far) {
        Some(end) => delete(&end, netlink).await, // its peer goes with it
        None => Ok(()),
    }
}

async fn ends(hook: u32, netlink: &Netlink) -> Result<(Option<Link>, Option<Link>), String> {
    let find = async |name: String| {
        let found = netlink.find(&name).await;
        found.map_err(|error| format!("cannot look for {name}: {}", chain(&error)))
    };
    Ok((find(switch_end(hook)).await?, find(socket_end(hook)).await?))
}

async fn delete(link: &Link, netlink: &Netlink) -> Result<(), String> {
    let failed = |error| format!("cannot delete {}: {}", link.name, chain(&error));
    netlink.delete(link.ifindex).await.map_err(failed)
}

fn interface(link: &Link) -> Result<xdp::Interface, String> {
    let mac = link.mac.ok_or_else(|| format!("{} is no Ethernet interface", link.name))?;
    Ok(xdp::Interface { index: link.ifindex, name: link.name.clone(), mac })
}
