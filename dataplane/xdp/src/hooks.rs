//! Compute ports: for each hook a veth pair, one end in the pipeline, the other carrying the
//! hook's AF_XDP socket (DESIGN §7).

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use selvedge_ebpf_common::value::{
    HOOK_DOWN, HOOK_NONE, HOOK_QUARANTINED, HOOK_RUNNING, HookValue, PORT_COMPUTE,
};
use selvedge_ebpf_common::{COMPUTE_PORT, MAX_HOOKS};

use crate::Error;
use crate::error::within;
use crate::pins::LinkName;
use crate::switch::{Interface, Switch};

/// What the programs do with packets for a hook: all but `Running` pass by or are dropped, as
/// the segment's entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HookState {
    Running,
    Down,
    Quarantined,
}

/// A hook that has a state or a compute port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HookPort {
    pub hook: u16,
    /// `None`: no such hook is loaded.
    pub state: Option<HookState>,
    /// Of the end with the entry program; 0: no compute port.
    pub switch_ifindex: u32,
    /// Of the end with the socket.
    pub socket_ifindex: u32,
}

fn check(hook: u16) -> Result<(), Error> {
    within("hook", hook, 0, u64::from(MAX_HOOKS) - 1)
}

fn decode(state: u32) -> Option<HookState> {
    match state {
        HOOK_RUNNING => Some(HookState::Running),
        HOOK_DOWN => Some(HookState::Down),
        HOOK_QUARANTINED => Some(HookState::Quarantined),
        _ => None,
    }
}

impl Switch {
    fn change_hook(&self, hook: u16, change: impl FnOnce(&mut HookValue)) -> Result<(), Error> {
        check(hook)?;
        let _writer = self.maps.write();
        let map = self.maps.get("HOOK");
        let mut value: HookValue = map.at(hook.into())?;
        change(&mut value);
        map.put(&u32::from(hook), &value)
    }

    /// Makes a veth pair the compute port of `hook`, in place of the one it had. Its state
    /// stays.
    pub fn attach_hook(
        &mut self,
        hook: u16,
        switch_end: &Interface,
        socket_end: &Interface,
    ) -> Result<(), Error> {
        check(hook)?;
        // The receiving end first: a frame redirected to it finds its program.
        self.link(LinkName::Socket(hook), socket_end)?;
        self.replace_index("HOOK_BY_IFINDEX", socket_end.index, hook.into())?;
        let hook_byte = u8::try_from(hook).expect("checked");
        self.attach_slot(COMPUTE_PORT + hook, switch_end, |port| {
            port.kind = PORT_COMPUTE;
            port.hook = hook_byte;
        })?;
        self.change_hook(hook, |value| {
            value.switch_ifindex = switch_end.index;
            value.socket_ifindex = socket_end.index;
        })
    }

    /// Takes the programs off the compute port and forgets the hook, its state too.
    pub fn detach_hook(&mut self, hook: u16) -> Result<(), Error> {
        check(hook)?;
        self.change_hook(hook, |value| *value = HookValue::default())?;
        self.clear_hook_socket(hook)?;
        self.detach_slot(COMPUTE_PORT + hook)?;
        self.remove_index("HOOK_BY_IFINDEX", hook.into())?;
        self.unlink(LinkName::Socket(hook))
    }

    /// Frames that arrive at the hook's socket end go to this AF_XDP socket, which is bound to
    /// that interface. The kernel keeps a reference until the socket's other holders close it.
    pub fn set_hook_socket(&self, hook: u16, socket: BorrowedFd<'_>) -> Result<(), Error> {
        check(hook)?;
        let fd = socket.as_fd().as_raw_fd().cast_unsigned();
        self.maps.get("SOCKET").put(&u32::from(hook), &fd)
    }

    /// Frames for the hook find no socket any more. Fine when there was none.
    pub fn clear_hook_socket(&self, hook: u16) -> Result<(), Error> {
        check(hook)?;
        self.maps.get("SOCKET").remove(&u32::from(hook)).map(drop)
    }

    pub fn set_hook_state(&self, hook: u16, state: Option<HookState>) -> Result<(), Error> {
        self.change_hook(hook, |value| {
            value.state = match state {
                None => HOOK_NONE,
                Some(HookState::Running) => HOOK_RUNNING,
                Some(HookState::Down) => HOOK_DOWN,
                Some(HookState::Quarantined) => HOOK_QUARANTINED,
            };
        })
    }

    pub fn hook(&self, hook: u16) -> Result<HookPort, Error> {
        check(hook)?;
        let value: HookValue = self.maps.get("HOOK").at(hook.into())?;
        Ok(HookPort {
            hook,
            state: decode(value.state),
            switch_ifindex: value.switch_ifindex,
            socket_ifindex: value.socket_ifindex,
        })
    }

    /// Hooks with a state or a compute port.
    pub fn hooks(&self) -> Result<Vec<HookPort>, Error> {
        let all: Result<Vec<_>, _> = (0..MAX_HOOKS).map(|hook| self.hook(hook)).collect();
        Ok(all?.into_iter().filter(|h| h.state.is_some() || h.switch_ifindex != 0).collect())
    }
}
