//! Tables `policy`, `local_sid`, `next_hop` and `backup`: where outer headers lead.

use std::sync::Arc;

use selvedge_ebpf_common::value::{
    BackupValue, FLOW_BUCKETS, MAX_PATHS, PathSetValue, PolicyValue, SEVERAL, SID_COMPUTE,
    SID_DECAPSULATE, SID_NODE, SID_NONE, SidValue, backed, way, way_backup, way_mac, way_port,
};
use selvedge_ebpf_common::{
    FIRST_FUNCTION, MAX_BACKUP, MAX_HOOKS, MAX_NODE_SID, MAX_REPAIR_SIDS, MAX_SIDS, POLICY_SLOTS,
    SID_BLOCK, SOURCE_MARK, backup_slot, sid_slot,
};

use super::Table;
use super::port::check_port;
use crate::Error;
use crate::error::within;
use crate::maps::Maps;

/// One way that packets of a policy may take.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Path {
    /// In travelling order, at most six.
    pub sids: Vec<u16>,
    /// `1..=128`; its share is for whoever fills the buckets.
    pub weight: u8,
}

/// What a policy does: at most eight paths, and which of them the flows of each bucket take.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Policy {
    pub paths: Vec<Path>,
    /// Each a place in `paths`.
    pub buckets: [u8; FLOW_BUCKETS],
}

impl Policy {
    /// All packets take one path.
    pub fn one(sids: &[u16]) -> Self {
        let path = Path { sids: sids.to_vec(), weight: 1 };
        Self { paths: vec![path], buckets: [0; FLOW_BUCKETS] }
    }
}

/// By policy id.
#[derive(Clone, Debug)]
pub struct PolicyTable(pub(crate) Arc<Maps>);

fn check_policy(id: u32) -> Result<(), Error> {
    within("policy", id, 1, u64::from(POLICY_SLOTS) - 1)
}

fn check_paths(policy: &Policy) -> Result<(), Error> {
    let count = policy.paths.len() as u64;
    within("number of paths", count, 1, MAX_PATHS as u64)?;
    for path in &policy.paths {
        within("weight", path.weight, 1, FLOW_BUCKETS as u64)?;
        within("number of segment ids", path.sids.len() as u64, 1, MAX_SIDS as u64)?;
        for sid in &path.sids {
            within("segment id", *sid, 1, 0xffff)?;
        }
    }
    for path in policy.buckets {
        within("path of a bucket", path, 0, count - 1)?;
    }
    Ok(())
}

/// `5f00:0:<sid1>:..:<sid6>` as two words in wire order.
fn destination(sids: &[u16]) -> [u64; 2] {
    let mut octets = [0u8; 16];
    octets[..4].copy_from_slice(&SID_BLOCK.to_be_bytes());
    for (to, sid) in octets[4..].chunks_exact_mut(2).zip(sids) {
        to.copy_from_slice(&sid.to_be_bytes());
    }
    super::prefix::address_words(std::net::IpAddr::from(octets))
}

/// The first `count` ids of an outer destination.
fn sids(destination: [u64; 2], count: u8) -> Vec<u16> {
    let octets: Vec<u8> = destination.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let sids = octets[4..].chunks_exact(2).take(count.into());
    sids.map(|sid| u16::from_be_bytes([sid[0], sid[1]])).collect()
}

fn encode_set(policy: &Policy) -> PathSetValue {
    let mut value = PathSetValue {
        destination: [[0; 2]; MAX_PATHS],
        buckets: policy.buckets,
        sids: [0; MAX_PATHS],
        weight: [0; MAX_PATHS],
    };
    for (at, path) in policy.paths.iter().enumerate() {
        value.destination[at] = destination(&path.sids);
        value.sids[at] = u8::try_from(path.sids.len()).expect("at most six");
        value.weight[at] = path.weight;
    }
    value
}

fn decode_set(value: &PathSetValue) -> Policy {
    let paths = (0..MAX_PATHS).filter(|at| value.sids[*at] > 0).map(|at| {
        let sids = sids(value.destination[at], value.sids[at]);
        Path { sids, weight: value.weight[at] }
    });
    Policy { paths: paths.collect(), buckets: value.buckets }
}

