//! What containers used: when it is asked for and waited for, what it changes of a charge, and what is told of it.

use super::simulation::{Theatre, pool, task, terms};
use super::tests::{calm, ends, runs, set, status, until};
use super::usage::UsageTerms;
use super::{Booking, Effect, Terms, plan};
use crate::world::records::{Device, Pool};
use crate::world::{Event, Usage};
use std::collections::BTreeMap;
use supercargo_crds::pool::PricingBasis;
use supercargo_ledger::{Charge, Posting};
use supercargo_market::receipt::{DeviceSource, words_digest};
use supercargo_market::usage::{Anomaly, Shows, Used};

fn reads() -> Terms {
    Terms { usage: Some(UsageTerms { settle_seconds: 60 }), ..terms() }
}

/// A task that began a hundred seconds ago, with a core and a GiB, and has just ended.
fn ended(basis: PricingBasis) -> Theatre {
    let mut theatre = calm([task("a", "1", 0)]);
    let mut sold = pool();
    sold.spec.pricing.basis = basis;
    sold.spec.pricing.cpu_per_hour = serde_json::from_str("\"0.36\"").expect("a price");
    theatre.world.apply(Event::Pool(Box::new(sold)));
    let made = until(&mut theatre, "create_pod");
    made.into_iter().for_each(|effect| theatre.carry_out(effect));
    theatre.pass();
    let begun = theatre.now;
    set(&mut theatre, |pod| runs(pod, begun));
    theatre.now += 100;
    set(&mut theatre, |pod| {
        pod.last_words = Some("sha256:1".into());
        ends(pod, begun + 100, 0);
    });
    theatre
}

/// What is planned so many seconds after the end: whether use is asked for, and the charge.
fn after(theatre: &mut Theatre, seconds: i64) -> (bool, Option<Charge>) {
    let effects = plan(&mut theatre.world, &reads(), theatre.now + seconds).effects;
    let charge = effects.iter().find_map(|effect| {
        let Effect::Book(bookings) = effect else { return None };
        bookings.iter().find_map(|one| if let Booking::Post(Posting::Charge(charge)) = one { Some(charge.clone()) } else { None })
    });
    (effects.iter().any(|effect| effect.kind() == "read_usage"), charge)
}

fn answer(theatre: &mut Theatre, devices: &[&str], anomalies: &[Anomaly]) {
    let used = Used {
        cpu_milli_seconds: 25_000,
        memory_mib_seconds: 0,
        cpu_seconds_shown: 90,
        memory_seconds_shown: 90,
        gpu_percent: Some(87),
        gpu_seconds_shown: 90,
        gaps: 0,
        resets: 0,
        shows: Shows::Whole,
    };
    let devices = devices.iter().map(|id| (*id).to_owned()).collect();
    let usage = Usage { used: Some(used), devices, anomalies: anomalies.to_vec() };
    let pod = theatre.pods.values().next().expect("a pod");
    let work = pod.ours.as_ref().expect("ours").work.clone();
    theatre.world.apply(Event::Used { work, attempt: 0, used: BTreeMap::from([(pod.uid.clone(), usage)]) });
}

/// Of 100 s: the device costs 0.10, and the core 0.01 when it is billed as it is held.
fn cost(charge: &Charge) -> String {
    charge.cost.charged().expect("fits").to_string()
}

#[test]
fn who_bills_what_is_held_asks_at_once_and_waits_for_a_glance() {
    let mut theatre = ended(PricingBasis::Allocated);
    assert!(matches!(after(&mut theatre, 0), (true, None)));
    assert!(matches!(after(&mut theatre, 1), (true, None)), "it is asked again until there is an answer");
    let (asks, charge) = after(&mut theatre, 2);
    let charge = charge.expect("nobody waits longer");
    assert_eq!((asks, cost(&charge), charge.metered.and_then(|metered| metered.used)), (false, "0.11".to_owned(), None));

    let mut theatre = ended(PricingBasis::Allocated);
    answer(&mut theatre, &[], &[]);
    let (asks, charge) = after(&mut theatre, 0);
    let charge = charge.expect("it is known");
    assert_eq!((asks, cost(&charge).as_str()), (false, "0.11"), "what was used changes no price");
    let metered = charge.metered.expect("is told");
    assert_eq!(metered.used.and_then(|used| used.gpu_percent), Some(87));
    assert_eq!(
        (metered.until - metered.from, metered.ended.exit_code, metered.ended.words),
        (100, Some(0), Some(words_digest("sha256:1")))
    );
}

