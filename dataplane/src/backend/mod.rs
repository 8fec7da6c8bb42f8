//! The tables of a switch as typed entries.
//!
//! [`Tables`] is what P4Runtime needs of them; `xdp` is the real one, over the pinned maps.
//! Lossless: what was put is what is got, bit for bit, also by the next agent.

use selvedge_pipeline::{
    BackupEntry, Code, CounterKind, DeliveryEntry, EndpointEntry, Entry, Key, NextHopEntry,
    PortEntry, PortId, PortQueueEntry, TableKind,
};

#[cfg(test)]
pub(crate) mod memory;
pub mod xdp;

/// One cell of a counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub packets: u64,
    pub bytes: u64,
}

/// Entries, counters and facts of one switch. Every call is short (a few system calls, or one
/// pass over a map) and may block for that long.
pub trait Tables: Send + 'static {
    fn get(&self, key: &Key) -> Result<Option<Entry>, BackendError>;

    /// Inserts or replaces; a packet sees the entry before or after, never between.
    fn put(&self, entry: &Entry) -> Result<(), BackendError>;

    /// Whether there was one.
    fn remove(&self, key: &Key) -> Result<bool, BackendError>;

    /// All entries of a table, in no particular order.
    fn entries(&self, table: TableKind) -> Result<Vec<Entry>, BackendError>;

    /// Does `work`, and what of it is put off until its end: changes of the classifier, which
    /// packets see all at once. On an error none of those was carried out.
    fn batch<T>(&self, work: impl FnOnce() -> T) -> (T, Result<(), BackendError>) {
        (work(), Ok(()))
    }

    /// `index` is below the counter's size.
    fn count(&self, counter: CounterKind, index: u32) -> Result<Count, BackendError>;

    /// Whether the switch has, or has had, a port of that number.
    fn knows_port(&self, port: PortId) -> Result<bool, BackendError>;

    /// The highest election id that was written down.
    fn election(&self) -> Result<Option<u128>, BackendError>;

    fn set_election(&self, id: u128) -> Result<(), BackendError>;
}

/// Why an entry could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    #[error("table {table} is full: it holds {capacity} entries")]
    Full { table: &'static str, capacity: u32 },
    #[error("{field} {value} is outside {least}..={most}")]
    Range { field: &'static str, value: u64, least: u64, most: u64 },
    #[error("the data plane failed: {0}")]
    System(String),
}

impl BackendError {
    /// The code that the update ends with.
    pub fn code(&self) -> Code {
        match self {
            Self::Full { .. } => Code::ResourceExhausted,
            Self::Range { .. } => Code::OutOfRange,
            Self::System(_) => Code::Internal,
        }
    }
}

/// The port that an entry names, if it names one.
pub fn port_of(entry: &Entry) -> Option<PortId> {
    match entry {
        Entry::Port(PortEntry { port, .. })
        | Entry::Endpoint(EndpointEntry { port, .. })
        | Entry::NextHop(NextHopEntry { port, .. })
        | Entry::Backup(BackupEntry { port, .. })
        | Entry::Delivery(DeliveryEntry { port, .. })
        | Entry::PortQueue(PortQueueEntry { port, .. }) => Some(*port),
        Entry::GtpSession(e) => Some(e.port),
        Entry::Classifier(_)
        | Entry::SliceRoute(_)
        | Entry::SliceMeter(_)
        | Entry::EndpointMeter(_)
        | Entry::Policy(_)
        | Entry::LocalSid(_)
        | Entry::Generation(_)
        | Entry::N3Address(_) => None,
    }
}
