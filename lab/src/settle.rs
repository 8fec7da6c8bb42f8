//! Waiting until the controller has taken up what was done to a lab.

use std::thread;
use std::time::{Duration, Instant};

use selvedge_topology::End;

use crate::error::{LabError, Result};
use crate::lab::Lab;
use crate::names::ProcessName;
use crate::state::Control;
use crate::{process, several, status};

/// What was done.
#[derive(Clone, Copy, Debug)]
pub enum Done<'a> {
    /// A link's carrier; as [`Lab::link`].
    Link { a: &'a str, b: &'a str, up: bool },
    /// As [`Lab::move_host`].
    Moved { host: &'a str, to: &'a End },
    /// Something that the controller knows itself; then one has to run.
    Told,
}

/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

impl Lab {
    /// Waits until the controller knows of it and the switches are as they should be. False: no
    /// controller runs, so that there is nothing to wait for.
    ///
    /// # Errors
    /// [`LabError::Deadline`] with what is missing; those of [`Lab::link`].
    pub fn settled(&self, done: Done<'_>, patience: Duration) -> Result<bool> {
        let runs = |processes: Vec<(ProcessName, _)>| {
            processes
                .iter()
                .any(|(name, pid): &(_, Option<_>)| name.is_controller() && pid.is_some())
        };
        let nobody = self.state()?.control != Control::Controller || !runs(self.processes()?);
        if nobody && !matches!(done, Done::Told) {
            return Ok(false);
        }
        let ends = match done {
            Done::Link { a, b, up } => {
                self.switch_ends(a, b)?.into_iter().map(|e| (e, up)).collect()
            }
            Done::Moved { .. } | Done::Told => Vec::new(),
        };
        let deadline = Instant::now() + patience;
        loop {
            let missing = match self.missing(done, &ends) {
                Ok(missing) if missing.is_empty() => return Ok(true),
                Ok(missing) => missing.join("; "),
                Err(error) => format!("the controller does not answer: {error}"),
            };
            if Instant::now() > deadline {
                let log = process::tail(&self.log(&ProcessName::Controller));
                return Err(LabError::Deadline { after: patience, missing, log });
            }
            thread::sleep(LOOK_AGAIN);
        }
    }

    /// Waits until the controller says that all is as it should be.
    ///
    /// # Errors
    /// [`LabError::Deadline`] with what is missing.
    pub fn converged(&self, patience: Duration) -> Result<()> {
        self.settled(Done::Told, patience).map(drop)
    }

    /// The ends of a link that are switches' ports.
    fn switch_ends(&self, a: &str, b: &str) -> Result<Vec<End>> {
        let state = self.state()?;
        let link = &state.links[state.link(a, b)?];
        let ends = [link.a.end(), link.b.end()];
        let switches: Vec<_> = state.switches().map(|(name, ..)| name.to_string()).collect();
        Ok(ends
            .into_iter()
            .filter(|end| switches.iter().any(|s| *s == end.node.as_str()))
            .collect())
    }

    fn missing(&self, done: Done<'_>, ends: &[(End, bool)]) -> std::io::Result<Vec<String>> {
        let state = self.state().map_err(std::io::Error::other)?;
        let (leader, _) = several::leader(&state)?;
        let socket = several::socket(self.name(), &leader);
        if !ends.is_empty() {
            let nodes = status::nodes(&socket)?;
            let is = |end: &End, up: bool| {
                let node = nodes.iter().find(|node| node.name == end.node.as_str());
                let mut ports = node.into_iter().flat_map(|node| &node.ports);
                ports.any(|port| port.name == end.port.as_str() && port.up == up)
            };
            let late: Vec<String> = ends
                .iter()
                .filter(|(end, up)| !is(end, *up))
                .map(|(end, up)| format!("{end} to be {}", if *up { "up" } else { "down" }))
                .collect();
            if !late.is_empty() {
                return Ok(late);
            }
        }
        if let Done::Moved { host, to } = done {
            let endpoints = status::endpoints(&socket)?;
            let there = endpoints.iter().any(|endpoint| {
                endpoint.name == host
                    && endpoint.attached
                    && endpoint.switch.as_deref() == Some(to.node.as_str())
                    && endpoint.port.as_deref() == Some(to.port.as_str())
            });
            if !there {
                return Ok(vec![format!("{host} to be seen at {to}")]);
            }
        }
        // After what was asked for above, which it may be older than.
        let status = status::status(&socket)?;
        match (status.converged, status.waiting_for) {
            (true, _) => Ok(Vec::new()),
            (false, waiting) if waiting.is_empty() => Ok(vec![String::from("all to converge")]),
            (false, waiting) => Ok(waiting),
        }
    }
}
