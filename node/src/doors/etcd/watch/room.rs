//! Bytes that responses of watches hold until they are on their way.

use std::sync::Arc;

use actors::client::Room;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::OWN_BYTES;

/// What a response holds. Two may share some, if one revision begins where a page ends.
pub(in crate::doors::etcd) type Rooms = Vec<Arc<Room>>;

/// What all streams of the door share.
#[derive(Debug)]
pub(in crate::doors::etcd) struct Watched {
    bytes: Arc<Semaphore>,
    most: usize,
    /// Taken by the one that waits for bytes, and may hold some meanwhile.
    pub(in crate::doors::etcd) turn: Arc<Semaphore>,
}

impl Watched {
    /// So many bytes.
    pub(in crate::doors::etcd) fn new(most: usize) -> Self {
        let bytes = Arc::new(Semaphore::new(most));
        Self { bytes, most, turn: Arc::new(Semaphore::new(1)) }
    }
}

/// That of one stream.
#[derive(Clone, Debug)]
pub(in crate::doors::etcd) struct Own(Arc<Semaphore>);

impl Default for Own {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(OWN_BYTES)))
    }
}

/// Why there is no room.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::doors::etcd) enum NoRoom {
    /// For now: what needs it must be dropped, and read again in the turn.
    Now,
    /// Never: so many bytes are all there is.
    Ever(usize),
}

/// What a watch gathers of revisions that it has not told whole.
#[derive(Debug)]
pub(in crate::doors::etcd) struct Gathering {
    watched: Arc<Watched>,
    own: Own,
    rooms: Rooms,
    turn: Option<OwnedSemaphorePermit>,
}

impl Gathering {
    pub(in crate::doors::etcd) fn new(watched: Arc<Watched>, own: Own) -> Self {
        Self { watched, own, rooms: Rooms::new(), turn: None }
    }

    /// Takes room for some more. Waits for it in the turn only.
    pub(in crate::doors::etcd) async fn take(&mut self, bytes: usize) -> Result<(), NoRoom> {
        let at_once = |bound: &Arc<Semaphore>| {
            let room = Room::of(bound.clone());
            room.set(bytes).then_some(room)
        };
        let room = match at_once(&self.own.0).or_else(|| at_once(&self.watched.bytes)) {
            Some(room) => room,
            None if self.turn.is_none() => return Err(NoRoom::Now),
            None => self.await_room(bytes).await?,
        };
        self.rooms.push(Arc::new(room));
        Ok(())
    }

    async fn await_room(&self, bytes: usize) -> Result<Room, NoRoom> {
        let held: usize = self.rooms.iter().map(|room| room.taken()).sum();
        if held.saturating_add(bytes) > self.watched.most {
            return Err(NoRoom::Ever(self.watched.most));
        }
        loop {
            // It waits for some seconds only; whoever holds what is missing is given up
            // if nobody reads it.
            let room = Room::of(self.watched.bytes.clone());
            if room.grow(bytes).await {
                return Ok(room);
            }
        }
    }

    /// Drops all, and waits for the turn.
    pub(in crate::doors::etcd) async fn begin_anew(&mut self) {
        self.rooms.clear();
        self.turn = self.watched.turn.clone().acquire_owned().await.ok();
    }

    /// What the next response takes along.
    pub(in crate::doors::etcd) fn rooms(&self) -> Rooms {
        self.rooms.clone()
    }

    pub(super) fn has_turn(&self) -> bool {
        self.turn.is_some()
    }

    /// All was sent but part of what came last.
    pub(super) fn keep_last(&mut self) {
        let last = self.rooms.pop();
        self.end();
        self.rooms.extend(last);
    }

    /// All was sent.
    pub(in crate::doors::etcd) fn end(&mut self) {
        self.rooms.clear();
        self.turn = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gathering(watched: &Arc<Watched>) -> Gathering {
        Gathering::new(watched.clone(), Own::default())
    }

    #[tokio::test]
    async fn small_ones_have_room_of_their_own_and_large_ones_wait_in_turn() {
        let watched = Arc::new(Watched::new(1_000_000));
        let (mut one, mut other) = (gathering(&watched), gathering(&watched));
        assert_eq!(one.take(900_000).await, Ok(()));
        assert_eq!(other.take(OWN_BYTES).await, Ok(()), "its own");
        assert_eq!(other.take(200_000).await, Err(NoRoom::Now));
        other.begin_anew().await;
        assert_eq!(watched.turn.available_permits(), 0, "somebody waits");
        let waits = async { other.take(200_000).await };
        let reads = async {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            let on_its_way = one.rooms();
            one.end();
            assert_eq!(on_its_way[0].taken(), 900_000, "it is still on its way");
            drop(on_its_way);
        };
        assert_eq!(tokio::join!(waits, reads).0, Ok(()));
        assert_eq!(other.take(900_000).await, Err(NoRoom::Ever(1_000_000)));
        other.end();
        assert_eq!(watched.bytes.available_permits(), 1_000_000);
        assert_eq!(watched.turn.available_permits(), 1);
    }
}
