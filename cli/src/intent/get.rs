//! `selvedge get`: the network as the controller sees it.

use std::process::ExitCode;

use selvedge_controller::api::wire::{
    Application, ClassMap, Endpoint, Hook, Link, LogLine, Node, PduSession, Slice, Status,
};
use selvedge_controller::api::wire_assure::SliceAssurance;
use selvedge_controller::api::wire_counters::Counters;
use selvedge_controller::api::wire_intent::Entry;
use serde::de::DeserializeOwned;

use super::{assurance, print_json, table};
use crate::Output;
use crate::client::{Client, ControllerArg};

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    Status,
    #[value(alias = "node", alias = "switches", alias = "switch")]
    Nodes,
    #[value(alias = "link")]
    Links,
    #[value(alias = "endpoint", alias = "hosts", alias = "host")]
    Endpoints,
    #[value(alias = "slice")]
    Slices,
    #[value(alias = "hook")]
    Hooks,
    #[value(alias = "application", alias = "apps", alias = "app")]
    Applications,
    ClassMap,
    #[value(alias = "pdu-session", alias = "sessions", alias = "session")]
    PduSessions,
    #[value(alias = "event")]
    Events,
    Topology,
    #[value(alias = "entry")]
    Entries,
    #[value(alias = "counter")]
    Counters,
}

pub(super) fn run(
    kind: Kind,
    name: Option<&str>,
    desired: bool,
    controller: &ControllerArg,
    output: Output,
) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(!desired || kind == Kind::Entries, "--desired is for entries");
    let get = Get { client: Client::find(controller)?, output };
    match (kind, name) {
        (Kind::Status, None) => get.one::<Status>("/v1/status", table::status)?,
        (Kind::Nodes, name) => get.list::<Node>("nodes", name, table::nodes)?,
        (Kind::Endpoints, name) => get.list::<Endpoint>("endpoints", name, table::endpoints)?,
        (Kind::Slices, Some(name)) => get.slice(name)?,
        (Kind::Slices, None) => get.list::<Slice>("slices", None, table::slices)?,
        (Kind::Hooks, name) => get.list::<Hook>("hooks", name, table::hooks)?,
        (Kind::Applications, name) => {
            get.list::<Application>("applications", name, table::applications)?;
        }
        (Kind::ClassMap, None) => get.one::<ClassMap>("/v1/class-map", table::class_map)?,
        (Kind::PduSessions, None) => {
            get.list::<PduSession>("pdu-sessions", None, table::pdu_sessions)?;
        }
        (Kind::Links, None) => get.list::<Link>("links", None, table::links)?,
        (Kind::Events, None) => get.list::<LogLine>("events", None, table::events)?,
        (Kind::Topology, None) => get.topology()?,
        (Kind::Entries, Some(node)) => {
            let which = if desired { "desired" } else { "observed" };
            let path = format!("/v1/nodes/{}/entries?which={which}", table::segment(node));
            get.one::<Vec<Entry>>(&path, |entries| table::entries(entries))?;
        }
        (Kind::Counters, Some(node)) => {
            let path = format!("/v1/nodes/{}/counters", table::segment(node));
            get.one::<Counters>(&path, table::counters)?;
        }
        (Kind::Counters, None) => {
            anyhow::bail!("counters of which node? `selvedge get counters NODE`")
        }
        (Kind::Entries, None) => {
            anyhow::bail!("entries of which node? `selvedge get entries NODE`")
        }
        (
            Kind::Status
            | Kind::Links
            | Kind::ClassMap
            | Kind::PduSessions
            | Kind::Events
            | Kind::Topology,
            Some(name),
        ) => anyhow::bail!("{name:?} is one too many: there is only a list of these"),
    }
    Ok(ExitCode::SUCCESS)
}

struct Get {
    client: Client,
    output: Output,
}

impl Get {
    fn one<T: DeserializeOwned>(&self, path: &str, show: impl Fn(&T)) -> anyhow::Result<()> {
        let answer = self.client.get::<T>(path)?;
        match self.output {
            Output::Json => print_json(&answer),
            Output::Text => {
                show(&answer.value);
                Ok(())
            }
        }
    }

    fn list<T: DeserializeOwned>(
        &self,
        collection: &str,
        name: Option<&str>,
        show: impl Fn(&[T]),
    ) -> anyhow::Result<()> {
        match name {
            None => self.one::<Vec<T>>(&format!("/v1/{collection}"), |list| show(list)),
            Some(name) => {
                let path = format!("/v1/{collection}/{}", table::segment(name));
                self.one::<T>(&path, |one| show(std::slice::from_ref(one)))
            }
        }
    }

    /// A slice, and its promises beside what is measured.
    fn slice(&self, name: &str) -> anyhow::Result<()> {
        let path = format!("/v1/slices/{}", table::segment(name));
        let slice = self.client.get::<Slice>(&path)?;
        let assurance = self.client.get::<SliceAssurance>(&format!("{path}/assurance"))?;
        match self.output {
            Output::Json => {
                let mut value: serde_json::Value = serde_json::from_str(&slice.text)?;
                value["assurance"] = serde_json::from_str(&assurance.text)?;
                println!("{}", serde_json::to_string_pretty(&value)?);
            }
            Output::Text => {
                table::slices(std::slice::from_ref(&slice.value));
                assurance::show(&assurance.value);
            }
        }
        Ok(())
    }

    /// YAML, as it would be written.
    fn topology(&self) -> anyhow::Result<()> {
        let text = self.client.get_text("/v1/topology")?;
        match self.output {
            Output::Text => print!("{text}"),
            Output::Json => {
                println!("{}", serde_json::to_string_pretty(&serde_json::json!({ "yaml": text }))?);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn one_of_a_kind_is_asked_for_in_the_singular() {
        for (singular, plural, kind) in [
            ("slice", "slices", Kind::Slices),
            ("hook", "hooks", Kind::Hooks),
            ("node", "nodes", Kind::Nodes),
            ("application", "applications", Kind::Applications),
            ("endpoint", "endpoints", Kind::Endpoints),
            ("counter", "counters", Kind::Counters),
        ] {
            assert_eq!(Kind::from_str(singular, false).as_ref(), Ok(&kind));
            assert_eq!(Kind::from_str(plural, false).as_ref(), Ok(&kind));
        }
    }
}
