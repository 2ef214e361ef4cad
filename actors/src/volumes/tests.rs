//! Tests of this actor.
