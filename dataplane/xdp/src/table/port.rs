//! Table `port`: what kind of port a port is. Where its interface is, is [`crate::Switch`]'s.

use std::sync::Arc;

use selvedge_ebpf_common::MAX_PORT_ID;
use selvedge_ebpf_common::value::{PORT_ACCESS, PORT_FABRIC, PORT_NONE, PortValue};

use super::Table;
use crate::Error;
use crate::error::within;
use crate::maps::Maps;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortKind {
    Access,
    Fabric,
}

/// By port id.
#[derive(Clone, Debug)]
pub struct PortTable(pub(crate) Arc<Maps>);

pub(crate) fn check_port(port: u16) -> Result<(), Error> {
    within("port", port, 1, MAX_PORT_ID.into())
}

impl PortTable {
    fn set(&self, port: u16, kind: u8) -> Result<u8, Error> {
        check_port(port)?;
        let _writer = self.0.write();
        let map = self.0.get("PORT");
        let before: PortValue = map.at(port.into())?;
        if before.kind != kind {
            map.put(&u32::from(port), &PortValue { kind, ..before })?;
        }
        Ok(before.kind)
    }
}

fn decode(kind: u8) -> Option<PortKind> {
    match kind {
        PORT_ACCESS => Some(PortKind::Access),
        PORT_FABRIC => Some(PortKind::Fabric),
        _ => None,
    }
}

impl Table for PortTable {
    type Key = u16;
    type Value = PortKind;

    fn put(&self, port: u16, kind: &PortKind) -> Result<(), Error> {
        let kind = match kind {
            PortKind::Access => PORT_ACCESS,
            PortKind::Fabric => PORT_FABRIC,
        };
        self.set(port, kind).map(drop)
    }

    fn remove(&self, port: u16) -> Result<bool, Error> {
        Ok(self.set(port, PORT_NONE)? != PORT_NONE)
    }

    fn get(&self, port: u16) -> Result<Option<PortKind>, Error> {
        check_port(port)?;
        let value: PortValue = self.0.get("PORT").at(port.into())?;
        Ok(decode(value.kind))
    }

    fn entries(&self) -> Result<Vec<(u16, PortKind)>, Error> {
        let ports = self.0.get("PORT").array::<PortValue>()?;
        let numbered = (0u16..).zip(ports).take(usize::from(MAX_PORT_ID) + 1);
        Ok(numbered.filter_map(|(port, value)| Some((port, decode(value.kind)?))).collect())
    }
}
