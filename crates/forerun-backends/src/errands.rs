//! Work that waits for something outside, on threads of its own: questions to instances, hooks, shell lines.
//!
//! A thread begins when there is work and ends when there is none. Each errand has its own deadline; here only their
//! number is bounded. The queue is bounded by who asks: an instance has a few on their way at most.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

type Errand = Box<dyn FnOnce() + Send>;

/// Runs errands, so many at a time.
#[derive(Clone)]
pub(crate) struct Errands {
    name: &'static str,
    threads_max: usize,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Errand>,
    threads: usize,
}

impl Errands {
    pub(crate) fn new(name: &'static str, threads_max: usize) -> Self {
        Self { name, threads_max, state: Arc::default() }
    }

    /// False if the system has no room for a thread and none runs: the errand is then not done.
    #[must_use]
    pub(crate) fn run(&self, errand: impl FnOnce() + Send + 'static) -> bool {
        let mut state = lock(&self.state);
        state.queue.push_back(Box::new(errand));
        if state.threads >= self.threads_max {
            return true;
        }
        let theirs = Arc::clone(&self.state);
        let begun =
            thread::Builder::new().name(self.name.to_owned()).stack_size(256 << 10).spawn(move || {
                while let Some(errand) = next(&theirs) {
                    errand();
                }
            });
        match begun {
            Ok(_) => state.threads += 1,
            // The others will come to it.
            Err(_) if state.threads > 0 => {}
            Err(_) => {
                state.queue.pop_back();
                return false;
            }
        }
        true
    }
}

impl fmt::Debug for Errands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Errands").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The next errand; without one the calling thread counts as ended.
fn next(state: &Mutex<State>) -> Option<Errand> {
    let mut state = lock(state);
    let errand = state.queue.pop_front();
    state.threads -= usize::from(errand.is_none());
    errand
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    #[test]
    fn all_are_done_and_so_many_at_a_time() {
        let errands = Errands::new("errands", 3);
        let (sender, done) = mpsc::channel();
        for number in 0..50 {
            let (sender, state) = (sender.clone(), Arc::clone(&errands.state));
            assert!(errands.run(move || {
                thread::sleep(Duration::from_millis(2));
                sender.send((number, lock(&state).threads)).unwrap();
            }));
        }
        let mut seen: Vec<(i32, usize)> = (0..50).map(|_| done.recv().unwrap()).collect();
        seen.sort_unstable();
        assert!(seen.iter().map(|(number, _)| *number).eq(0..50));
        assert!(seen.iter().all(|(_, threads)| (1..=3).contains(threads)), "{seen:?}");
        // The threads end by themselves.
        while lock(&errands.state).threads > 0 {
            thread::sleep(Duration::from_millis(1));
        }
        assert!(errands.run(move || sender.send((50, 1)).unwrap()));
        assert_eq!(done.recv().unwrap(), (50, 1));
    }
}
