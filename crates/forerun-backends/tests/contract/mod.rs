//! What every backend must do, whatever it runs instances in. A backend's own test file gives a [`World`] and
//! writes `contract!(world)`; see `tests/process.rs`.
//!
//! The guarantee: orders return at once and mean something once; every accepted start ends in exactly one of
//! `Ready`, `StartFailed` and `Stopped`, and after `Ready` in exactly one of `Died` and `Stopped`; when any of the
//! last three is told, nothing of the instance is left.

mod bench;
pub(crate) mod changes;
pub(crate) mod ends;
pub(crate) mod lives;
pub(crate) mod orders;
pub(crate) mod starts;

#[allow(unused_imports, reason = "not every backend has cases of its own")]
pub(crate) use bench::{Bench, World, get};

/// A test for each case of the suite.
macro_rules! contract {
    ($world:expr) => {
        $crate::contract::contract!($world;
            starts { serves, says_how_it_started, tells_usage, gets_port_and_env, waits_for_http, waits_for_a_line,
                never_ready, crash_on_start, killed_on_start, command_not_found, folder_missing, nothing_to_run,
                taken_port, chatty, a_hundred_at_once }
            ends { stop_is_obeyed, stop_is_forced, everything_goes, death_is_noticed, death_by_signal,
                death_takes_the_rest_along, stop_during_start, memory_limit, shutdown, drop_leaves_nothing }
            orders { repeated_orders_change_nothing, older_generations_are_refused, stop_of_a_stranger,
                what_it_cannot_do, orders_do_not_wait }
            changes { pause_and_resume, a_paused_one_is_forced, only_what_runs_is_changed, a_start_for_a_key,
                a_generic_one_becomes_a_keys, busy_is_asked, busy_by_cpu }
            lives { a_request_in_flight_is_answered, owners_leave_each_other_alone }
        );
    };
    ($world:expr; $($part:ident { $($case:ident),+ $(,)? })+) => {
        $(mod $part {
            $(#[test]
            fn $case() {
                if $crate::contract::World::available(&$world) {
                    $crate::contract::$part::$case(&$world);
                }
            })+
        })+
    };
}
pub(crate) use contract;
