//! What is due at one look at the authority, the bundle and the leaf: pure, so that replicas that look in any order can be
//! tested. An authority is announced beside the one before it, and is served from only once it has been seen announced.

use crate::certificate::{self, Authority, LEAF_LIFE};
use std::time::{Duration, SystemTime};

/// How long an authority has been announced before a leaf of it is served: API servers learn of it by a watch.
pub const SETTLE: Duration = Duration::from_secs(10);
/// How long the authority before stays announced: no leaf of it is left then, whichever replica had it.
pub const KEPT: Duration = Duration::from_secs(LEAF_LIFE.as_secs() + 86_400);
/// Others than the present one in a bundle.
const MOST_OTHERS: usize = 2;

/// What one replica remembers from look to look.
#[derive(Default)]
pub struct Keeper {
    serving: Option<Serving>,
    announced: Option<Announced>,
}

struct Serving {
    authority: Authority,
    made: SystemTime,
}

struct Announced {
    certificate: String,
    since: SystemTime,
}

/// What is to be done now. The bundle comes first.
#[derive(Default, PartialEq, Eq)]
pub struct Due {
    pub bundle: Option<String>,
    /// The authority that a new leaf is to be of.
    pub leaf: Option<Authority>,
}

impl Keeper {
    /// With the authority that the Secret has, and the bundle that the API server has been told.
    pub fn look(&mut self, authority: &Authority, bundle: &str, now: SystemTime) -> Due {
        let is_announced = blocks(bundle).any(|block| same(block, &authority.certificate));
        let before = self.announced.take().filter(|known| is_announced && same(&known.certificate, &authority.certificate));
        // A clock that went back can't tell how long it has been: from now on it can.
        let since = before.map_or(now, |known| known.since.min(now));
        let settled = is_announced && now.duration_since(since).is_ok_and(|time| time >= SETTLE);
        self.announced = is_announced.then(|| Announced { certificate: authority.certificate.clone(), since });
        let wanted = wanted(authority, bundle, now);
        Due { bundle: (wanted != bundle).then_some(wanted), leaf: self.leaf(authority, settled, now) }
    }

    fn leaf(&self, authority: &Authority, settled: bool, now: SystemTime) -> Option<Authority> {
        let Some(serving) = &self.serving else { return Some(authority.clone()) };
        if serving.authority != *authority && settled {
            return Some(authority.clone());
        }
        // Made in what is the future now, it may not be valid yet for anybody else.
        let old = now.duration_since(serving.made).map_or(true, |age| age >= LEAF_LIFE * 2 / 3);
        // Until the next authority may be served, the last one still makes leaves.
        old.then(|| serving.authority.clone())
    }

    /// A leaf of this authority is served from now on.
    pub fn served(&mut self, authority: Authority, now: SystemTime) {
        self.serving = Some(Serving { authority, made: now });
    }
}

/// The present authority, and while leaves of those before it may still be served, they too.
fn wanted(authority: &Authority, bundle: &str, now: SystemTime) -> String {
    // An authority that was made in the future is as young as can be; one that we have not made may be.
    let young = authority.made.is_none_or(|made| now.duration_since(made).map_or(true, |age| age < KEPT));
    let is_good = |block: &&str| certificate::is_certificate(block);
    let others = blocks(bundle).filter(|block| young && !same(block, &authority.certificate)).filter(is_good).take(MOST_OTHERS);
    std::iter::once(authority.certificate.trim()).chain(others).map(|block| format!("{block}\n")).collect()
}

/// The certificates of a bundle, each as it stands.
fn blocks(bundle: &str) -> impl Iterator<Item = &str> {
    const END: &str = "-----END CERTIFICATE-----";
    bundle.split_inclusive(END).map(str::trim).filter(|block| block.ends_with(END))
}

