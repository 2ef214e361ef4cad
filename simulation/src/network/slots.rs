//! Small numbers for hosts: what is done for each parcel compares these, not
//! addresses of 128 bits.

use std::collections::BTreeMap;

use cluster::ids::NodeId;

use super::Address;

/// Where a host stands in the tables of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Slot(u32);

/// Every host there ever was, and its boot.
#[derive(Debug, Default)]
pub(super) struct Slots {
    by_address: BTreeMap<Address, Slot>,
    /// By slot; boot 0 while the host is dead.
    hosts: Vec<(Address, u64)>,
}

impl Slots {
    /// Where a host stands; one that was never there gets a slot.
    pub(super) fn of(&mut self, host: Address) -> Slot {
        if let Some(slot) = self.by_address.get(&host) {
            return *slot;
        }
        let slot = Slot(u32::try_from(self.hosts.len()).unwrap_or(u32::MAX));
        self.hosts.push((host, 0));
        self.by_address.insert(host, slot);
        slot
    }

    pub(super) fn host(&self, slot: Slot) -> Address {
        // Slots are handed out above only, and never taken back.
        self.hosts.get(slot.0 as usize).map_or(Address::Client(u32::MAX), |(host, _)| *host)
    }

    pub(super) fn node(&self, slot: Slot) -> Option<NodeId> {
        self.host(slot).node()
    }

    /// Its boot; 0 while it is dead.
    pub(super) fn boot(&self, slot: Slot) -> u64 {
        self.hosts.get(slot.0 as usize).map_or(0, |(_, boot)| *boot)
    }

    pub(super) fn set_boot(&mut self, slot: Slot, boot: u64) {
        if let Some((_, shown)) = self.hosts.get_mut(slot.0 as usize) {
            *shown = boot;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_keeps_its_slot_over_deaths_and_others_never_get_it() {
        let mut slots = Slots::default();
        let (client, node) = (Address::Client(1), Address::Node(NodeId(7)));
        let slot = slots.of(node);
        slots.set_boot(slot, 3);
        assert_ne!(slots.of(client), slot);
        slots.set_boot(slot, 0);
        assert_eq!((slots.of(node), slots.host(slot), slots.boot(slot)), (slot, node, 0));
        let other = slots.of(client);
        assert_eq!(slots.node(other), None);
    }
}
