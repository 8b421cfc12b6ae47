//! The officer's head: the world as it is, and what should be done about it. Nothing in this crate asks a clock, a network or
//! a file; what it decides others carry out.

pub mod plan;
pub mod world;
