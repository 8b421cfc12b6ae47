//! Who is on a node, and who may come to them. The tenants are a list; what of it decides nearly always is kept beside
//! it, so that a hundred thousand nodes are asked without reading their lists.

use super::words::NOTHING;
use super::{DEDICATED, EXCLUSIVE};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Tenancy {
    Shared,
    Dedicated,
    Exclusive,
}

impl Tenancy {
    pub(super) fn named(name: &str) -> Self {
        match name {
            EXCLUSIVE => Self::Exclusive,
            DEDICATED => Self::Dedicated,
            _ => Self::Shared,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Exclusive => EXCLUSIVE,
            Self::Dedicated => DEDICATED,
            Self::Shared => "Shared",
        }
    }
}

/// A tenant, by numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Who {
    pub(super) funding: u32,
    pub(super) namespace: u32,
    pub(super) tenancy: Tenancy,
}

impl Who {
    /// Whether two may be on one node; `of_one_namespace` when its devices are handed out several times.
    pub(super) fn may_join(self, other: Self, of_one_namespace: bool) -> bool {
        let alone = |who: Self| who.tenancy == Tenancy::Exclusive;
        let dedicated = self.tenancy == Tenancy::Dedicated || other.tenancy == Tenancy::Dedicated;
        !alone(self)
            && !alone(other)
            && (self.funding == other.funding || !dedicated)
            && (!of_one_namespace || self.namespace == other.namespace)
    }
}

/// Tasks of one tenant on a node: it is gone when the last one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Neighbour {
    pub(super) tenant: Who,
    pub(super) tasks: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Neighbours {
    all: Box<[Neighbour]>,
    /// What all have in common; nothing where they differ.
    funding: u32,
    namespace: u32,
    /// Whether some of them are not merely Shared.
    particular: bool,
}

impl Default for Neighbours {
    fn default() -> Self {
        Self::of(Vec::new())
    }
}

impl Neighbours {
    fn of(all: Vec<Neighbour>) -> Self {
        let common = |of: fn(&Who) -> u32| {
            let first = all.first().map_or(NOTHING, |first| of(&first.tenant));
            if all.iter().all(|one| of(&one.tenant) == first) { first } else { NOTHING }
        };
        Self {
            funding: common(|who| who.funding),
            namespace: common(|who| who.namespace),
            particular: all.iter().any(|one| one.tenant.tenancy != Tenancy::Shared),
            all: all.into(),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Neighbour> {
        self.all.iter()
    }

    /// So many tasks of a tenant come.
    pub(super) fn join(&mut self, comes: Neighbour) {
        match self.all.iter_mut().find(|known| known.tenant == comes.tenant) {
            Some(known) => known.tasks = known.tasks.saturating_add(comes.tasks),
            None => *self = Self::of(self.all.iter().copied().chain([comes]).collect()),
        }
    }

    /// One task of a tenant leaves.
    pub(super) fn leave(&mut self, goes: Who) {
        let Some(known) = self.all.iter_mut().find(|known| known.tenant == goes) else { return };
        known.tasks = known.tasks.saturating_sub(1);
        if known.tasks == 0 {
            *self = Self::of(self.all.iter().filter(|known| known.tasks > 0).copied().collect());
        }
    }

    /// Whether all tenants of another node are here too.
    pub(super) fn include(&self, others: &Self) -> bool {
        others.all.iter().all(|other| self.all.iter().any(|known| known.tenant == other.tenant))
    }

    /// Whether a tenant may come to them all.
    pub(super) fn welcome(&self, who: Who, of_one_namespace: bool) -> bool {
        if self.all.is_empty() {
            return true;
        }
        if who.tenancy == Tenancy::Exclusive || (of_one_namespace && self.namespace != who.namespace) {
            return false;
        }
        // Merely Shared ones mind nobody, and are minded only by who wants its own beside it alone.
        let ours = self.funding == who.funding;
        if !self.particular {
            ours || who.tenancy == Tenancy::Shared
        } else {
            self.all.iter().all(|known| who.may_join(known.tenant, false))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_who() -> impl Strategy<Value = Who> {
        let tenancies = [Tenancy::Shared, Tenancy::Shared, Tenancy::Dedicated, Tenancy::Exclusive];
        (0..3_u32, 0..3_u32, 0..4_usize).prop_map(move |(funding, namespace, which)| Who { funding, namespace, tenancy: tenancies[which] })
    }

    proptest! {
        #[test]
        fn whoever_each_would_have_beside_it_is_welcome_to_all(
            there in prop::collection::vec(any_who(), 0..4), who in any_who(), of_one_namespace in any::<bool>(),
        ) {
            let mut neighbours = Neighbours::default();
            there.iter().for_each(|tenant| neighbours.join(Neighbour { tenant: *tenant, tasks: 1 }));
            let each = there.iter().all(|other| who.may_join(*other, of_one_namespace));
            prop_assert_eq!(neighbours.welcome(who, of_one_namespace), each);
            there.iter().for_each(|tenant| neighbours.leave(*tenant));
            prop_assert_eq!(neighbours, Neighbours::default());
        }
    }
}
