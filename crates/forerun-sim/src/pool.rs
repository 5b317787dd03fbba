//! Many worlds at once: each runs on one thread, to the bit as it would alone.

use std::sync::Mutex;
use std::sync::PoisonError;

/// Takes jobs from `next` until there is none, on so many threads; `done` is called as each ends.
pub fn each<J: Send, R: Send>(
    threads: usize,
    next: impl FnMut() -> Option<J> + Send,
    work: impl Fn(&J) -> R + Sync,
    done: impl FnMut(J, R) + Send,
) {
    let (next, done) = (Mutex::new(next), Mutex::new(done));
    let take = || next.lock().unwrap_or_else(PoisonError::into_inner)();
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                while let Some(job) = take() {
                    let result = work(&job);
                    done.lock().unwrap_or_else(PoisonError::into_inner)(job, result);
                }
            });
        }
    });
}
