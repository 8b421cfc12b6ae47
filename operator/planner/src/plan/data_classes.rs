//! What a class of data has to rest on before tasks with such data go to a node: its administrator's word, or proof.

use serde::Deserialize;
use supercargo_crds::common::DataClass;
use supercargo_crds::node::DataClassBasis::{self, Proved, Vouched};

/// By class. Private data stays with the escrow's own provider, who need not prove anything to itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
pub struct DataClasses {
    pub public: DataClassBasis,
    pub shared: DataClassBasis,
    pub confidential: DataClassBasis,
}

impl Default for DataClasses {
    fn default() -> Self {
        Self { public: Vouched, shared: Vouched, confidential: Proved }
    }
}

impl DataClasses {
    /// Whether a node may have a class that rests on this there.
    pub fn suffices(&self, class: DataClass, basis: DataClassBasis) -> bool {
        let needed = match class {
            DataClass::Public => self.public,
            DataClass::Shared => self.shared,
            DataClass::Confidential => self.confidential,
            DataClass::Private => Vouched,
        };
        needed == Vouched || basis == Proved
    }
}
