//! WHAT IF: the same actors in a fake world.
