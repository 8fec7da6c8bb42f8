//! What would be taken instead of a slice that is refused.

use std::ops::Deref;
use std::sync::{Arc, LazyLock};

use selvedge_slices::NetworkSlice;
use selvedge_slices::admission::Offer;

use crate::derived::Derived;

type Work = Box<dyn FnOnce() -> Vec<Offer> + Send>;

/// The nearest change of each kind with which a slice would be taken that is refused. They follow
/// from the state in which it was refused, so they are the same whenever they are worked out:
/// when somebody first looks. That takes tens of decisions, and who refuses need not wait for it.
#[derive(Clone)]
pub struct Offers(Arc<LazyLock<Vec<Offer>, Work>>);

impl Offers {
    /// `refused`: what would follow from the state with the slice in it, or without. Other sites
    /// are those that some slice has as its data network.
    pub(crate) fn instead_of(slice: Arc<NetworkSlice>, refused: Arc<Derived>) -> Self {
        let work = move || {
            let sites = refused.of.intent.slices.sites();
            refused.ledger.offers(&refused.placement(), &slice, sites)
        };
        Self(Arc::new(LazyLock::new(Box::new(work))))
    }

    /// Works them out, so that whoever looks later does not wait.
    pub fn work_out(&self) {
        LazyLock::force(&self.0);
    }

    pub fn are_worked_out(&self) -> bool {
        LazyLock::get(&self.0).is_some()
    }
}

impl Deref for Offers {
    type Target = [Offer];

    fn deref(&self) -> &[Offer] {
        &self.0
    }
}

impl std::fmt::Debug for Offers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().collect::<Vec<_>>().fmt(f)
    }
}

impl PartialEq for Offers {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}
