//! The pinned maps of one switch, opened, and what is written to more than one place at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

use selvedge_ebpf_common::key::PrefixKey;
use selvedge_ebpf_common::map::{Kind, PINNED};
use selvedge_ebpf_common::value::{
    ConfigValue, GnbValue, PrefixValue, ProfileValue, SessionData, TunnelData,
};

use crate::exact::{Entry, Exact, Keys, is_mapped};
use crate::interned::Interned;
use crate::map::{Map, RawEntry};
use crate::pins::Pins;
use crate::{Error, sys};

/// Ends the names of what earlier layouts have counted.
pub(crate) const BASE: &str = "_BASE";

#[derive(Debug)]
pub struct Maps {
    by_name: BTreeMap<&'static str, Map>,
    /// Held over every read-modify-write of a map, `CONFIG` among them.
    no_tcx: AtomicBool,
    writer: Mutex<()>,
    /// Elements with two banks that have changed since programs were last waited for, by map and
    /// index: as many as there are of them, at most.
    changed: Mutex<BTreeSet<(&'static str, u32)>>,
    pub(crate) endpoint: Mutex<Addresses>,
    pub(crate) route: Mutex<Addresses>,
    pub(crate) delivery: Mutex<Addresses>,
    pub(crate) session: Mutex<Sessions>,
    /// Locked after the table whose entries have them.
    pub(crate) gnbs: Mutex<Interned<GnbValue>>,
    pub(crate) profiles: Mutex<Interned<ProfileValue>>,
}

/// Whole addresses of a table, by their version.
#[derive(Debug)]
pub struct Addresses {
    pub(crate) v4: Exact,
    pub(crate) v6: Exact,
}

impl Addresses {
    /// Of an address, which is mapped where it is IPv4's.
    pub(crate) fn of(&mut self, address: [u64; 2]) -> &mut Exact {
        if is_mapped(address) { &mut self.v4 } else { &mut self.v6 }
    }

    pub(crate) fn get(&self, scope: u32, address: [u64; 2]) -> Option<Entry> {
        if is_mapped(address) { &self.v4 } else { &self.v6 }.get(scope, address)
    }

    /// In no order.
    pub(crate) fn entries(&self) -> impl Iterator<Item = Entry> {
        self.v4.entries().chain(self.v6.entries())
    }
}

/// PDU sessions, and what their UEs send from over IPv6.
#[derive(Debug)]
pub(crate) struct Sessions {
    pub(crate) by_teid: Exact,
    pub(crate) v6: Exact,
}

/// Maps of each [`Exact`].
const EXACT: [[&str; 2]; 8] = [
    ["ENDPOINT_V4", "ENDPOINT_V4_AT"],
    ["ENDPOINT_V6", "ENDPOINT_V6_AT"],
    ["ROUTE_V4", "ROUTE_V4_AT"],
    ["ROUTE_V6", "ROUTE_V6_AT"],
    ["DELIVERY_V4", "DELIVERY_V4_AT"],
    ["DELIVERY_V6", "DELIVERY_V6_AT"],
    ["SESSION", "SESSION_AT"],
    ["SESSION_V6", "SESSION_V6_AT"],
];

impl Maps {
    /// Opens the pins of all maps of this layout; that they are so has been asked.
    pub(crate) fn open(pins: &Pins) -> Result<Self, Error> {
        let maps: Result<Vec<_>, _> = PINNED
            .iter()
            .map(|spec| {
                let path = pins.map(spec.name);
                let fd = sys::open_pin(&path).map_err(Error::path("open the pin", &path))?;
                Ok(Map::new(fd, spec))
            })
            .collect();
        Self::new(maps?)
    }

