//! Small numbers for hosts: what is done for each parcel compares these, not
//! addresses of 128 bits.

use std::collections::BTreeMap;

use cluster::ids::NodeId;

use super::Address;

/// Where a host stands in the tables of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Seat(u32);

/// Every host there ever was, and its boot.
#[derive(Debug, Default)]
pub(super) struct Seats {
    by_address: BTreeMap<Address, Seat>,
    /// By seat; boot 0 while the host is dead.
    hosts: Vec<(Address, u64)>,
}

impl Seats {
    /// Where a host stands; one that was never there gets a seat.
    pub(super) fn of(&mut self, host: Address) -> Seat {
        if let Some(seat) = self.by_address.get(&host) {
            return *seat;
        }
        let seat = Seat(u32::try_from(self.hosts.len()).unwrap_or(u32::MAX));
        self.hosts.push((host, 0));
        self.by_address.insert(host, seat);
        seat
    }

    pub(super) fn host(&self, seat: Seat) -> Address {
        // Seats are handed out above only, and never taken back.
        self.hosts.get(seat.0 as usize).map_or(Address::Client(u32::MAX), |(host, _)| *host)
    }

    pub(super) fn node(&self, seat: Seat) -> Option<NodeId> {
        self.host(seat).node()
    }

    /// Its boot; 0 while it is dead.
    pub(super) fn boot(&self, seat: Seat) -> u64 {
        self.hosts.get(seat.0 as usize).map_or(0, |(_, boot)| *boot)
    }

    pub(super) fn set_boot(&mut self, seat: Seat, boot: u64) {
        if let Some((_, shown)) = self.hosts.get_mut(seat.0 as usize) {
            *shown = boot;
        }
    }
}
