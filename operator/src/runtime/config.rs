//! The operator's configuration: one YAML file, from the chart's values. What is wrong in it is refused at start, with
//! its path.

pub use super::paying::{ChainConfig, Settlement};
use crate::plan::data_classes::DataClasses;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use supercargo_crds::validate::Range;
use supercargo_ledger::{JournalKey, KeyError};
use supercargo_market::fees::FeeSchedule;

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("reading the configuration {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the configuration {path} is wrong: {source}")]
    Parse { path: PathBuf, source: serde_yaml_ng::Error },
    #[error("the configuration's {field} is wrong: {message}")]
    Value { field: String, message: String },
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// Where metrics and health are served.
    #[serde(default = "default_listen")]
    pub listen: std::net::SocketAddr,
    /// Where payees and buyers can ask. Absent: nowhere.
    #[serde(default)]
    pub api: Option<ApiConfig>,
    pub database: Database,
    /// The namespace and the name of the lease that decides who leads.
    #[serde(default)]
    pub lease: Lease,
    pub tokens: Vec<Token>,
    #[serde(default)]
    pub chains: Vec<ChainConfig>,
    #[serde(default)]
    pub fees: FeeSchedule,
    #[serde(default)]
    pub settlement: Settlement,
    /// Extended resources that count as GPUs.
    #[serde(default = "default_gpu_resources")]
    pub gpu_resource_names: Vec<String>,
    /// Where what containers use is read. Without one CPU and memory are never billed as they are used, for nobody can show it.
    #[serde(default)]
    pub prometheus: Option<PrometheusConfig>,
    #[serde(default)]
    pub network: Network,
    /// What each class of data has to rest on before a node may have it.
    #[serde(default)]
    pub data_classes: DataClasses,
    /// Whether nodes of pools with binding Direct are tainted, so that nobody else's pods get there.
    #[serde(default = "yes")]
    pub taint_nodes: bool,
    /// Whether pods get users of their own where the node says that it can give them.
    #[serde(default = "yes")]
    pub user_namespaces: bool,
}

/// The API for payees and buyers.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApiConfig {
    pub listen: std::net::SocketAddr,
    /// Whom the cluster's tokens that are sent here have to be made for.
    #[serde(default = "default_audience")]
    pub audience: String,
}

fn default_audience() -> String {
    "supercargo".to_owned()
}

/// What is the cluster's own, and no task may reach.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Network {
    /// Address ranges besides those of nodes, their pods and metadata: the Services', the control plane's.
    pub cluster_ranges: Vec<String>,
    /// The pods that answer for DNS: gangs find each other by name.
    pub dns_namespace: String,
    pub dns_labels: BTreeMap<String, String>,
}

impl Default for Network {
    fn default() -> Self {
        let dns_labels = [("k8s-app".to_owned(), "kube-dns".to_owned())].into();
        Self { cluster_ranges: Vec::new(), dns_namespace: "kube-system".to_owned(), dns_labels }
    }
}

fn yes() -> bool {
    true
}

fn default_listen() -> std::net::SocketAddr {
    ([0, 0, 0, 0], 8080).into()
}

