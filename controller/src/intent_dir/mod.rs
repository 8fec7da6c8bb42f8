//! A directory of files as the whole intent (`selvedge controller --intent DIR`).
//!
//! It is looked at each second by what the file system says of its files, which works with
//! editors, Git checkouts, links that are swapped (Kubernetes) and network file systems alike.
//! When they have changed and then been still for one look, all of them are read, and become one
//! change: what is in no file is deleted. It is taken whole or not at all; what runs goes on until
//! the files are right.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use selvedge_core::{self as core, Change, Event, ObjectId, Refusal, Request};
use selvedge_slices::{Object, ObjectKind};
use tokio::sync::watch;

use crate::api::Api;
use crate::engine::{Input, RequestError};
use crate::store::Transaction;

mod read;
#[cfg(test)]
mod tests;

use read::{Files, Picture};

/// Between two looks at the directory.
const LOOK: Duration = Duration::from_secs(1);
/// Looks after which files that were refused for the state of the network are tried again.
const TRY_AGAIN: u32 = 10;
/// Problems that an event lists.
const LISTED: usize = 16;
/// What the files last had of each application: so that its rules, which it may change by
/// MEC 011, are only put back when its file changes.
const TAKEN_KEY: &str = "controller/intent";

pub(crate) struct IntentDir {
    dir: PathBuf,
    api: Api,
    /// Digests of applications as they were in the files, by name.
    taken: BTreeMap<String, String>,
    /// What was last read; `None`: to be read again.
    done: Option<Picture>,
    /// What was seen by the last look.
    seen: Option<Picture>,
    modules: Vec<PathBuf>,
    /// Looks since the core refused the files.
    refused: Option<u32>,
    /// This controller led at the last look.
    leads: bool,
}

/// Without a directory of files everything may be changed by the API, and what files once had
/// says nothing any more.
pub(crate) async fn forget(api: Api) {
    if let Err(error) = api.store.commit(Transaction::default().delete(TAKEN_KEY)).await {
        tracing::debug!(error = &error as &dyn std::error::Error, "{TAKEN_KEY} is kept");
    }
}

impl IntentDir {
    pub(crate) fn new(dir: PathBuf, api: Api) -> Self {
        Self {
            dir,
            api,
            taken: BTreeMap::new(),
            done: None,
            seen: None,
            modules: Vec::new(),
            refused: None,
            leads: false,
        }
    }

