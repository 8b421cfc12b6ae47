use super::*;
use crate::journal::{Envelope, GENESIS, leaf, prove, root};
use crate::metering::CutBy;
use crate::rate_card::Rate;
use crate::usage::Shows;

const WORK: &str = "task:u";
/// Of `metered`, as it was written before anybody said what a record was cut by.
const DIGEST: &str = "0d8e381971416ae799fef4500420c785273882e68c4ae597c21236846f354ddd";
/// Signs by repeating the hash: which curve it is does not matter here.
const SIGNER: Hash = [9; 32];

fn is_signed(signer: &Hash, hash: &Hash, signature: &[u8]) -> bool {
    *signer == SIGNER && signature == hash
}

fn card(basis: Basis) -> RateCard {
    let price = |text: &str| text.parse::<Price>().expect("a price");
    let rate = Rate { resource_name: "nvidia.com/gpu".into(), model: Some("H100".into()), per_hour: price("2.10") };
    let (cpu_per_hour, memory_gib_per_hour) = (price("0.02"), price("0.004"));
    RateCard { token: "USDC".into(), resources: vec![rate], cpu_per_hour, memory_gib_per_hour, basis, minimum_seconds: 0 }
}

fn metered(card: &RateCard, worker: u32) -> Metered {
    let used = Used {
        cpu_milli_seconds: 31_000,
        memory_mib_seconds: 61 * 1_024,
        cpu_seconds_shown: 55,
        memory_seconds_shown: 50,
        gpu_percent: Some(80 + 10 * worker),
        gpu_seconds_shown: 50,
        gaps: 0,
        resets: 0,
        shows: Shows::Whole,
    };
    let devices = Devices {
        resource_name: "nvidia.com/gpu".into(),
        model: "NVIDIA-H100-80GB-HBM3".into(),
        count: 1,
        ids: vec![format!("GPU-{worker}")],
        source: DeviceSource::Kubelet,
    };
    Metered {
        task: "team/train".into(),
        worker,
        provider: "acme".into(),
        node: "n1".into(),
        from: 1_800_000_000,
        until: 1_800_000_061,
        card: card.hash().to_string(),
        devices,
        cpu_millis: 8_000,
        memory_bytes: 32 << 30,
        beside_per_hour: Price::ZERO,
        cut: None,
        added_seconds: 0,
        used: Some(used),
        anomalies: Vec::new(),
        ended: Ended { exit_code: Some(0), image: Some("sha256:1".into()), words: Some(words_digest("done")), by_provider: false },
    }
}

