//! The bytes of hooks' modules, in the store under their digest: `module/<sha256>`.

use std::collections::BTreeSet;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::store::{Store, StoreError, Transaction};

/// Largest module, in bytes.
pub const MAX_MODULE_BYTES: usize = 8 << 20;

const PREFIX: &str = "module/";

#[derive(Clone)]
pub(crate) struct Modules {
    store: Arc<dyn Store>,
}

impl Modules {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// Durable when ready. Keeping one that is there costs nothing.
    pub(crate) async fn keep(&self, modules: Vec<(String, Vec<u8>)>) -> Result<(), StoreError> {
        if modules.is_empty() {
            return Ok(());
        }
        let there: BTreeSet<String> = self.store.keys(PREFIX).await?.into_iter().collect();
        for (digest, bytes) in modules {
            let key = format!("{PREFIX}{digest}");
            if !there.contains(&key) {
                // One by one: a transaction of all would be held in memory twice.
                self.store.commit(Transaction::default().put(key, bytes)).await?;
            }
        }
        Ok(())
    }

    pub(crate) async fn bytes(&self, digest: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.store.get(&format!("{PREFIX}{digest}")).await?.map(|found| found.value))
    }

    /// Forgets all but these. Nobody may be keeping new ones meanwhile.
    pub(crate) async fn retain(&self, digests: &BTreeSet<String>) -> Result<(), StoreError> {
        let mut transaction = Transaction::default();
        for key in self.store.keys(PREFIX).await? {
            if !key.strip_prefix(PREFIX).is_some_and(|digest| digests.contains(digest)) {
                transaction = transaction.delete(key);
            }
        }
        if transaction.operations.is_empty() {
            return Ok(());
        }
        self.store.commit(transaction).await.map(drop)
    }
}

/// Lower-case hex.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    crate::trace::hex(&Sha256::digest(bytes))
}
