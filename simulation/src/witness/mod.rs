//! What stands between a machine's actors and their ports and only listens:
//! checkers judge by what logs said and by what left the machine, not by what
//! replicas make of it. Nothing is changed on its way.

mod log;
mod network;

pub(crate) use log::WitnessedLog;
pub(crate) use network::WitnessedNetwork;
