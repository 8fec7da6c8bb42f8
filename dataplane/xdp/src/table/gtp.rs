//! Tables `n3_address` and `gtp_session`, and the tunnels of `delivery`: GTP-U with gNBs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::Ipv6Net;
use selvedge_ebpf_common::N3_ADDRESSES;
use selvedge_ebpf_common::map::MAX_SESSIONS;
use selvedge_ebpf_common::value::{
    ConfigValue, SessionValue, TUNNEL_NONE, TUNNEL_V4, TUNNEL_V6, TunnelValue,
};

use super::port::check_port;
use super::prefix::{address_of, address_words, bytes};
use super::{Direction, Table};
use crate::Error;
use crate::error::within;
use crate::maps::Maps;

/// Least MTU of a link (RFC 791 §3.2).
const LEAST_MTU: u64 = 68;

/// Towards a UE's gNB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tunnel {
    pub local: IpAddr,
    pub gnb: IpAddr,
    pub teid: u32,
    pub qfi: u8,
    /// Bytes of the outer packet.
    pub mtu: u16,
}

fn check_teid(teid: u32) -> Result<(), Error> {
    within("teid", teid, 1, u32::MAX.into())
}

impl Tunnel {
    pub(super) fn check(&self) -> Result<(), Error> {
        check_teid(self.teid)?;
        within("qfi", self.qfi, 0, 63)?;
        within("mtu", self.mtu, LEAST_MTU, u16::MAX.into())?;
        if self.local.is_ipv4() == self.gnb.is_ipv4() {
            return Ok(());
        }
        Err(Error::MixedVersions { local: self.local, gnb: self.gnb })
    }

    pub(super) fn raw(&self) -> TunnelValue {
        TunnelValue {
            local: address_words(self.local),
            peer: address_words(self.gnb),
            teid: self.teid,
            mtu: self.mtu,
            qfi: self.qfi,
            overhead: if self.gnb.is_ipv4() { TUNNEL_V4 } else { TUNNEL_V6 },
        }
    }

    pub(super) fn parse(raw: TunnelValue) -> Option<Self> {
        let TunnelValue { local, peer, teid, mtu, qfi, overhead } = raw;
        let (local, gnb) = (address_of(local), address_of(peer));
        (overhead != TUNNEL_NONE).then_some(Self { local, gnb, teid, qfi, mtu })
    }
}

/// By address. A change is not seen as one by packets: a moment long, one of two addresses may be
/// nobody's.
#[derive(Clone, Debug)]
pub struct N3Table(pub(crate) Arc<Maps>);

impl N3Table {
    /// Changes the addresses if there is something to change; says whether there was.
    fn change(
        &self,
        change: impl FnOnce(&mut ConfigValue) -> Result<bool, Error>,
    ) -> Result<bool, Error> {
        let writer = self.0.write();
        let mut config = self.0.config()?;
        let changed = change(&mut config)?;
        let some = config.n3.iter().any(|own| *own != NOBODY);
        self.0.set_config(&writer, |now| {
            now.n3 = config.n3;
            now.n3_addresses = some.into();
        })?;
        Ok(changed)
    }
}

const NOBODY: [u64; 2] = [0; 2];

impl Table for N3Table {
    type Key = IpAddr;
    type Value = ();

    /// # Errors
    /// [`Error::Full`] with four others.
    fn put(&self, address: IpAddr, (): &()) -> Result<(), Error> {
        let words = address_words(address);
        if words == NOBODY {
            return Err(Error::Unspecified { table: "n3_address" });
        }
        self.change(|config| {
            if config.n3.contains(&words) {
                return Ok(false);
            }
            let free = config.n3.iter_mut().find(|own| **own == NOBODY);
            let full = Error::Full { table: "n3_address", capacity: N3_ADDRESSES as u32 };
            *free.ok_or(full)? = words;
            Ok(true)
        })
        .map(drop)
    }

