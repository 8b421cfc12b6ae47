//! Names that more than one room uses: labels, annotations, finalizers, conditions and their reasons.

pub const GROUP: &str = "supercargo.dev";
pub const FIELD_MANAGER: &str = "supercargo";

/// On pods and what belongs to them.
pub const LABEL_TASK: &str = "supercargo.dev/task";
pub const LABEL_TASK_UID: &str = "supercargo.dev/task-uid";
pub const LABEL_ATTEMPT: &str = "supercargo.dev/attempt";
pub const LABEL_WORKER: &str = "supercargo.dev/worker";
/// Which standing network policy a pod falls under.
pub const LABEL_EGRESS: &str = "supercargo.dev/egress";
pub const EGRESS_INTERNET: &str = "internet";
pub const EGRESS_NONE: &str = "none";
/// On the pods of tasks with more than one worker: they have names in the cluster's DNS, under the Service.
pub const LABEL_TOGETHER: &str = "supercargo.dev/together";
pub const SERVICE_WORKERS: &str = "supercargo-workers";
/// Says that a pod is ours: what watches select by.
pub const LABEL_MANAGED: &str = "app.kubernetes.io/managed-by";
pub const MANAGED_BY: &str = "supercargo";
/// When the pod was bound, by our clock, in Unix seconds: the evidence needs it after a restart.
pub const ANNOTATION_BOUND: &str = "supercargo.dev/bound-at";
/// The last mark of its task's budget that was passed, and when it ends: what the file `NOTICE_FILE` says.
pub const ANNOTATION_BUDGET_NOTICE: &str = "supercargo.dev/budget-notice";
/// Where a container sees what of its pod is meant for it.
pub const VOLUME_OURS: &str = "supercargo";
pub const FOLDER_OURS: &str = "/etc/supercargo";
pub const NOTICE_FILE: &str = "budget-notice";
/// Names that file, where there is one.
pub const ENV_NOTICE: &str = "SUPERCARGO_NOTICE";
/// Holds a pod until the books have its facts.
pub const FINALIZER_EVIDENCE: &str = "supercargo.dev/evidence";
/// Keeps pods of nobody's task off the nodes that only we sell.
pub const TAINT_SOLD: &str = "supercargo.dev/sold";
/// Of all tasks' pods. A class's value can't be changed: another value is another name.
pub const PRIORITY_CLASS: &str = "supercargo-paid";

/// Conditions of a task, in their order.
pub mod task_condition {
    pub const RESERVED: &str = "Reserved";
    pub const PLACED: &str = "Placed";
    pub const STARTED: &str = "Started";
    pub const SUCCEEDED: &str = "Succeeded";
    pub const FINISHED: &str = "Finished";
    /// kstatus: we are at work on it.
    pub const RECONCILING: &str = "Reconciling";
    /// kstatus: a person must act.
    pub const STALLED: &str = "Stalled";
}

/// Conditions of pools and nodes.
pub mod node_condition {
    pub const READY: &str = "Ready";
    pub const HEALTHY: &str = "Healthy";
    pub const REGISTERED: &str = "Registered";
    /// Only ours: nobody else's pods get there.
    pub const SOLD: &str = "Sold";
    /// What runs there has until a deadline that counts from when this came to be.
    pub const DRAINING: &str = "Draining";
    /// There is a voucher for all that its payee has earned.
    pub const VOUCHER_FRESH: &str = "VoucherFresh";
    pub const STALLED: &str = "Stalled";
}

/// Conditions of an escrow.
pub mod escrow_condition {
    pub const BOUND: &str = "Bound";
    pub const FUNDED: &str = "Funded";
    pub const READY: &str = "Ready";
    /// Its payer takes money out, lowers limits or goes to another settler, and has to wait for that.
    pub const LEAVING: &str = "Leaving";
    /// Its payer or guardian stopped everything for a while.
    pub const FROZEN: &str = "Frozen";
    /// The settler's key will soon be unable to pay for transactions, or they cost more than the operator may pay.
    pub const GAS_LOW: &str = "GasLow";
    /// For longer than posting takes the chain has credited something else than the books have as posted; or its contract does not
    /// know a payee that the books have.
    pub const CHAIN_DIFFERS: &str = "ChainDiffers";
    /// A person must act. What was charged is kept, and posted once it is mended.
    pub const STALLED: &str = "Stalled";
}

/// What an escrow owes is kept from the chain for minutes, though nothing refuses it.
pub const NOT_POSTED: &str = "NotPosted";

/// Why there is something to say of the gas for an escrow's posts.
pub mod escrow_gas {
    /// The settler's key has little left.
    pub const GAS_LOW: &str = "GasLow";
    /// Gas costs more than the operator may pay: posts wait.
    pub const FEE_HIGH: &str = "FeeHigh";
}

/// A chain's contract does not know a payee: what it has earned is kept, and posted once somebody registered it. Said of a pool's
/// vouchers, which can't be claimed until then, and of an escrow that owes it something.
pub const PAYEE_UNKNOWN: &str = "PayeeUnknown";

/// Why an escrow is stalled.
pub mod escrow_stall {
    /// The chain's configuration and the chain contradict each other.
    pub const CHAIN_SET_UP: &str = "ChainSetUp";
    /// Too few endpoints of the chain say the same.
    pub const ENDPOINTS_DISAGREE: &str = "EndpointsDisagree";
    /// The account names another settler.
    pub const OTHER_SETTLER: &str = "OtherSettler";
    /// The chain has credited more than these books ever posted.
    pub const OTHER_LEDGER: &str = "OtherLedger";
    /// Somebody else signs with the settler's key, too.
    pub const KEY_USED_ELSEWHERE: &str = "KeyUsedElsewhere";
    /// The contract refuses what is to be posted.
    pub const POST_REFUSED: &str = "PostRefused";
    /// The settler's key can't pay for a transaction.
    pub const NO_GAS: &str = "NoGas";
}
