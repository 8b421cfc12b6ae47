//! Escrow: the money that tasks of its namespaces are paid from.

use crate::common::{ACCOUNT_PATTERN, Condition, LABEL_PATTERN, Money, TOKEN_PATTERN, Time};
use crate::schema;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

fn spec_rules() -> serde_json::Value {
    let mut rules = schema::immutable(&["funding", "token", "chain"]);
    let kept = "!has(oldSelf.accountId) || (has(self.accountId) && self.accountId == oldSelf.accountId)";
    rules.push(schema::rule_at("accountId", kept, "accountId can't be changed once it is set: another account is another Escrow"));
    rules.push(schema::rule_at(
        "chain",
        "self.funding != 'Chain' || has(self.chain)",
        "an Escrow with funding Chain needs a chain: give the name of a configured one",
    ));
    rules.push(schema::rule_at(
        "accountId",
        "self.funding == 'Chain' || !has(self.accountId)",
        "accountId is only for funding Chain: leave it out",
    ));
    rules.push(schema::rule_at("chain", "self.funding == 'Chain' || !has(self.chain)", "chain is only for funding Chain: leave it out"));
    rules.push(schema::rule_at(
        "grant",
        "self.funding != 'Internal' || has(self.grant)",
        "an Escrow with funding Internal needs a grant: give the most that may be spent",
    ));
    rules.push(schema::rule_at(
        "grant",
        "self.funding == 'Internal' || !has(self.grant)",
        "grant is only for funding Internal: leave it out",
    ));
    json!(rules)
}

/// The money that tasks are paid from.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "supercargo.dev",
    version = "v1alpha1",
    kind = "Escrow",
    namespaced,
    status = "EscrowStatus",
    derive = "PartialEq",
    shortname = "esc",
    category = "supercargo",
    doc = "The money that tasks of its own and its allowed namespaces are paid from: an account on a chain, or credit that a platform grants.",
    printcolumn(name = "Funding", type_ = "string", json_path = ".spec.funding"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Available", type_ = "string", json_path = ".status.available"),
    printcolumn(name = "Reserved", type_ = "string", json_path = ".status.reserved"),
    printcolumn(name = "Charged", type_ = "string", json_path = ".status.charged"),
    printcolumn(name = "Token", type_ = "string", json_path = ".spec.token"),
    printcolumn(name = "Funded until", type_ = "date", json_path = ".status.fundedUntil", priority = 1),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = spec_rules()))]
pub struct EscrowSpec {
    /// Chain: an account of the escrow contract. Internal: credit in the operator's books only.
    pub funding: Funding,
    /// The token that it is in, by the symbol that the operator's configuration gives it.
    #[schemars(regex(pattern = TOKEN_PATTERN))]
    pub token: String,
    /// For Chain: the chain, by its configured name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = LABEL_PATTERN))]
    pub chain: Option<String>,
    /// For Chain: the account that pays. It must be bound on the chain to `status.tenant`: naming another's account
    /// spends nothing. It may be left out until the account exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = ACCOUNT_PATTERN))]
    pub account_id: Option<String>,
    /// For Internal: how much may be spent in all. It may rise at any time; it falls no further than what is spent. What is held
    /// back for tasks when it falls stays theirs, and is taken out when they give it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<Money>,
    /// Only nodes of this provider take Private data of this Escrow's tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = LABEL_PATTERN))]
    pub provider: Option<String>,
    /// Other namespaces whose tasks may be paid from it. Its own always may.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 63), regex(pattern = LABEL_PATTERN)), extend("x-kubernetes-list-type" = "set"))]
    pub allowed_namespaces: Vec<String>,
    /// When less is available, the condition Funded has reason Low, and one Event says so. Default: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub low_balance: Option<Money>,
    /// The most that tasks may be charged in a day (UTC). What is held back for tasks counts as if it were charged that day: one
    /// that might pass the limit waits, with reason DailyLimit, until others end or the day does. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub daily_limit: Option<Money>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Funding {
    Chain,
    Internal,
}

/// What we say of an Escrow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("default" = json!({"observedGeneration": -1})))]
pub struct EscrowStatus {
    /// The generation of the spec that this status is about; -1 until we have seen it.
    #[serde(default = "unseen")]
    pub observed_generation: i64,
    /// Bound: the account on the chain names this tenant. Funded: there is enough in it. Ready: tasks can be paid from it.
    /// Leaving: money, limits or the settler's place are on their way out of the account. Frozen: its payer or guardian
    /// stopped everything for a while. GasLow: the settler's key will soon be unable to pay for transactions, or (FeeHigh) they
    /// cost more than the operator may pay and wait. ChainDiffers: for longer than posting takes, the chain has credited
    /// something else than `posted` says; (NotPosted) for minutes nothing of what is owed has gone out, and why; or (PayeeUnknown)
    /// its contract does not know a payee that is owed something, which waits until somebody registers it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// What the account on the chain must be bound to, once and for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 66))]
    pub tenant: Option<String>,
    /// The chain's number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain_id: Option<i64>,
    /// The escrow contract's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 42))]
    pub contract: Option<String>,
    /// The number of the settler that an account must name so that we can post for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settler: Option<i64>,
    /// Everything that was ever put in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deposited: Option<Money>,
    /// Returned to it after it had been charged or posted: what a dispute gave back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub returned: Option<Money>,
    /// What new tasks may reserve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available: Option<Money>,
    /// On its way out: a withdrawal that waits for the end of its thaw. Nothing is reserved from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thawing: Option<Money>,
    /// Held back for tasks that run or are about to, and not used yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserved: Option<Money>,
    /// Of what was charged: used by tasks that run. When they end it is charged for good, or given back when it is not billed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Money>,
    /// Of what was charged: to be posted to the chain next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owed: Option<Money>,
    /// Of what was charged: posted to the chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub posted: Option<Money>,
    /// Withdrawn by the payer, or taken out of a grant that fell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withdrawn: Option<Money>,
    /// Fees of disputes that were opened for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub case_fees: Option<Money>,
    /// When what is available and held back ends, if its tasks go on to cost what they cost an hour now: to the minute, or to the
    /// hour when it is days away. Absent while nothing runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub funded_until: Option<Time>,
    /// Charged in all: held, owed and posted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charged: Option<Money>,
    /// Of what was charged: paid on the chain, for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled: Option<Money>,
    /// The last transaction that paid providers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_post: Option<LastPost>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LastPost {
    /// The transaction's hash.
    #[schemars(length(max = 66))]
    pub transaction: String,
    /// The block that it is in.
    pub block: i64,
}

fn unseen() -> i64 {
    -1
}

impl Default for EscrowStatus {
    fn default() -> Self {
        Self {
            observed_generation: unseen(),
            conditions: Vec::new(),
            tenant: None,
            chain_id: None,
            contract: None,
            settler: None,
            deposited: None,
            returned: None,
            available: None,
            thawing: None,
            reserved: None,
            held: None,
            owed: None,
            posted: None,
            withdrawn: None,
            case_fees: None,
            funded_until: None,
            charged: None,
            settled: None,
            last_post: None,
        }
    }
}
