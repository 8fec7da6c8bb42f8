//! Keys by which the switches of this network know each other's LLDP frames
//! (docs/decisions/0014). They are made by the controller that leads, kept in memory only, and
//! handed to each switch in its session.

use std::time::Duration;

use selvedge_southbound::selvedge::v1::DiscoveryKeys;
use tokio::sync::watch;
use tokio_rustls::rustls::crypto::ring;

/// Between two changes. A switch that has missed one still knows the key that the others send
/// with; one that has missed two is believed again when it has joined.
const ROTATION: Duration = Duration::from_secs(3_600);

type Key = [u8; 32];

/// The last key, the one to send with, and the next: so that two switches know each other
/// though only one of them has heard of a change.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Keys {
    last: Option<Key>,
    now: Key,
    next: Key,
}

impl Keys {
    fn new() -> Self {
        Self { last: None, now: random(), next: random() }
    }

    fn rotated(&self) -> Self {
        Self { last: Some(self.now), now: self.next, next: random() }
    }

    pub(crate) fn message(&self) -> DiscoveryKeys {
        let keys = [Some(self.now), Some(self.next), self.last];
        DiscoveryKeys { keys: keys.into_iter().flatten().map(|key| key.to_vec()).collect() }
    }
}

/// Keys that change for as long as somebody looks at them.
pub(crate) fn rotating() -> watch::Receiver<Keys> {
    let (sender, receiver) = watch::channel(Keys::new());
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = tokio::time::sleep(ROTATION) => sender.send_modify(|keys| *keys = keys.rotated()),
                () = sender.closed() => return,
            }
        }
    });
    receiver
}

fn random() -> Key {
    let mut key = [0; 32];
    let source = ring::default_provider().secure_random;
    source.fill(&mut key).expect("the kernel gives random numbers to whoever asks");
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_missed_one_change_and_whoever_did_not_know_each_other() {
        let mut keys = Keys::new();
        let mut told = vec![keys.message().keys];
        assert_eq!(told[0].len(), 2);
        for _ in 0..3 {
            keys = keys.rotated();
            told.push(keys.message().keys);
        }
        for pair in told.windows(2) {
            let [before, after] = pair else { unreachable!() };
            assert_ne!(before[0], after[0]);
            assert!(before.contains(&after[0]) && after.contains(&before[0]));
        }
        assert_eq!(told[3].len(), 3);
        assert!(!told[3].contains(&told[0][0]), "a key ends");
    }
}