#[test]
fn while_nobody_answers_who_bills_what_is_held_does_not_ask() {
    let mut theatre = ended(PricingBasis::Allocated);
    let now = theatre.now;
    theatre.world.apply(Event::UsageAway { at: now - 20 });
    assert!(matches!(after(&mut theatre, 0), (false, Some(_))));
    let mut theatre = ended(PricingBasis::Allocated);
    theatre.world.apply(Event::UsageAway { at: now - 31 });
    assert!(matches!(after(&mut theatre, 0), (true, None)));
}

#[test]
fn who_bills_what_is_used_waits_for_the_last_samples_and_no_longer_than_is_said() {
    let mut theatre = ended(PricingBasis::Used);
    assert!(matches!(after(&mut theatre, 0), (false, None)));
    assert!(matches!(after(&mut theatre, 29), (false, None)));
    let now = theatre.now;
    theatre.world.apply(Event::UsageAway { at: now + 29 });
    assert!(matches!(after(&mut theatre, 30), (true, None)), "it is asked though there was no answer");
    assert!(matches!(after(&mut theatre, 59), (true, None)));
    let (asks, charge) = after(&mut theatre, 60);
    let charge = charge.expect("it is charged");
    assert_eq!((asks, cost(&charge).as_str()), (false, "0.10"), "what can't be shown is not charged");
    assert_eq!(charge.metered.expect("is told").anomalies, [Anomaly::UseNotShown], "and the receipt says so");

    let mut theatre = ended(PricingBasis::Used);
    assert!(matches!(after(&mut theatre, 31), (true, None)));
    answer(&mut theatre, &[], &[]);
    let charge = after(&mut theatre, 31).1.expect("it is known");
    assert_eq!(cost(&charge), "0.1025", "a quarter of the core was used");
    assert_eq!((charge.seconds, charge.metered.expect("is told").anomalies), (100, vec![]));
}

#[test]
fn a_pool_that_bills_what_is_used_says_when_that_can_not_be_read() {
    let sold_by_use = || {
        let mut sold = pool();
        sold.spec.pricing.basis = PricingBasis::Used;
        sold
    };
    let mut sold = sold_by_use();
    let mut theatre = calm([]);
    theatre.world.apply(Event::Pool(Box::new(sold.clone())));
    let mut says = |events: Vec<Event>, terms: &Terms| {
        events.into_iter().for_each(|event| theatre.world.apply(event));
        let effects = plan(&mut theatre.world, terms, theatre.now).effects;
        let status = effects.into_iter().find_map(|effect| if let Effect::WritePool { status, .. } = effect { Some(status) } else { None });
        if let Some(status) = &status {
            sold.status = (**status).clone();
            theatre.world.apply(Event::Pool(Box::new(sold.clone())));
        }
        status.and_then(|status| Some(status.conditions.first()?.reason.clone()))
    };
    let away = |after: i64| Event::UsageAway { at: 1_800_000_000 + after };
    let work = supercargo_market::work::WorkId::task("somebody");
    let answered = Event::Used { work, attempt: 0, used: BTreeMap::new() };
    assert_eq!(says(vec![], &reads()).as_deref(), Some("Selling"));
    assert_eq!(says(vec![away(0), away(59)], &reads()), None, "it may be over in a moment");
    assert_eq!(says(vec![away(60)], &reads()).as_deref(), Some("UsageUnread"));
    assert_eq!(says(vec![away(70)], &reads()), None);
    assert_eq!(says(vec![answered], &reads()).as_deref(), Some("Selling"));
    let anew = |pool: Pool| vec![Event::Pool(Box::new(pool))];
    assert_eq!(says(anew(pool()), &terms()).as_deref(), Some("Selling"), "another kind of price needs nobody's word");
    let used = Pool { status: Default::default(), ..sold_by_use() };
    assert_eq!(says(anew(used), &terms()).as_deref(), Some("UsageUnread"), "nobody is there to ask");
}