    fn new(maps: Vec<Map>) -> Result<Self, Error> {
        let by_name: BTreeMap<_, _> = maps.into_iter().map(|map| (map.spec.name, map)).collect();
        let (bases, mut by_name): (BTreeMap<_, _>, BTreeMap<_, _>) =
            by_name.into_iter().partition(|(name, _)| name.ends_with(BASE));
        for (name, base) in bases {
            let (name, map) = by_name.remove_entry(name.trim_end_matches(BASE)).expect("its map");
            by_name.insert(name, map.with_base(base));
        }
        let exact = |table, keys, map: usize| {
            let [rows, places] = EXACT[map];
            Exact::open(table, keys, &by_name[rows], &by_name[places])
        };
        let addresses = |table, map| {
            let (v4, v6) = (exact(table, Keys::V4, map)?, exact(table, Keys::V6, map + 1)?);
            Ok::<_, Error>(Addresses { v4, v6 })
        };
        let (endpoint, route) = (addresses("endpoint", 0)?, addresses("slice_route", 2)?);
        let delivery = addresses("delivery", 4)?;
        let session = Sessions {
            by_teid: exact("gtp_session", Keys::Number, 6)?,
            v6: exact("gtp_session", Keys::NumberOfAddress, 7)?,
        };
        let prefixes = by_name["DELIVERY_PREFIX"].entries::<PrefixKey, PrefixValue>()?;
        let prefixes = prefixes.into_iter().map(|(_, value)| value.data);
        let deliveries = prefixes.chain(delivery.entries().map(|entry| entry.data));
        let gnbs = deliveries.filter_map(|data| Some(TunnelData::unpack(data)?.gnb.into()));
        let profiles =
            session.by_teid.entries().map(|entry| SessionData::unpack(entry.data).profile.into());
        let gnbs = Interned::open("delivery (gNBs)", &by_name["GNB"], gnbs)?;
        let profiles = Interned::open("gtp_session (kinds)", &by_name["PROFILE"], profiles)?;
        Ok(Self {
            by_name,
            writer: Mutex::new(()),
            no_tcx: AtomicBool::new(false),
            changed: Mutex::default(),
            endpoint: Mutex::new(endpoint),
            route: Mutex::new(route),
            delivery: Mutex::new(delivery),
            session: Mutex::new(session),
            gnbs: Mutex::new(gnbs),
            profiles: Mutex::new(profiles),
        })
    }

    /// Until an interface has refused a program at its ingress.
    pub(crate) fn has_tcx(&self) -> bool {
        !self.no_tcx.load(Ordering::Relaxed)
    }

    pub(crate) fn has_no_tcx(&self) {
        self.no_tcx.store(true, Ordering::Relaxed);
    }

    pub(crate) fn get(&self, name: &str) -> &Map {
        self.by_name.get(name).expect("a map of this layout")
    }

    /// What the agent has written, as bytes by map; not what the programs keep there.
    pub(crate) fn raw_entries(&self) -> Result<Vec<RawEntry>, Error> {
        const KEPT: [&str; 9] = [
            "METER_STATE",
            "QUEUE_STATE",
            "EVENT_RATE",
            "GTP_RATE",
            "ICMP_RATE",
            "HOST_RATE",
            "SAMPLE_RATE",
            "RECENT",
            "PROBE",
        ];
        // Sockets cannot be read back.
        let of_agent = self.by_name.iter().filter(|(name, map)| {
            !KEPT.contains(*name)
                && !EXACT.as_flattened().contains(*name)
                && !matches!(
                    map.spec.kind,
                    Kind::PerCpuArray | Kind::RingBuf | Kind::XskMap | Kind::ProgramArray
                )
        });
        let mut all = Vec::new();
        for (_, map) in of_agent {
            all.extend(map.raw_entries()?);
        }
        let [endpoint, route, delivery] =
            [&self.endpoint, &self.route, &self.delivery].map(|table| lock(table));
        let session = lock(&self.session);
        let addresses = [&endpoint, &route, &delivery].into_iter().flat_map(|t| [&t.v4, &t.v6]);
        let exact = addresses.chain([&session.by_teid, &session.v6]);
        for (table, names) in exact.zip(EXACT) {
            all.extend(table.raw_entries(names));
        }
        Ok(all)
    }

    pub(crate) fn write(&self) -> MutexGuard<'_, ()> {
        // A panic elsewhere left maps that are whole: each write is one system call.
        self.writer.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Before a bank of an element is written that is not in force, and the other one made so:
    /// until no packet is left that looks at it since before the last change. Nothing has to be
    /// waited for unless that was a moment ago.
    pub(crate) fn wait_for_idle_bank(&self, map: &'static str, index: u32) -> Result<(), Error> {
        let mut changed = self.changed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !changed.insert((map, index)) {
            sys::wait_for_programs().map_err(Error::map("wait for the readers of", map))?;
            *changed = BTreeSet::from([(map, index)]);
        }
        Ok(())
    }

    pub(crate) fn config(&self) -> Result<ConfigValue, Error> {
        self.get("CONFIG").at(0)
    }

    /// Changes `CONFIG`. The caller holds [`Maps::write`].
    pub(crate) fn set_config(
        &self,
        _writer: &MutexGuard<'_, ()>,
        change: impl FnOnce(&mut ConfigValue),
    ) -> Result<(), Error> {
        let before = self.config()?;
        let mut after = before;
        change(&mut after);
        if after == before { Ok(()) } else { self.get("CONFIG").put(&0u32, &after) }
    }
}

/// Of what knows where things are in the maps.
pub(crate) fn lock<T>(index: &Mutex<T>) -> MutexGuard<'_, T> {
    index.lock().expect("nothing panics in the middle of a change")
}