impl PolicyTable {
    fn decode(&self, id: u32, value: &PolicyValue) -> Result<Option<Policy>, Error> {
        let bank = usize::from(value.active & 1 == 1);
        Ok(match value.sids[bank] {
            0 => None,
            SEVERAL => self.0.get("PATH_SET").get(&id)?.as_ref().map(decode_set),
            count => {
                let sids = sids(value.destination[bank], count);
                let path = Path { sids, weight: value.more_weight[bank].saturating_add(1) };
                Some(Policy { paths: vec![path], buckets: [0; FLOW_BUCKETS] })
            }
        })
    }
}

impl Table for PolicyTable {
    type Key = u32;
    type Value = Policy;

    /// Changes for each packet as a whole: it takes a path of the policy before or of the new
    /// one. One that has seen that there are several, and looks for them when they are gone,
    /// takes the first of those that were.
    fn put(&self, id: u32, policy: &Policy) -> Result<(), Error> {
        check_policy(id)?;
        check_paths(policy)?;
        let _writer = self.0.write();
        self.0.wait_for_idle_bank("POLICY", id)?;
        let (map, sets) = (self.0.get("POLICY"), self.0.get("PATH_SET"));
        let mut value: PolicyValue = map.at(id)?;
        let idle = usize::from(value.active & 1 == 0);
        let first = &policy.paths[0];
        value.destination[idle] = destination(&first.sids);
        value.more_weight[idle] = first.weight - 1;
        value.sids[idle] = match policy.paths.len() {
            1 => u8::try_from(first.sids.len()).expect("at most six"),
            _ => SEVERAL,
        };
        if value.sids[idle] == SEVERAL {
            sets.put(&id, &encode_set(policy))?;
        }
        map.put(&id, &value)?;
        value.active = u32::from(idle == 1);
        map.put(&id, &value)?;
        if value.sids[idle] != SEVERAL {
            sets.remove(&id)?;
        }
        Ok(())
    }

    fn remove(&self, id: u32) -> Result<bool, Error> {
        check_policy(id)?;
        let _writer = self.0.write();
        let map = self.0.get("POLICY");
        let mut value: PolicyValue = map.at(id)?;
        let present = value.sids[usize::from(value.active & 1 == 1)] != 0;
        if present {
            // The addresses stay, so that a packet that has seen the count finds a path.
            value.sids = [0; 2];
            map.put(&id, &value)?;
            self.0.get("PATH_SET").remove(&id)?;
        }
        Ok(present)
    }

    fn get(&self, id: u32) -> Result<Option<Policy>, Error> {
        check_policy(id)?;
        let _writer = self.0.write();
        self.decode(id, &self.0.get("POLICY").at(id)?)
    }

