//! As many leases as a shard keeps, and what they take.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::time::Instant;

use cluster::{
    ids::LeaseId,
    limits::LEASES_PER_SHARD_MAX,
    shard::leases::{LeaseError, Leases},
};

/// Bytes of memory that this process holds.
fn resident_bytes() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4_096
}

#[test]
fn a_shard_keeps_a_million_leases_in_the_memory_that_is_stated_and_no_more() {
    assert_eq!(LEASES_PER_SHARD_MAX, 1_000_000);
    let (mut leases, before) = (Leases::default(), resident_bytes());
    #[expect(clippy::disallowed_methods, reason = "a test tells how long it took")]
    let begun = Instant::now();
    for number in 1..=1_000_000_u64 {
        // As clients choose them: in no order.
        let id = LeaseId(number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 1);
        leases.grant(id, 9_000 + number, 0).unwrap();
    }
    let each = (resident_bytes() - before) / 1_000_000;
    println!("{each} bytes a lease, granted in {:?}", begun.elapsed());
    assert_eq!(leases.grant(LeaseId(1), 9_000, 0), Err(LeaseError::TooMany));
    assert_eq!(leases.over(9_100).count(), 100);
    // 180 and what the system's allocator rounds up, and the set of those not yet written.
    assert!(each < 300, "{each}");
}
