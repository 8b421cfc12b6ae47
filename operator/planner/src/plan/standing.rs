//! What stands in the namespaces of tasks is made before the first of their pods, and again when somebody changed it or took it
//! away, or when the cluster's own ranges are others than it was made with.

use super::{Effect, Fitting, Plan, Terms, network};
use crate::world::World;
use crate::world::records::Task;
use std::collections::BTreeSet;
use std::sync::Arc;
use supercargo_crds::validate::Range;

/// So many namespaces are seen to at once: a node that comes concerns all of them, and pods must not wait behind that.
const MOST_AT_ONCE: usize = 16;
/// Whoever keeps changing what we made is answered no oftener than this.
const PAUSE_SECONDS: i64 = 2;

/// What is closed to tasks, found out again when nodes came, went or moved.
pub fn refresh(world: &mut World, terms: &Terms) {
    if std::mem::replace(&mut world.grounds.surveyed, true) {
        return;
    }
    let closed = network::closed(world, terms);
    if world.grounds.closed.as_deref() != Some(&closed) {
        world.grounds.closed = Some(Arc::new(closed));
        let lived_in: BTreeSet<String> = world.reservations.values().map(|held| held.placement.namespace.clone()).collect();
        world.grounds.todo.extend(lived_in);
    }
}

/// Whether a pod may be made here: what closes its namespace is there.
pub fn stands(world: &World, namespace: &str) -> bool {
    let standing = || world.grounds.of(namespace);
    world.grounds.is_up_to_date(namespace) && network::STANDING.iter().all(|name| standing().is_some_and(|found| !found.is_amiss(name)))
}

/// Why a namespace can't have what has to stand there first, while it can't.
pub fn refused<'a>(world: &'a World, namespace: &str) -> Option<&'a String> {
    world.grounds.refused.get(namespace).filter(|_| !stands(world, namespace))
}

pub fn plan(world: &mut World, terms: &Terms, plan: &mut Plan, now: i64) {
    let mut begun = 0;
    for namespace in std::mem::take(&mut world.grounds.todo) {
        if begun >= MOST_AT_ONCE {
            world.grounds.todo.insert(namespace);
        } else if let Some(effect) = fit(world, terms, &namespace) {
            match rests_until(world, &namespace, now) {
                Some(until) => plan.wake_at(until),
                None => {
                    // Those that are refused hold up nobody else.
                    begun += usize::from(!world.grounds.refused.contains_key(&namespace));
                    plan.effects.push(effect);
                }
            }
            world.grounds.todo.insert(namespace);
        }
    }
}

/// What was made just now is not made again at once; what is new is made at any time.
fn rests_until(world: &World, namespace: &str, now: i64) -> Option<i64> {
    let fitted_at = world.grounds.of(namespace).filter(|_| world.grounds.is_up_to_date(namespace))?.fitted_at;
    (fitted_at..fitted_at + PAUSE_SECONDS).contains(&now).then_some(fitted_at + PAUSE_SECONDS)
}

/// What of a namespace has to be made: where nothing runs, whoever wants it gone is left alone.
fn fit(world: &World, terms: &Terms, namespace: &str) -> Option<Effect> {
    let lived_in = world.tasks_in(namespace).any(|task| world.reservations.contains_key(&task.work()));
    // Whoever waits for it there has no place meanwhile.
    let wanted = || refused(world, namespace).is_some() && world.tasks_in(namespace).any(|task| task.wants_a_place());
    let closed = world.grounds.closed.clone().filter(|_| !world.is_going(namespace) && (lived_in || wanted()))?;
    let all = !world.grounds.is_up_to_date(namespace);
    let amiss = |fitting: &Fitting| match (fitting, world.grounds.of(namespace)) {
        (_, None) => true,
        (Fitting::Policy(policy), Some(standing)) => all || standing.is_amiss(policy.metadata.name.as_deref().unwrap_or_default()),
        (Fitting::Service(_), Some(_)) => all,
    };
    let mut fittings = network::standing(terms, namespace, &closed);
    fittings.extend(own(world, terms, namespace, &closed));
    fittings.retain(amiss);
    (!fittings.is_empty()).then(|| Effect::FitNamespace { namespace: namespace.to_owned(), fittings, closed })
}

