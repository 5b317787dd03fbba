//! What the shell needs of the world. The live ones are in [`crate::live`]; a seeded world can stand in for each.

use crate::journal::Opening;
use forerun_backends::{StartOrder, StopOrder};
use forerun_types::{Generation, InstanceId, RouteTable, ServiceSpec, Time};
use std::sync::Arc;

/// What a clock says when it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Never goes back.
    pub now: Time,
    /// The wall clock has jumped by so many microseconds since the last reading.
    pub jumped: Option<i64>,
}

pub trait Clock {
    fn read(&mut self) -> Reading;
}

/// An order to the journal's disk. Orders are carried out in order; none of them blocks the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskOrder {
    /// Begin a segment with these bytes; what is appended from now on goes there. Where they cannot be written whole
    /// there is no such segment.
    Segment {
        number: u64,
        bytes: Vec<u8>,
    },
    Append(Vec<u8>),
    /// Make what was appended last.
    Sync,
    /// Remove a segment.
    Remove {
        number: u64,
    },
}

/// How the disk has been doing since it was asked last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskHealth {
    Good,
    /// It failed and takes nothing until the next segment.
    Broken(String),
}

pub trait Disk {
    fn order(&mut self, order: DiskOrder);
    fn health(&mut self) -> DiskHealth;

    /// Begins a segment, as [`DiskOrder::Segment`] does. Gives the bytes that it has by now, or `None` where they are
    /// packed elsewhere and [`Disk::opened`] will tell.
    fn begin(&mut self, number: u64, opening: Opening) -> Option<u64> {
        let bytes = opening.seal();
        let size = bytes.len() as u64;
        self.order(DiskOrder::Segment { number, bytes });
        Some(size)
    }

    /// Number and bytes of a segment that has been opened since this was asked last.
    fn opened(&mut self) -> Option<(u64, u64)> {
        None
    }
}

/// Carries out orders for instances; outcomes come back as events.
pub trait Backends {
    fn start(&mut self, order: StartOrder);
    fn stop(&mut self, order: StopOrder);
    /// What was told as `Found` with this handle is the order's instance from now on.
    fn adopt(&mut self, order: StartOrder, handle: &str);
    fn pause(&mut self, instance: InstanceId, generation: Generation);
    fn resume(&mut self, instance: InstanceId, generation: Generation);
    /// Gives a generic instance to the key of the order's variant.
    fn specialise(&mut self, order: StartOrder);
    fn ask_busy(&mut self, order: StartOrder);
    /// An instance is this Forerun's no more; it goes on as it is.
    fn let_go(&mut self, instance: InstanceId);
    /// All services as they are described now, in order of their ids.
    fn know(&mut self, services: &[Arc<ServiceSpec>]);
}

/// Everything that routes requests.
pub trait Routers {
    fn publish(&mut self, table: Arc<RouteTable>);
}
