//! Marks and test packets, from the agent's side.

use std::sync::Arc;

use selvedge_ebpf_common::value::{PROBES_KEPT, ProbeValue};

use crate::Error;
use crate::maps::Maps;
use crate::table::check_port;

/// What assurance needs of the data plane besides counters.
#[derive(Clone, Debug)]
pub struct Probes(pub(crate) Arc<Maps>);

impl Probes {
    /// What packets that enter from now on are marked with.
    pub fn set_mark(&self, mark: bool) -> Result<(), Error> {
        let writer = self.0.write();
        self.0.set_config(&writer, |config| config.mark = mark.into())
    }

    /// The last answers on a port: sequence number and two-way delay in nanoseconds.
    pub fn answers(&self, port: u16) -> Result<[(u32, u32); PROBES_KEPT], Error> {
        check_port(port)?;
        let value: ProbeValue = self.0.get("PROBE").at(port.into())?;
        Ok(value.answers.map(|word| ((word >> 32) as u32, word as u32)))
    }
}
