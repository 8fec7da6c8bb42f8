//! What a switch remembers by itself, over restarts of its agent: the generation of its
//! entries and the highest election id (DESIGN §3), and which port has which number.

use std::collections::BTreeMap;
use std::sync::Arc;

use selvedge_ebpf_common::MAX_PORT_ID;
use selvedge_ebpf_common::value::{FactsValue, PortName};

use crate::Error;
use crate::maps::Maps;
use crate::table::check_port;

#[derive(Clone, Debug)]
pub struct Facts(pub(crate) Arc<Maps>);

impl Facts {
    fn read(&self) -> Result<FactsValue, Error> {
        self.0.get("FACTS").at(0)
    }

    fn change(&self, change: impl FnOnce(&mut FactsValue)) -> Result<(), Error> {
        let _writer = self.0.write();
        let mut value = self.read()?;
        change(&mut value);
        self.0.get("FACTS").put(&0u32, &value)
    }

    pub fn generation(&self) -> Result<Option<u64>, Error> {
        let facts = self.read()?;
        Ok((facts.flags & FactsValue::HAS_GENERATION != 0).then_some(facts.generation))
    }

    pub fn set_generation(&self, generation: Option<u64>) -> Result<(), Error> {
        self.change(|facts| match generation {
            Some(generation) => {
                facts.generation = generation;
                facts.flags |= FactsValue::HAS_GENERATION;
            }
            None => facts.flags &= !FactsValue::HAS_GENERATION,
        })
    }

    /// The highest election id accepted so far.
    pub fn election(&self) -> Result<Option<u128>, Error> {
        let facts = self.read()?;
        let id = u128::from(facts.election_high) << 64 | u128::from(facts.election_low);
        Ok((facts.flags & FactsValue::HAS_ELECTION != 0).then_some(id))
    }

    pub fn set_election(&self, id: u128) -> Result<(), Error> {
        self.change(|facts| {
            facts.election_high = (id >> 64) as u64;
            facts.election_low = id as u64;
            facts.flags |= FactsValue::HAS_ELECTION;
        })
    }

    /// The number of the port of this name: the one it has, else the lowest free one.
    ///
    /// # Errors
    /// [`Error::NoPortFree`] when 255 names have one; [`Error::PortName`].
    pub fn port_id(&self, name: &str) -> Result<u16, Error> {
        let text = encode(name)?;
        let _writer = self.0.write();
        let names = self.0.get("PORT_NAME").array::<PortName>()?;
        let numbers = 1..=MAX_PORT_ID;
        let of =
            |wanted: PortName| numbers.clone().find(|port| names[usize::from(*port)] == wanted);
        if let Some(port) = of(text) {
            return Ok(port);
        }
        let port = of(PortName::default()).ok_or(Error::NoPortFree(MAX_PORT_ID))?;
        self.0.get("PORT_NAME").put(&u32::from(port), &text)?;
        Ok(port)
    }

    /// Names with a number, present or not.
    pub fn ports(&self) -> Result<BTreeMap<String, u16>, Error> {
        let names = self.0.get("PORT_NAME").array::<PortName>()?;
        let numbered = (0u16..).zip(names).skip(1).take(usize::from(MAX_PORT_ID));
        Ok(numbered.filter_map(|(port, name)| Some((decode(name)?, port))).collect())
    }

    /// Whether a name has the number.
    pub fn knows_port(&self, port: u16) -> Result<bool, Error> {
        let map = self.0.get("PORT_NAME");
        Ok(check_port(port).is_ok() && map.at::<PortName>(port.into())? != PortName::default())
    }

    /// Frees a number, for a port that will not come back.
    pub fn forget_port(&self, port: u16) -> Result<(), Error> {
        check_port(port)?;
        let _writer = self.0.write();
        self.0.get("PORT_NAME").put(&u32::from(port), &PortName::default())
    }
}

fn encode(name: &str) -> Result<PortName, Error> {
    let bytes = name.as_bytes();
    if bytes.is_empty() || bytes.len() > 15 || bytes.contains(&0) {
        return Err(Error::PortName(name.to_owned()));
    }
    let mut text = [0; 16];
    text[..bytes.len()].copy_from_slice(bytes);
    Ok(PortName(text))
}

fn decode(PortName(text): PortName) -> Option<String> {
    let len = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
    (len > 0).then(|| String::from_utf8_lossy(&text[..len]).into_owned())
}