    /// Looks at once, and then until `stop` is set.
    pub(crate) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        loop {
            self.look().await;
            tokio::select! {
                () = async { drop(stop.wait_for(|stop| *stop).await) } => return,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    async fn look(&mut self) {
        if self.api.handle.role().borrow().election_id().is_none() {
            self.leads = false;
            return;
        }
        let first = !std::mem::replace(&mut self.leads, true);
        if first {
            let stored = self.api.store.get(TAKEN_KEY).await.ok().flatten();
            let taken = stored.and_then(|stored| serde_json::from_slice(&stored.value).ok());
            (self.taken, self.done) = (taken.unwrap_or_default(), None);
        }
        let (dir, modules) = (self.dir.clone(), self.modules.clone());
        let picture = match blocking(move || Picture::take(&dir, &modules)).await {
            Ok(picture) => picture,
            Err(problem) => {
                self.done = None;
                return self.refuse(vec![problem]).await;
            }
        };
        let still = self.seen.replace(picture.clone()).is_some_and(|seen| seen == picture);
        let again = self.refused.as_mut().is_some_and(|looks| {
            *looks += 1;
            looks.is_multiple_of(TRY_AGAIN)
        });
        if (first || still) && (again || self.done.as_ref() != Some(&picture)) {
            self.read().await;
        }
    }

    async fn read(&mut self) {
        let dir = self.dir.clone();
        let (read, modules, picture) = blocking(move || {
            let (read, modules) = read::read(&dir);
            // Of the files that were read, and modules that nobody had looked at before.
            let picture = Picture::take(&dir, &modules).ok();
            (read, modules, picture)
        })
        .await;
        self.modules = modules;
        self.seen.clone_from(&picture);
        match read {
            Err(problems) => {
                self.refused = None;
                self.done = picture;
                self.refuse(problems).await;
            }
            Ok(files) => match self.submit(&files).await {
                Ok(()) => {
                    self.refused = None;
                    self.done = picture;
                    self.tell(None).await;
                }
                Err(RequestError::Refused(refusal)) => {
                    self.refused = Some(0);
                    self.done = picture;
                    self.refuse(vec![placed(&refusal, &files)]).await;
                }
                // Nothing is wrong with the files: the next look tries again.
                Err(error) => {
                    self.done = None;
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "the files of {} wait", self.dir.display());
                }
            },
        }
    }

    /// Makes the intent what the files have.
    async fn submit(&mut self, files: &Files) -> Result<(), RequestError> {
        let digests: BTreeMap<String, String> = files
            .objects
            .iter()
            .filter(|object| object.kind() == ObjectKind::Application)
            .map(|object| (object.name().to_string(), digest(object)))
            .collect();
        let change = self.change(files, &digests).await?;
        if !change.put.is_empty() || !change.delete.is_empty() {
            let wanted = |(name, module): (&_, &(String, Vec<u8>))| {
                change.modules.contains_key(name).then(|| module.clone())
            };
            let modules = files.modules.iter().filter_map(wanted).collect();
            let author = format!("files in {}", self.dir.display());
            self.api.take(author, Request::Apply { change, plan: None }, modules).await?;
        }
        if self.taken != digests {
            let text = serde_json::to_vec(&digests).expect("names by digests");
            let kept = self.api.store.commit(Transaction::default().put(TAKEN_KEY, text)).await;
            kept.map_err(|error| RequestError::Store(error.into()))?;
            self.taken = digests;
        }
        Ok(())
    }

    /// What differs from the intent, and is not what an application did with its own rules.
    async fn change(
        &self,
        files: &Files,
        digests: &BTreeMap<String, String>,
    ) -> Result<Change, RequestError> {
        let module = |object: &Object| files.modules.get(object.name()).map(|(d, _)| d.clone());
        let wanted: Vec<(Object, Option<String>)> =
            files.objects.iter().map(|object| (object.clone(), module(object))).collect();
        let differs = move |core: &core::Core| {
            let by_mec: BTreeSet<String> = core
                .applications()
                .into_iter()
                .filter(|application| application.author == crate::mec::AUTHOR)
                .map(|application| application.name)
                .collect();
            let new = wanted.into_iter().filter(|(object, module)| !core.holds(object, module));
            (new.collect::<Vec<_>>(), core.object_ids(), by_mec)
        };
        let (new, there, by_mec) = self.api.handle.query(differs).await?;
        let mut change = Change::default();
        for (object, module) in new {
            let name = object.name().as_str();
            let own = object.kind() == ObjectKind::Application && by_mec.contains(name);
            if own && self.taken.get(name) == digests.get(name) {
                continue;
            }
            change.modules.extend(module.map(|digest| (object.name().clone(), digest)));
            change.put.push(object);
        }
        change.delete = there.into_iter().filter(|id| !files.places.contains_key(id)).collect();
        change.reason = reason(&change, files);
        Ok(change)
    }

    async fn refuse(&self, problems: Vec<String>) {
        let mut lines: Vec<String> = problems.iter().take(LISTED).cloned().collect();
        if problems.len() > LISTED {
            lines.push(format!("and {} more", problems.len() - LISTED));
        }
        self.tell(Some(lines.join("\n"))).await;
    }

    /// For the event log, the status and the metrics.
    async fn tell(&self, refused: Option<String>) {
        let dir = self.dir.display().to_string();
        // A controller that stops needs to hear nothing.
        drop(self.api.handle.send(Input::Tell(Event::IntentFiles { dir, refused })).await);
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("reading files does not panic")
}

fn digest(object: &Object) -> String {
    crate::modules::sha256(selvedge_slices::document::of(object).to_string().as_bytes())
}

/// The refusal, behind the place of the object that it is about.
fn placed(refusal: &Refusal, files: &Files) -> String {
    let place = refusal.object().and_then(|(kind, name)| {
        let named = |id: &&ObjectId| id.kind == kind && id.name.as_str() == name;
        files.places.iter().find(|(id, _)| named(id)).map(|(_, place)| place)
    });
    place.map_or_else(|| refusal.to_string(), |place| format!("{place}: {refusal}"))
}

/// The files that objects were put from, for the history.
fn reason(change: &Change, files: &Files) -> String {
    let file = |object: &Object| {
        let id = ObjectId { kind: object.kind(), name: object.name().clone() };
        Some(files.places.get(&id)?.rsplit_once(':')?.0.to_owned())
    };
    let mut names: Vec<String> = change.put.iter().filter_map(file).collect();
    names.dedup();
    let more = names.len().saturating_sub(LISTED);
    names.truncate(LISTED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    names.join(", ") + &more
}

/// What a request has to hear that would change what the files say.
pub(crate) fn refusal(dir: &Path) -> String {
    format!(
        "the files in {} are the whole intent of this controller (--intent): change them there; \
         drain and undrain are not in files and work",
        dir.display()
    )
}
