//! An instance that did not take a request is left alone; this finds out when it takes them again.
//!
//! Mostly it is dead and the next table lacks it. But one that only restarts its listener, or whose machine was out
//! of sockets for a moment, would be in the table for good with nobody sent there. So its address is dialled until
//! it accepts, ever more rarely, by one task for each such instance, which ends with the instance.

use crate::core::Core;
use crate::service::Service;
use crate::upstream::Pool;
use forerun_types::InstanceId;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// A listener that is being opened again is back within this; sooner the dial would only find it closed once more.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// Nobody waits much longer than need be, and a dial a second disturbs nothing.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Ends when the instance may be picked again, is gone or has another address, or the router is gone.
pub(crate) async fn watch(core: Weak<Core>, service: Weak<Service>, instance: InstanceId, pool: Arc<Pool>) {
    let mut pause = PAUSE_FIRST;
    loop {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
        let (Some(core), Some(service)) = (core.upgrade(), service.upgrade()) else { return };
        if !service.is_shunned(instance, &pool) {
            return;
        }
        if pool.accepts(&core.limits).await {
            service.welcome(&core, instance, &pool, core.now());
            return;
        }
        service.dialled_in_vain(&core, instance, &pool, core.now());
    }
}
