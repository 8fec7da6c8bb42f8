//! What a hook did, counted by its thread and read by the host's. Written by one thread, so a
//! total is a plain store; a reader may see one packet in two places for a moment.

use std::sync::atomic::{AtomicU64, Ordering};

use selvedge_southbound::selvedge::v1::HookStats;

use crate::imports::COUNTERS;

/// Fields as in `HookStats` (compute.proto).
#[derive(Debug, Default)]
pub(crate) struct Stats {
    pub(crate) received: Total,
    pub(crate) forwarded: Total,
    pub(crate) replied: Total,
    pub(crate) dropped: Total,
    pub(crate) bypassed: Total,
    pub(crate) failed: Total,
    pub(crate) invalid: Total,
    pub(crate) batches: Total,
    pub(crate) guest_ns: Total,
    pub(crate) kernel_dropped: Total,
    pub(crate) emit_dropped: Total,
    pub(crate) counters: [Total; COUNTERS],
}

#[derive(Debug, Default)]
pub(crate) struct Total(AtomicU64);

impl Total {
    pub(crate) fn add(&self, n: u64) {
        self.set(self.get().wrapping_add(n));
    }

    pub(crate) fn set(&self, total: u64) {
        self.0.store(total, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Stats {
    pub(crate) fn message(&self, hook: u32) -> HookStats {
        let mut counters: Vec<u64> = self.counters.iter().map(Total::get).collect();
        while counters.last() == Some(&0) {
            counters.pop();
        }
        HookStats {
            hook,
            received: self.received.get(),
            forwarded: self.forwarded.get(),
            replied: self.replied.get(),
            dropped: self.dropped.get(),
            bypassed: self.bypassed.get(),
            failed: self.failed.get(),
            invalid: self.invalid.get(),
            batches: self.batches.get(),
            guest_ns: self.guest_ns.get(),
            kernel_dropped: self.kernel_dropped.get(),
            counters,
            emit_dropped: self.emit_dropped.get(),
        }
    }
}
