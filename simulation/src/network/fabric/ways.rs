//! Ways between hosts that are shut: by cuts, by clogs, and by a process that stands
//! still. What waits for one flows on once the last of them is gone.

use super::{super::slots::Slot, State};

impl State {
    pub(super) fn heal(&mut self) {
        self.links_stirred = true;
        let cut: Vec<_> = std::mem::take(&mut self.cuts).into_keys().collect();
        for way in cut {
            self.release(way);
        }
    }

    pub(super) fn mend(&mut self, way: (Slot, Slot)) {
        let Some(cuts) = self.cuts.get_mut(&way) else { return };
        *cuts -= 1;
        if *cuts == 0 {
            self.links_stirred = true;
            self.cuts.remove(&way);
            self.release(way);
        }
    }

    pub(super) fn unclog(&mut self, way: (Slot, Slot)) {
        let Some(clogs) = self.clogs.get_mut(&way) else { return };
        *clogs -= 1;
        if *clogs == 0 {
            self.clogs.remove(&way);
            self.release(way);
        }
    }

    pub(super) fn unstall(&mut self, host: Slot) {
        self.links_stirred = true;
        if self.stalled.remove(&host) {
            let ways: Vec<_> = self.lanes.keys().filter(|way| way.1 == host).copied().collect();
            for way in ways {
                self.release(way);
            }
        }
    }

    /// Sends on what waited for a way to open.
    fn release(&mut self, way: (Slot, Slot)) {
        let Some(lane) = self.lanes.get_mut(&way) else { return };
        let held = std::mem::take(&mut lane.held);
        lane.under_way += held.len();
        // Due now: ahead of everything still under way, so order is kept.
        for parcel in held {
            self.enqueue(self.now, parcel);
        }
    }
}