/// The policies of its tasks that have pods: who has none gets it with the first of them.
fn own(world: &World, terms: &Terms, namespace: &str, closed: &BTreeSet<Range>) -> Vec<Fitting> {
    let lives = |task: &Task| {
        let work = task.work();
        world.reservations.contains_key(&work) && world.pods_of(&work).next().is_some()
    };
    let all = world.tasks_in(namespace).filter_map(|task| Some((task, network::own(terms, task, closed)?)));
    all.filter(|(task, _)| lives(task)).map(|(_, fitting)| fitting).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::plan;
    use crate::plan::simulation::{Theatre, gang, made, node, task, terms};
    use crate::plan::tests::{calm, status, until};
    use crate::world::Event;
    use crate::world::records::Node;
    use crate::world::standing::Policy;

    /// A cluster where these tasks' pods are made, and nothing is amiss.
    fn settled(tasks: impl IntoIterator<Item = Task>) -> Theatre {
        let mut theatre = calm(tasks);
        for _ in 0..10 {
            theatre.pass();
        }
        theatre.now += PAUSE_SECONDS;
        assert!(fits(&mut theatre).is_empty() && !theatre.pods.is_empty());
        theatre
    }

    /// What is to be made in namespaces now.
    fn fits(theatre: &mut Theatre) -> Vec<Effect> {
        let effects = plan(&mut theatre.world, &terms(), theatre.now).effects;
        effects.into_iter().filter(|effect| effect.kind() == "fit_namespace").collect()
    }

    fn names(effects: &[Effect]) -> Vec<String> {
        let fittings =
            effects.iter().flat_map(|effect| if let Effect::FitNamespace { fittings, .. } = effect { &fittings[..] } else { &[] });
        let name = |fitting: &'_ Fitting| match fitting {
            Fitting::Policy(policy) => policy.metadata.name.clone(),
            Fitting::Service(service) => service.metadata.name.clone(),
        };
        fittings.filter_map(name).collect()
    }

    fn policy(name: &str, generation: i64) -> Policy {
        Policy { namespace: "n".into(), name: name.into(), uid: format!("uid-of-{name}"), generation, owner: None }
    }

    fn gone(name: &str) -> Event {
        Event::PolicyGone { uid: format!("uid-of-{name}"), key: ("n".into(), name.into()) }
    }

    #[test]
    fn a_policy_that_somebody_changes_or_takes_away_is_made_again_and_nothing_else_is() {
        let mut theatre = settled([task("a", "1", 0)]);
        let news = [Event::Policy(policy("supercargo-tasks", theatre.now + 1)), gone("supercargo-tasks")];
        for event in news {
            theatre.world.apply(event);
            let again = fits(&mut theatre);
            assert_eq!(names(&again), ["supercargo-tasks"]);
            theatre.now += 1;
            again.into_iter().for_each(|effect| theatre.carry_out(effect));
            assert!(fits(&mut theatre).is_empty(), "it is as it was");
            theatre.now += PAUSE_SECONDS;
        }
        theatre.world.apply(Event::Policy(policy("somebody-elses", 7)));
        theatre.world.apply(gone("somebody-elses"));
        assert!(fits(&mut theatre).is_empty(), "others have policies too");
        theatre.world.reservations.clear();
        theatre.world.apply(gone("supercargo-tasks"));
        assert!(fits(&mut theatre).is_empty(), "nothing runs there");
    }

    #[test]
    fn whoever_changes_it_again_and_again_is_answered_once_in_two_seconds() {
        let mut theatre = settled([task("a", "1", 0)]);
        theatre.world.apply(gone("supercargo-tasks"));
        let again = fits(&mut theatre);
        again.into_iter().for_each(|effect| theatre.carry_out(effect));
        theatre.world.apply(gone("supercargo-tasks"));
        let planned = plan(&mut theatre.world, &terms(), theatre.now);
        assert!(planned.effects.iter().all(|effect| effect.kind() != "fit_namespace"));
        assert!(planned.wake.is_some_and(|at| at <= theatre.now + PAUSE_SECONDS), "{:?}", planned.wake);
        theatre.now += PAUSE_SECONDS;
        assert_eq!(names(&fits(&mut theatre)), ["supercargo-tasks"]);
    }

    #[test]
    fn a_node_that_comes_is_cut_out_of_what_tasks_that_run_may_reach() {
        let mut theatre = settled([task("a", "1", 0)]);
        let address = Range::read("192.0.2.7/32").expect("a range");
        let new = Node { addresses: vec![address], ..node("n3", theatre.now, None) };
        theatre.world.apply(Event::Node(Box::new(new.clone())));
        let again = fits(&mut theatre);
        assert_eq!(names(&again), ["supercargo-tasks", "supercargo-internet", "supercargo-workers"]);
        assert!(matches!(&again[..], [Effect::FitNamespace { closed, .. }] if closed.contains(&address)));
        theatre.now += 1;
        again.into_iter().for_each(|effect| theatre.carry_out(effect));
        theatre.now += PAUSE_SECONDS;
        theatre.world.apply(Event::Node(Box::new(Node { seen: theatre.now, ..new })));
        assert!(fits(&mut theatre).is_empty(), "it is where it was");
    }

    #[test]
    fn the_policy_of_a_gang_is_made_again_while_it_lives_and_missed_by_nobody_afterwards() {
        let mut theatre = settled([gang("g", "3", 0, 2, "All")]);
        let own = "g-uidofg";
        theatre.world.apply(gone(own));
        let again = fits(&mut theatre);
        assert_eq!(names(&again), [own]);
        theatre.now += 1;
        again.into_iter().for_each(|effect| theatre.carry_out(effect));
        theatre.now += PAUSE_SECONDS;
        theatre.world.reservations.clear();
        theatre.world.apply(gone(own));
        assert!(fits(&mut theatre).is_empty());
    }

    #[test]
    fn what_a_namespace_refuses_is_told_by_the_task_that_needs_it_until_it_is_there() {
        let mut theatre = calm([task("a", "1", 0)]);
        let refused = until(&mut theatre, "fit_namespace");
        let why = "applying a Service: exceeded quota: none";
        theatre.world.apply(Event::Unfit { namespace: "n".into(), why: why.into() });
        let effects = plan(&mut theatre.world, &terms(), theatre.now).effects;
        let started = status(&effects).conditions.iter().find(|condition| condition.type_ == "Started").expect("Started");
        assert_eq!((started.status.as_str(), started.reason.as_str(), started.message.as_str()), ("False", "PodRefused", why));
        assert!(effects.iter().any(|effect| effect.kind() == "fit_namespace"), "it is tried on");
        refused.into_iter().for_each(|effect| theatre.carry_out(effect));
        until(&mut theatre, "create_pod");
    }

    #[test]
    fn many_namespaces_are_seen_to_a_few_at_a_time_and_those_that_refuse_hold_up_nobody() {
        let mut theatre = settled([task("a", "1", 0)]);
        let held = theatre.world.reservations.values().next().expect("it is held").clone();
        for number in 0..40 {
            let name = format!("b{number:02}");
            let other = Task { namespace: format!("team-{number:02}"), ..task(&name, "1", 0) };
            theatre.world.reservations.insert(other.work(), held.clone());
            theatre.world.apply(Event::Task(Box::new(other)));
        }
        let first = fits(&mut theatre);
        assert_eq!(first.len(), MOST_AT_ONCE);
        assert_eq!(fits(&mut theatre), first, "until they are done no others are begun");
        for effect in &first {
            let Effect::FitNamespace { namespace, .. } = effect else { panic!("it is a namespace's") };
            theatre.world.apply(Event::Unfit { namespace: namespace.clone(), why: "no".into() });
        }
        assert_eq!(fits(&mut theatre).len(), 2 * MOST_AT_ONCE);
    }

    #[test]
    fn a_watch_that_is_behind_does_not_make_anything_amiss() {
        let mut theatre = settled([task("a", "1", 0)]);
        let effect = Effect::FitNamespace {
            namespace: "n".into(),
            fittings: network::standing(&terms(), "n", &BTreeSet::new()),
            closed: theatre.world.grounds.closed.clone().expect("it is known"),
        };
        theatre.now += 5;
        theatre.carry_out(effect);
        theatre.now += PAUSE_SECONDS;
        theatre.world.apply(Event::Policy(policy("supercargo-tasks", theatre.now - 6)));
        assert!(fits(&mut theatre).is_empty());
        // A change that came between our answer and the news of it is one.
        theatre.world.apply(Event::Policy(policy("supercargo-tasks", theatre.now + 1)));
        assert_eq!(names(&fits(&mut theatre)), ["supercargo-tasks"]);
        let late = made(&network::standing(&terms(), "n", &BTreeSet::new())[0], theatre.now).expect("a policy");
        theatre.world.apply(Event::PolicyMade(late));
        assert_eq!(names(&fits(&mut theatre)), ["supercargo-tasks"], "what was made before it says nothing of it");
    }
}
