//! What is counted of paying. Chains and their endpoints are the configuration's, and an endpoint's label is its number in
//! it: there may be a key in its address. Payees are those of pools and fees.

use prometheus::{Histogram, HistogramOpts, IntCounterVec, IntGaugeVec, Opts, Registry};

#[derive(Debug, Clone)]
pub struct PaymentMetrics {
    pub endpoint_agrees: IntGaugeVec,
    pub endpoints: IntGaugeVec,
    pub endpoints_needed: IntGaugeVec,
    pub final_block: IntGaugeVec,
    pub stalled: IntGaugeVec,
    pub posts: IntCounterVec,
    pub open_posts: IntGaugeVec,
    pub oldest_unposted_seconds: IntGaugeVec,
    pub exposure_units: IntGaugeVec,
    pub difference_units: IntGaugeVec,
    pub gas_per_row: Histogram,
    pub signer: IntGaugeVec,
    pub signer_gas_gwei: IntGaugeVec,
    pub signer_gas_alert_gwei: IntGaugeVec,
}

impl PaymentMetrics {
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            let gauge = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let gas = "Gas that a final post used for each of its rows";
        let gas_per_row = Histogram::with_opts(
            HistogramOpts::new("supercargo_gas_per_row", gas).buckets(vec![6_300.0, 10_000.0, 25_000.0, 50_000.0, 100_000.0, 200_000.0]),
        )?;
        registry.register(Box::new(gas_per_row.clone()))?;
        let posts = IntCounterVec::new(Opts::new("supercargo_posts_total", "Posts to a chain, by what became of them"), &["outcome"])?;
        registry.register(Box::new(posts.clone()))?;
        Ok(Self {
            endpoint_agrees: gauge(
                "supercargo_chain_endpoint_agrees",
                "1 while an endpoint, by its number in the configuration, agrees with enough others on what is final",
                &["chain", "endpoint"],
            )?,
            endpoints: gauge("supercargo_chain_endpoints", "Endpoints that are configured: one alone is believed", &["chain"])?,
            endpoints_needed: gauge("supercargo_chain_endpoints_needed", "Endpoints that have to say the same", &["chain"])?,
            final_block: gauge("supercargo_chain_final_block", "The last block that the endpoints agree to be final", &["chain"])?,
            stalled: gauge("supercargo_accounts_stalled", "Accounts that a person has to mend something for", &["chain", "reason"])?,
            posts,
            open_posts: gauge("supercargo_posts_open", "Posts that are not final yet, by their state", &["chain", "state"])?,
            oldest_unposted_seconds: gauge(
                "supercargo_oldest_unposted_seconds",
                "For how long the account that has waited longest is owed for, since its post was planned or this process saw it",
                &["chain"],
            )?,
            exposure_units: gauge(
                "supercargo_exposure_units",
                "What a payee has earned and is not final on the chain, in the token's base units",
                &["chain", "payee"],
            )?,
            difference_units: gauge(
                "supercargo_ledger_chain_difference_units",
                "What the chain has credited more than the books have as posted, in the token's base units",
                &["chain"],
            )?,
            gas_per_row,
            signer: gauge("supercargo_signer", "1 for the address of the settler's hot key in use", &["chain", "address"])?,
            signer_gas_gwei: gauge("supercargo_signer_gas_gwei", "What the settler's key has left for gas", &["chain"])?,
            signer_gas_alert_gwei: gauge(
                "supercargo_signer_gas_alert_gwei",
                "Less than this is too little: chains[].gasAlertGwei",
                &["chain"],
            )?,
        })
    }
}
