//! What a person should be told of an object beyond what its text says.

use crate::{NetworkSlice, Object, ResourceSharingLevel};

impl Object {
    /// What was not stated and came from a template, a line each.
    pub fn filled_in(&self) -> Vec<String> {
        match self {
            Self::NetworkSlice(slice) => slice.from_template().into_iter().collect(),
            Self::Hook(_) | Self::Application(_) | Self::ClassMap(_) | Self::PduSession(_) => {
                Vec::new()
            }
        }
    }

    /// What is taken in, kept and shown, but not carried out by this version, a line each.
    pub fn not_enforced(&self) -> Vec<String> {
        match self {
            Self::NetworkSlice(slice) => slice.not_enforced(),
            Self::ClassMap(map) if !map.dscp.is_empty() => vec![format!(
                "class map {}: dscp is not enforced: switches treat all packets of a slice as \
                 the slice's class",
                map.name
            )],
            Self::ClassMap(_) | Self::Hook(_) | Self::Application(_) | Self::PduSession(_) => {
                Vec::new()
            }
        }
    }
}

impl NetworkSlice {
    /// As [`Object::not_enforced`].
    pub fn not_enforced(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.resource_sharing_level == ResourceSharingLevel::NonShared {
            lines.push(format!(
                "slice {}: resourceSharingLevel non-shared is enforced for what is guaranteed and \
                 kept free for it; what it leaves idle carries excess of other slices",
                self.name
            ));
        }
        lines
    }
}
