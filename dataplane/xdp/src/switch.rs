//! A switch's data plane: loading it, adopting one that is running, and its ports.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use selvedge_ebpf_common::mac_word;
use selvedge_ebpf_common::map::{LOW_IFINDICES, PINNED};
use selvedge_ebpf_common::value::{DeviceValue, PORT_COMPUTE, PORT_NONE, PortValue};
use selvedge_ebpf_common::{COMPUTE_PORT, LAYOUT_VERSION};

use crate::counters::Counters;
use crate::events::Events;
use crate::facts::Facts;
use crate::load::{self, Clock, Programs};
use crate::map::{RawEntry, mismatch};
use crate::maps::Maps;
use crate::migrate::{self, Step};
use crate::object::{JUMP, TRACE};
use crate::pins::{Found, LinkName, Pins, remove_link, unpin};
use crate::port_states::PortStates;
use crate::probes::Probes;
use crate::samples::Sampler;
use crate::table::{
    BackupTable, Classifier, DeliveryTable, Endpoint, EndpointMeterTable, LocalSidTable,
    MeterTable, N3Table, NextHopTable, PolicyTable, PortTable, PrefixTable, QueueTable, Route,
    SessionTable, check_port,
};
use crate::{Error, sys};

#[derive(Clone, Debug)]
pub struct Options {
    /// `/sys/fs/bpf/selvedge/<instance>`; the layout version is appended.
    pub pin_dir: PathBuf,
    /// `false`: nothing is dropped or marked for its rate.
    pub metering: bool,
}

/// An interface of this thread's network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    pub index: u32,
    pub name: String,
    pub mac: [u8; 6],
}

/// A port's interface, as attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attached {
    pub port: u16,
    pub ifindex: u32,
    pub mac: [u8; 6],
}

/// The data plane of one switch. Dropping it changes nothing on the wire.
///
/// Methods that touch interfaces are to be called in the network namespace of the switch.
#[derive(Debug)]
pub struct Switch {
    pub(crate) maps: Arc<Maps>,
    pins: Pins,
    programs: Programs,
    pub port: PortTable,
    pub endpoint: PrefixTable<Endpoint>,
    pub classifier: Classifier,
    pub route: PrefixTable<Route>,
    pub meter: MeterTable,
    pub endpoint_meter: EndpointMeterTable,
    pub policy: PolicyTable,
    pub local_sid: LocalSidTable,
    pub next_hop: NextHopTable,
    pub backup: BackupTable,
    pub delivery: DeliveryTable,
    pub queue: QueueTable,
    pub n3: N3Table,
    pub session: SessionTable,
    pub facts: Facts,
    pub counters: Counters,
    pub probes: Probes,
    pub port_states: PortStates,
    pub sampler: Sampler,
}

impl Switch {
    /// Loads the programs and makes the maps; where they are pinned already, adopts maps and
    /// links and replaces the running programs, of which no packet notices anything. Links
    /// whose interface is gone are removed. From the layout before, entries, counters and links
    /// are taken over, of which no packet notices anything either.
    ///
    /// # Errors
    /// [`Error::OtherLayout`], [`Error::PinnedMap`]: what is pinned is of another version;
    /// nothing has been changed. [`Error::Program`]: the kernel refuses a program; what runs
    /// goes on running.
    pub fn open(options: &Options) -> Result<Self, Error> {
        Self::open_with(options, Clock::Kernel, &mut |_| ())
    }

    /// As [`Switch::open`]; `step` is called, by name, before each step of taking over from the
    /// layout before. For tests that end it there.
    #[doc(hidden)]
    pub fn open_in_steps(options: &Options, step: &mut dyn FnMut(&str)) -> Result<Self, Error> {
        Self::open_with(options, Clock::Kernel, step)
    }

    /// As [`Switch::open`], but that no time passes but by [`Switch::set_clock`]. For benches.
    ///
    /// # Errors
    /// As [`Switch::open`].
    pub fn open_with_set_clock(options: &Options) -> Result<Self, Error> {
        Self::open_with(options, Clock::Set, &mut |_| ())
    }

