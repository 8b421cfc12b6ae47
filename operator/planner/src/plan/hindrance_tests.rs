//! What can't be made holds no place: gangs of which one is refused, namespaces that can't have what has to stand there, and
//! terms that are gone.

use super::ends_tests::{holds, settled};
use super::simulation::{Theatre, gang, task, terms};
use super::tests::{calm, pods, set, until};
use super::waits_tests::refusal;
use super::{Effect, plan};
use crate::world::Event;
use crate::world::records::{Namespace, Task};
use supercargo_crds::task_status::ComputeTaskStatus;

/// One look, and everything of it that this lets through is done; the kinds of what there was to do.
fn passes(theatre: &mut Theatre, through: impl Fn(&Effect) -> bool) -> Vec<&'static str> {
    let effects = plan(&mut theatre.world, &terms(), theatre.now).effects;
    let kinds = effects.iter().map(Effect::kind).collect();
    effects.into_iter().filter(through).for_each(|effect| theatre.carry_out(effect));
    kinds
}

/// What stands in namespaces is refused from now on. The task's status some passes later.
fn refuses_grounds(theatre: &mut Theatre) -> ComputeTaskStatus {
    for _ in 0..8 {
        let kinds = passes(theatre, |effect| effect.kind() != "fit_namespace");
        if kinds.contains(&"fit_namespace") {
            theatre.world.apply(Event::Unfit { namespace: "n".into(), why: "applying a NetworkPolicy: exceeded quota: none".into() });
        }
    }
    theatre.tasks["a"].status.clone()
}

fn goes(theatre: &mut Theatre) {
    theatre.world.apply(Event::Namespace(Namespace { name: "n".into(), uid: "nu".into(), deleting: true }));
}

fn waits_for(status: &ComputeTaskStatus) -> (&str, &str) {
    assert_eq!(["Reserved", "Placed", "Started"].map(|kind| holds(status, kind)), [None, None, None], "nothing is held back for it");
    (status.waiting[0].reason.as_str(), status.waiting[0].example.as_str())
}

/// All workers but the last are made, and that one is refused: what there is to do then is done.
fn refuse_last(theatre: &mut Theatre) -> Vec<&'static str> {
    until(theatre, "create_pod").into_iter().for_each(|effect| theatre.carry_out(effect));
    let mut others = until(theatre, "create_pod");
    let last = others.pop().expect("there are others");
    others.into_iter().for_each(|effect| theatre.carry_out(effect));
    theatre.world.apply(refusal(&last));
    let kinds = passes(theatre, |_| true);
    assert_eq!(kinds.iter().filter(|kind| **kind == "delete_pod").count(), 2, "who is there waits for nobody: {kinds:?}");
    kinds
}

#[test]
fn a_gang_of_which_one_pod_is_refused_gives_its_places_back_and_asks_again_later_each_time() {
    let mut theatre = calm([gang("a", "3", 0, 3, "All")]);
    let begun = theatre.now;
    for (attempt, pause) in [(0, 5), (1, 10), (2, 20), (3, 40)] {
        let kinds = refuse_last(&mut theatre);
        assert_eq!(kinds.contains(&"write_task"), attempt == 0, "what is said already is not said again: {kinds:?}");
        let started = holds(&theatre.tasks["a"].status, "Started");
        assert_eq!(started, (attempt == 0).then(|| (false, "PodRefused".to_owned())));
        set(&mut theatre, |_| {});
        theatre.now += 1;
        let status = settled(&mut theatre);
        assert!(theatre.world.reservations.is_empty() && theatre.pods.is_empty(), "attempt {attempt}");
        assert_eq!((status.phase.as_deref(), waits_for(&status)), (Some("Waiting"), ("PodRefused", "exceeded quota: gpus")));
        let told: Vec<_> = status.attempts.iter().map(|one| (one.index, one.outcome.as_str(), one.billed_seconds)).collect();
        assert_eq!((told, status.failed_attempts), (vec![(attempt, "Refused", 0)], None), "of several in a row the last is enough");
        assert_eq!(status.waiting_since.map(|since| since.0.as_second()), Some(begun), "all of it is one wait");
        theatre.now += pause - 1;
        let soon = passes(&mut theatre, |_| false);
        assert!(!soon.contains(&"book") && !soon.contains(&"write_task"), "{pause}: {soon:?}");
        theatre.now += 1;
    }
    // The quota is raised.
    until(&mut theatre, "create_pod").into_iter().for_each(|effect| theatre.carry_out(effect));
    let others = until(&mut theatre, "create_pod");
    assert_eq!(pods(&others)[0].metadata.name.as_deref(), Some("a-uidofa-4-1"));
    others.into_iter().for_each(|effect| theatre.carry_out(effect));
    theatre.pass();
    assert!(theatre.world.unmade.is_empty() && theatre.pods.len() == 3);
}

#[test]
fn what_was_refused_once_is_not_forgotten_for_news_of_the_other_workers() {
    let mut theatre = calm([gang("a", "3", 0, 3, "All")]);
    refuse_last(&mut theatre);
    set(&mut theatre, |_| {});
    assert_eq!(theatre.world.unmade.len(), 1);
    let kinds = passes(&mut theatre, |_| false);
    assert!(!kinds.contains(&"create_pod"), "{kinds:?}");
}

