//! Exactly once: what a session has asked and been told.
//!
//! A client numbers its requests within a session. The reply to each is kept
//! until the client says it has it, so a retry is answered, not executed again.
//! Sessions run on shard time, which the leader adds in proposed steps: a clock
//! that jumps ends none early, and every replica ends the same ones at the same
//! entry. A request of a session that is gone is refused as *unknown outcome*.
//!
//! Invariants:
//! - what happens here depends on the entry and the sessions only;
//! - at most [`SESSIONS_PER_SHARD_MAX`] sessions, each with at most
//!   [`SESSION_IN_FLIGHT_MAX`] replies;
//! - what transactions read takes at most [`KEPT_REPLY_BYTES_MAX`] of them all;
//! - a number is executed at most once in the life of its session, even one
//!   that changed nothing: a late copy of it could take the other branch.
//!
//! Source: Raft dissertation §6.3; design: what etcd lacks (A4 of the bug catalogue).

use std::sync::Arc;

use rkyv::{Archive, Deserialize, Serialize};
use rpds::RedBlackTreeMapSync;

use super::{
    command::{Outcome, Refusal, SessionRequest},
    transaction::Transacted,
};
use crate::{
    ids::SessionId,
    limits::{
        KEPT_REPLY_BYTES_MAX, SESSION_IDLE_MS_MAX, SESSION_IN_FLIGHT_MAX, SESSIONS_PER_SHARD_MAX,
    },
};

/// Bytes of what a transaction read; zero for all other outcomes.
fn read_bytes(outcome: &Outcome) -> usize {
    match outcome {
        Outcome::Transacted(done) => done.result_bytes(),
        Outcome::Closed
        | Outcome::Session(_)
        | Outcome::Written { .. }
        | Outcome::Catalog(_)
        | Outcome::Compacted { .. }
        | Outcome::Lease(_)
        | Outcome::Restored(_)
        | Outcome::Auth(_)
        | Outcome::Refused(_) => 0,
    }
}

#[derive(Clone, Debug)]
struct Session {
    used_ms: u64,
    answered: u64,
    replies: RedBlackTreeMapSync<u64, Outcome>,
    /// Bytes of what transactions read, among its replies.
    read_bytes: usize,
}

/// All sessions of a shard. A clone costs two reference counts.
#[derive(Clone, Debug)]
pub struct Sessions {
    by_id: RedBlackTreeMapSync<SessionId, Arc<Session>>,
    /// The same sessions, longest idle first; ids break ties, so that every
    /// replica evicts the same one.
    by_use: RedBlackTreeMapSync<(u64, SessionId), ()>,
    /// Bytes of what transactions read, in all of them.
    read_bytes: usize,
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            by_id: RedBlackTreeMapSync::new_sync(),
            by_use: RedBlackTreeMapSync::new_sync(),
            read_bytes: 0,
        }
    }
}

/// What to do with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It is new: execute it, then [`Sessions::keep`] the outcome.
    Execute,
    /// It was executed before; this was the outcome.
    Repeat(Outcome),
    /// It must not be executed.
    Refuse(Refusal),
}

/// One session as stored in the root record.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct SessionRecord {
    /// Its id.
    pub session: SessionId,
    /// Shard time of its last use.
    pub used_ms: u64,
    /// Every number up to here has its answer.
    pub answered: u64,
    /// Kept replies by number.
    pub replies: Vec<(u64, Outcome)>,
}

impl Sessions {
    /// Opens a session; whether the longest idle one had to make room for it.
    pub fn open(&mut self, session: SessionId, now_ms: u64) -> bool {
        let full = self.by_id.size() >= SESSIONS_PER_SHARD_MAX;
        let oldest = self.by_use.first().map(|((_, session), ())| *session).filter(|_| full);
        if let Some(oldest) = oldest {
            self.close(oldest);
        }
        let replies = RedBlackTreeMapSync::new_sync();
        self.put(session, Session { used_ms: now_ms, answered: 0, replies, read_bytes: 0 });
        oldest.is_some()
    }

    /// Ends a session; one that is gone stays gone.
    pub fn close(&mut self, session: SessionId) {
        if let Some(old) = self.by_id.get(&session) {
            self.read_bytes -= old.read_bytes;
            self.by_use.remove_mut(&(old.used_ms, session));
            self.by_id.remove_mut(&session);
        }
    }

    /// Ends every session that was idle for too long at `now_ms`; how many.
    pub fn expire(&mut self, now_ms: u64) -> u32 {
        let mut ended = 0;
        while let Some(((used_ms, session), ())) = self.by_use.first() {
            if now_ms.saturating_sub(*used_ms) <= SESSION_IDLE_MS_MAX {
                break;
            }
            self.close(*session);
            ended += 1;
        }
        ended
    }

    /// Judges a request, and forgets the replies its sender has. One that is
    /// to be executed changes nothing yet: [`Self::keep`] follows, and these
    /// maps are the dearest part of applying a small write.
    pub fn admit(&mut self, request: &SessionRequest, now_ms: u64) -> Admission {
        let Some(session) = self.by_id.get(&request.session) else {
            return Admission::Refuse(Refusal::UnknownOutcome(request.session));
        };
        let admission = session.judge(request);
        if admission != Admission::Execute
            && let Some(session) = self.used(request, now_ms)
        {
            self.put(request.session, session);
        }
        admission
    }

