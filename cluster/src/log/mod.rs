//! The disk's log: segments, records, recovery.
