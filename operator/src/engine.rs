//! The loop: news goes into the world, the planner looks at it, effects go out. One task owns the world, so nothing in
//! it is locked.

use crate::effect::{self, Done, Executor, Hands};
use crate::plan::{self, Terms};
use crate::runtime::steady::{Looked, steady_second};
use crate::runtime::telemetry::Metrics;
use crate::watch::{KINDS, News, now};
use crate::world::World;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use supercargo_ledger::{Fence, LedgerError};
use supercargo_market::work::FundingId;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// What the loop is joined to.
pub struct Joints {
    pub news: mpsc::Receiver<News>,
    pub leads: watch::Receiver<bool>,
    pub fence: watch::Sender<Option<Fence>>,
    pub accounts: watch::Sender<Vec<FundingId>>,
    pub hands: Hands,
    pub identity: String,
    pub terms: Terms,
    pub metrics: Metrics,
}

/// At least so often the world is looked at, whatever happened.
const LONGEST_REST: Duration = Duration::from_secs(10);
/// So often what runs is counted for the metrics.
const COUNT_PAUSE: Duration = Duration::from_secs(5);

pub async fn run(mut joints: Joints, stop: CancellationToken) {
    let mut world = World::default();
    let mut listed: BTreeSet<&'static str> = BTreeSet::new();
    let (sender, mut results) = mpsc::channel::<Done>(256);
    let mut executor = Executor::new(joints.hands.clone(), sender, joints.metrics.clone());
    let mut fence: Option<Fence> = None;
    // Raised, while what the books hold has yet to be read.
    let mut raised: Option<Fence> = None;
    let mut next = Instant::now() + LONGEST_REST;
    let mut counted: Option<Instant> = None;
    let mut looked = Looked::now(now(), steady_second());
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            changed = joints.leads.changed() => if changed.is_err() { return },
            Some(news) = joints.news.recv() => {
                take(&mut world, &mut listed, news);
                // What else is there already belongs to the same pass.
                while let Ok(more) = joints.news.try_recv() {
                    take(&mut world, &mut listed, more);
                }
            }
            Some(done) = results.recv() => {
                finish(&mut world, &mut executor, done, &mut fence, &joints);
                while let Ok(more) = results.try_recv() {
                    finish(&mut world, &mut executor, more, &mut fence, &joints);
                }
            }
            () = tokio::time::sleep_until(next.into()) => {}
        }
        look_at_the_clock(&mut looked, &mut world, &joints.metrics);
        let synced = listed.len() == KINDS.len();
        joints.metrics.synced.set(i64::from(synced));
        publish_accounts(&world, &joints.accounts);
        let leads = *joints.leads.borrow();
        joints.metrics.leads.set(i64::from(leads));
        if !leads || !synced {
            raised = None;
            if !leads && fence.take().is_some() {
                joints.fence.send_replace(None);
                joints.metrics.running.forget();
            }
            next = Instant::now() + LONGEST_REST;
            continue;
        }
        if fence.is_none() {
            match begin(&joints, &mut world, &mut raised).await {
                Ok(taken) => {
                    raised = None;
                    joints.fence.send_replace(Some(taken));
                    fence = Some(taken);
                }
                Err(error) => {
                    tracing::error!(%error, "taking the lead in the books");
                    next = Instant::now() + Duration::from_secs(1);
                    continue;
                }
            }
        }
        let Some(fence) = fence else { continue };
        next = pass(&mut world, &mut executor, fence, &joints);
        if counted.is_none_or(|at| at.elapsed() >= COUNT_PAUSE) {
            counted = Some(Instant::now());
            joints.metrics.running.show(&plan::running::by_tokens(&world, now()));
        }
    }
}

fn look_at_the_clock(looked: &mut Looked, world: &mut World, metrics: &Metrics) {
    let second = now();
    if let Some(by_seconds) = looked.again(second, steady_second()) {
        tracing::error!(
            by_seconds,
            "the machine's clock was set: no run ends earlier for it, and what else ends at a time ends by the new one"
        );
        metrics.clock_sets.inc();
        world.clock_set(second, by_seconds);
    }
}

