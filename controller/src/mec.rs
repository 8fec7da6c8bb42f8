//! The platform that the MEC APIs stand on: rules from the core, services from the store.

use std::borrow::Borrow;
use std::sync::Arc;

use selvedge_core::{Refusal, Request};
use selvedge_mec_api::{Platform, PlatformError, ServiceInfo};
use selvedge_slices::TrafficRule;

use crate::api::problem::chain;
use crate::engine::{Handle, RequestError};
use crate::store::{Precondition, Store, StoreError, Transaction};

/// Services are kept as `mec/service/<application>/<id>`, in JSON.
const SERVICES: &str = "mec/service/";

/// Who changes a rule over the MEC API, in the record of changes.
pub(crate) const AUTHOR: &str = "mec-api";

pub(crate) struct MecPlatform {
    handle: Handle,
    store: Arc<dyn Store>,
}

impl MecPlatform {
    pub(crate) fn new(handle: Handle, store: Arc<dyn Store>) -> Self {
        Self { handle, store }
    }

    /// Forgets the services of applications that are no more.
    pub(crate) async fn retain_services(&self) -> Result<(), PlatformError> {
        let applications = self.applications().await?;
        let mut transaction = Transaction::default();
        for key in self.store.keys(SERVICES).await.map_err(unavailable)? {
            let application = key.strip_prefix(SERVICES).and_then(|rest| rest.split('/').next());
            if !applications.iter().any(|name| Some(name.as_str()) == application) {
                transaction = transaction.delete(key);
            }
        }
        if !transaction.operations.is_empty() {
            self.store.commit(transaction).await.map_err(unavailable)?;
        }
        Ok(())
    }
}

impl Platform for MecPlatform {
    async fn applications(&self) -> Result<Vec<String>, PlatformError> {
        let names = self.handle.query(|core| {
            core.applications().into_iter().map(|application| application.name).collect()
        });
        names.await.map_err(refused)
    }

    async fn services(&self) -> Result<Vec<(String, ServiceInfo)>, PlatformError> {
        let mut services = Vec::new();
        for (key, stored) in self.store.list(SERVICES).await.map_err(unavailable)? {
            let application = key.strip_prefix(SERVICES).and_then(|rest| rest.split('/').next());
            match (application, serde_json::from_slice(&stored.value)) {
                (Some(application), Ok(service)) => {
                    services.push((application.to_owned(), service));
                }
                (_, Err(error)) => {
                    tracing::warn!(key, %error, "a service in the store is unreadable; left out");
                }
                (None, _) => {}
            }
        }
        Ok(services)
    }

    async fn put_service(
        &self,
        application: &str,
        service: ServiceInfo,
    ) -> Result<(), PlatformError> {
        let id = service.ser_instance_id.clone().unwrap_or_default();
        let value = serde_json::to_vec(&service)
            .map_err(|error| PlatformError::Unavailable(error.to_string()))?;
        let key = format!("{SERVICES}{application}/{id}");
        let stored = self.store.commit(Transaction::default().put(key, value)).await;
        stored.map(drop).map_err(unavailable)
    }

    async fn delete_service(
        &self,
        application: &str,
        ser_instance_id: &str,
    ) -> Result<(), PlatformError> {
        let key = format!("{SERVICES}{application}/{ser_instance_id}");
        let not_found =
            || PlatformError::NotFound { kind: "service", name: ser_instance_id.to_owned() };
        let found = self.store.get(&key).await.map_err(unavailable)?.ok_or_else(not_found)?;
        let still = Precondition::At { key: key.clone(), revision: found.revision };
        match self.store.commit(Transaction::default().when(still).delete(key)).await {
            Ok(_) => Ok(()),
            Err(StoreError::Precondition { found: None, .. }) => Err(not_found()),
            Err(error) => Err(unavailable(error)),
        }
    }

    async fn traffic_rules(&self, application: &str) -> Result<Vec<TrafficRule>, PlatformError> {
        let name = application.to_owned();
        let rules = self
            .handle
            .query(move |core| core.traffic_rules(&name).map(<[TrafficRule]>::to_vec))
            .await;
        rules.map_err(refused)?.ok_or_else(|| PlatformError::NotFound {
            kind: "application instance",
            name: application.to_owned(),
        })
    }

    async fn replace_traffic_rule(
        &self,
        application: &str,
        old: TrafficRule,
        new: TrafficRule,
    ) -> Result<(), PlatformError> {
        let application = application.parse().map_err(|_| PlatformError::NotFound {
            kind: "application instance",
            name: application.to_owned(),
        })?;
        let request = Request::ReplaceTrafficRule { application, old, new };
        self.handle.request(AUTHOR.to_owned(), request).await.map(drop).map_err(refused)
    }
}

fn refused(error: RequestError) -> PlatformError {
    match error {
        RequestError::Refused(refusal) => match refusal {
            Refusal::NotFound { name, .. } => {
                let name = name.as_str().to_owned();
                PlatformError::NotFound { kind: "application instance", name }
            }
            Refusal::UnknownRule { rule, .. } => {
                PlatformError::NotFound { kind: "traffic rule", name: rule }
            }
            Refusal::RuleChanged { .. } => PlatformError::Changed,
            refusal => PlatformError::Refused(refusal.to_string()),
        },
        RequestError::Store(error) => unavailable(error),
        RequestError::Stopping => PlatformError::Unavailable(error.to_string()),
    }
}

fn unavailable(error: impl Borrow<StoreError>) -> PlatformError {
    match error.borrow() {
        StoreError::Precondition { .. } => PlatformError::Changed,
        error => PlatformError::Unavailable(chain(error)),
    }
}
