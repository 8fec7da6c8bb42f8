//! Which ports packets go around, from the agent's side.

use std::sync::Arc;
use std::time::Duration;

use selvedge_ebpf_common::rate::until;
use selvedge_ebpf_common::value::{PORT_DOWN, PORT_UP, QueueState};

use crate::Error;
use crate::maps::Maps;
use crate::table::check_port;

/// By port id; a port is up until it is said to be down.
#[derive(Clone, Debug)]
pub struct PortStates(pub(crate) Arc<Maps>);

impl PortStates {
    /// One word: the next packet sees it.
    pub fn set(&self, port: u16, up: bool) -> Result<(), Error> {
        check_port(port)?;
        let state = if up { PORT_UP } else { PORT_DOWN };
        self.0.get("PORT_STATE").put(&u32::from(port), &state)
    }

    /// How long what stands in the port's virtual queue takes to send; `now` on the monotonic
    /// clock.
    pub fn backlog(&self, port: u16, now: Duration) -> Result<Duration, Error> {
        check_port(port)?;
        let state: QueueState = self.0.get("QUEUE_STATE").at(port.into())?;
        let now_ps = (now.as_nanos() as u64).wrapping_mul(1000);
        Ok(Duration::from_nanos(until(state.tat_ps, now_ps) / 1000))
    }

    pub fn is_up(&self, port: u16) -> Result<bool, Error> {
        check_port(port)?;
        Ok(self.0.get("PORT_STATE").at::<u32>(port.into())? == PORT_UP)
    }
}