fn take(world: &mut World, listed: &mut BTreeSet<&'static str>, news: News) {
    match news {
        News::Event(event) => world.apply(event),
        News::Listed(kind) => drop(listed.insert(kind)),
    }
}

/// One look at the world. Says when to look again if nothing happens.
fn pass(world: &mut World, executor: &mut Executor, fence: Fence, joints: &Joints) -> Instant {
    let begun = Instant::now();
    let time = now();
    let planned = plan::plan(world, &joints.terms, time);
    joints.metrics.pass_seconds.observe(begun.elapsed().as_secs_f64());
    joints.metrics.tasks.set(i64::try_from(world.tasks.len()).unwrap_or(i64::MAX));
    executor.start(planned.effects, fence);
    let by_plan = planned.wake.and_then(|at| begun.checked_add(Duration::from_secs((at - time).max(0).unsigned_abs())));
    let earliest = [by_plan, executor.next_try(), Some(begun + LONGEST_REST)].into_iter().flatten().min();
    earliest.unwrap_or(begun + LONGEST_REST).max(begun + Duration::from_millis(10))
}

fn finish(world: &mut World, executor: &mut Executor, done: Done, fence: &mut Option<Fence>, joints: &Joints) {
    if let Err(effect::EffectError::Ledger(LedgerError::Fenced { .. })) = &done.result {
        // Somebody else leads: whatever this process believes, it writes nothing until it has the lead again.
        *fence = None;
        joints.fence.send_replace(None);
    }
    for event in executor.finish(done) {
        world.apply(event);
    }
}

/// Begins to lead: raises the fence, once, and reads what the books hold of every task that is not finished.
async fn begin(joints: &Joints, world: &mut World, raised: &mut Option<Fence>) -> Result<Fence, LedgerError> {
    let fence = match *raised {
        Some(fence) => fence,
        None => *raised.insert(joints.hands.ledger.take_lead(&joints.identity).await?),
    };
    world.begin_anew(now());
    let with_pods: BTreeSet<_> = world.pods.values().filter_map(|pod| pod.ours.as_ref().map(|ours| ours.work.clone())).collect();
    let mut works: Vec<_> = world.tasks.values().map(|task| task.work()).chain(with_pods.iter().cloned()).collect();
    works.sort_unstable();
    works.dedup();
    for event in effect::load(&joints.hands.ledger, &works, &with_pods).await? {
        world.apply(event);
    }
    tracing::info!(fence = fence.number(), tasks = world.tasks.len(), "leads");
    Ok(fence)
}

/// Which accounts settlement follows.
/// An account is followed for as long as something is held back in it, whoever deletes its Escrow.
fn publish_accounts(world: &World, accounts: &watch::Sender<Vec<FundingId>>) {
    let held = world.fundings.iter().filter(|(_, (balance, _))| !balance.reserved.is_zero()).map(|(funding, _)| funding.clone());
    let named = world.escrows.values().filter_map(|escrow| escrow.funding.clone()).chain(held);
    let mut named: Vec<FundingId> = named.filter(|funding| funding.account().is_some()).collect();
    named.sort();
    named.dedup();
    accounts.send_if_modified(|known| {
        let changed = *known != named;
        if changed {
            *known = named;
        }
        changed
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::Event;
    use supercargo_ledger::FundingBalance;
    use supercargo_market::money::Amount;

    #[test]
    fn an_account_whose_escrow_is_gone_is_followed_while_something_is_held_back_in_it() {
        let mut world = World::default();
        let mut says = |name: &str, reserved: u64| {
            let balance = FundingBalance {
                asset: "internal/USDC/6".parse().expect("an asset"),
                reserved: Amount::from_units(reserved),
                ..FundingBalance::default()
            };
            world.apply(Event::Funding { funding: FundingId::chain("c", name), balance, last_post: None });
        };
        says("busy", 1);
        says("idle", 0);
        world.apply(Event::Funding { funding: FundingId::internal("e"), balance: FundingBalance::default(), last_post: None });
        let (told, heard) = watch::channel(Vec::new());
        publish_accounts(&world, &told);
        assert_eq!(*heard.borrow(), [FundingId::chain("c", "busy")]);
    }
}
