//! Tables `n3_address` and `gtp_session`, and the tunnels of `delivery`: GTP-U with gNBs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::Ipv6Net;
use selvedge_ebpf_common::N3_ADDRESSES;
use selvedge_ebpf_common::value::{
    ConfigValue, GnbValue, ProfileValue, SessionData, TUNNEL_V4, TUNNEL_V6, TunnelData,
};

use super::port::check_port;
use super::prefix::{address_of, address_words, bytes};
use super::{Direction, Table};
use crate::Error;
use crate::error::within;
use crate::exact::Entry;
use crate::maps::{Maps, Sessions, lock};

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

    /// What it has in common with others.
    pub(super) fn gnb_value(&self, way: u64) -> GnbValue {
        GnbValue {
            way,
            local: address_words(self.local),
            peer: address_words(self.gnb),
            mtu: self.mtu,
            overhead: if self.gnb.is_ipv4() { TUNNEL_V4 } else { TUNNEL_V6 },
            _pad: [0; 5],
        }
    }

    pub(super) fn new(gnb: &GnbValue, TunnelData { teid, qfi, .. }: TunnelData) -> Self {
        let (local, peer) = (address_of(gnb.local), address_of(gnb.peer));
        Self { local, gnb: peer, teid, qfi, mtu: gnb.mtu }
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
    /// Of [`EndpointMeterTable`](super::EndpointMeterTable); 0: it has no rates of its own.
    pub endpoint: u16,
    /// Of the UE in rules; 0: none.
    pub tag: u16,
}

/// By TEID.
#[derive(Clone, Debug)]
pub struct SessionTable(pub(crate) Arc<Maps>);

impl Session {
    /// What the UE sends from over IPv6, over IPv4, and what it has in common with others.
    fn raw(&self) -> Result<([u64; 2], u32, ProfileValue), Error> {
        check_port(self.port)?;
        within("slice set", self.slice_set, 1, 0xffff)?;
        let ipv6 = self.ue_ipv6.map(|net| net.trunc());
        let words = |address: Ipv6Addr| address_words(IpAddr::V6(address));
        let profile = ProfileValue {
            peer: address_words(self.gnb),
            ipv6_mask: ipv6.map_or(NOBODY, |net| words(net.netmask())),
            qfis: self.qfis,
            slice_set: self.slice_set,
            port: self.port as u8, // checked above
            direction: self.direction as u8,
            ipv6_bits: ipv6.map_or(0, |net| net.prefix_len()),
            _pad: 0,
            tag: self.tag,
        };
        let prefix = ipv6.map_or(NOBODY, |net| words(net.addr()));
        Ok((prefix, self.ue_ipv4.map_or(0, |v4| u32::from_ne_bytes(v4.octets())), profile))
    }

    fn parse(
        prefix: [u64; 2],
        SessionData { ipv4, endpoint, .. }: SessionData,
        profile: &ProfileValue,
    ) -> Self {
        let net = Ipv6Net::new(Ipv6Addr::from(bytes(prefix)), profile.ipv6_bits);
        Self {
            port: profile.port.into(),
            gnb: address_of(profile.peer),
            ue_ipv4: (ipv4 != 0).then(|| Ipv4Addr::from(ipv4.to_ne_bytes())),
            ue_ipv6: (profile.ipv6_bits != 0).then(|| net.expect("written by `raw`")),
            slice_set: profile.slice_set,
            direction: Direction::parse(profile.direction),
            qfis: profile.qfis,
            endpoint,
            tag: profile.tag,
        }
    }
}

impl SessionTable {
    fn release(&self, entry: Option<Entry>) -> bool {
        let data = entry.map(|entry| SessionData::unpack(entry.data));
        if let Some(data) = data {
            lock(&self.0.profiles).release(data.profile.into());
        }
        data.is_some()
    }

    fn parse(&self, table: &Sessions, entry: &Entry) -> Session {
        let data = SessionData::unpack(entry.data);
        let prefix = table.v6.get(entry.scope, NOBODY).map_or(NOBODY, |entry| entry.address);
        Session::parse(prefix, data, &lock(&self.0.profiles).get(data.profile.into()))
    }
}

impl Table for SessionTable {
    type Key = u32;
    type Value = Session;

    fn put(&self, teid: u32, session: &Session) -> Result<(), Error> {
        check_teid(teid)?;
        let (address, ipv4, profile) = session.raw()?;
        let mut table = lock(&self.0.session);
        let has_v6 = profile.ipv6_bits != 0;
        let profile = lock(&self.0.profiles).acquire(&self.0, profile)?;
        let profile = u16::try_from(profile).expect("as many as there are numbers");
        let data = SessionData { ipv4, profile, endpoint: session.endpoint }.pack();
        let entry = Entry { scope: teid, address: NOBODY, data };
        // First what the session says that there is.
        let v6 = Entry { scope: teid, address, data: 0 };
        let put = if has_v6 { table.v6.put(v6).map(drop) } else { Ok(()) };
        match put.and_then(|()| table.by_teid.put(entry)) {
            Ok(old) => {
                if !has_v6 {
                    table.v6.remove(teid, NOBODY);
                }
                self.release(old);
                Ok(())
            }
            Err(error) => {
                self.release(Some(entry));
                Err(error)
            }
        }
    }

    fn remove(&self, teid: u32) -> Result<bool, Error> {
        let mut table = lock(&self.0.session);
        let old = table.by_teid.remove(teid, NOBODY);
        table.v6.remove(teid, NOBODY);
        Ok(self.release(old))
    }

    fn get(&self, teid: u32) -> Result<Option<Session>, Error> {
        let table = lock(&self.0.session);
        Ok(table.by_teid.get(teid, NOBODY).map(|entry| self.parse(&table, &entry)))
    }

    fn entries(&self) -> Result<Vec<(u32, Session)>, Error> {
        let table = lock(&self.0.session);
        let parse = |entry: Entry| (entry.scope, self.parse(&table, &entry));
        Ok(table.by_teid.entries().map(parse).collect())
    }
}