fn same(one: &str, other: &str) -> bool {
    one.trim() == other.trim()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::new_authority;

    const MINUTE: Duration = Duration::from_secs(60);

    fn start() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn authority(made: SystemTime) -> Authority {
        new_authority(made).expect("an authority")
    }

    /// Replicas that share a Secret and a bundle.
    struct World {
        secret: Authority,
        bundle: String,
        announces: bool,
        replicas: Vec<(Keeper, Option<Authority>)>,
    }

    impl World {
        fn new(replicas: usize, now: SystemTime) -> Self {
            let empty = || (Keeper::default(), None);
            Self { secret: authority(now), bundle: String::new(), announces: true, replicas: (0..replicas).map(|_| empty()).collect() }
        }

        fn look(&mut self, replica: usize, now: SystemTime) {
            let (keeper, leaf) = &mut self.replicas[replica];
            let due = keeper.look(&self.secret, &self.bundle, now);
            if let Some(bundle) = due.bundle.filter(|_| self.announces) {
                self.bundle = bundle;
            }
            if let Some(authority) = due.leaf {
                keeper.served(authority.clone(), now);
                *leaf = Some(authority);
            }
        }

        /// Every leaf that is served is of an authority that the API server has been told of.
        fn nothing_is_lost(&self) -> bool {
            let told = |authority: &Authority| blocks(&self.bundle).any(|block| same(block, &authority.certificate));
            self.replicas.iter().all(|(_, leaf)| leaf.as_ref().is_none_or(told))
        }
    }

    #[test]
    fn an_authority_that_was_replaced_is_announced_beside_the_old_one_before_any_replica_serves_it() {
        let mut now = start();
        let mut world = World::new(2, now);
        (0..2).for_each(|replica| world.look(replica, now));
        let old = world.secret.clone();
        now += MINUTE;
        world.secret = authority(now);
        // One replica looks several times before the other one does at all.
        for replica in [0, 0, 0, 1, 0, 1, 1] {
            let bundle = world.bundle.clone();
            world.look(replica, now);
            assert!(world.nothing_is_lost());
            let fresh = world.replicas[replica].1.as_ref() == Some(&world.secret);
            assert!(!fresh || blocks(&bundle).count() == 2, "the new one had been announced beside the old one before");
            now += MINUTE;
        }
        assert!(world.replicas.iter().all(|(_, leaf)| leaf.as_ref() == Some(&world.secret)), "both serve the new one in the end");
        assert_eq!(blocks(&world.bundle).count(), 2, "a replica that was away may still serve the old one");
        now += KEPT;
        world.look(0, now);
        assert_eq!(world.bundle.trim(), world.secret.certificate.trim(), "the old one is forgotten when no leaf of it is left");
        assert!(!world.bundle.contains(old.certificate.trim()));
    }

    #[test]
    fn while_announcing_fails_the_old_authority_goes_on_making_leaves() {
        let mut now = start();
        let mut world = World::new(1, now);
        world.look(0, now);
        let old = world.secret.clone();
        (world.secret, world.announces) = (authority(now), false);
        for _ in 0..20 {
            now += LEAF_LIFE / 7;
            world.look(0, now);
            assert!(world.replicas[0].1.as_ref() == Some(&old) && world.nothing_is_lost());
            let serving = world.replicas[0].0.serving.as_ref().expect("it serves");
            assert!(now.duration_since(serving.made).expect("in order") < LEAF_LIFE, "its leaf is still good");
        }
    }

    #[test]
    fn a_clock_that_goes_back_gets_a_leaf_that_is_valid_now_and_stops_nothing() {
        let mut world = World::new(1, start());
        world.look(0, start());
        let back = start() - Duration::from_secs(30 * 86_400);
        world.look(0, back);
        assert_eq!(world.replicas[0].0.serving.as_ref().expect("it serves").made, back);
        world.secret = authority(back);
        for minutes in 1..4 {
            world.look(0, back + MINUTE * minutes);
        }
        assert!(world.replicas[0].1.as_ref() == Some(&world.secret));
    }

    #[test]
    fn what_is_no_certificate_is_not_announced_again() {
        let now = start();
        let present = authority(now);
        let bundle = "rubbish\n-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n";
        let due = Keeper::default().look(&present, bundle, now);
        assert_eq!(due.bundle.as_deref().map(str::trim), Some(present.certificate.trim()));
        let mut keeper = Keeper::default();
        assert!(keeper.look(&present, &due.bundle.expect("a bundle"), now).bundle.is_none(), "what is as it should be is left alone");
    }
}
