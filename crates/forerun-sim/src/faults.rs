//! What goes wrong, each kind with its own rate and its own stream of draws.

use crate::random::Random;
use std::collections::BTreeSet;

macro_rules! faults {
    ($($name:ident $text:literal $ppm:literal $about:literal),* $(,)?) => {
        /// A kind of fault.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Fault { $(#[doc = $about] $name),* }

        impl Fault {
            pub const ALL: &[Fault] = &[$(Fault::$name),*];

            /// Its name on the command line.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Fault::$name => $text),* }
            }

            /// What happens.
            #[must_use]
            pub fn about(self) -> &'static str {
                match self { $(Fault::$name => $about),* }
            }

            /// How many of a million chances it takes, before a world scales it.
            fn rate_ppm(self) -> u64 {
                match self { $(Fault::$name => $ppm),* }
            }
        }
    };
}

faults! {
    Dies "dies" 60_000 "a ready instance dies",
    DiesStarting "dies-starting" 60_000 "an instance dies before it is ready",
    DiesDraining "dies-draining" 80_000 "an instance dies while it drains",
    Hangs "hangs" 30_000 "a ready instance answers no more",
    StartsSlowly "starts-slowly" 60_000 "a start takes many times its time, or longer than it may",
    LiesReady "lies-ready" 50_000 "an instance is said to be ready, and accepts no connection yet",
    AnswersLate "answers-late" 50_000 "a backend's answer comes seconds late",
    AnswersTwice "answers-twice" 50_000 "a backend answers twice",
    AnswersOutOfOrder "answers-out-of-order" 60_000 "a backend's answer is overtaken by later ones",
    AnswersError "answers-error" 40_000 "a backend refuses a start",
    AnswersNever "answers-never" 20_000 "a backend's answer is lost",
    RouterLate "router-late" 30_000 "a router's message or a table is seconds late",
    LearningLost "learning-lost" 50_000 "a router's batch finds no room",
    LeaseEnds "lease-ends" 300_000 "a router is cut off until its lease has ended, and comes back",
    TornWrite "torn-write" 500_000 "of what was not yet synced only a part is on the disk after a kill",
    FlippedByte "flipped-byte" 200_000 "a bit of the journal is another after a kill",
    DiskFull "disk-full" 200_000 "the disk takes nothing for a while",
    DiskSlow "disk-slow" 200_000 "the disk takes seconds for a write for a while",
    ClockJumps "clock-jumps" 200_000 "the wall clock jumps",
    PauseFails "pause-fails" 300_000 "an instance cannot be frozen",
    ResumeFails "resume-fails" 500_000 "a frozen instance cannot be thawed",
    ResumesSlowly "resumes-slowly" 500_000 "thawing takes seconds, or longer than a start may",
    DiesPaused "dies-paused" 300_000 "a frozen instance dies",
    SpecialiseFails "specialise-fails" 250_000 "a generic instance does not become a key's",
    SpecialisesSlowly "specialises-slowly" 250_000 "becoming a key's takes longer than a start may",
    DiesSpecialising "dies-specialising" 250_000 "an instance dies while it becomes a key's",
    BusySilent "busy-silent" 200_000 "what is asked whether it is busy does not answer",
    FoundTwice "found-twice" 300_000 "what runs is told of twice, the second time late",
    DaemonAway "daemon-away" 150_000 "a daemon tells what it has only after seconds, or a minute",
    Killed "killed" 400_000 "the process is killed and started again",
    Shuts "shuts" 30_000 "a ready instance takes no more connections, and runs on",
}

/// The world's faults.
#[derive(Clone, Debug)]
pub(crate) struct Faults {
    /// Scaled rate, stream for whether, stream for how, and how often it struck; by `Fault as usize`.
    kinds: Vec<(u64, Random, Random, u32)>,
    /// Occurrences that are left out, for shrinking.
    skipped: BTreeSet<(Fault, u32)>,
    healed: bool,
}

impl Faults {
    /// `off`: kinds that never strike.
    #[must_use]
    pub(crate) fn new(seed: u64, off: &BTreeSet<Fault>, skipped: &BTreeSet<(Fault, u32)>) -> Self {
        let mut scales = Random::of(seed, "fault scales");
        let kinds = Fault::ALL
            .iter()
            .map(|&fault| {
                // Worlds differ: in some a kind is absent, in some it is common.
                let scale = [0, 1, 1, 1, 3][scales.below(5) as usize];
                let rate = if off.contains(&fault) { 0 } else { (fault.rate_ppm() * scale).min(900_000) };
                let how = Random::of(seed, &format!("how {}", fault.name()));
                (rate, Random::of(seed, fault.name()), how, 0)
            })
            .collect();
        Self { kinds, skipped: skipped.clone(), healed: false }
    }

    /// Nothing goes wrong from now on.
    pub(crate) fn heal(&mut self) {
        self.healed = true;
    }

    pub(crate) fn healed(&self) -> bool {
        self.healed
    }

    /// Whether the fault strikes at this chance; it gives the number of the occurrence.
    pub(crate) fn strikes(&mut self, fault: Fault) -> bool {
        let kind = &mut self.kinds[fault as usize];
        let struck = kind.1.ppm(kind.0);
        if !struck || self.healed {
            return false;
        }
        kind.3 += 1;
        !self.skipped.contains(&(fault, kind.3))
    }

    /// The stream for how it strikes.
    pub(crate) fn how(&mut self, fault: Fault) -> &mut Random {
        &mut self.kinds[fault as usize].2
    }

    /// How often each kind struck, left-out ones included.
    pub(crate) fn struck(&self) -> impl Iterator<Item = (Fault, u32)> + '_ {
        Fault::ALL.iter().map(|&fault| (fault, self.kinds[fault as usize].3))
    }
}
