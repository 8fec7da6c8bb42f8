//! The core's constants that an operator or a test may want otherwise.

/// Times are milliseconds, on the clock of `handle`'s `now_ms`.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// How long a burst of events is gathered before anything is computed. A lost carrier
    /// waits for nothing.
    pub batch_ms: u64,
    /// The longest time a packet can be on its way through the fabric: 64 hops of a virtual
    /// queue's 5 ms would be more, but in-profile queues are short and paths of a 5G edge
    /// have about ten hops.
    pub in_flight_ms: u64,
    /// A read or write that is not answered by then counts as failed.
    pub answer_ms: u64,
    /// Pause before a failed switch is tried again.
    pub retry_ms: u64,
    /// Every switch is read again this often, hint or no hint.
    pub resync_ms: u64,
    /// Lines of the event log kept for [`Core::events`](crate::Core::events).
    pub events_kept: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            batch_ms: 20,
            in_flight_ms: 50,
            answer_ms: 5_000,
            retry_ms: 1_000,
            resync_ms: 60_000,
            events_kept: 1_000,
        }
    }
}
