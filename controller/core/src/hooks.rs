//! Hooks on switches: loaded where slices want them, unloaded where nothing leads to them.

use std::collections::BTreeSet;

use selvedge_pipeline::HookId;
use selvedge_topology::NodeName;

use crate::Core;
use crate::effect::{Effect, HookLoad, Severity};
use crate::event::{HookState, HookStatus};

/// First pause before a hook that is down is loaded again; doubles up to the last.
const FIRST_PAUSE_MS: u64 = 1_000;
const LAST_PAUSE_MS: u64 = 32_000;

/// A hook that is down: its compute host may be back by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Retry {
    pub(crate) at_ms: u64,
    pause_ms: u64,
}

impl HookLoad {
    /// Two loads of one digest ask for the same. FNV-1a: against mistakes, not malice.
    fn digest(&self) -> u64 {
        let mut digest = 0xCBF2_9CE4_8422_2325_u64;
        let numbers = [self.fuel_per_packet.to_be_bytes(), self.memory_bytes.to_be_bytes()];
        let bytes = self.sha256.bytes().chain(numbers.concat()).chain(self.config.iter().copied());
        for byte in bytes {
            digest = (digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
        }
        digest
    }
}

impl Core {
    /// A switch says which hooks it has: those that are not what was sent are sent again.
    pub(crate) fn hooks_rejoined(
        &mut self,
        switch: &NodeName,
        reported: &[(HookId, HookStatus)],
        now_ms: u64,
    ) {
        let derived = self.derived.clone();
        let as_sent = |hook: HookId| {
            let wanted = derived.hooks.get(&(switch.clone(), hook));
            let status = reported.iter().find(|(id, _)| *id == hook).map(|(_, status)| status);
            wanted.zip(status).is_some_and(|(wanted, status)| wanted.load.sha256 == status.sha256)
        };
        self.hooks_sent.retain(|(node, hook), _| node != switch || as_sent(*hook));
        self.hook_retries.retain(|(node, _), _| node != switch);
        for (hook, status) in reported {
            if status.state == HookState::Down {
                self.retry_hook(switch, *hook, now_ms);
            }
        }
    }

    pub(crate) fn hook_changed(
        &mut self,
        switch: &NodeName,
        hook: HookId,
        status: HookStatus,
        now_ms: u64,
        out: &mut Vec<Effect>,
    ) {
        let Some(known) = self.network.switch_mut(switch) else { return };
        let before = known.hooks.insert(hook, status.clone());
        if before.as_ref() == Some(&status) {
            return;
        }
        let name = self.numbers.hook_name(switch, hook).unwrap_or("unknown").to_owned();
        let severity = match status.state {
            HookState::Loading | HookState::Running => Severity::Info,
            HookState::Down => Severity::Warning,
            HookState::Quarantined | HookState::Refused => Severity::Error,
        };
        let mut text = format!("{} on {switch}", status.state.as_str());
        if !status.reason.is_empty() {
            text.push_str(": ");
            text.push_str(&status.reason);
        }
        self.log(severity, "hook-state", name, text, now_ms, out);
        match status.state {
            HookState::Down => self.retry_hook(switch, hook, now_ms),
            HookState::Loading => {}
            HookState::Running | HookState::Quarantined | HookState::Refused => {
                self.hook_retries.remove(&(switch.clone(), hook));
            }
        }
        // A meter at a hook's switch counts what the hook returns: only while it runs.
        let running = |status: Option<&HookStatus>| {
            status.is_some_and(|status| status.state == HookState::Running)
        };
        if running(before.as_ref()) != running(Some(&status)) {
            self.at_once(now_ms);
        }
    }

    fn retry_hook(&mut self, switch: &NodeName, hook: HookId, now_ms: u64) {
        let key = (switch.clone(), hook);
        let pause = self.hook_retries.get(&key).map(|retry| retry.pause_ms * 2);
        let pause_ms = pause.unwrap_or(FIRST_PAUSE_MS).min(LAST_PAUSE_MS);
        self.hook_retries.insert(key, Retry { at_ms: now_ms + pause_ms, pause_ms });
    }

    /// Loads what is wanted and not sent, or down for long enough; unloads what is not wanted,
    /// once no entry of the switch leads to it.
    pub(crate) fn drive_hooks(&mut self, now_ms: u64, out: &mut Vec<Effect>) {
        let derived = self.derived.clone();
        let mut changed = false;
        for (key, wanted) in &derived.hooks {
            let (switch, hook) = key;
            if !self.network.switches.get(switch).is_some_and(|s| s.joined) {
                continue;
            }
            let digest = wanted.load.digest();
            let due = self.hook_retries.get(key).is_some_and(|retry| retry.at_ms <= now_ms);
            if self.hooks_sent.get(key) == Some(&digest) && !due {
                continue;
            }
            if due {
                self.retry_hook(switch, *hook, now_ms);
            }
            changed |= self.hooks_sent.insert(key.clone(), digest) != Some(digest);
            out.push(Effect::LoadHook {
                switch: switch.clone(),
                hook: *hook,
                load: wanted.load.clone(),
            });
        }
        let mut unwanted: BTreeSet<(NodeName, HookId)> = BTreeSet::new();
        for (name, switch) in self.network.switches.iter().filter(|(_, switch)| switch.joined) {
            let reported = switch.hooks.keys().map(|hook| (name.clone(), *hook));
            unwanted.extend(reported.filter(|key| !derived.hooks.contains_key(key)));
        }
        let joined = |name: &NodeName| self.network.switches.get(name).is_some_and(|s| s.joined);
        let sent = self.hooks_sent.keys().filter(|key| !derived.hooks.contains_key(key));
        unwanted.extend(sent.filter(|(switch, _)| joined(switch)).cloned());
        unwanted.retain(|(switch, _)| self.in_sync(switch));
        for (switch, hook) in unwanted {
            changed |= self.hooks_sent.remove(&(switch.clone(), hook)).is_some();
            self.hook_retries.remove(&(switch.clone(), hook));
            if let Some(known) = self.network.switch_mut(&switch) {
                known.hooks.remove(&hook);
            }
            out.push(Effect::UnloadHook { switch, hook });
        }
        if changed {
            self.persist(out);
        }
    }
}