#[test]
fn an_answer_that_another_worker_is_on_its_way_is_waited_for() {
    let mut theatre = calm([gang("a", "3", 0, 3, "All")]);
    until(&mut theatre, "create_pod").into_iter().for_each(|effect| theatre.carry_out(effect));
    // Of two that are asked for one is refused, and of the other nothing is heard.
    let others = until(&mut theatre, "create_pod");
    theatre.world.apply(refusal(&others[1]));
    for _ in 0..59 {
        theatre.now += 1;
        let kinds = passes(&mut theatre, |_| true);
        assert!(!kinds.contains(&"find_pods"), "it may be on its way: {kinds:?}");
        set(&mut theatre, |_| {});
    }
    theatre.now += 1;
    until(&mut theatre, "find_pods").into_iter().for_each(|effect| theatre.carry_out(effect));
    assert_eq!(settled(&mut theatre).attempts[0].outcome, "Refused");
}

#[test]
fn a_refusal_of_an_attempt_that_is_no_more_says_nothing_of_the_next() {
    let mut theatre = calm([task("a", "1", 0)]);
    let first = until(&mut theatre, "create_pod");
    theatre.world.apply(refusal(&first[0]));
    theatre.now += 1;
    settled(&mut theatre);
    theatre.now += 5;
    until(&mut theatre, "create_pod");
    theatre.world.apply(refusal(&first[0]));
    assert_eq!(theatre.world.unmade.values().map(|unmade| (unmade.attempt, unmade.times)).collect::<Vec<_>>(), [(0, 1)]);
    until(&mut theatre, "create_pod");
}

#[test]
fn where_a_namespace_can_not_have_what_has_to_stand_there_tasks_hold_no_place_and_go_on_when_it_can() {
    let mut theatre = calm([task("a", "1", 0)]);
    let told = refuses_grounds(&mut theatre);
    assert_eq!(holds(&told, "Started"), Some((false, "PodRefused".to_owned())), "it is told at once");
    theatre.now += 1;
    let status = refuses_grounds(&mut theatre);
    assert!(theatre.world.reservations.is_empty());
    assert_eq!(waits_for(&status), ("PodRefused", "applying a NetworkPolicy: exceeded quota: none"));
    for second in 0..100 {
        theatre.now += 1;
        let kinds = passes(&mut theatre, |_| false);
        assert!(!kinds.contains(&"book") && kinds.contains(&"fit_namespace"), "{second}: it is tried on, and takes no place: {kinds:?}");
    }
    // It is mended.
    passes(&mut theatre, |_| true);
    let made = until(&mut theatre, "create_pod");
    assert_eq!(pods(&made)[0].metadata.name.as_deref(), Some("a-uidofa-1-0"));
}

#[test]
fn a_namespace_that_goes_keeps_no_place_whatever_stands_there() {
    for stands in [false, true] {
        let mut theatre = calm([task("a", "1", 0)]);
        until(&mut theatre, "fit_namespace").into_iter().filter(|_| stands).for_each(|effect| theatre.carry_out(effect));
        goes(&mut theatre);
        theatre.now += 1;
        let status = settled(&mut theatre);
        assert!(theatre.world.reservations.is_empty() && theatre.pods.is_empty(), "stands: {stands}");
        assert_eq!(waits_for(&status), ("NamespaceGoes", "namespace n is being deleted"));
    }
}

#[test]
fn a_place_that_is_sold_under_no_terms_any_more_is_given_back_and_said_so() {
    let mut theatre = calm([task("a", "1", 0)]);
    until(&mut theatre, "fit_namespace").into_iter().for_each(|effect| theatre.carry_out(effect));
    theatre.world.apply(Event::PoolGone("pool".into()));
    passes(&mut theatre, |_| true);
    let told = &theatre.tasks["a"].status;
    assert_eq!(holds(told, "Started"), Some((false, "NotSold".to_owned())));
    assert_eq!(told.waiting[0].example, "ProviderPool pool sells node n1 no more");
    theatre.now += 1;
    let status = settled(&mut theatre);
    assert!(theatre.world.reservations.is_empty());
    assert_eq!(waits_for(&status).0, "NoProvider");
}

/// Tasks without a GPU, as many as there are.
fn plain(count: usize) -> impl Iterator<Item = Task> {
    (0..count).map(|index| {
        let mut task = task(&format!("t{index:02}"), "1", 0);
        task.spec.resources.gpu.count = 0;
        task
    })
}

#[test]
fn fifty_that_are_refused_at_once_are_told_so_within_five_seconds() {
    let mut theatre = calm(plain(50));
    let begun = theatre.now;
    let mut first = std::collections::BTreeMap::new();
    for second in 0..=5 {
        theatre.now = begun + second;
        for _ in 0..6 {
            for effect in plan(&mut theatre.world, &terms(), theatre.now).effects {
                if effect.kind() == "create_pod" {
                    theatre.world.apply(refusal(&effect));
                } else {
                    theatre.carry_out(effect);
                }
            }
        }
        let told = |task: &&Task| task.status.waiting.iter().any(|one| one.reason == "PodRefused" && one.example == "exceeded quota: gpus");
        for task in theatre.tasks.values().filter(told) {
            first.entry(task.name.clone()).or_insert(second);
        }
    }
    assert_eq!(first.len(), 50, "{first:?}");
    assert!(first.values().all(|second| *second <= 1), "first reasons go ahead of others: {first:?}");
    assert!(theatre.world.reservations.is_empty(), "nobody keeps a place that it can't use");
}
