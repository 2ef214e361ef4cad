//! Protocol gateways; each a thin translation.
