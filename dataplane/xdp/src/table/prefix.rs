//! Tables matched by longest prefix: `endpoint`, `slice_route`, `delivery`.
//!
//! Whole addresses lie in [`Addresses`], which costs a packet a fifth of a walk through a trie;
//! shorter prefixes lie in a trie that is asked only when there is no such row, and not at
//! all while it is empty (`CONFIG`). An address as a whole is always the longest prefix, so
//! the result is that of one table.

use std::marker::PhantomData;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard};

use ipnet::IpNet;
use selvedge_ebpf_common::key::{PREFIX_KEY_BITS, PrefixKey};
use selvedge_ebpf_common::value::{
    ConfigValue, EndpointData, PrefixValue, RouteData, TunnelData, way, way_mac, way_port,
};
use selvedge_ebpf_common::{MAX_SLICE_ID, POLICY_SLOTS};

use super::port::check_port;
use super::{Direction, Table, Tunnel};
use crate::Error;
use crate::error::within;
use crate::exact::Entry;
use crate::maps::{Addresses, Maps, lock};

/// Of a source on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    pub slice_set: u16,
    pub direction: Direction,
    /// Of [`EndpointMeterTable`](super::EndpointMeterTable); 0: it has no rates of its own.
    pub endpoint: u16,
    /// Of it in rules; 0: none.
    pub tag: u16,
}

/// Of a destination in a slice set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Route {
    pub slice: u16,
    pub action: RouteAction,
    /// As of [`Endpoint`], of the destination.
    pub endpoint: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RouteAction {
    Local,
    Policy(u32),
}

/// Of a destination in a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Delivery {
    pub port: u16,
    pub mac: [u8; 6],
    pub tunnel: Option<Tunnel>,
}

/// What a prefix table holds, as one word, and where.
pub trait Row: Copy {
    /// The table in errors.
    #[doc(hidden)]
    const NAME: &'static str;
    #[doc(hidden)]
    const PREFIX: &'static str;
    #[doc(hidden)]
    fn check(&self, scope: u16) -> Result<(), Error>;
    /// [`Row::release`] is to be called for it, if it is not written or when it is gone.
    #[doc(hidden)]
    fn pack(&self, maps: &Maps) -> Result<u64, Error>;
    #[doc(hidden)]
    fn release(_maps: &Maps, _data: u64) {}
    #[doc(hidden)]
    fn unpack(maps: &Maps, data: u64) -> Self;
    /// Locked over whatever is done with the table.
    #[doc(hidden)]
    fn exact(maps: &Maps) -> &Mutex<Addresses>;
    #[doc(hidden)]
    fn has_prefixes(config: &mut ConfigValue) -> &mut u32;
}

impl Row for Endpoint {
    const NAME: &'static str = "endpoint";
    const PREFIX: &'static str = "ENDPOINT_PREFIX";

    fn check(&self, port: u16) -> Result<(), Error> {
        check_port(port)?;
        within("slice set", self.slice_set, 1, 0xffff)
    }

    fn pack(&self, _maps: &Maps) -> Result<u64, Error> {
        let Self { slice_set, endpoint, tag, .. } = *self;
        Ok(EndpointData { slice_set, direction: self.direction as u8, endpoint, tag }.pack())
    }

    fn unpack(_maps: &Maps, data: u64) -> Self {
        let EndpointData { slice_set, direction, endpoint, tag } = EndpointData::unpack(data);
        Self { slice_set, direction: Direction::parse(direction), endpoint, tag }
    }

    fn exact(maps: &Maps) -> &Mutex<Addresses> {
        &maps.endpoint
    }

    fn has_prefixes(config: &mut ConfigValue) -> &mut u32 {
        &mut config.endpoint_prefixes
    }
}

impl Row for Route {
    const NAME: &'static str = "slice_route";
    const PREFIX: &'static str = "ROUTE_PREFIX";

