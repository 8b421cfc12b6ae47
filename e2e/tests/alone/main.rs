//! Journeys that take from others what they need: a node, the operator, every GPU.

mod blamed;
mod faults;
mod gangs;
mod kills;
mod lives;
mod nodes;
mod payments;
