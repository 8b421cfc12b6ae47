//! The test runner's reading side: what libtest and forge print, counted over all suites, and figures held against their
//! targets.

pub mod figures;
pub mod tally;
