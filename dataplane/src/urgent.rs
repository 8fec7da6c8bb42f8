//! Threads for what cannot wait its turn.

use std::io;

use thread_priority::{
    RealtimeThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};
use tokio::sync::oneshot;

/// Ranks among the threads of an agent: a higher one interrupts a lower one.
pub(crate) const MARKS: u8 = 1;
pub(crate) const GUARD: u8 = 2;

#[derive(Debug, thiserror::Error)]
pub enum UrgentError {
    #[error("cannot start the thread's runtime")]
    Runtime(#[source] io::Error),
    #[error("its thread has ended")]
    Ended,
}

/// Runs what `task` makes in a thread of its own, in this one's network namespace, before whatever
/// else this machine does (SCHED_FIFO, sched(7)); without the right to that, in turn with the
/// others. Ready when it has ended.
///
/// # Errors
/// There can be no further thread.
pub(crate) fn run<M, F, T, E>(
    name: &'static str,
    rank: u8,
    task: M,
) -> io::Result<impl Future<Output = Result<T, E>> + use<M, F, T, E>>
where
    M: FnOnce() -> F + Send + 'static,
    F: Future<Output = Result<T, E>>,
    T: Send + 'static,
    E: From<UrgentError> + Send + 'static,
{
    let (end, ended) = oneshot::channel();
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        let fifo = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
        let priority = ThreadPriority::Crossplatform(rank.try_into().expect("a priority"));
        if let Err(error) = set_thread_priority_and_policy(thread_native_id(), priority, fifo) {
            tracing::debug!(?error, name, "runs in turn with others");
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let result = match runtime {
            Ok(runtime) => runtime.block_on(task()),
            Err(error) => Err(UrgentError::Runtime(error).into()),
        };
        // Nobody is there to hear of it where it was told to end.
        drop(end.send(result));
    })?;
    Ok(async move { ended.await.unwrap_or_else(|_| Err(UrgentError::Ended.into())) })
}