    fn remove(&self, address: IpAddr) -> Result<bool, Error> {
        let words = address_words(address);
        self.change(|config| {
            let held = config.n3.iter_mut().filter(|own| words != NOBODY && **own == words);
            Ok(held.map(|own| *own = NOBODY).count() > 0)
        })
    }

    fn get(&self, address: IpAddr) -> Result<Option<()>, Error> {
        let words = address_words(address);
        Ok((words != NOBODY && self.0.config()?.n3.contains(&words)).then_some(()))
    }

    fn entries(&self) -> Result<Vec<(IpAddr, ())>, Error> {
        let held = self.0.config()?.n3.into_iter().filter(|own| *own != NOBODY);
        Ok(held.map(|own| (address_of(own), ())).collect())
    }
}

/// Of an uplink tunnel: who is behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Session {
    pub port: u16,
    pub gnb: IpAddr,
    pub ue_ipv4: Option<Ipv4Addr>,
    pub ue_ipv6: Option<Ipv6Net>,
    pub slice_set: u16,
    pub direction: Direction,
    /// Bit `n`: QFI `n`; 0: any, and none.
    pub qfis: u64,
}

/// By TEID.
#[derive(Clone, Debug)]
pub struct SessionTable(pub(crate) Arc<Maps>);

const SESSION: &str = "SESSION";

impl Session {
    fn raw(&self) -> Result<SessionValue, Error> {
        check_port(self.port)?;
        within("slice set", self.slice_set, 1, 0xffff)?;
        let ipv6 = self.ue_ipv6.map(|net| net.trunc());
        let bits = ipv6.map_or(0, |net| net.prefix_len());
        let words = |address: Ipv6Addr| address_words(IpAddr::V6(address));
        Ok(SessionValue {
            peer: address_words(self.gnb),
            ipv6: ipv6.map_or(NOBODY, |net| words(net.addr())),
            ipv6_mask: ipv6.map_or(NOBODY, |net| words(net.netmask())),
            qfis: self.qfis,
            ipv4: self.ue_ipv4.map_or(0, |v4| u32::from_ne_bytes(v4.octets())),
            slice_set: self.slice_set,
            port: self.port as u8, // checked above
            direction: self.direction as u8,
            ipv6_bits: bits,
            _pad: [0; 7],
        })
    }

    fn parse(raw: SessionValue) -> Self {
        let net = Ipv6Net::new(Ipv6Addr::from(bytes(raw.ipv6)), raw.ipv6_bits);
        Self {
            port: raw.port.into(),
            gnb: address_of(raw.peer),
            ue_ipv4: (raw.ipv4 != 0).then(|| Ipv4Addr::from(raw.ipv4.to_ne_bytes())),
            ue_ipv6: (raw.ipv6_bits != 0).then(|| net.expect("written by `raw`")),
            slice_set: raw.slice_set,
            direction: Direction::parse(raw.direction),
            qfis: raw.qfis,
        }
    }
}

impl Table for SessionTable {
    type Key = u32;
    type Value = Session;

    fn put(&self, teid: u32, session: &Session) -> Result<(), Error> {
        check_teid(teid)?;
        self.0.get(SESSION).put(&teid, &session.raw()?).map_err(|error| match error {
            Error::Full { .. } => Error::Full { table: "gtp_session", capacity: MAX_SESSIONS },
            error => error,
        })
    }

    fn remove(&self, teid: u32) -> Result<bool, Error> {
        self.0.get(SESSION).remove(&teid)
    }

    fn get(&self, teid: u32) -> Result<Option<Session>, Error> {
        Ok(self.0.get(SESSION).get(&teid)?.map(Session::parse))
    }

    fn entries(&self) -> Result<Vec<(u32, Session)>, Error> {
        let entries = self.0.get(SESSION).entries::<u32, SessionValue>()?;
        Ok(entries.into_iter().map(|(teid, raw)| (teid, Session::parse(raw))).collect())
    }
}