#[test]
fn without_a_place_to_ask_everything_is_charged_at_once() {
    let mut theatre = ended(PricingBasis::Used);
    let effects = plan(&mut theatre.world, &terms(), theatre.now).effects;
    assert!(effects.iter().any(|effect| effect.kind() == "book") && effects.iter().all(|effect| effect.kind() != "read_usage"));
}

#[test]
fn the_receipt_says_who_names_the_devices_and_whether_another_names_others() {
    type Case = (&'static [&'static str], &'static [&'static str], &'static [&'static str], DeviceSource, usize);
    let cases: [Case; 5] = [
        (&["GPU-a"], &["GPU-a"], &["GPU-a"], DeviceSource::Kubelet, 0),
        (&["GPU-a"], &["GPU-b"], &["GPU-a"], DeviceSource::Kubelet, 1),
        (&[], &["GPU-b"], &["GPU-b"], DeviceSource::Exporter, 0),
        (&[], &["GPU-a", "GPU-b"], &["GPU-a", "GPU-b"], DeviceSource::Exporter, 1),
        (&[], &[], &[], DeviceSource::Count, 0),
    ];
    for (told, exported, expected, source, anomalies) in cases {
        let mut theatre = ended(PricingBasis::Allocated);
        set(&mut theatre, |pod| {
            let device = |id: &&str| Device { id: (*id).to_owned(), resource_name: "nvidia.com/gpu".into(), healthy: Some(true) };
            pod.devices = told.iter().map(device).collect();
        });
        answer(&mut theatre, exported, &[]);
        let metered = after(&mut theatre, 0).1.and_then(|charge| charge.metered).expect("it is charged");
        assert_eq!(
            (metered.devices.source, metered.devices.count, metered.anomalies.len()),
            (source, 1, anomalies),
            "{told:?} {exported:?}"
        );
        assert_eq!(metered.devices.ids, expected);
    }
}

#[test]
fn the_end_is_told_with_the_receipts_digest_and_how_busy_the_devices_were() {
    let mut theatre = ended(PricingBasis::Allocated);
    let book = until(&mut theatre, "book");
    book.into_iter().for_each(|effect| theatre.carry_out(effect));
    let balance = theatre.world.works.values_mut().next().expect("a work");
    (balance.receipt, balance.gpu_percent) = (Some("ab".repeat(32)), Some(87));
    let written = until(&mut theatre, "write_task");
    let told = status(&written);
    assert_eq!(told.usage.as_ref().and_then(|usage| usage.gpu_utilization_percent), Some(87));
    let receipt = told.receipt.clone().expect("it is told");
    assert_eq!((receipt.digest, receipt.root), ("ab".repeat(32), None));
}

#[test]
fn the_books_get_the_card_with_the_place_that_it_prices() {
    let mut theatre = calm([task("a", "1", 0)]);
    let grant = until(&mut theatre, "book");
    grant.into_iter().for_each(|effect| theatre.carry_out(effect));
    let book = until(&mut theatre, "book");
    let reserve = book.into_iter().find_map(|effect| if let Effect::Book(mut bookings) = effect { bookings.pop() } else { None });
    let reserve = reserve.expect("a place is booked");
    let Booking::Reserve(_, decision) = &reserve else { panic!("it is no place: {reserve:?}") };
    let place = &decision.placement.workers[0];
    let card = pool().spec.pricing.card();
    assert_eq!((&place.rate_card, place.basis), (&card.hash().to_string(), card.basis));
    let postings = reserve.postings();
    assert!(matches!(&postings[..], [Posting::Card(kept), Posting::Reserve { .. }] if **kept == card), "{postings:?}");
}
