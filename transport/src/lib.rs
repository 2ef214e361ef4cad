//! HOW bytes travel: the network port over QUIC with mutual TLS.
