//! How a request is answered: at once where possible, by a task where it must wait.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use desstore::Clock;
use futures_util::future::{Either, select};

use crate::core::FsError;
use crate::tally::Tally;

/// Runs requests.
#[derive(Debug, Clone)]
pub(super) struct Answerer {
    runtime: tokio::runtime::Handle,
    clock: Arc<dyn Clock>,
    deadline: Duration,
    tally: Arc<Tally>,
}

/// A request as the log names it, and how long it may wait.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    /// What is asked for.
    pub(super) operation: &'static str,
    /// How long it may wait, from the moment that it has to.
    pub(super) deadline: Duration,
    /// What becomes of it then.
    pub(super) late: Late,
    /// Whether the one who asks has an answer even when the work fails.
    pub(super) has_substitute: bool,
}

impl Terms {
    fn note<T>(&self, tally: &Tally, result: &Result<T, FsError>, began: Duration) {
        match result {
            Err(error) if self.has_substitute => {
                tracing::debug!(operation = self.operation, %error, "answered with what was known last");
                tally.note(self.operation, &Ok(()), began);
            }
            Ok(_) | Err(_) => tally.note(self.operation, result, began),
        }
    }
}

/// What becomes of work whose deadline has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Late {
    /// It is dropped: nobody needs it any more.
    Drop,
    /// It runs to its end: it changes something.
    Finish,
}

impl Answerer {
    pub(super) fn new(
        runtime: tokio::runtime::Handle,
        clock: Arc<dyn Clock>,
        deadline: Duration,
        tally: Arc<Tally>,
    ) -> Self {
        Self { runtime, clock, deadline, tally }
    }

    /// Does the work and hands what came of it to `reply`: before this returns if the work needs not wait.
    pub(super) fn answer<T, Work, Reply>(&self, operation: &'static str, work: Work, reply: Reply)
    where
        T: Send + 'static,
        Work: Future<Output = Result<T, FsError>> + Send + 'static,
        Reply: FnOnce(Result<T, FsError>) + Send + 'static,
    {
        self.answer_on(
            Terms { operation, deadline: self.deadline, late: Late::Drop, has_substitute: false },
            work,
            reply,
        );
    }

    /// The same on terms of its own.
    pub(super) fn answer_on<T, Work, Reply>(&self, terms: Terms, work: Work, reply: Reply)
    where
        T: Send + 'static,
        Work: Future<Output = Result<T, FsError>> + Send + 'static,
        Reply: FnOnce(Result<T, FsError>) + Send + 'static,
    {
        let (deadline, began) = (terms.deadline, self.clock.monotonic());
        // Boxed because work that has begun cannot move, and may have to go to another thread.
        let mut work = Box::pin(work);
        let _entered = self.runtime.enter();
        match poll_once(work.as_mut()) {
            Ok(Poll::Ready(result)) => {
                terms.note(&self.tally, &result, began);
                reply(result);
            }
            Ok(Poll::Pending) => {
                let (clock, tally) = (Arc::clone(&self.clock), Arc::clone(&self.tally));
                drop(self.runtime.spawn(async move {
                    match select(work, clock.sleep(deadline)).await {
                        Either::Left((result, _)) => {
                            terms.note(&tally, &result, began);
                            reply(result);
                        }
                        Either::Right(((), work)) => {
                            let result = Err(FsError::DeadlineExceeded);
                            terms.note(&tally, &result, began);
                            reply(result);
                            if terms.late == Late::Finish {
                                drop(work.await);
                            }
                        }
                    }
                }));
            }
            // The reply is dropped with the work, which answers EIO.
            Err(()) => tracing::error!("a request panicked; it is answered with EIO"),
        }
    }
}

fn poll_once<F: Future>(work: Pin<&mut F>) -> Result<Poll<F::Output>, ()> {
    let mut context = Context::from_waker(Waker::noop());
    // A panic here would end the thread that serves the kernel.
    catch_unwind(AssertUnwindSafe(move || work.poll(&mut context))).map_err(drop)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use desfmt::Timestamp;
    use desstore::ManualClock;

    use super::*;

    fn answerer(runtime: &tokio::runtime::Runtime) -> Answerer {
        let clock = Arc::new(ManualClock::new(Timestamp::from_micros(0)));
        let tally = Arc::new(Tally::new(Arc::<ManualClock>::clone(&clock)));
        Answerer::new(runtime.handle().clone(), clock, Duration::from_secs(30), tally)
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap()
    }

    #[test]
    fn what_need_not_wait_is_answered_on_the_thread_that_asked() {
        let runtime = runtime();
        let (sender, receiver) = mpsc::channel();
        let asked_on = std::thread::current().id();

        answerer(&runtime).answer("test", async { Ok(5) }, move |result: Result<i32, FsError>| {
            sender.send((result.unwrap(), std::thread::current().id())).unwrap();
        });

        assert_eq!(receiver.try_recv().unwrap(), (5, asked_on));
    }

    #[test]
    fn what_must_wait_is_answered_later() {
        let runtime = runtime();
        let (sender, receiver) = mpsc::channel();
        let (release, released) = tokio::sync::oneshot::channel::<i32>();
        let answerer = Answerer { clock: Arc::new(desstore::SystemClock::new()), ..answerer(&runtime) };

        answerer
            .answer("test", async { Ok(released.await.unwrap()) }, move |result| sender.send(result.unwrap()).unwrap());
        assert!(receiver.try_recv().is_err());
        release.send(7).unwrap();

        assert_eq!(receiver.recv().unwrap(), 7);
    }

    #[test]
    fn work_that_is_late_is_answered_with_an_error_and_finished_if_it_changes_something() {
        let runtime = runtime();
        let (sender, receiver) = mpsc::channel();
        let (release, released) = tokio::sync::oneshot::channel::<()>();
        let (finished, has_finished) = mpsc::channel();

        let work = async move {
            released.await.unwrap();
            finished.send(()).unwrap();
            Ok(())
        };
        let terms =
            Terms { operation: "test", deadline: Duration::from_secs(5), late: Late::Finish, has_substitute: false };
        answerer(&runtime).answer_on(terms, work, move |result| {
            sender.send(matches!(result, Err(FsError::DeadlineExceeded))).unwrap();
        });

        assert!(receiver.recv().unwrap());
        release.send(()).unwrap();
        has_finished.recv().unwrap();
    }

    #[test]
    fn a_panic_drops_the_reply_and_not_the_thread() {
        let runtime = runtime();
        let (sender, receiver) = mpsc::channel::<()>();

        answerer(&runtime).answer(
            "test",
            async {
                assert!(std::hint::black_box(false), "planted");
                Ok(())
            },
            move |_| sender.send(()).unwrap(),
        );

        assert_eq!(receiver.try_recv(), Err(mpsc::TryRecvError::Disconnected));
    }
}
