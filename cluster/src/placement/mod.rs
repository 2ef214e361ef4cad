//! Where replicas go: the ring, the walk, the policy.
