//! Network slice types that a slice may be made from: `spec.template` fills what is not stated.
//!
//! Their names are those of GSMA NG.116's NESTs; filled in are the attributes that a transport
//! network keeps, with the values of the 3GPP tables named at each. A template promises no rate
//! and no availability: nobody can know those for somebody else.

use selvedge_topology::Delay;

use crate::NetworkSlice;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Template {
    /// Enhanced mobile broadband.
    Embb,
    /// Ultra-reliable low-latency communication.
    Urllc,
    /// Massive Internet of Things.
    Miot,
}

/// What a template has in place of attributes that are not stated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// 3GPP TS 23.501, table 5.15.2.2-1.
    pub sst: u8,
    /// 3GPP TS 23.501, table 5.7.4-1.
    pub five_qi: u8,
    /// The packet delay budget of a delay-critical 5QI.
    pub latency: Option<Delay>,
}

/// An attribute that a template can fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Attribute {
    Sst,
    FiveQi,
    Latency,
}

/// The template of a slice, and the attributes that it filled, in rising order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FromTemplate {
    pub template: Template,
    pub filled: Vec<Attribute>,
}

impl Template {
    pub const WORDS: [(&'static str, Self); 3] =
        [("eMBB", Self::Embb), ("URLLC", Self::Urllc), ("MIoT", Self::Miot)];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Embb => "eMBB",
            Self::Urllc => "URLLC",
            Self::Miot => "MIoT",
        }
    }

    pub fn defaults(self) -> Defaults {
        match self {
            // 9: the default bearer of subscribers without privileges.
            Self::Embb => Defaults { sst: 1, five_qi: 9, latency: None },
            // 82: discrete automation, delay-critical GBR, budget 10 ms.
            Self::Urllc => Defaults { sst: 2, five_qi: 82, latency: Some(Delay::from_ms(10)) },
            Self::Miot => Defaults { sst: 3, five_qi: 9, latency: None },
        }
    }
}

impl NetworkSlice {
    /// Whether an attribute was not stated, but came from the slice's template.
    pub fn is_filled(&self, attribute: Attribute) -> bool {
        self.template.as_ref().is_some_and(|from| from.filled.contains(&attribute))
    }

    /// What came from the template, as one line for people; `None`: there is no template.
    pub fn from_template(&self) -> Option<String> {
        let FromTemplate { template, filled } = self.template.as_ref()?;
        let mut parts = Vec::new();
        for attribute in filled {
            parts.extend(match attribute {
                Attribute::Sst => self.s_nssai.map(|id| format!("sst {}", id.sst())),
                Attribute::FiveQi => self.five_qi.map(|number| format!("5qi {number}")),
                Attribute::Latency => self.latency.map(|latency| format!("latency {latency}")),
            });
        }
        let parts = if parts.is_empty() { "nothing".to_owned() } else { parts.join(", ") };
        Some(format!("slice {}: from template {}: {parts}", self.name, template.as_str()))
    }
}
