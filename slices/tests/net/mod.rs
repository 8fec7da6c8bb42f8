//! A network with endpoints, and slices in short, for tests of admission.

use std::collections::BTreeMap;
use std::sync::Arc;

use selvedge_slices::admission::{Attachment, HookMemory, InOrder, Network};
use selvedge_slices::{NetworkSlice, Object, ObjectName, parse};
use selvedge_topology::{Forwarding, NodeIx, NodeName, Snapshot};

/// What a [`Network`] borrows from.
#[derive(Clone)]
pub(crate) struct Net {
    pub(crate) snapshot: Snapshot,
    pub(crate) forwarding: Forwarding,
    pub(crate) endpoints: Arc<BTreeMap<NodeName, Attachment>>,
    pub(crate) hooks: BTreeMap<ObjectName, Vec<NodeIx>>,
    pub(crate) memory: HookMemory,
}

impl std::fmt::Debug for Net {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}hooks: {:?}", self.snapshot.topology().to_yaml(), self.hooks)
    }
}

impl Net {
    pub(crate) fn with_endpoints(
        snapshot: Snapshot,
        endpoints: BTreeMap<NodeName, Attachment>,
    ) -> Self {
        let forwarding = Forwarding::new(&snapshot);
        let (hooks, memory) = Default::default();
        Self { snapshot, forwarding, endpoints: Arc::new(endpoints), hooks, memory }
    }

    /// One endpoint on every switch, numbered as they are: `h0` and on for `h`.
    #[allow(dead_code, reason = "not every test has endpoints without links")]
    pub(crate) fn one_each(snapshot: Snapshot, prefix: char) -> Self {
        let endpoint = |switch: NodeIx| {
            let name = format!("{prefix}{}", switch.0).parse().unwrap();
            (name, Attachment { switch, link: None })
        };
        let endpoints = snapshot.nodes().map(endpoint).collect();
        Self::with_endpoints(snapshot, endpoints)
    }

    pub(crate) fn network(&self) -> Network<'_> {
        let Self { snapshot, forwarding, endpoints, hooks, memory } = self;
        Network { snapshot, forwarding, endpoints, hooks, memory }
    }
}

/// Slices in this order.
#[allow(dead_code, reason = "not every test rebuilds a ledger")]
pub(crate) fn in_order<'s>(slices: impl IntoIterator<Item = &'s NetworkSlice>) -> InOrder {
    let slices = (0..).zip(slices);
    slices.map(|(at, slice)| ((at, slice.name.clone()), Arc::new(slice.clone()))).collect()
}

/// The slice of `NAME FIELDS`, fields as in a document's `spec`.
pub(crate) fn slice(text: &str) -> NetworkSlice {
    let (name, spec) = text.split_once(char::is_whitespace).unwrap();
    let document = format!(
        "apiVersion: selvedge/v1\nkind: NetworkSlice\nmetadata: {{ name: {name} }}\n\
         spec: {{ {} }}",
        spec.trim()
    );
    match parse("slice", &document).unwrap().remove(0) {
        Object::NetworkSlice(slice) => slice,
        other => panic!("{other:?}"),
    }
}