fn default_gpu_resources() -> Vec<String> {
    vec!["nvidia.com/gpu".to_owned()]
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Database {
    /// `sqlite:///var/lib/supercargo/books.db`, or `postgres://user@host/database` for several replicas.
    pub url: String,
    /// The key that signs the journal: 64 hexadecimal digits. Made when there is none. By default beside the SQLite file;
    /// a journal in PostgreSQL is signed only when this is given.
    #[serde(default)]
    pub key_file: Option<PathBuf>,
}

impl Database {
    /// Where the journal's key is, when there is one.
    pub fn key_path(&self) -> Option<PathBuf> {
        let beside = || supercargo_ledger::sqlite_path(&self.url).map(|books| supercargo_ledger::sibling(&books, "key"));
        self.key_file.clone().or_else(beside)
    }

    pub fn key(&self) -> Result<Option<JournalKey>, KeyError> {
        self.key_path().as_deref().map(JournalKey::of_file).transpose()
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Lease {
    pub namespace: String,
    pub name: String,
    /// A leader that was not seen to renew for so long has lost the lead.
    pub duration_seconds: u64,
    pub renew_seconds: u64,
}

impl Default for Lease {
    fn default() -> Self {
        Self { namespace: "supercargo".to_owned(), name: "supercargo-leader".to_owned(), duration_seconds: 6, renew_seconds: 2 }
    }
}

/// A Prometheus that scrapes the kubelets, and the GPUs' exporter.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PrometheusConfig {
    pub url: String,
    /// Labels that all series of this cluster have there: where it has several clusters', others' are refused.
    #[serde(default)]
    pub match_labels: BTreeMap<String, String>,
    /// How long after a container's end its last samples are waited for, where CPU and memory are billed as they are used.
    #[serde(default = "a_minute")]
    pub settle_seconds: u64,
    /// Two samples further apart have a gap between them, in which no memory is billed.
    #[serde(default = "two_minutes")]
    pub gap_seconds: u64,
    /// How long an answer may take.
    #[serde(default = "five")]
    pub timeout_seconds: u64,
}

fn a_minute() -> u64 {
    60
}

fn two_minutes() -> u64 {
    120
}

fn five() -> u64 {
    5
}

impl PrometheusConfig {
    fn validate(&self) -> Result<(), (String, String)> {
        let wrong = |field: &str, message: &str| Err((field.to_owned(), message.to_owned()));
        let address = reqwest::Url::parse(&self.url).ok().filter(|url| ["http", "https"].contains(&url.scheme()) && url.has_host());
        if address.is_none() {
            return wrong("url", "must be an address such as http://prometheus.monitoring:9090");
        }
        let is_name = |label: &str| {
            let mut letters = label.chars();
            letters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
                && letters.all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
        };
        if let Some(label) = self.match_labels.keys().find(|label| !is_name(label)) {
            return Err((format!("matchLabels.{label}"), "is no name of a label: letters, digits and underscores".to_owned()));
        }
        if self.settle_seconds > 600 {
            return wrong("settleSeconds", "must be at most 600: so long every task's end would wait");
        }
        if !(10..=3_600).contains(&self.gap_seconds) {
            return wrong("gapSeconds", "must be from 10 to 3600");
        }
        if !(1..=30).contains(&self.timeout_seconds) {
            return wrong("timeoutSeconds", "must be from 1 to 30");
        }
        Ok(())
    }
}

/// A token that prices and budgets are in.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Token {
    pub symbol: String,
    /// Decimals of its base unit. This version knows tokens with 6.
    #[serde(default = "six")]
    pub decimals: u8,
}

fn six() -> u8 {
    6
}

impl Config {
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let config: Self = serde_yaml_ng::from_str(&text).map_err(|source| ConfigError::Parse { path: path.to_owned(), source })?;
        config.validate()?;
        Ok(config)
    }

    fn validate(&self) -> Result<(), ConfigError> {
        let wrong = |field: String, message: String| Err(ConfigError::Value { field, message });
        if self.tokens.is_empty() {
            return wrong("tokens".into(), "at least one token must be configured".into());
        }
        for (index, token) in self.tokens.iter().enumerate() {
            if token.decimals != 6 {
                return wrong(
                    format!("tokens[{index}].decimals"),
                    format!("{} has {} decimals: this version knows tokens with 6", token.symbol, token.decimals),
                );
            }
        }
        let mut names = BTreeSet::new();
        for (index, chain) in self.chains.iter().enumerate() {
            if !names.insert(&chain.name) {
                return wrong(format!("chains[{index}].name"), format!("{:?} is there twice", chain.name));
            }
            if chain.rpcs.is_empty() {
                return wrong(format!("chains[{index}].rpcs"), "at least one endpoint must be given".into());
            }
            if !self.tokens.iter().any(|token| token.symbol == chain.token) {
                return wrong(format!("chains[{index}].token"), format!("{:?} is not one of tokens", chain.token));
            }
            if chain.confirmations == Some(0) {
                return wrong(format!("chains[{index}].confirmations"), "must be more than 0: the newest block may be undone".into());
            }
            let same = |other: &&ChainConfig| other.chain_id == chain.chain_id && other.contract.eq_ignore_ascii_case(&chain.contract);
            if let Some(other) = self.chains[..index].iter().find(same) {
                return wrong(
                    format!("chains[{index}].contract"),
                    format!("it is chain {:?} already: its books would be kept twice", other.name),
                );
            }
            if let Err((field, message)) = chain.validate_endpoints() {
                return wrong(format!("chains[{index}].{field}"), message);
            }
        }
        if let Err(error) = self.fees.validate() {
            return wrong("fees".into(), error.to_string());
        }
        if self.lease.renew_seconds == 0 || self.lease.renew_seconds * 2 > self.lease.duration_seconds {
            return wrong("lease.renewSeconds".into(), "must be more than 0 and at most half of durationSeconds".into());
        }
        if let Some(index) = self.network.cluster_ranges.iter().position(|range| Range::read(range).is_none()) {
            let range = &self.network.cluster_ranges[index];
            return wrong(format!("network.clusterRanges[{index}]"), format!("{range:?} is no address range such as 10.96.0.0/12"));
        }
        if self.api.as_ref().is_some_and(|api| api.audience.is_empty()) {
            return wrong("api.audience".into(), "must name whom tokens are made for".into());
        }
        if let Some(Err((field, message))) = self.prometheus.as_ref().map(PrometheusConfig::validate) {
            return wrong(format!("prometheus.{field}"), message);
        }
        if let Err((field, message)) = self.settlement.validate(&self.chains) {
            return wrong(format!("settlement.{field}"), message);
        }
        Ok(())
    }

    pub fn chain(&self, name: &str) -> Option<&ChainConfig> {
        self.chains.iter().find(|chain| chain.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "database: {url: 'sqlite::memory:'}\ntokens: [{symbol: USDC}]\n";

    fn read(text: &str) -> Result<Config, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("config.yaml");
        std::fs::write(&path, text).expect("writes");
        Config::read(&path).map_err(|error| error.to_string().replace(&path.display().to_string(), "FILE"))
    }

    #[test]
    fn the_least_configuration_has_every_default() {
        let config = read(GOOD).expect("it is whole");
        assert_eq!((config.lease.duration_seconds, config.gpu_resource_names.len(), config.listen.port()), (6, 1, 8080));
        let Settlement { post_seconds, post_amount, post_charges, post_exposure, gas_multiple, .. } = config.settlement;
        assert_eq!((post_seconds, post_amount, post_charges, post_exposure, gas_multiple), (3_600, None, None, None, 0), "by time alone");
    }

    #[test]
    fn confidential_data_wants_proof_unless_somebody_says_otherwise() {
        use supercargo_crds::common::DataClass::{self, Confidential, Private, Public, Shared};
        use supercargo_crds::node::DataClassBasis::{Proved, Vouched};
        let vouched = |text: &str| {
            let classes = read(&format!("{GOOD}{text}")).expect("it is whole").data_classes;
            let all: [DataClass; 4] = [Public, Shared, Confidential, Private];
            assert!(all.iter().all(|class| classes.suffices(*class, Proved)), "what is proved is good for all");
            all.map(|class| classes.suffices(class, Vouched))
        };
        assert_eq!(vouched(""), [true, true, false, true]);
        assert_eq!(vouched("dataClasses: {Confidential: Vouched}"), [true; 4]);
        assert_eq!(vouched("dataClasses: {Shared: Proved}"), [true, false, false, true]);
    }

    #[test]
    fn a_fee_of_none_is_no_bound_and_another_one_is() {
        let chain = |more: &str| {
            let chain =
                format!("{{name: a, chainId: 1, rpcs: ['http://a'], contract: x, token: USDC, settler: 1, settlerKeyFile: k{more}}}");
            read(&format!("{GOOD}chains: [{chain}]")).expect("it is whole").chains[0].max_fee_gwei.map(u64::from)
        };
        assert_eq!((chain(""), chain(", maxFeeGwei: 0"), chain(", maxFeeGwei: 80")), (None, None, Some(80)));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_path() {
        let chain = "chains: [{name: a, chainId: 1, rpcs: [], contract: x, token: USDC, settler: 1, settlerKeyFile: k}]";
        let one = "{name: a, chainId: 1, rpcs: ['http://a.test'], contract: '0xA', token: USDC, settler: 1, settlerKeyFile: k}";
        let cases = [
            ("tokens: [{symbol: USDC}]".to_owned(), "the configuration FILE is wrong: missing field `database`"),
            (format!("{GOOD}api: {{listen: '0.0.0.0:1', audience: ''}}"), "the configuration's api.audience is wrong: must name"),
            (format!("{GOOD}tokenz: 1"), "the configuration FILE is wrong: unknown field `tokenz`"),
            (
                GOOD.replace("USDC}", "USDC, decimals: 18}"),
                "the configuration's tokens[0].decimals is wrong: USDC has 18 decimals: this version knows tokens with 6",
            ),
            (format!("{GOOD}{chain}"), "the configuration's chains[0].rpcs is wrong: at least one endpoint must be given"),
            (
                format!("{GOOD}{}", chain.replace("[]", "[u]").replace("USDC", "X")),
                "the configuration's chains[0].token is wrong: \"X\" is not one of tokens",
            ),
            (
                format!("{GOOD}{}", chain.replace("[]", "['http://a.test'], confirmations: 0")),
                "the configuration's chains[0].confirmations is wrong: must be more than 0: the newest block may be undone",
            ),
            (
                format!("{GOOD}{}", chain.replace("[]", "['http://a.test', 'ftp://b.test']")),
                "the configuration's chains[0].rpcs[1] is wrong: must be an address such as https://rpc.example.com",
            ),
            (
                format!("{GOOD}{}", chain.replace("[]", "['http://a.test', 'http://A.test:80/']")),
                "the configuration's chains[0].rpcs[1] is wrong: the endpoint is there twice, and can't agree with itself",
            ),
            (
                format!("{GOOD}chains: [{one}, {}]", one.replace("name: a", "name: b").replace("0xA", "0xa")),
                "the configuration's chains[1].contract is wrong: it is chain \"a\" already: its books would be kept twice",
            ),
            (
                format!("{GOOD}settlement: {{postSeconds: 9223372036854775807}}"),
                "the configuration's settlement.postSeconds is wrong: must be at most 2592000, which is 30 days",
            ),
            (format!("{GOOD}fees: {{basisPoints: 250}}"), "the configuration's fees is wrong: the shares add up to 0 basis points"),
            (
                format!("{GOOD}network: {{clusterRanges: [10.0.0.0/40]}}"),
                "the configuration's network.clusterRanges[0] is wrong: \"10.0.0.0/40\" is no address range such as 10.96.0.0/12",
            ),
            (
                format!("{GOOD}prometheus: {{url: prometheus:9090}}"),
                "the configuration's prometheus.url is wrong: must be an address such as http://prometheus.monitoring:9090",
            ),
            (
                format!("{GOOD}prometheus: {{url: 'http://p:9090', matchLabels: {{my-cluster: a}}}}"),
                "the configuration's prometheus.matchLabels.my-cluster is wrong: is no name of a label: letters, digits and underscores",
            ),
            (
                format!("{GOOD}prometheus: {{url: 'http://p:9090', settleSeconds: 601}}"),
                "the configuration's prometheus.settleSeconds is wrong: must be at most 600: so long every task's end would wait",
            ),
            (
                format!("{GOOD}prometheus: {{url: 'http://p:9090', gapSeconds: 5}}"),
                "the configuration's prometheus.gapSeconds is wrong: must be from 10 to 3600",
            ),
            (
                format!("{GOOD}settlement: {{postAmount: '0'}}"),
                "the configuration's settlement.postAmount is wrong: must be more than 0: leave it out to post by time alone",
            ),
            (
                format!("{GOOD}settlement: {{gasMultiple: 20}}\n{}", chain.replace("[]", "['http://a.test']")),
                "the configuration's settlement.gasMultiple is wrong: chain a has no coinPrice to reckon what gas costs",
            ),
            (
                format!("{GOOD}dataClasses: {{Confidential: Promised}}"),
                "the configuration FILE is wrong: dataClasses.Confidential: unknown variant `Promised`, expected `Vouched` or `Proved`",
            ),
            (
                format!("{GOOD}dataClasses: {{Private: Proved}}"),
                "the configuration FILE is wrong: dataClasses: unknown field `Private`, expected one of `Public`, `Shared`, `Confidential`",
            ),
            (
                format!("{GOOD}lease: {{renewSeconds: 5}}"),
                "the configuration's lease.renewSeconds is wrong: must be more than 0 and at most half",
            ),
        ];
        for (text, message) in cases {
            let found = read(&text).expect_err(message);
            assert!(found.starts_with(message), "{found}");
        }
    }
}
