//! One connection between two hosts: how it comes up, breaks and is noticed.
//!
//! A connection is broken when either direction is cut or an end died. Its ends
//! learn of it after a drawn delay: long when there is only silence (idle
//! timeout), short when the other side is back with a new boot (stateless
//! reset). A cut that heals before is never noticed.

use std::time::Duration;

use cluster::units::Instant;

use crate::rng::Rng;

/// Silence before a connection is given up: between these.
const SILENCE: (Duration, Duration) = (Duration::from_millis(800), Duration::from_secs(3));
/// Time to notice that the other side forgot the connection.
const RESET: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(150));
/// Time between two attempts to connect.
const REDIAL: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));

/// Boots of the two ends; 0 for a dead one.
pub(crate) type Boots = (u64, u64);

/// A link's state.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Link {
    /// No connection; the next attempt is due.
    Down { dial_at: Instant },
    /// A connection between two boots.
    Up { connection: u64, boots: Boots, given_up_at: Option<Instant> },
}

/// What a check of a link found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Nothing to tell.
    None,
    /// The connection came up.
    Rose,
    /// The connection of these boots was given up.
    Fell { connection: u64, boots: Boots },
}

impl Link {
    /// A link that dials soon.
    pub(crate) fn fresh(now: Instant, rng: &mut Rng) -> Self {
        Self::Down { dial_at: now + rng.between(RESET.0, RESET.1) }
    }

    /// Number of the connection, if there is one.
    pub(crate) fn connection(&self) -> Option<u64> {
        match self {
            Self::Up { connection, .. } => Some(*connection),
            Self::Down { .. } => None,
        }
    }

    /// Forgets the connection at once; its number and boots, if there was one.
    pub(crate) fn reset(&mut self, now: Instant, rng: &mut Rng) -> Option<(u64, Boots)> {
        let Self::Up { connection, boots, .. } = *self else { return None };
        *self = Self::fresh(now, rng);
        Some((connection, boots))
    }

    /// When it changes by itself, if nothing else happens to it.
    pub(crate) fn due(&self) -> Option<Instant> {
        match self {
            Self::Down { dial_at } => Some(*dial_at),
            Self::Up { given_up_at, .. } => *given_up_at,
        }
    }

    /// Looks at the link at `now`, when its ends have these boots and the way
    /// is open both ways or not. `next` numbers connections.
    pub(crate) fn check(
        &mut self,
        now: Instant,
        ends: Boots,
        open: bool,
        next: &mut u64,
        rng: &mut Rng,
    ) -> Change {
        let both = ends.0 != 0 && ends.1 != 0;
        match self {
            Self::Down { dial_at } if *dial_at > now => Change::None,
            Self::Down { dial_at } if !both || !open => {
                *dial_at = now + rng.between(REDIAL.0, REDIAL.1);
                Change::None
            }
            Self::Down { .. } => {
                *next += 1;
                *self = Self::Up { connection: *next, boots: ends, given_up_at: None };
                Change::Rose
            }
            Self::Up { boots, given_up_at, .. } if *boots == ends && open => {
                *given_up_at = None;
                Change::None
            }
            Self::Up { given_up_at: Some(at), .. } if *at > now => Change::None,
            Self::Up { connection, boots, given_up_at: Some(_) } => {
                let fell = Change::Fell { connection: *connection, boots: *boots };
                *self = Self::fresh(now, rng);
                fell
            }
            Self::Up { boots, given_up_at, .. } => {
                let reset = *boots != ends && both && open;
                let wait = if reset { RESET } else { SILENCE };
                *given_up_at = Some(now + rng.between(wait.0, wait.1));
                Change::None
            }
        }
    }
}