    fn check(&self, slice_set: u16) -> Result<(), Error> {
        within("slice set", slice_set, 1, 0xffff)?;
        within("slice", self.slice, 1, MAX_SLICE_ID.into())?;
        match self.action {
            RouteAction::Local => Ok(()),
            RouteAction::Policy(id) => within("policy", id, 1, u64::from(POLICY_SLOTS) - 1),
        }
    }

    fn pack(&self, _maps: &Maps) -> Result<u64, Error> {
        let policy = match self.action {
            RouteAction::Local => 0,
            RouteAction::Policy(id) => id,
        };
        Ok(RouteData { policy, slice: self.slice, endpoint: self.endpoint }.pack())
    }

    fn unpack(_maps: &Maps, data: u64) -> Self {
        let RouteData { policy, slice, endpoint } = RouteData::unpack(data);
        let action = match policy {
            0 => RouteAction::Local,
            id => RouteAction::Policy(id),
        };
        Self { slice, action, endpoint }
    }

    fn exact(maps: &Maps) -> &Mutex<Addresses> {
        &maps.route
    }

    fn has_prefixes(config: &mut ConfigValue) -> &mut u32 {
        &mut config.route_prefixes
    }
}

impl Row for Delivery {
    const NAME: &'static str = "delivery";
    const PREFIX: &'static str = "DELIVERY_PREFIX";

    fn check(&self, slice: u16) -> Result<(), Error> {
        within("slice", slice, 1, MAX_SLICE_ID.into())?;
        check_port(self.port)?;
        self.tunnel.as_ref().map_or(Ok(()), Tunnel::check)
    }

    fn pack(&self, maps: &Maps) -> Result<u64, Error> {
        let way = way(self.port, self.mac);
        let Some(tunnel) = &self.tunnel else { return Ok(way) };
        let gnb = lock(&maps.gnbs).acquire(maps, tunnel.gnb_value(way))?;
        let gnb = u16::try_from(gnb).expect("as many as there are numbers");
        Ok(TunnelData { teid: tunnel.teid, qfi: tunnel.qfi, gnb }.pack())
    }

    fn release(maps: &Maps, data: u64) {
        if let Some(tunnel) = TunnelData::unpack(data) {
            lock(&maps.gnbs).release(tunnel.gnb.into());
        }
    }

    fn unpack(maps: &Maps, data: u64) -> Self {
        let tunnel = TunnelData::unpack(data).map(|tunnel| {
            let gnb = lock(&maps.gnbs).get(tunnel.gnb.into());
            (gnb.way, Tunnel::new(&gnb, tunnel))
        });
        let (way, tunnel) = tunnel.map_or((data, None), |(way, tunnel)| (way, Some(tunnel)));
        Self { port: way_port(way), mac: way_mac(way), tunnel }
    }

    fn exact(maps: &Maps) -> &Mutex<Addresses> {
        &maps.delivery
    }

    fn has_prefixes(config: &mut ConfigValue) -> &mut u32 {
        &mut config.delivery_prefixes
    }
}

/// By a number (port, slice set or slice) and a prefix, of which the host bits are ignored.
#[derive(Clone, Debug)]
pub struct PrefixTable<R> {
    maps: Arc<Maps>,
    row: PhantomData<R>,
}

enum RawKey {
    Exact([u64; 2]),
    Prefix(PrefixKey),
}

impl<R: Row> PrefixTable<R> {
    pub(crate) fn new(maps: Arc<Maps>) -> Self {
        Self { maps, row: PhantomData }
    }

    /// Says in `CONFIG` whether the trie is worth asking.
    pub(crate) fn refresh(&self, writer: &MutexGuard<'_, ()>) -> Result<(), Error> {
        let some = u32::from(!self.maps.get(R::PREFIX).is_empty::<PrefixKey>()?);
        self.maps.set_config(writer, |config| *R::has_prefixes(config) = some)
    }
}