    fn entries(&self) -> Result<Vec<(u32, Policy)>, Error> {
        let _writer = self.0.write();
        let policies = self.0.get("POLICY").array::<PolicyValue>()?;
        let numbered = (0u32..).zip(&policies);
        let held = numbered.map(|(id, value)| Ok(self.decode(id, value)?.map(|held| (id, held))));
        held.filter_map(Result::transpose).collect()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LocalSid {
    /// This switch's own node id, which outer sources carry as well; the lowest if there are
    /// several, 0 if there is none.
    Node,
    Decapsulate,
    Compute {
        hook: u16,
        bypass: bool,
    },
}

/// By segment id: a node's, `1..=4095`, or a function's, from `0xE000`.
#[derive(Clone, Debug)]
pub struct LocalSidTable(pub(crate) Arc<Maps>);

fn slot(sid: u16) -> Result<u32, Error> {
    match sid_slot(sid) {
        Some(slot) if sid > 0 => Ok(slot),
        _ => Err(Error::Range {
            field: "segment id",
            value: sid.into(),
            least: 1,
            most: MAX_NODE_SID.into(),
        }),
    }
}

fn sid_of(slot: u32) -> u16 {
    let most = u32::from(MAX_NODE_SID);
    let id = if slot <= most { slot } else { slot - most - 1 + u32::from(FIRST_FUNCTION) };
    u16::try_from(id).expect("slots are ids")
}

fn decode_local(value: &SidValue) -> Option<LocalSid> {
    match value.local {
        SID_NODE => Some(LocalSid::Node),
        SID_DECAPSULATE => Some(LocalSid::Decapsulate),
        SID_COMPUTE => {
            Some(LocalSid::Compute { hook: value.hook.into(), bypass: value.bypass != 0 })
        }
        _ => None,
    }
}

/// First half of outer sources, in wire order.
fn source_word(node: u16) -> u64 {
    let mut octets = [0; 8];
    octets[..4].copy_from_slice(&SID_BLOCK.to_be_bytes());
    octets[4..6].copy_from_slice(&node.to_be_bytes());
    octets[6..].copy_from_slice(&SOURCE_MARK.to_be_bytes());
    u64::from_ne_bytes(octets)
}

impl LocalSidTable {
    fn set(&self, sid: u16, local: u8, hook: u8, bypass: bool) -> Result<bool, Error> {
        let slot = slot(sid)?;
        let writer = self.0.write();
        let map = self.0.get("SID");
        let before: SidValue = map.at(slot)?;
        let after = SidValue { local, hook, bypass: bypass.into(), ..before };
        map.put(&slot, &after)?;
        if local == SID_NODE || before.local == SID_NODE {
            let sids = map.array::<SidValue>()?;
            let nodes = (0..=MAX_NODE_SID).zip(&sids);
            let own = nodes.filter(|(_, value)| value.local == SID_NODE).map(|(sid, _)| sid).next();
            let source = source_word(own.unwrap_or(0));
            self.0.set_config(&writer, |config| config.source = source)?;
        }
        Ok(before.local != SID_NONE)
    }

    /// Outer sources before any `Node` entry: node 0.
    pub(crate) fn initial_source() -> u64 {
        source_word(0)
    }
}

impl Table for LocalSidTable {
    type Key = u16;
    type Value = LocalSid;

    fn put(&self, sid: u16, action: &LocalSid) -> Result<(), Error> {
        match *action {
            LocalSid::Node => {
                within("node id", sid, 1, MAX_NODE_SID.into())?;
                self.set(sid, SID_NODE, 0, false)
            }
            LocalSid::Decapsulate => self.set(sid, SID_DECAPSULATE, 0, false),
            LocalSid::Compute { hook, bypass } => {
                within("hook", hook, 0, u64::from(MAX_HOOKS) - 1)?;
                self.set(sid, SID_COMPUTE, u8::try_from(hook).expect("checked"), bypass)
            }
        }
        .map(drop)
    }

    fn remove(&self, sid: u16) -> Result<bool, Error> {
        if self.get(sid)?.is_none() { Ok(false) } else { self.set(sid, SID_NONE, 0, false) }
    }

    fn get(&self, sid: u16) -> Result<Option<LocalSid>, Error> {
        Ok(decode_local(&self.0.get("SID").at(slot(sid)?)?))
    }

    fn entries(&self) -> Result<Vec<(u16, LocalSid)>, Error> {
        let sids = self.0.get("SID").array::<SidValue>()?;
        let numbered = (0u32..).zip(&sids);
        Ok(numbered.filter_map(|(slot, v)| Some((sid_of(slot), decode_local(v)?))).collect())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NextHop {
    pub port: u16,
    /// Of the neighbor's port.
    pub mac: [u8; 6],
    /// Which backup of the port leads on while it is down; 0: none.
    pub backup: u8,
}

/// By node id.
#[derive(Clone, Debug)]
pub struct NextHopTable(pub(crate) Arc<Maps>);

impl NextHopTable {
    fn set(&self, node: u16, way: u64) -> Result<bool, Error> {
        within("node id", node, 1, MAX_NODE_SID.into())?;
        let _writer = self.0.write();
        let map = self.0.get("SID");
        let before: SidValue = map.at(node.into())?;
        map.put(&u32::from(node), &SidValue { way, ..before })?;
        Ok(before.way != 0)
    }
}

fn decode_way(value: &SidValue) -> Option<NextHop> {
    let SidValue { way, .. } = *value;
    let hop = || NextHop { port: way_port(way), mac: way_mac(way), backup: way_backup(way) };
    (way != 0).then(hop)
}

impl Table for NextHopTable {
    type Key = u16;
    type Value = NextHop;

    fn put(&self, node: u16, hop: &NextHop) -> Result<(), Error> {
        check_port(hop.port)?;
        within("backup", hop.backup, 0, MAX_BACKUP.into())?;
        self.set(node, backed(way(hop.port, hop.mac), hop.backup)).map(drop)
    }

    fn remove(&self, node: u16) -> Result<bool, Error> {
        self.set(node, 0)
    }

    fn get(&self, node: u16) -> Result<Option<NextHop>, Error> {
        within("node id", node, 1, MAX_NODE_SID.into())?;
        Ok(decode_way(&self.0.get("SID").at(node.into())?))
    }

    fn entries(&self) -> Result<Vec<(u16, NextHop)>, Error> {
        let sids = self.0.get("SID").array::<SidValue>()?;
        let numbered = (0u16..).zip(&sids).take(usize::from(MAX_NODE_SID) + 1);
        Ok(numbered.filter_map(|(node, v)| Some((node, decode_way(v)?))).collect())
    }
}

/// The way around a port that is down.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Backup {
    pub port: u16,
    /// Of the neighbor's port.
    pub mac: [u8; 6],
    /// Before the packet's own, at most four.
    pub sids: Vec<u16>,
}

/// By port and the number of its backup, `1..=127`, which next hops name.
#[derive(Clone, Debug)]
pub struct BackupTable(pub(crate) Arc<Maps>);

const REPAIR_SHIFTS: [u32; MAX_REPAIR_SIDS] = [48, 32, 16, 0];

fn decode_backup(value: &BackupValue) -> Option<Backup> {
    let bank = usize::from(value.active & 1 == 1);
    let (way, repair) = (value.way[bank], value.repair[bank]);
    let sids = REPAIR_SHIFTS.iter().map(|shift| (repair >> shift) as u16);
    let sids = sids.take(value.sids[bank].into()).collect();
    (way != 0).then(|| Backup { port: way_port(way), mac: way_mac(way), sids })
}

fn backup_at((port, backup): (u16, u8)) -> Result<u32, Error> {
    check_port(port)?;
    within("backup", backup, 1, MAX_BACKUP.into())?;
    Ok(backup_slot(port, backup))
}

impl Table for BackupTable {
    type Key = (u16, u8);
    type Value = Backup;

    /// Changes for each packet as a whole.
    fn put(&self, key: (u16, u8), backup: &Backup) -> Result<(), Error> {
        let slot = backup_at(key)?;
        check_port(backup.port)?;
        within("number of segment ids", backup.sids.len() as u64, 0, MAX_REPAIR_SIDS as u64)?;
        let mut repair = 0;
        for (sid, shift) in backup.sids.iter().zip(REPAIR_SHIFTS) {
            within("segment id", *sid, 1, 0xffff)?;
            repair |= u64::from(*sid) << shift;
        }
        let _writer = self.0.write();
        self.0.wait_for_idle_bank("BACKUP", slot)?;
        let map = self.0.get("BACKUP");
        let mut value: BackupValue = map.at(slot)?;
        let idle = usize::from(value.active & 1 == 0);
        value.way[idle] = way(backup.port, backup.mac);
        value.repair[idle] = repair;
        value.sids[idle] = u8::try_from(backup.sids.len()).expect("at most four");
        map.put(&slot, &value)?;
        value.active = u32::from(idle == 1);
        map.put(&slot, &value)
    }

    fn remove(&self, key: (u16, u8)) -> Result<bool, Error> {
        let slot = backup_at(key)?;
        let _writer = self.0.write();
        let map = self.0.get("BACKUP");
        let mut value: BackupValue = map.at(slot)?;
        let present = decode_backup(&value).is_some();
        if present {
            value.way = [0; 2];
            map.put(&slot, &value)?;
        }
        Ok(present)
    }

    fn get(&self, key: (u16, u8)) -> Result<Option<Backup>, Error> {
        Ok(decode_backup(&self.0.get("BACKUP").at(backup_at(key)?)?))
    }

    fn entries(&self) -> Result<Vec<((u16, u8), Backup)>, Error> {
        let backups = self.0.get("BACKUP").array::<BackupValue>()?;
        let key = |slot: u32| ((slot >> 7) as u16, (slot & 0x7f) as u8);
        let numbered = (0u32..).zip(&backups);
        Ok(numbered.filter_map(|(slot, v)| Some((key(slot), decode_backup(v)?))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_and_ids_are_inverse() {
        for id in (1..=MAX_NODE_SID).chain(FIRST_FUNCTION..=0xffff) {
            assert_eq!(sid_of(slot(id).unwrap()), id);
        }
        for id in [0, MAX_NODE_SID + 1, FIRST_FUNCTION - 1] {
            assert!(slot(id).is_err(), "{id}");
        }
    }

    #[test]
    fn destinations_carry_ids_in_order() {
        let ids = vec![7, 0xE101, 9, 0xE001];
        let words = destination(&ids);
        assert_eq!(sids(words, 4), ids);
        let octets: Vec<u8> = words.iter().flat_map(|w| w.to_ne_bytes()).collect();
        assert_eq!(octets, [0x5f, 0, 0, 0, 0, 7, 0xE1, 1, 0, 9, 0xE0, 1, 0, 0, 0, 0]);
    }
}
