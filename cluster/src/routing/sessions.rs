//! A client's book of its sessions in one shard: who may write next, under
//! which number.
//!
//! A session takes 64 numbers above the highest below which all have their
//! answer, so one slow request closes its window; the book then takes the next
//! session, or asks for one more to be opened. A number is never used for two
//! requests, and a retry keeps its number: that is what makes it exactly-once.
//!
//! Source: Raft dissertation §6.3.

use std::collections::BTreeSet;

use crate::{ids::SessionId, limits::SESSION_IN_FLIGHT_MAX, shard::command::SessionRequest};

/// Sessions one client keeps in one shard: 8 × 64 writes in flight are more
/// than a shard's admission lets in, and 128 such clients fit its table.
pub const SESSIONS_PER_CLIENT_MAX: usize = 8;

/// The right to one request under one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The session.
    pub session: SessionId,
    /// The number.
    pub number: u64,
}

/// What the book says to one who wants to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Go on under this number.
    Lease(Lease),
    /// Open another session first, then [`SessionBook::opened`].
    Open,
    /// Every window is closed: wait until one is released.
    Wait,
}

#[derive(Debug)]
struct Session {
    id: SessionId,
    next: u64,
    answered: u64,
    /// Numbers above `answered` that have their answer.
    done: BTreeSet<u64>,
}

impl Session {
    fn room(&self) -> bool {
        let window = SESSION_IN_FLIGHT_MAX as u64;
        self.next <= self.answered + window
    }
}

/// The sessions of one client in one shard.
#[derive(Debug, Default)]
pub struct SessionBook {
    sessions: Vec<Session>,
    opening: usize,
}

impl SessionBook {
    /// Takes the next number, or says what must happen first. After
    /// [`Taken::Open`] the caller owes [`Self::opened`] or [`Self::not_opened`].
    pub fn take(&mut self) -> Taken {
        if let Some(session) = self.sessions.iter_mut().find(|session| session.room()) {
            let number = session.next;
            session.next += 1;
            return Taken::Lease(Lease { session: session.id, number });
        }
        // One opening at a time: whoever waits for it shares the new window.
        if self.opening > 0 || self.sessions.len() >= SESSIONS_PER_CLIENT_MAX {
            return Taken::Wait;
        }
        self.opening += 1;
        Taken::Open
    }

    /// A session was opened.
    pub fn opened(&mut self, id: SessionId) {
        self.opening = self.opening.saturating_sub(1);
        self.sessions.push(Session { id, next: 1, answered: 0, done: BTreeSet::new() });
    }

    /// Opening failed.
    pub fn not_opened(&mut self) {
        self.opening = self.opening.saturating_sub(1);
    }

    /// What goes with the request on the wire; asked anew for each try, so
    /// that the shard learns early which replies it may drop.
    pub fn request(&self, lease: Lease) -> SessionRequest {
        let session = self.sessions.iter().find(|session| session.id == lease.session);
        let answered = session.map_or(0, |session| session.answered);
        SessionRequest { session: lease.session, number: lease.number, answered }
    }

    /// The number has its answer, or nobody waits for it any more: it will
    /// never be asked again.
    pub fn release(&mut self, lease: Lease) {
        let found = self.sessions.iter_mut().find(|session| session.id == lease.session);
        let Some(session) = found else { return };
        session.done.insert(lease.number);
        while session.done.remove(&(session.answered + 1)) {
            session.answered += 1;
        }
    }

    /// The shard no longer knows the session.
    pub fn forget(&mut self, id: SessionId) {
        self.sessions.retain(|session| session.id != id);
    }

    /// Takes all sessions out, to close them.
    pub fn drain(&mut self) -> Vec<SessionId> {
        self.sessions.drain(..).map(|session| session.id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(book: &mut SessionBook) -> Lease {
        match book.take() {
            Taken::Lease(lease) => lease,
            other @ (Taken::Open | Taken::Wait) => panic!("{other:?}"),
        }
    }

    fn with_session() -> SessionBook {
        let mut book = SessionBook::default();
        assert_eq!(book.take(), Taken::Open);
        book.opened(SessionId(10));
        book
    }

    #[test]
    fn while_a_session_is_being_opened_others_wait_for_it() {
        let mut book = SessionBook::default();
        assert_eq!(book.take(), Taken::Open);
        assert_eq!(book.take(), Taken::Wait);
        book.not_opened();
        assert_eq!(book.take(), Taken::Open);
    }

    #[test]
    fn one_slow_request_closes_a_window_of_64_and_opens_a_second_session() {
        let mut book = with_session();
        let slow = lease(&mut book);
        for _ in 2..=64 {
            let quick = lease(&mut book);
            book.release(quick);
        }
        assert_eq!(book.take(), Taken::Open);
        book.opened(SessionId(11));
        assert_eq!(lease(&mut book), Lease { session: SessionId(11), number: 1 });
        book.release(slow);
        assert_eq!(lease(&mut book), Lease { session: SessionId(10), number: 65 });
    }

    #[test]
    fn answered_rises_only_over_numbers_without_a_gap() {
        let mut book = with_session();
        let (first, second, third) = (lease(&mut book), lease(&mut book), lease(&mut book));
        book.release(second);
        assert_eq!(book.request(third).answered, 0);
        book.release(first);
        assert_eq!(book.request(third).answered, 2);
    }

    #[test]
    fn a_forgotten_session_gives_no_more_numbers() {
        let mut book = with_session();
        let open = lease(&mut book);
        book.forget(open.session);
        book.release(open);
        assert_eq!(book.take(), Taken::Open);
    }

    #[test]
    fn the_number_of_sessions_is_bounded() {
        let mut book = SessionBook::default();
        for id in 1..=SESSIONS_PER_CLIENT_MAX as u64 {
            assert_eq!(book.take(), Taken::Open);
            book.opened(SessionId(id));
            for _ in 0..64 {
                lease(&mut book);
            }
        }
        assert_eq!(book.take(), Taken::Wait);
    }
}