    /// Keeps the outcome of a request that was admitted for execution.
    pub fn keep(&mut self, request: &SessionRequest, outcome: &Outcome, now_ms: u64) {
        if let Some(mut session) = self.used(request, now_ms) {
            session.replies.insert_mut(request.number, outcome.clone());
            session.read_bytes += read_bytes(outcome);
            self.put(request.session, session);
            self.drop_reads(request.session);
        }
    }

    /// Drops what transactions read while it is too much: of the sessions idle
    /// longest first, of `last` last. What they did is still known.
    fn drop_reads(&mut self, last: SessionId) {
        while self.read_bytes > KEPT_REPLY_BYTES_MAX {
            let holds = |id: &SessionId| self.by_id.get(id).is_some_and(|s| s.read_bytes > 0);
            let mut idle = self.by_use.keys().map(|(_, id)| *id).filter(|id| *id != last);
            let id = idle.find(holds).unwrap_or(last);
            let Some(session) = self.by_id.get(&id) else { return };
            let mut session = Session::clone(session);
            session.drop_reads();
            self.put(id, session);
        }
    }

    /// A request's session as it is after being used by it.
    fn used(&self, request: &SessionRequest, now_ms: u64) -> Option<Session> {
        let mut session = Session::clone(self.by_id.get(&request.session)?);
        session.used_ms = now_ms;
        session.answer_up_to(request.answered);
        Some(session)
    }

    fn put(&mut self, id: SessionId, session: Session) {
        let before = self.by_id.get(&id).map(|old| (old.used_ms, old.read_bytes));
        self.read_bytes += session.read_bytes;
        self.read_bytes -= before.map_or(0, |(_, bytes)| bytes);
        // Of many entries that are applied together, most are of one moment.
        let used_before = before.map(|(used_ms, _)| used_ms);
        if used_before != Some(session.used_ms) {
            if let Some(used_ms) = used_before {
                self.by_use.remove_mut(&(used_ms, id));
            }
            self.by_use.insert_mut((session.used_ms, id), ());
        }
        self.by_id.insert_mut(id, Arc::new(session));
    }

    /// How many are open.
    pub fn count(&self) -> usize {
        self.by_id.size()
    }

    /// All of them, in order of id, as stored.
    pub fn records(&self) -> Vec<SessionRecord> {
        let record = |(id, session): (&SessionId, &Arc<Session>)| SessionRecord {
            session: *id,
            used_ms: session.used_ms,
            answered: session.answered,
            replies: session.replies.iter().map(|(n, outcome)| (*n, outcome.clone())).collect(),
        };
        self.by_id.iter().map(record).collect()
    }

    /// Reads what [`Self::records`] gave.
    pub fn from_records(records: Vec<SessionRecord>) -> Self {
        let mut sessions = Self::default();
        for record in records {
            let session = Session {
                used_ms: record.used_ms,
                answered: record.answered,
                read_bytes: record.replies.iter().map(|(_, outcome)| read_bytes(outcome)).sum(),
                replies: record.replies.into_iter().collect(),
            };
            sessions.put(record.session, session);
        }
        sessions
    }
}

impl Session {
    fn answer_up_to(&mut self, answered: u64) {
        self.answered = self.answered.max(answered);
        while let Some((number, _)) = self.replies.first() {
            if *number > self.answered {
                break;
            }
            let number = *number;
            self.read_bytes -= self.replies.get(&number).map_or(0, read_bytes);
            self.replies.remove_mut(&number);
        }
    }

    fn drop_reads(&mut self) {
        let dropped = |(number, outcome): (&u64, &Outcome)| match outcome {
            Outcome::Transacted(done) if done.results.is_some() => {
                Some((*number, Transacted { results: None, ..done.clone() }))
            }
            Outcome::Transacted(_)
            | Outcome::Closed
            | Outcome::Session(_)
            | Outcome::Written { .. }
            | Outcome::Catalog(_)
            | Outcome::Compacted { .. }
            | Outcome::Lease(_)
            | Outcome::Restored(_)
            | Outcome::Auth(_)
            | Outcome::Refused(_) => None,
        };
        let all: Vec<_> = self.replies.iter().filter_map(dropped).collect();
        for (number, done) in all {
            self.replies.insert_mut(number, Outcome::Transacted(done));
        }
        self.read_bytes = 0;
    }

    /// Judges a request, whose sender has all replies up to the one it names.
    fn judge(&self, request: &SessionRequest) -> Admission {
        let answered = self.answered.max(request.answered);
        if request.number > answered
            && let Some(outcome) = self.replies.get(&request.number)
        {
            return Admission::Repeat(outcome.clone());
        }
        if request.number <= answered {
            // A late duplicate of something its sender has long been told.
            return Admission::Refuse(Refusal::UnknownOutcome(request.session));
        }
        if request.number - answered > SESSION_IN_FLIGHT_MAX as u64 {
            let in_flight_max = u32::try_from(SESSION_IN_FLIGHT_MAX).unwrap_or(u32::MAX);
            let session = request.session;
            return Admission::Refuse(Refusal::TooManyInFlight { session, in_flight_max });
        }
        Admission::Execute
    }
}
