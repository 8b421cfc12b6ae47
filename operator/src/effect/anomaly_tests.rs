//! What two sources disagree about is counted of what is in the books, once.

use super::books::book;
use super::books::tests::{charge_of, fund, reserve};
use crate::plan::Booking;
use supercargo_ledger::{Charge, Ledger, Posting};
use supercargo_market::money::Price;
use supercargo_market::receipt::{DeviceSource, Devices, Ended, Metered};
use supercargo_market::usage::Anomaly;

#[tokio::test]
async fn what_two_sources_disagree_about_counts_once_however_often_it_is_booked() {
    let ledger = Ledger::open("sqlite::memory:").await.expect("opens");
    let fence = ledger.take_lead("first").await.expect("leads");
    let found = async |postings: &[Posting]| {
        let mut anomalies = Vec::new();
        let bookings = postings.iter().cloned().map(Booking::Post).collect();
        let booked = book(&ledger, fence, bookings, &mut anomalies).await;
        (booked.is_ok(), anomalies)
    };
    let contested = |work: &str, pod: &str| {
        let Posting::Charge(charge) = charge_of(work, pod, 10) else { unreachable!("it is a charge") };
        Posting::Charge(Charge { metered: Some(Box::new(metered())), ..charge })
    };
    found(&[fund(), reserve("a"), reserve("b")]).await;
    let one = [contested("a", "p")];
    assert_eq!(found(&one).await, (true, vec![Anomaly::SampledLonger]));
    assert_eq!(found(&one).await, (true, vec![]), "it is booked again");
    // There is no such payee: the database refuses it, and what is beside it is booked by itself.
    let Posting::Charge(other) = contested("b", "r") else { unreachable!("it is a charge") };
    let wrong = Posting::Charge(Charge { payee: Some(0), ..other });
    assert_eq!(found(&[wrong.clone(), contested("a", "q")]).await, (true, vec![Anomaly::SampledLonger]));
    assert_eq!(found(&[wrong]).await, (false, vec![]), "what is not booked counts nothing");
}

fn metered() -> Metered {
    Metered {
        task: "n/a".to_owned(),
        worker: 0,
        provider: "acme".to_owned(),
        node: "n1".to_owned(),
        from: 1_800_000_000,
        until: 1_800_000_100,
        card: "0x1".to_owned(),
        devices: Devices { resource_name: "gpu".into(), model: "x".into(), count: 1, ids: Vec::new(), source: DeviceSource::Count },
        cpu_millis: 1_000,
        memory_bytes: 1 << 30,
        beside_per_hour: Price::ZERO,
        cut: None,
        added_seconds: 0,
        used: None,
        anomalies: vec![Anomaly::SampledLonger],
        ended: Ended::default(),
    }
}
