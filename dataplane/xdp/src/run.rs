//! Running the programs on frames that nobody sent (`BPF_PROG_TEST_RUN`).

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use selvedge_ebpf_common::value::{END_ANSWERED, END_DROPPED, END_FORWARDED, END_PASSED, Scratch};
use selvedge_ebpf_common::{COMPUTE_PORT, MAX_PORT_ID};

use crate::switch::Switch;
use crate::{Error, sys};

/// What the data plane did with a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Sent out of a port.
    Forwarded { port: u16, frame: Vec<u8> },
    /// Handed to a hook's compute port.
    ToHook { hook: u16, frame: Vec<u8> },
    /// By reason, as [`selvedge_ebpf_common::drop`] numbers them.
    Dropped(u8),
    /// Left to the kernel's stack.
    Passed,
    /// Sent back out of the port it came in by.
    Answered { frame: Vec<u8> },
}

impl Verdict {
    /// As the programs left `SCRATCH` and the frame.
    #[doc(hidden)]
    pub fn of(scratch: &Scratch, frame: Vec<u8>) -> Self {
        let detail = u16::try_from(scratch.detail).expect("a port or a reason");
        match scratch.end {
            END_FORWARDED if detail > MAX_PORT_ID => {
                Self::ToHook { hook: detail - COMPUTE_PORT, frame }
            }
            END_FORWARDED => Self::Forwarded { port: detail, frame },
            END_DROPPED => Self::Dropped(u8::try_from(detail).expect("a reason")),
            END_PASSED => Self::Passed,
            END_ANSWERED => Self::Answered { frame },
            end => unreachable!("programs end in {end}"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestRun {
    pub verdict: Verdict,
    /// Mean over the repetitions.
    pub duration_ns: u32,
}

impl Switch {
    /// What the entry program does with `frame` received on interface `ifindex`: verdict, port
    /// and bytes. Nothing is sent, but meters, queues, counters and events see the packet.
    /// Traffic on the same CPU at the same instant may confuse the answer.
    pub fn test_run(&self, ifindex: u32, frame: &[u8]) -> Result<TestRun, Error> {
        let cpu = OneCpu::pin()?;
        let ran =
            sys::test_run(self.programs().entry(), frame, ifindex, 1).map_err(Error::TestRun)?;
        let scratch = self.maps.get("SCRATCH").per_cpu::<Scratch>(0)?[cpu.number];
        drop(cpu);
        Ok(TestRun { verdict: Verdict::of(&scratch, ran.frame), duration_ns: ran.duration_ns })
    }

    /// Injects `repeat` copies of `frame` as received on interface `ifindex` and carries the
    /// verdicts out, as fast as this CPU goes (`BPF_F_TEST_XDP_LIVE_FRAMES`). The kernel
    /// recycles frames: from the 65th on they may be as the program left an earlier one.
    pub fn inject(&self, ifindex: u32, frame: &[u8], repeat: u32) -> Result<(), Error> {
        sys::live_run(self.programs().entry(), frame, ifindex, repeat, 64)
            .map(drop)
            .map_err(Error::TestRun)
    }
}

/// This thread kept on one CPU until dropped.
struct OneCpu {
    number: usize,
    before: CpuSet,
}

impl OneCpu {
    fn pin() -> Result<Self, Error> {
        let this = Pid::from_raw(0);
        let pinned = || -> nix::Result<Self> {
            let before = sched_getaffinity(this)?;
            let number = (0..CpuSet::count())
                .find(|cpu| before.is_set(*cpu).unwrap_or(false))
                .expect("a thread runs somewhere");
            let mut one = CpuSet::new();
            one.set(number)?;
            sched_setaffinity(this, &one)?;
            Ok(Self { number, before })
        };
        pinned().map_err(|errno| Error::TestRun(errno.into()))
    }
}

impl Drop for OneCpu {
    fn drop(&mut self) {
        // The set was this thread's a moment ago.
        let _ = sched_setaffinity(Pid::from_raw(0), &self.before);
    }
}
