//! What clients do while the world misbehaves.

pub mod register;
