//! What a forecast of activities takes of all four resources, in the proportions in which activities come of late.

use crate::queueing::Offered;
use crate::usage::Load;
use crate::view::ServiceStatus;
use forerun_types::{ServiceSpec, Span};
use serde::Serialize;

/// What so many requests at a time take of a service's site.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Takes {
    pub instances: u32,
    /// Cores that the activities burn.
    pub cpu: f64,
    /// Bytes of all these instances.
    pub memory_bytes: f64,
    pub network_bytes_per_s: f64,
    /// From and to disks.
    pub storage_bytes_per_s: f64,
}

impl ServiceStatus {
    /// The least number of instances at which all but one request in a hundred wait for less than the class's latency
    /// target, while as many come as of late, at random, and take as long: Erlang's delay formula. 0 where none comes.
    #[must_use]
    pub fn instances_for_target(&self, spec: &ServiceSpec) -> u32 {
        let mean = self.load.concurrency;
        if !(mean > 0.0 && self.rate > 0.0) {
            return 0;
        }
        let service = Span::from_secs_f64(mean / self.rate);
        Offered { mean, peakedness: 1.0, service }.instances(spec.concurrency, spec.sla.latency)
    }

    /// What `requests` at a time take. What activities burn and move is 0 before any was seen to.
    #[must_use]
    pub fn takes(&self, spec: &ServiceSpec, requests: f64) -> Takes {
        let requests = if requests.is_finite() { requests.clamp(0.0, f64::from(u32::MAX)) } else { 0.0 };
        // A forecast of 0.2 requests at a time at the most is one of a request now and then.
        let instances = spec.instances_for(libm::ceil(requests) as u32);
        let Load { cpu, network_bytes_per_s, storage_bytes_per_s, concurrency, .. } = self.load;
        let times = if concurrency > 0.0 { requests / concurrency } else { 0.0 };
        Takes {
            instances,
            cpu: cpu * times,
            memory_bytes: f64::from(instances) * self.memory_bytes as f64,
            network_bytes_per_s: network_bytes_per_s * times,
            storage_bytes_per_s: storage_bytes_per_s * times,
        }
    }
}
