//! Links of this network namespace by rtnetlink(7).
//!
//! Notifications only wake: what there is, is asked. So a lost message (a full socket buffer)
//! costs nothing once the listener has been opened again.

use std::collections::BTreeSet;
use std::io;

use futures::channel::mpsc::UnboundedReceiver;
use futures::{StreamExt, TryStreamExt};
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{
    InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};
use rtnetlink::sys::SocketAddr;
use rtnetlink::{Handle, LinkUnspec, LinkVeth, MulticastGroup};
use tokio::task::JoinHandle;

use super::table::{Far, Link};

/// `ETH_ALEN`.
const MAC_LEN: usize = 6;

/// A netlink socket; requests may be made from several tasks.
#[derive(Clone, Debug)]
pub struct Netlink {
    handle: Handle,
}

/// A netlink socket that hears of changes.
#[derive(Debug)]
pub struct Monitor {
    // Unbounded by its making; it is drained at every wake, and grows with the kernel's own
    // notifications only.
    messages: UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>,
    connection: JoinHandle<()>,
}

/// What a wake said.
#[derive(Debug, PartialEq, Eq)]
pub enum Changed {
    /// Interface indices that are gone; others changed or came.
    Links { deleted: BTreeSet<u32> },
    /// Messages were lost: open a new monitor and take nothing for granted.
    Lost,
}

impl Netlink {
    /// In this thread's network namespace; must be called inside a runtime.
    pub fn open() -> io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        // Ends when the last handle is dropped.
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    pub async fn links(&self) -> Result<Vec<Link>, rtnetlink::Error> {
        let messages: Vec<LinkMessage> = self.handle.link().get().execute().try_collect().await?;
        Ok(messages.into_iter().filter_map(link).collect())
    }

    /// The link of that name; `None` when there is none.
    pub async fn find(&self, name: &str) -> Result<Option<Link>, rtnetlink::Error> {
        let request = self.handle.link().get().match_name(name);
        match request.execute().try_next().await {
            Ok(message) => Ok(message.and_then(link)),
            Err(rtnetlink::Error::NetlinkError(error))
                if error.raw_code() == -nix::libc::ENODEV =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Brings an interface up; `promiscuous` so that a network card takes frames to the
    /// gateway's MAC address and LLDP's group.
    pub async fn set_up(&self, ifindex: u32, promiscuous: bool) -> Result<(), rtnetlink::Error> {
        let builder = rtnetlink::LinkMessageBuilder::<LinkUnspec>::new().index(ifindex).up();
        let builder = if promiscuous { builder.promiscuous(true) } else { builder };
        self.handle.link().set(builder.build()).execute().await
    }

    pub async fn set_down(&self, ifindex: u32) -> Result<(), rtnetlink::Error> {
        let builder = rtnetlink::LinkMessageBuilder::<LinkUnspec>::new().index(ifindex).down();
        self.handle.link().set(builder.build()).execute().await
    }

    /// A pair of virtual Ethernet interfaces, down.
    pub async fn add_veth(&self, name: &str, peer: &str) -> Result<(), rtnetlink::Error> {
        self.handle.link().add(LinkVeth::new(name, peer).build()).execute().await
    }

    pub async fn set_mtu(&self, ifindex: u32, mtu: u32) -> Result<(), rtnetlink::Error> {
        let builder = rtnetlink::LinkMessageBuilder::<LinkUnspec>::new().index(ifindex).mtu(mtu);
        self.handle.link().set(builder.build()).execute().await
    }

    pub async fn delete(&self, ifindex: u32) -> Result<(), rtnetlink::Error> {
        self.handle.link().del(ifindex).execute().await
    }
}

/// What was heard of one interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    pub ifindex: u32,
    /// Whether frames can be sent there; not when it is gone.
    pub carrier: bool,
}

impl Monitor {
    /// As [`Netlink::open`]. What happens from now on is heard.
    pub fn open() -> io::Result<Self> {
        let (connection, _, messages) =
            rtnetlink::new_multicast_connection(&[MulticastGroup::Link])?;
        Ok(Self { messages, connection: tokio::spawn(connection) })
    }

    /// Waits for one change. `None`: messages were lost. Cancel-safe.
    pub async fn change(&mut self) -> Option<Change> {
        loop {
            match self.messages.next().await?.0.payload {
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => {
                    let carrier = carrier(&link);
                    return Some(Change { ifindex: link.header.index, carrier });
                }
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link)) => {
                    return Some(Change { ifindex: link.header.index, carrier: false });
                }
                NetlinkPayload::Overrun(_) => return None,
                _ => {}
            }
        }
    }

    /// Waits for a change, then takes all that have come. Cancel-safe: nothing is taken
    /// before it returns.
    pub async fn changed(&mut self) -> Changed {
        let mut deleted = BTreeSet::new();
        let mut next = self.messages.next().await;
        loop {
            match next {
                Some((message, _)) => match message.payload {
                    NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link)) => {
                        deleted.insert(link.header.index);
                    }
                    NetlinkPayload::Overrun(_) => return Changed::Lost,
                    _ => {}
                },
                None => return Changed::Lost,
            }
            next = match self.messages.try_recv() {
                Ok(message) => Some(message),
                Err(futures::channel::mpsc::TryRecvError::Empty) => {
                    return Changed::Links { deleted };
                }
                Err(futures::channel::mpsc::TryRecvError::Closed) => None,
            };
        }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

fn carrier(message: &LinkMessage) -> bool {
    message.header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp)
}

fn link(message: LinkMessage) -> Option<Link> {
    let up = carrier(&message);
    let mut name = None;
    let mut mac = None;
    let mut is_veth = false;
    let (mut far, mut namespace) = (None, None);
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = Some(text),
            LinkAttribute::Address(bytes) if bytes.len() == MAC_LEN => {
                mac = bytes.try_into().ok();
            }
            LinkAttribute::LinkInfo(infos) => {
                is_veth = infos.iter().any(|i| matches!(i, LinkInfo::Kind(InfoKind::Veth)));
            }
            LinkAttribute::Link(ifindex) => far = Some(ifindex),
            LinkAttribute::LinkNetNsId(id) => namespace = Some(id),
            _ => {}
        }
    }
    let ethernet = message.header.link_layer_type == LinkLayerType::Ether;
    Some(Link {
        ifindex: message.header.index,
        name: name?,
        mac: mac.filter(|_| ethernet),
        up,
        is_veth,
        far: far.filter(|_| is_veth).map(|ifindex| Far { ifindex, namespace }),
    })
}
