//! The switch's tables, typed. The maps are the truth: what is put is what is read back, after
//! a restart of the agent as well, and nothing is cached here.
//!
//! A table checks what the maps' layout needs (ranges of numbers, number of ids). What an entry
//! refers to need not exist: the programs count such packets under a drop reason.

mod classifier;
mod delivery;
mod gtp;
mod meter;
mod path;
mod port;
mod prefix;

pub use classifier::{Classifier, Rule, RuleAction};
pub use delivery::{DeliveryTable, END_MARKERS};
pub use gtp::{N3Table, Session, SessionTable, Tunnel};
pub use meter::{
    Class, Direction, EndpointMeter, EndpointMeterTable, Meter, MeterTable, Queue, QueueTable,
};
pub use path::{
    Backup, BackupTable, LocalSid, LocalSidTable, NextHop, NextHopTable, Path, Policy, PolicyTable,
};
pub(crate) use port::check_port;
pub use port::{PortKind, PortTable};
pub use prefix::{Delivery, Endpoint, PrefixTable, Route, RouteAction};
pub(crate) use prefix::{Row, address_of, address_words, bytes, net};

use crate::Error;

/// Keys with their values.
pub type Entries<K, V> = Vec<(K, V)>;

pub trait Table {
    type Key: Copy;
    type Value;

    /// Inserts or replaces; a packet sees the old value or the new.
    fn put(&self, key: Self::Key, value: &Self::Value) -> Result<(), Error>;

    /// Whether there was one.
    fn remove(&self, key: Self::Key) -> Result<bool, Error>;

    fn get(&self, key: Self::Key) -> Result<Option<Self::Value>, Error>;

    /// All entries; in the key's order for tables by number, else in none.
    #[allow(clippy::type_complexity, reason = "pairs of a key and a value, and it reads so")]
    fn entries(&self) -> Result<Entries<Self::Key, Self::Value>, Error>;
}