impl<R: Row> PrefixTable<R> {
    /// Of the trie, which answers with the longest prefix that it has: maybe a shorter one.
    fn in_trie(&self, key: &PrefixKey) -> Result<Option<u64>, Error> {
        let found = self.maps.get(R::PREFIX).get::<_, PrefixValue>(key)?;
        Ok(found.filter(|found| found.bits == key.bits.into()).map(|found| found.data))
    }

    /// Inserts or replaces, and gives back what was there.
    fn replace(
        &self,
        exact: &mut Addresses,
        scope: u32,
        key: RawKey,
        data: u64,
    ) -> Result<Option<u64>, Error> {
        match key {
            RawKey::Exact(address) => {
                let old = exact.of(address).put(Entry { scope, address, data })?;
                Ok(old.map(|old| old.data))
            }
            RawKey::Prefix(key) => {
                let writer = self.maps.write();
                let old = self.in_trie(&key)?;
                let value = PrefixValue { data, bits: key.bits.into() };
                let put = self.maps.get(R::PREFIX).put(&key, &value);
                put.map_err(|error| match error {
                    Error::Full { capacity, .. } => Error::Full { table: R::NAME, capacity },
                    error => error,
                })?;
                self.refresh(&writer)?;
                Ok(old)
            }
        }
    }
}

impl<R: Row> Table for PrefixTable<R> {
    type Key = (u16, IpNet);
    type Value = R;

    fn put(&self, (id, net): (u16, IpNet), row: &R) -> Result<(), Error> {
        row.check(id)?;
        let mut exact = lock(R::exact(&self.maps));
        let data = row.pack(&self.maps)?;
        match self.replace(&mut exact, id.into(), key(id, net), data) {
            Ok(old) => {
                if let Some(old) = old {
                    R::release(&self.maps, old);
                }
                Ok(())
            }
            Err(error) => {
                R::release(&self.maps, data);
                Err(error)
            }
        }
    }

    fn remove(&self, (id, net): (u16, IpNet)) -> Result<bool, Error> {
        let mut exact = lock(R::exact(&self.maps));
        let old = match key(id, net) {
            RawKey::Exact(address) => {
                exact.of(address).remove(id.into(), address).map(|old| old.data)
            }
            RawKey::Prefix(key) => {
                let writer = self.maps.write();
                let old = self.in_trie(&key)?;
                self.maps.get(R::PREFIX).remove(&key)?;
                self.refresh(&writer)?;
                old
            }
        };
        if let Some(old) = old {
            R::release(&self.maps, old);
        }
        Ok(old.is_some())
    }

    fn get(&self, (id, net): (u16, IpNet)) -> Result<Option<R>, Error> {
        let exact = lock(R::exact(&self.maps));
        let data = match key(id, net) {
            RawKey::Exact(address) => exact.get(id.into(), address).map(|entry| entry.data),
            RawKey::Prefix(key) => self.in_trie(&key)?,
        };
        Ok(data.map(|data| R::unpack(&self.maps, data)))
    }

    fn entries(&self) -> Result<Vec<((u16, IpNet), R)>, Error> {
        let exact = lock(R::exact(&self.maps));
        let prefixes = self.maps.get(R::PREFIX).entries::<PrefixKey, PrefixValue>()?;
        let unpack = |data| R::unpack(&self.maps, data);
        let exact = exact.entries().map(|entry| {
            ((entry.scope as u16, net(bytes(entry.address), 128)), unpack(entry.data))
        });
        let prefixes = prefixes.into_iter().map(|(key, value)| {
            let mut address = [0; 16];
            for (to, from) in address.chunks_exact_mut(4).zip(key.address) {
                to.copy_from_slice(&from.to_ne_bytes());
            }
            ((key.scope as u16, net(address, key.bits - 32)), unpack(value.data))
        });
        Ok(exact.chain(prefixes).collect())
    }
}

