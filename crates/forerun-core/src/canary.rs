//! Bugs built in on purpose, which the simulation must catch. None can be on without the feature `canaries`, which
//! nothing but the simulation asks for.

/// A bug that can be switched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Canary {
    /// A start is ordered twice.
    DoubleStart,
    /// A stop does not wait until routers say that nothing is in flight.
    StopInUse,
    /// After a failed start the requests that wait are forgotten.
    LostWaiter,
    /// A router's word about an older table counts for the newer one.
    OldGeneration,
    /// One instance more than there is room for.
    CapacityOffByOne,
    /// An instance's room is given away when its stop is ordered, not when it is gone.
    FreedEarly,
    /// What was learned is dropped at a restart.
    ProfileDropped,
    /// A record of the journal counts as whole whatever its checksum says.
    TornRecordWhole,
    /// Drains have no end.
    EndlessDrain,
    /// A backend that does not answer a stop is not asked again.
    StopUnanswered,
    /// Observed services are started for.
    ObserveActs,
    /// A new life goes on where the journal ended, and not beyond what routers may have seen.
    GenerationsRepeat,
    /// A new life gives ids to instances that others had in a life before.
    IdsRepeat,
    /// An instance that was used is given to a key as if it never was.
    UsedIsGeneric,
    /// An instance whose change for a key failed goes back to the pool.
    BackToPool,
    /// What is told of twice is adopted twice.
    AdoptsTwice,
    /// Nobody is asked whether it is busy before it is stopped.
    IgnoresBusy,
    /// What a person started is stopped when Forerun ends or its service goes.
    StopsTheirs,
    /// Frozen instances stay in the table.
    RoutesToPaused,
    /// What a person stopped is started again.
    WakesStopped,
    /// A service starts before what it depends on.
    StartsEarly,
    /// What answers nothing is left where it is.
    KeepsWedged,
    /// What is a class's own is lent to anyone.
    LendsOwn,
    /// What others hold of a class's own is taken back only where it is idle.
    SparesLent,
}

impl Canary {
    pub const ALL: [Canary; 24] = [
        Canary::DoubleStart,
        Canary::StopInUse,
        Canary::LostWaiter,
        Canary::OldGeneration,
        Canary::CapacityOffByOne,
        Canary::FreedEarly,
        Canary::ProfileDropped,
        Canary::TornRecordWhole,
        Canary::EndlessDrain,
        Canary::StopUnanswered,
        Canary::ObserveActs,
        Canary::GenerationsRepeat,
        Canary::IdsRepeat,
        Canary::UsedIsGeneric,
        Canary::BackToPool,
        Canary::AdoptsTwice,
        Canary::IgnoresBusy,
        Canary::StopsTheirs,
        Canary::RoutesToPaused,
        Canary::WakesStopped,
        Canary::StartsEarly,
        Canary::KeepsWedged,
        Canary::LendsOwn,
        Canary::SparesLent,
    ];

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Canary::DoubleStart => "double-start",
            Canary::StopInUse => "stop-in-use",
            Canary::LostWaiter => "lost-waiter",
            Canary::OldGeneration => "old-generation",
            Canary::CapacityOffByOne => "capacity-off-by-one",
            Canary::FreedEarly => "freed-early",
            Canary::ProfileDropped => "profile-dropped",
            Canary::TornRecordWhole => "torn-record-whole",
            Canary::EndlessDrain => "endless-drain",
            Canary::StopUnanswered => "stop-unanswered",
            Canary::ObserveActs => "observe-acts",
            Canary::GenerationsRepeat => "generations-repeat",
            Canary::IdsRepeat => "ids-repeat",
            Canary::UsedIsGeneric => "used-is-generic",
            Canary::BackToPool => "back-to-pool",
            Canary::AdoptsTwice => "adopts-twice",
            Canary::IgnoresBusy => "ignores-busy",
            Canary::StopsTheirs => "stops-theirs",
            Canary::RoutesToPaused => "routes-to-paused",
            Canary::WakesStopped => "wakes-stopped",
            Canary::StartsEarly => "starts-early",
            Canary::KeepsWedged => "keeps-wedged",
            Canary::LendsOwn => "lends-own",
            Canary::SparesLent => "spares-lent",
        }
    }
}
