//! The table of outcomes.
