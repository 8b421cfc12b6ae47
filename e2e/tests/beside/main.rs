//! Journeys that go side by side through one cluster.

mod faults;
mod gangs;
mod kinds;
mod lives;
mod nodes;
mod observed;
mod people;
mod pods;
mod refused;
mod rights;
mod tasks;
