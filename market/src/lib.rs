//! The rules of the market, pure and synchronous: what money is, what a price means, what was used, what it costs, who
//! gets it, and where work runs best. Clocks and randomness are arguments.

pub mod account;
pub mod asset;
pub mod canonical;
pub mod fees;
pub mod funding;
pub mod guard;
pub mod journal;
pub mod metering;
pub mod minimum;
pub mod money;
pub mod placement;
pub mod posting;
pub mod rate_card;
pub mod rating;
pub mod receipt;
pub mod usage;
pub mod vouchers;
pub mod work;