    /// What a switch of [`Switch::open_with_set_clock`] takes for the time.
    ///
    /// # Panics
    /// It was opened otherwise.
    pub fn set_clock(&self, now_ns: u64) -> Result<(), Error> {
        let clock = self.programs.clock.as_ref().expect("opened with a clock to set");
        load::put_element(clock, load::CLOCK, 0, &now_ns)
    }

    fn open_with(options: &Options, clock: Clock, step: Step<'_>) -> Result<Self, Error> {
        let (pins, before, programs) = match Pins::find(&options.pin_dir)? {
            Found::Own { own, before } => {
                own.make()?;
                check_pinned_maps(&own)?;
                let programs = load::load(&own, clock)?;
                (own, before, programs)
            }
            Found::Before { before, mut next } => {
                let programs = migrate::prepare(&before, &mut next, clock, step)?;
                (next, Some(before), programs)
            }
        };
        let maps = Arc::new(Maps::open(&pins)?);
        let mut switch = Self {
            port: PortTable(Arc::clone(&maps)),
            endpoint: PrefixTable::new(Arc::clone(&maps)),
            classifier: Classifier::new(Arc::clone(&maps)),
            route: PrefixTable::new(Arc::clone(&maps)),
            meter: MeterTable(Arc::clone(&maps)),
            endpoint_meter: EndpointMeterTable(Arc::clone(&maps)),
            policy: PolicyTable(Arc::clone(&maps)),
            local_sid: LocalSidTable(Arc::clone(&maps)),
            next_hop: NextHopTable(Arc::clone(&maps)),
            backup: BackupTable(Arc::clone(&maps)),
            delivery: DeliveryTable::new(Arc::clone(&maps)),
            queue: QueueTable(Arc::clone(&maps)),
            n3: N3Table(Arc::clone(&maps)),
            session: SessionTable(Arc::clone(&maps)),
            facts: Facts(Arc::clone(&maps)),
            counters: Counters(Arc::clone(&maps)),
            probes: Probes(Arc::clone(&maps)),
            port_states: PortStates(Arc::clone(&maps)),
            sampler: Sampler { maps: Arc::clone(&maps), first: Arc::clone(&programs.first) },
            maps,
            pins,
            programs,
        };
        switch.configure(options.metering)?;
        switch.take_over(before.as_ref(), step)?;
        if let Some(before) = &before {
            migrate::finish(before, &switch.maps, step)?;
            tracing::info!(
                before = migrate::BEFORE.version,
                now = LAYOUT_VERSION,
                "took over from the layout before; entries and counters are kept"
            );
        }
        Ok(switch)
    }

    /// `<pin_dir>/v<layout>`.
    pub fn pin_root(&self) -> &Path {
        self.pins.root()
    }

    fn configure(&self, metering: bool) -> Result<(), Error> {
        let device_map = sys::map_info(self.maps.get("DEVICE").as_fd());
        let device_map = device_map.map_err(Error::map("look at", "DEVICE"))?.id;
        let writer = self.maps.write();
        self.maps.set_config(&writer, |config| {
            config.metering = metering.into();
            config.device_map = device_map;
            if config.source == 0 {
                config.source = LocalSidTable::initial_source();
            }
        })?;
        // An agent may have died between a trie and the word that says whether to look there.
        self.endpoint.refresh(&writer)?;
        self.route.refresh(&writer)?;
        self.delivery.refresh(&writer)
    }

