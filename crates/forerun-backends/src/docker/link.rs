//! The connection to the engine: whether there is one, and who notices when it is lost.

use super::engine::{Engine, EngineError};
use std::cell::Cell;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

/// Between attempts of one order while the engine is silent.
const AGAIN: Duration = Duration::from_millis(100);

/// Shared by all that call the engine.
#[derive(Debug)]
pub(super) struct Link {
    now: watch::Sender<Result<Engine, EngineError>>,
    /// Somebody got no answer: worth a look.
    pub(super) doubt: Notify,
    /// Which connection this is.
    number: Cell<u64>,
}

impl Link {
    pub(super) fn new(why: EngineError) -> Self {
        Self { now: watch::channel(Err(why)).0, doubt: Notify::new(), number: Cell::new(0) }
    }

    pub(super) fn set(&self, engine: Result<Engine, EngineError>) {
        self.number.set(self.number.get() + 1);
        // The one before is of no use.
        let _ = self.now.send_replace(engine);
    }

    pub(super) fn get(&self) -> Option<Engine> {
        self.now.borrow().as_ref().ok().cloned()
    }

    /// Whether the engine is there and takes new connections, and has been ever since `number` was read.
    pub(super) async fn stands(&self, number: u64) -> bool {
        let Some(engine) = self.get() else { return false };
        let answered = engine.ping().await.is_ok();
        // By now a broken connection has been noticed.
        answered && self.number.get() == number
    }

    pub(super) fn number(&self) -> u64 {
        self.number.get()
    }

    /// Waits for the engine.
    ///
    /// # Errors
    /// Why there was none until then.
    pub(super) async fn engine(&self, until: Instant) -> Result<Engine, EngineError> {
        let mut now = self.now.subscribe();
        let wait = now.wait_for(Result::is_ok);
        // The answer borrows what it watches.
        let there = timeout(until.saturating_duration_since(Instant::now()), wait).await.is_ok();
        match self.now.borrow().clone() {
            Err(error) if there => Err(error),
            other => other,
        }
    }

    /// Asks again and again while the engine is silent. What is asked must mean the same when it is asked twice.
    ///
    /// # Errors
    /// What the engine refuses, or its silence until then.
    pub(super) async fn insist<T>(
        &self,
        until: Instant,
        ask: impl AsyncFn(&Engine) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        loop {
            let engine = self.engine(until).await?;
            let left = until.saturating_duration_since(Instant::now());
            let error = match timeout(left.max(AGAIN), ask(&engine)).await {
                Ok(Err(error)) if error.is_silence() => error,
                Ok(answer) => return answer,
                Err(_) => EngineError::NoAnswer {
                    host: engine.place.host.clone(),
                    what: "carry out an order",
                    secs: left.as_secs(),
                },
            };
            self.doubt.notify_one();
            if Instant::now() >= until {
                return Err(error);
            }
            sleep(AGAIN).await;
        }
    }
}
