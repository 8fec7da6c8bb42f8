//! What every switch should hold: a plain function of intent, topology and reports, for the
//! switches or slices that are asked for.

use std::collections::BTreeSet;

use selvedge_slices::{ObjectName, Side};

pub(crate) mod fabric;
mod meters;
pub(crate) mod rules;
mod slices;
mod ways;

pub(crate) use slices::slices;
pub(crate) use ways::parts;

/// Which slices name a host.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Named {
    pub(crate) side: Side,
    /// In the order of names; at least one.
    pub(crate) slices: Vec<ObjectName>,
}

/// Slices whose entries are wanted.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    /// With any of these all others that share an endpoint with those that changed.
    pub(crate) slices: BTreeSet<ObjectName>,
    /// The default slice too.
    pub(crate) default: bool,
}
