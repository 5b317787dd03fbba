//! How many files this process may have open: a request takes two, an instance some more, and many systems let a
//! program have 1,024 until it asks for what it may have.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What is open besides requests: listeners, the journal, pipes and process handles of a few hundred instances.
const BESIDES: u64 = 1_024;

/// Raises the soft limit to the hard one. Gives what it was, for the processes that are started, if that is less.
pub(crate) fn raise() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let soft = limit.current.filter(|soft| limit.maximum.is_none_or(|hard| *soft < hard))?;
    let hard = limit.maximum.map_or_else(|| "no limit".to_owned(), |hard| hard.to_string());
    match setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        Ok(()) => {
            tracing::info!(
                "the limit on open files was {soft}; raised to what this process may have, {hard}"
            );
            Some(soft)
        }
        Err(error) => {
            tracing::warn!(%error, "the limit on open files is {soft} and cannot be raised to {hard}");
            None
        }
    }
}

/// Says in the log if so many client connections could run out of files. Those that find none wait to be accepted.
pub(crate) fn check(connections_max: u32) {
    if let Some((limit, needed)) = lacking(connections_max) {
        tracing::warn!(
            "open files are limited to {limit}, and router.connections_max = {connections_max} can need {needed}: \
             raise the hard limit (ulimit -Hn, LimitNOFILE=) or lower connections_max"
        );
    }
}

/// The limit as it can be raised to, and what so many connections can need, where that is more.
pub(crate) fn lacking(connections_max: u32) -> Option<(u64, u64)> {
    let needed = 2 * u64::from(connections_max) + BESIDES;
    let limit = getrlimit(Resource::Nofile);
    Some((limit.maximum.or(limit.current).filter(|limit| *limit < needed)?, needed))
}

/// Sets the soft limit, or as much of it as the hard limit allows. A failure leaves it as it is, which is no reason
/// not to start an instance.
pub(crate) fn set(soft: Option<u64>) {
    let limit = getrlimit(Resource::Nofile);
    if let Some(soft) = soft {
        let current = limit.maximum.map_or(soft, |hard| soft.min(hard));
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(current), ..limit });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_goes_up_to_the_hard_one_and_back() {
        let limit = getrlimit(Resource::Nofile);
        // Low enough to be below any hard limit, high enough for the tests beside this one.
        set(Some(200));
        assert_eq!(raise(), Some(200));
        assert_eq!(getrlimit(Resource::Nofile).current, limit.maximum);
        assert_eq!(raise(), None, "nothing to raise");
    }
}
