//! Local repair: around a port that is down, until the controller has found other ways
//! (facility backup in the sense of RFC 4090 §3.2, as NEXT-C-SIDs).

use selvedge_ebpf_common::value::{PORT_UP, way_backup, way_port};
use selvedge_ebpf_common::{backup_slot, drop};
use selvedge_ebpf_parse::srv6::Container;

use super::maps::{BACKUP, PORT_STATE};

#[inline(always)]
pub(super) fn is_up(way: u64) -> bool {
    PORT_STATE.get(way_port(way).into()).is_some_and(|state| *state == PORT_UP)
}

/// Another way than one whose port is down, and the ids that lead along it.
#[inline(always)]
pub(super) fn around(way: u64, container: Container) -> Result<(u64, Container), u8> {
    let slot = backup_slot(way_port(way), way_backup(way));
    let backup = BACKUP.get(slot).ok_or(drop::PORT_DOWN)?;
    let second = backup.active & 1 != 0;
    let (way, repair, count) = if second {
        (backup.way[1], backup.repair[1], backup.sids[1])
    } else {
        (backup.way[0], backup.repair[0], backup.sids[0])
    };
    if way == 0 || !is_up(way) {
        return Err(drop::PORT_DOWN);
    }
    Ok((way, container.pushed(repair, count).ok_or(drop::NO_REPAIR_ROOM)?))
}