pub(crate) fn bytes(words: [u64; 2]) -> [u8; 16] {
    let mut address = [0; 16];
    address[..8].copy_from_slice(&words[0].to_ne_bytes());
    address[8..].copy_from_slice(&words[1].to_ne_bytes());
    address
}

/// An address as the programs hold it: 16 bytes in wire order, IPv4 mapped.
pub(crate) fn address_words(address: IpAddr) -> [u64; 2] {
    let octets = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    let word = |at: usize| {
        u64::from_ne_bytes(octets[at..at + 8].try_into().expect("eight bytes of sixteen"))
    };
    [word(0), word(8)]
}

/// Inverse of [`address_words`].
pub(crate) fn address_of(words: [u64; 2]) -> IpAddr {
    Ipv6Addr::from(bytes(words)).to_canonical()
}

fn key(id: u16, net: IpNet) -> RawKey {
    let net = net.trunc();
    let bits = 32 + mapped_bits(net);
    let scope = u32::from(id);
    let words = address_words(net.addr());
    if bits == PREFIX_KEY_BITS {
        RawKey::Exact(words)
    } else {
        let octets = bytes(words);
        let word = |at: usize| {
            u32::from_ne_bytes(octets[at..at + 4].try_into().expect("four bytes of sixteen"))
        };
        RawKey::Prefix(PrefixKey { bits, scope, address: [word(0), word(4), word(8), word(12)] })
    }
}

/// Length of a prefix in bits of 128.
pub(crate) fn mapped_bits(net: IpNet) -> u32 {
    match net {
        IpNet::V4(_) => u32::from(net.prefix_len()) + 96,
        IpNet::V6(_) => u32::from(net.prefix_len()),
    }
}

/// The prefix of `bits` of 128; one of IPv4-mapped addresses is an IPv4 prefix.
pub(crate) fn net(address: [u8; 16], bits: u32) -> IpNet {
    let v6 = Ipv6Addr::from(address);
    let (address, bits) = match v6.to_ipv4_mapped() {
        Some(v4) if bits >= 96 => (IpAddr::V4(v4), bits - 96),
        _ => (IpAddr::V6(v6), bits),
    };
    IpNet::new(address, u8::try_from(bits).expect("at most 128")).expect("written by `key`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_hold_prefixes_losslessly() {
        let cases = [
            "0.0.0.0/0",
            "10.0.0.0/8",
            "10.1.0.0/31",
            "10.1.0.11/32",
            "::/0",
            "fd10::/16",
            "fd10::11/128",
            "fd10::10/127",
            "::/95",
        ];
        for text in cases {
            let want: IpNet = text.parse().unwrap();
            for id in [1u16, 255, 0xffff] {
                let (scope, got) = match key(id, want) {
                    RawKey::Exact(address) => (u32::from(id), net(bytes(address), 128)),
                    RawKey::Prefix(key) => {
                        let address: Vec<u8> =
                            key.address.iter().flat_map(|w| w.to_ne_bytes()).collect();
                        (key.scope, net(address.try_into().unwrap(), key.bits - 32))
                    }
                };
                assert_eq!((scope, got), (u32::from(id), want), "{text}");
            }
        }
    }

    #[test]
    fn an_ipv4_address_is_its_mapped_form() {
        let keys: Vec<_> = ["10.1.0.11/32", "::ffff:10.1.0.11/128"]
            .into_iter()
            .map(|text| match key(1, text.parse().unwrap()) {
                RawKey::Exact(key) => key,
                RawKey::Prefix(_) => unreachable!("whole addresses"),
            })
            .collect();
        assert_eq!(keys[0], keys[1]);
    }

    #[test]
    fn host_bits_are_ignored() {
        let keys: Vec<_> = ["10.1.0.11/24", "10.1.0.0/24"]
            .into_iter()
            .map(|text| match key(1, text.parse().unwrap()) {
                RawKey::Prefix(key) => key,
                RawKey::Exact(_) => unreachable!("a prefix"),
            })
            .collect();
        assert_eq!(keys[0], keys[1]);
    }
}
