//! Tests of the catalog as a state machine.