    /// Puts the programs just loaded in place of those that run, and takes links over from
    /// `before`. At the end no packet is in the programs that were replaced.
    fn take_over(&mut self, before: Option<&Pins>, step: Step<'_>) -> Result<(), Error> {
        let replaced = self.pins.programs()?;
        // A tail-call map is emptied when its last pin and descriptor go. So the new one is pinned
        // before any link uses it, and the old ones until no packet is under way in programs that
        // were replaced: an agent may die at any of these lines.
        self.programs.pin_jump(&self.pins)?;
        if let Some(before) = before {
            // First what is on tracepoints: `listen` puts there only what is not.
            let links = before.links()?;
            let tracers = links.into_iter().filter(|name| matches!(name, LinkName::Tracer(_)));
            self.take_links(before, tracers, step)?;
        }
        self.listen()?;
        if let Some(before) = before {
            self.take_links(before, before.links()?, step)?;
        }
        for name in self.pins.links()? {
            let path = self.pins.link(name);
            let link = match sys::open_pin(&path) {
                // It went with its port.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                link => link.map_err(Error::path("open the pin", &path))?,
            };
            if !self.replace(name, link.as_fd(), &path)? {
                drop(link);
                tracing::debug!(link = %path.display(), "its interface is gone");
                self.forget(name)?;
            }
        }
        step("wait for packets in old programs");
        if !replaced.is_empty() || before.is_some() {
            sys::wait_for_programs().map_err(Error::map("wait for the users of", JUMP))?;
        }
        for path in replaced {
            unpin(&path)?;
        }
        self.programs.pin_programs(&self.pins)
    }

    /// Each with its new program before it has its new pin, so that one that has has both.
    fn take_links(
        &self,
        before: &Pins,
        names: impl IntoIterator<Item = LinkName>,
        step: Step<'_>,
    ) -> Result<(), Error> {
        for name in names {
            step("replace a link's program");
            let path = before.link(name);
            let link = sys::open_pin(&path).map_err(Error::path("open the pin", &path))?;
            self.replace(name, link.as_fd(), &path)?;
            step("move a link");
            before.move_link(name, &self.pins)?;
        }
        Ok(())
    }

    /// Gives a link the program just loaded; `false`: its interface is gone.
    fn replace(&self, name: LinkName, link: BorrowedFd<'_>, path: &Path) -> Result<bool, Error> {
        let Some(program) = self.programs.for_link(name) else { return Ok(true) };
        let info = sys::link_info(link).map_err(Error::path("look at", path))?;
        if info.ifindex != 0 {
            let replaced = sys::update_link(link, program);
            replaced.map_err(Error::path("replace the program of", path))?;
        }
        Ok(info.ifindex != 0)
    }

    /// To what devices make of frames: from before the first that these programs give to one.
    fn listen(&self) -> Result<(), Error> {
        for (name, tracer) in self.programs.tracers() {
            let trace = self.maps.get(TRACE).as_fd();
            load::put_stage(trace, TRACE, tracer.place, tracer.program.as_fd())?;
            let path = self.pins.link(name);
            if !path.exists() {
                let failed = |source| Error::Tracepoint { tracepoint: tracer.tracepoint, source };
                let link = sys::link_tracepoint(tracer.attached.as_fd(), tracer.tracepoint);
                let link = link.map_err(failed)?;
                sys::pin(link.as_fd(), &path).map_err(Error::path("pin a link at", path))?;
            }
        }
        Ok(())
    }

    fn forget(&mut self, name: LinkName) -> Result<(), Error> {
        match name {
            LinkName::Port(slot) => self.detach_slot(slot),
            LinkName::Socket(hook) => {
                self.remove_index("HOOK_BY_IFINDEX", hook.into())?;
                self.unlink(name)
            }
            LinkName::Shaped(_) | LinkName::Tracer(_) => self.unlink(name),
        }
    }

    /// Puts the entry program on an interface and makes it port `port`, in place of the one
    /// it had. An interface that is this port's already is left as it is.
    ///
    /// # Errors
    /// [`Error::Native`] when the driver takes no native program (or not at this MTU), or
    /// another program is on the interface.
    pub fn attach(&mut self, port: u16, interface: &Interface) -> Result<(), Error> {
        check_port(port)?;
        self.attach_slot(port, interface, |_| ())?;
        self.queue.attached(port)
    }