/// What older books hold and older receipts say is read and written as it was, or their digests would not be theirs.
#[test]
fn what_was_kept_before_anybody_said_what_a_record_was_cut_by_has_the_digest_that_it_had() {
    let kept = metered(&card(Basis::Used), 0).text();
    let old: Metered = serde_json::from_str(&kept).expect("is read");
    assert!(!kept.contains("cut") && old.cut.is_none(), "{kept}");
    assert_eq!((old.text(), hex::encode(Sha256::digest(&kept))), (kept, DIGEST.to_owned()));
    let cut = Metered { cut: Some(Cut { by: CutBy::OurClock, seconds: 833 }), ..old };
    assert!(cut.text().contains(r#""cut":{"by":"OurClock","seconds":833}"#), "{}", cut.text());
    assert_eq!(serde_json::from_str::<Metered>(&cut.text()).expect("is read"), cut);
}

/// Two workers, 61 s each: the second one's charge is what both cost less what the first one's was.
fn charges(card: &RateCard, last: &str) -> Vec<Charged> {
    let one = |worker: u32, amount: &str, entry| Charged {
        segment: format!("pod/p{worker}/0/0"),
        attempt: 0,
        seconds: 61,
        evidence: Evidence::Record,
        amount: amount.parse().expect("an amount"),
        entry: Some(entry),
        metered: Some(metered(card, worker)),
    };
    let first = if card.basis == Basis::Used { "0.035823" } else { "0.040463" };
    vec![one(0, first, 5), one(1, last, 7)]
}

fn body(card: &RateCard) -> Body {
    let charges = charges(card, if card.basis == Basis::Used { "0.035823" } else { "0.04" });
    let charged = Amount::from_units(charges.iter().map(|charge| charge.amount.units()).sum());
    // Of an Allocated card 463 units are more than what was held back.
    let absorbed = Amount::from_units(if card.basis == Basis::Used { 0 } else { 463 });
    let fee = Amount::from_units(2_000);
    Body {
        format: FORMAT.into(),
        work: WORK.into(),
        funding: "chain:default:0xaa".into(),
        token: "USDC".into(),
        open: false,
        charges,
        cards: [(card.hash().to_string(), card.clone())].into(),
        charged,
        absorbed,
        provider: charged.saturating_sub(fee),
        fees: [(1, fee)].into(),
    }
}

/// A journal of eight entries: the fifth and the seventh are the charges', and the last is signed.
fn journal(body: &Body) -> Journal {
    let payload = |sequence: u64| match body.charges.iter().find(|charge| charge.entry == Some(sequence)) {
        None => format!(r#"{{"posting":"another","number":{sequence}}}"#),
        Some(charge) => {
            let metered = charge.metered.as_ref().map(|metered| tag(&Sha256::digest(metered.text()).into()));
            let line = serde_json::json!({
                "posting": "charge", "work": body.work, "segment": charge.segment, "attempt": charge.attempt, "seconds": charge.seconds,
                "evidence": charge.evidence, "amount": charge.amount.units(), "metered": metered,
            });
            line.to_string()
        }
    };
    let (mut previous, mut links) = (GENESIS, Vec::new());
    let mut before = GENESIS;
    for sequence in 1..=8 {
        let (payload, signer) = (payload(sequence), (sequence == 8).then_some(SIGNER));
        let envelope = Envelope { journal: "books", sequence, previous, kind: "posting", payload: payload.as_bytes(), signer };
        if sequence == 5 {
            before = previous;
        }
        previous = envelope.hash();
        let shown = body.charges.iter().any(|charge| charge.entry == Some(sequence));
        links.push(Link {
            sequence,
            kind: "posting".into(),
            payload_hash: (!shown).then(|| hex::encode(Sha256::digest(&payload))),
            payload: shown.then_some(payload),
            hash: hex::encode(previous),
            signer: signer.map(hex::encode),
            signature: signer.map(|_| hex::encode(previous)),
        });
    }
    let stretch = Stretch { previous: hex::encode(before), links: links.split_off(4) };
    Journal { name: "books".into(), stretches: vec![stretch] }
}

fn anchor(body: &Body) -> Anchor {
    let salt = |index: usize| [u8::try_from(index).expect("few"); 32];
    let own = body.charges.iter().enumerate().map(|(index, charge)| leaf(&salt(index), charge.line(&body.work).as_bytes()));
    let leaves: Vec<Hash> = [leaf(&[7; 32], b"another's")].into_iter().chain(own).collect();
    let proof = |(index, charge): (usize, &Charged)| Proof {
        segment: charge.segment.clone(),
        salt: hex::encode(salt(index)),
        path: prove(&leaves, index + 1).expect("it is there").into_iter().map(Into::into).collect(),
    };
    Anchor {
        post: "p".into(),
        root: hex::encode(root(&leaves)),
        journal_head: hex::encode([8; 32]),
        transaction: Some("0xab".into()),
        block: Some(7),
        proofs: body.charges.iter().enumerate().map(proof).collect(),
    }
}

fn receipt(basis: Basis) -> Receipt {
    let body = body(&card(basis));
    Receipt { digest: hex::encode(body.digest()), journal: journal(&body), anchors: vec![anchor(&body)], body }
}

fn check(receipt: &Receipt, expected: &Expected) -> Result<Checked, String> {
    verify(&receipt.text(), expected, &is_signed).map_err(|error| error.to_string())
}

#[test]
fn a_receipt_of_either_basis_holds() {
    for basis in [Basis::Allocated, Basis::Used] {
        let receipt = receipt(basis);
        let root = hex::decode(&receipt.anchors[0].root).ok().and_then(|bytes| bytes.try_into().ok());
        let expected = Expected { digest: Some(receipt.body.digest()), root, signer: Some(SIGNER) };
        let checked = check(&receipt, &expected).expect("it holds");
        assert_eq!((checked.charges, checked.anchored, checked.entered, checked.signed, checked.unrated), (2, 2, 2, 2, 0));
        assert_eq!((checked.charged, checked.signers), (receipt.body.charged, [SIGNER].into()));
    }
    assert_eq!(receipt(Basis::Used).body.gpu_percent(), Some(85));
}

#[test]
fn the_same_receipt_is_written_in_the_same_bytes() {
    let text = receipt(Basis::Used).text();
    let again: Receipt = serde_json::from_str(&text).expect("it is read");
    assert_eq!(again.text(), text);
    assert!(text.starts_with(r#"{"anchors":[{"block":7,"journalHead":"0808"#), "{text}");
    // However somebody lays it out, it is the same receipt.
    let pretty = serde_json::to_string_pretty(&again).expect("it is written");
    assert!(verify(&pretty, &Expected::default(), &is_signed).is_ok());
}

/// Its digest is made anew, as who changes a receipt would.
fn forged(change: impl FnOnce(&mut Receipt)) -> Result<Checked, String> {
    let mut receipt = receipt(Basis::Allocated);
    change(&mut receipt);
    receipt.digest = hex::encode(receipt.body.digest());
    check(&receipt, &Expected::default())
}

#[test]
fn whatever_is_changed_is_found() {
    let mut changed = receipt(Basis::Allocated);
    changed.body.charges[0].seconds = 60;
    let error = check(&changed, &Expected::default()).expect_err("it was changed");
    assert!(error.starts_with("the receipt was changed: its body's digest is "), "{error}");

    type Change = fn(&mut Receipt);
    let cases: [(Change, &str); 12] = [
        (|r| r.body.charges[0].seconds = 60, "pod/p0/0/0 costs 0.0398 by its card, and 0.040463 was charged"),
        (
            |r| r.body.charges[0].amount = Amount::from_units(1),
            "what was charged is 0.080463 on the receipt, and its parts come to 0.040001",
        ),
        (|r| r.body.absorbed = Amount::ZERO, "what was absorbed is 0.00 on the receipt, and its parts come to 0.000463"),
        (|r| r.body.fees = [(1, Amount::ZERO)].into(), "what was charged is 0.080463 on the receipt, and its parts come to 0.078463"),
        (|r| r.body.charges[1].segment.replace_range(4..6, "p0"), "this is no receipt: a segment is charged twice"),
        (|r| r.body.cards.values_mut().for_each(|card| card.cpu_per_hour = Price::ZERO), "card CARD was changed: its hash is another"),
        (|r| r.body.cards.clear(), "pod/p0/0/0 was billed by card CARD, which is not on the receipt"),
        (|r| metered_of(r).devices.model = "T4".into(), "pod/p0/0/0: the card has no price for nvidia.com/gpu of model \"T4\""),
        (|r| metered_of(r).devices.ids.clear(), "entry 5 of the journal does not say what the receipt says of its charge"),
        (|r| r.body.charges[1].entry = Some(6), "entry 6 of the journal does not say what the receipt says of its charge"),
        (|r| r.body.work = "task:v".into(), "entry 5 of the journal does not say what the receipt says of its charge"),
        (
            |r| r.body.format = "supercargo.receipt.v9".into(),
            "this is no receipt: its format is \"supercargo.receipt.v9\", and this version knows supercargo.receipt.v1",
        ),
    ];
    let named = card(Basis::Allocated).hash().to_string();
    for (change, expected) in cases {
        assert_eq!(forged(change).expect_err(expected).replace(&named, "CARD"), expected);
    }
}

fn metered_of(receipt: &mut Receipt) -> &mut Metered {
    receipt.body.charges[0].metered.as_mut().expect("it is new")
}

#[test]
fn no_more_is_added_than_a_cards_minimum_asks_for() {
    // Two workers that ran 61 s, on a card that asks for 90.
    let brought_up = |basis: Basis, amount: &str| {
        let mut body = body(&RateCard { minimum_seconds: 90, ..card(basis) });
        for charge in &mut body.charges {
            (charge.seconds, charge.amount) = (90, amount.parse().expect("an amount"));
            charge.metered.as_mut().expect("it is new").added_seconds = 29;
        }
        body.charged = body.charges[0].amount.checked_add(body.charges[1].amount).expect("fits");
        (body.absorbed, body.provider) = (Amount::ZERO, Amount::ZERO);
        body.fees.clear();
        Receipt { digest: String::new(), journal: Journal::default(), anchors: Vec::new(), body }
    };
    let checked = |mut receipt: Receipt| {
        receipt.digest = hex::encode(receipt.body.digest());
        check(&receipt, &Expected::default()).map(|checked| checked.charged.to_string())
    };
    assert_eq!(checked(brought_up(Basis::Allocated, "0.0597")), Ok("0.1194".to_owned()));
    assert_eq!(checked(brought_up(Basis::Used, "0.05274")), Ok("0.10548".to_owned()), "nothing was used in what is added");
    type Change = fn(&mut Receipt);
    let cases: [(&str, Change, &str, u64, u64); 5] = [
        ("a second more", |r| (r.body.charges[0].seconds, metered_of(r).added_seconds) = (91, 30), "p0", 29, 30),
        ("more than was billed", |r| metered_of(r).added_seconds = 91, "p0", 29, 91),
        ("a provider's fault", |r| metered_of(r).ended.by_provider = true, "p0", 0, 29),
        ("a worker that never ran", |r| r.body.charges[1].evidence = Evidence::None, "p0", 0, 29),
        ("a second time", |r| r.body.charges[1].attempt = 1, "p1", 0, 29),
    ];
    for (name, change, pod, due, added) in cases {
        let mut receipt = brought_up(Basis::Allocated, "0.0597");
        change(&mut receipt);
        let words = format!("pod/{pod}/0/0 is short of its card's minimum by {due} s, and {added} s were added");
        assert_eq!(checked(receipt), Err(words), "{name}");
    }
}

#[test]
fn nothing_is_billed_for_longer_than_its_evidence_says_that_it_ran() {
    type Change = fn(&mut Receipt);
    let cases: [(&str, Change, u64, u64); 4] = [
        ("a second more", |r| r.body.charges[0].seconds = 62, 62, 61),
        ("its times are closer to each other", |r| metered_of(r).from += 1, 61, 60),
        ("they are none", |r| metered_of(r).until = 0, 61, 0),
        ("there are no such times", |r| (metered_of(r).from, metered_of(r).until) = (i64::MAX, i64::MIN), 61, 0),
    ];
    for (name, change, billed, ran) in cases {
        let words = format!("pod/p0/0/0 is billed for {billed} s, and by its own evidence it ran {ran} s");
        assert_eq!(forged(change), Err(words), "{name}");
    }
    // Of a worker that waited for others a part is billed, and no more than that can be asked for.
    let error = forged(|r| metered_of(r).from -= 100).expect_err("the journal knows");
    assert_eq!(error, "entry 5 of the journal does not say what the receipt says of its charge");
}

#[test]
fn what_stands_beside_the_body_is_held_to_it() {
    type Change = fn(&mut Receipt);
    let cases: [(Change, &str); 8] = [
        (|r| r.journal.stretches[0].links[1].payload_hash = Some("00".repeat(32)), "entry 6 of the journal is not what its hash says"),
        (|r| drop(r.journal.stretches[0].links.remove(1)), "entry 7 of the journal is not what its hash says"),
        (|r| r.journal.stretches[0].previous = "00".repeat(32), "entry 5 of the journal is not what its hash says"),
        (|r| r.journal.name = "others".into(), "entry 5 of the journal is not what its hash says"),
        (|r| r.journal.stretches[0].links[3].signature = None, "entry 8 of the journal has a false signature"),
        (|r| r.anchors[0].proofs[0].salt = "00".repeat(31) + "01", "the proof of pod/p0/0/0 leads to another root than ROOT"),
        (|r| drop(r.anchors[0].proofs[1].path.pop()), "the proof of pod/p1/0/0 leads to another root than ROOT"),
        (|r| r.anchors[0].proofs[1].segment = "pod/p9/0/0".into(), "the proof of pod/p9/0/0 leads to another root than ROOT"),
    ];
    let named = receipt(Basis::Allocated).anchors[0].root.clone();
    for (change, expected) in cases {
        assert_eq!(forged(change).expect_err(expected).replace(&named, "ROOT"), expected);
    }
}

#[test]
fn what_is_expected_of_a_receipt_and_missing_is_told() {
    let mut bare = receipt(Basis::Allocated);
    let (anchors, journal) = (std::mem::take(&mut bare.anchors), std::mem::take(&mut bare.journal));
    assert_eq!(check(&bare, &Expected::default()).map(|checked| (checked.anchored, checked.signed)), Ok((0, 0)));
    let root = Some([3; 32]);
    let error = check(&bare, &Expected { root, ..Expected::default() }).expect_err("there is no proof");
    assert_eq!(error, format!("0 of 2 charges stand under a root, and none under {}", "03".repeat(32)));
    let error = check(&bare, &Expected { signer: Some(SIGNER), ..Expected::default() }).expect_err("nobody signed");
    assert_eq!(error, "0 of 2 charges are signed, by nobody");
    // What is shown twice counts once.
    let mut half = Receipt { anchors, journal, ..bare };
    let stretch = &mut half.journal.stretches[0];
    stretch.previous = stretch.links[1].hash.clone();
    stretch.links.drain(..2);
    half.journal.stretches.push(half.journal.stretches[0].clone());
    let error = check(&half, &Expected { signer: Some(SIGNER), ..Expected::default() }).expect_err("one is not shown");
    assert_eq!(error, format!("1 of 2 charges are signed, by {}", hex::encode(SIGNER)));
    let error = check(&half, &Expected { digest: Some([1; 32]), ..Expected::default() }).expect_err("it is another");
    assert!(error.starts_with("this is another receipt than is asked for"), "{error}");
}

#[test]
fn the_journal_tells_apart_what_was_metered_in_few_letters() {
    assert_eq!(tag(&[0; 32]), "AAAAAAAAAAAAAAAAAAAAAAAAAAA");
    assert_eq!(tag(&[255; 32]), "__________________________8");
    assert_eq!(base64(b"Man"), "TWFu");
    assert_eq!(base64(b"light w"), "bGlnaHQgdw");
}