    /// Takes the program off a port's interface, if it has one, and the port out of the
    /// devices; its entries and its number stay.
    pub fn detach(&mut self, port: u16) -> Result<(), Error> {
        check_port(port)?;
        self.detach_slot(port)
    }

    /// Ports with an interface.
    pub fn attached(&self) -> Result<Vec<Attached>, Error> {
        let ports = self.maps.get("PORT").array::<PortValue>()?;
        let numbered = (0u16..COMPUTE_PORT).zip(ports);
        Ok(numbered
            .filter(|(_, value)| value.ifindex != 0)
            .map(|(port, value)| Attached {
                port,
                ifindex: value.ifindex,
                mac: selvedge_ebpf_common::mac_bytes(value.mac),
            })
            .collect())
    }

    /// The event ring; one reader at a time.
    pub fn events(&self) -> Result<Events, Error> {
        Events::open(&self.maps)
    }

    /// What lies in the pinned maps, for the programs' host build; not what they keep there.
    #[doc(hidden)]
    pub fn raw_entries(&self) -> Result<Vec<RawEntry>, Error> {
        self.maps.raw_entries()
    }

    /// Enforces rates, or only counts and classes.
    pub fn set_metering(&self, metering: bool) -> Result<(), Error> {
        let writer = self.maps.write();
        self.maps.set_config(&writer, |config| config.metering = metering.into())
    }

    pub(crate) fn attach_slot(
        &mut self,
        slot: u16,
        interface: &Interface,
        change: impl FnOnce(&mut PortValue),
    ) -> Result<(), Error> {
        // First, because it can be refused; until the maps know the port, what arrives is
        // dropped as on a port without an entry.
        self.link(LinkName::Port(slot), interface)?;
        {
            let _writer = self.maps.write();
            let map = self.maps.get("PORT");
            let mut value: PortValue = map.at(slot.into())?;
            value.mac = mac_word(interface.mac);
            value.ifindex = interface.index;
            change(&mut value);
            map.put(&u32::from(slot), &value)?;
        }
        self.replace_index("PORT_BY_IFINDEX", interface.index, slot.into())?;
        // Last, so that nothing is sent to an interface before what arrives there is handled.
        let device = DeviceValue { ifindex: interface.index, program_fd: 0 };
        self.maps.get("DEVICE").put(&u32::from(slot), &device)?;
        // Behind the first: what it finds before a frame was put there by that. It takes the kernel
        // tens of milliseconds.
        let shaped = self.link(LinkName::Shaped(slot), interface);
        if shaped.is_err() {
            self.detach_slot(slot)?;
        }
        shaped
    }

    pub(crate) fn detach_slot(&mut self, slot: u16) -> Result<(), Error> {
        match self.maps.get("DEVICE").remove(&u32::from(slot)) {
            Ok(_) => {}
            Err(Error::Map { source, .. }) if source.kind() == io::ErrorKind::InvalidInput => {}
            Err(error) => return Err(error),
        }
        self.unlink(LinkName::Shaped(slot))?;
        self.unlink(LinkName::Port(slot))?;
        self.remove_index("PORT_BY_IFINDEX", slot.into())?;
        let _writer = self.maps.write();
        let map = self.maps.get("PORT");
        let mut value: PortValue = map.at(slot.into())?;
        value.ifindex = 0;
        value.mac = 0;
        if value.kind == PORT_COMPUTE {
            value.kind = PORT_NONE;
        }
        map.put(&u32::from(slot), &value)
    }

    /// Puts the program for `name` on an interface and pins the link, unless it is there.
    pub(crate) fn link(&mut self, name: LinkName, interface: &Interface) -> Result<(), Error> {
        let path = self.pins.link(name);
        let program = self.programs.for_link(name).expect("an interface carries one of these");
        let LinkName::Shaped(_) = name else { return self.link_native(&path, program, interface) };
        let info = sys::open_pin(&path).and_then(|link| sys::link_info(link.as_fd()));
        if info.is_ok_and(|info| info.ifindex == interface.index) {
            return Ok(());
        }
        remove_link(&path)?;
        let link = match sys::link_ingress(program, interface.index) {
            Ok(link) => link,
            // Nothing comes there unless a class is shaped, which is refused from now on.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) && !self.queue.shapes()? => {
                tracing::debug!(interface = interface.name, "without TCX no class can be shaped");
                self.maps.has_no_tcx();
                return Ok(());
            }
            Err(source) => {
                return Err(Error::Ingress { ifname: interface.name.clone(), source });
            }
        };
        sys::pin(link.as_fd(), &path).map_err(Error::path("pin a link at", &path))
    }

    fn link_native(
        &self,
        path: &Path,
        program: BorrowedFd<'_>,
        interface: &Interface,
    ) -> Result<(), Error> {
        match sys::link_xdp(program, interface.index) {
            Ok(link) => {
                // A pin of this name is of another interface.
                remove_link(path)?;
                sys::pin(link.as_fd(), path).map_err(Error::path("pin a link at", path))
            }
            Err(source) => {
                // Busy is the interface also when our own link is on it, from before.
                let ours = sys::open_pin(path)
                    .and_then(|link| sys::link_info(link.as_fd()))
                    .is_ok_and(|info| info.ifindex == interface.index);
                let busy = matches!(source.raw_os_error(), Some(libc::EBUSY | libc::EEXIST));
                if ours && busy {
                    Ok(())
                } else {
                    Err(Error::Native { ifname: interface.name.clone(), source })
                }
            }
        }
    }

    pub(crate) fn unlink(&mut self, name: LinkName) -> Result<(), Error> {
        remove_link(&self.pins.link(name))
    }

    /// Makes `ifindex` the one interface that leads to `value` in `PORT_BY_IFINDEX` or
    /// `HOOK_BY_IFINDEX`.
    pub(crate) fn replace_index(
        &self,
        map: &'static str,
        ifindex: u32,
        value: u32,
    ) -> Result<(), Error> {
        self.remove_indices(map, |other, found| found == value && other != ifindex)?;
        self.maps.get(map).put(&ifindex, &value)?;
        self.cache_index(map, ifindex, value)
    }

    pub(crate) fn remove_index(&self, map: &'static str, value: u32) -> Result<(), Error> {
        self.remove_indices(map, |_, found| found == value)
    }

    fn remove_indices(
        &self,
        map: &'static str,
        which: impl Fn(u32, u32) -> bool,
    ) -> Result<(), Error> {
        for (ifindex, found) in self.maps.get(map).entries::<u32, u32>()? {
            if which(ifindex, found) {
                self.maps.get(map).remove(&ifindex)?;
                self.cache_index(map, ifindex, 0)?;
            }
        }
        Ok(())
    }

    /// Ports of low interface indices are found in an array as well.
    fn cache_index(&self, map: &str, ifindex: u32, slot: u32) -> Result<(), Error> {
        if map == "PORT_BY_IFINDEX" && ifindex < LOW_IFINDICES {
            self.maps.get("PORT_BY_LOW_IFINDEX").put(&ifindex, &slot)?;
        }
        Ok(())
    }

    pub(crate) fn pins(&self) -> &Pins {
        &self.pins
    }

    pub(crate) fn programs(&self) -> &Programs {
        &self.programs
    }
}

/// aya adopts a pinned map of any size in silence, so sizes are compared here.
fn check_pinned_maps(pins: &Pins) -> Result<(), Error> {
    for spec in PINNED {
        let path = pins.map(spec.name);
        let fd = match sys::open_pin(&path) {
            Ok(fd) => fd,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(Error::path("open the pin", &path)(source)),
        };
        let different = mismatch(fd.as_fd(), spec).map_err(Error::path("look at", &path))?;
        if let Some((found, wanted)) = different {
            return Err(Error::PinnedMap { path, dir: pins.root().to_owned(), found, wanted });
        }
    }
    Ok(())
}
