//! Who leads: client-go's protocol on a Lease. A leader has lost it when its lease was *seen* not to change for the
//! whole duration, by this process's own steady clock: clocks of other machines decide nothing.

use super::config;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Keeps trying for the lead until told to stop; then gives it back. The channel says whether this process leads.
pub async fn run(client: Client, settings: config::Lease, identity: String, leads: watch::Sender<bool>, stop: CancellationToken) {
    let api: Api<Lease> = Api::namespaced(client, &settings.namespace);
    let mut candidate = Candidate { api, settings, identity, seen: None, renewed: None };
    let mut pause = tokio::time::interval(Duration::from_secs(candidate.settings.renew_seconds));
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = pause.tick() => {}
        }
        let limit = Duration::from_secs(candidate.settings.renew_seconds);
        let held = match tokio::time::timeout(limit, candidate.attempt()).await {
            Ok(Ok(held)) => held,
            Ok(Err(error)) => {
                tracing::warn!(%error, "renewing the lease");
                candidate.still_ours()
            }
            Err(_) => candidate.still_ours(),
        };
        if leads.send_if_modified(|value| std::mem::replace(value, held) != held) {
            tracing::info!(leads = held, identity = candidate.identity, "the lead changed");
        }
    }
    let led = *leads.borrow();
    leads.send_replace(false);
    if led && let Err(error) = candidate.release().await {
        tracing::warn!(%error, "giving the lease back");
    }
}

struct Candidate {
    api: Api<Lease>,
    settings: config::Lease,
    identity: String,
    /// The lease's version when it last changed, and when we saw that.
    seen: Option<(String, Instant)>,
    renewed: Option<Instant>,
}

impl Candidate {
    /// Ours until so long before others may take it that a slow write can't overlap.
    fn still_ours(&self) -> bool {
        let margin = Duration::from_secs(self.settings.duration_seconds.saturating_sub(self.settings.renew_seconds));
        self.renewed.is_some_and(|renewed| renewed.elapsed() < margin)
    }

    async fn attempt(&mut self) -> Result<bool, kube::Error> {
        let begun = Instant::now();
        let Some(mut lease) = self.api.get_opt(&self.settings.name).await? else {
            let metadata = ObjectMeta { name: Some(self.settings.name.clone()), ..ObjectMeta::default() };
            let made = self.api.create(&PostParams::default(), &Lease { metadata, spec: Some(self.spec(None)) }).await;
            return self.settled(made.map(|_| ()), begun);
        };
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        if self.seen.as_ref().is_none_or(|(known, _)| *known != version) {
            self.seen = Some((version, Instant::now()));
        }
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone()).unwrap_or_default();
        let quiet = self.seen.as_ref().is_some_and(|(_, at)| at.elapsed() >= Duration::from_secs(self.settings.duration_seconds));
        if !holder.is_empty() && holder != self.identity && !quiet {
            self.renewed = None;
            return Ok(false);
        }
        lease.spec = Some(self.spec(lease.spec.take()));
        let written = self.api.replace(&self.settings.name, &PostParams::default(), &lease).await;
        self.settled(written.map(|_| ()), begun)
    }

    /// A conflict says that somebody else was faster: that is an answer, not an error.
    fn settled(&mut self, written: Result<(), kube::Error>, begun: Instant) -> Result<bool, kube::Error> {
        match written {
            Ok(()) => {
                self.renewed = Some(begun);
                Ok(true)
            }
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(self.still_ours()),
            Err(error) => Err(error),
        }
    }

    fn spec(&self, before: Option<LeaseSpec>) -> LeaseSpec {
        let before = before.unwrap_or_default();
        let kept = before.holder_identity.as_deref() == Some(self.identity.as_str());
        let now = MicroTime(Timestamp::now());
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(self.settings.duration_seconds).ok(),
            acquire_time: if kept { before.acquire_time } else { Some(now.clone()) },
            renew_time: Some(now),
            lease_transitions: Some(before.lease_transitions.unwrap_or_default() + i32::from(!kept)),
            ..LeaseSpec::default()
        }
    }

    async fn release(&self) -> Result<(), kube::Error> {
        let mut lease = self.api.get(&self.settings.name).await?;
        let ours = lease.spec.as_ref().is_some_and(|spec| spec.holder_identity.as_deref() == Some(self.identity.as_str()));
        if let (true, Some(spec)) = (ours, lease.spec.as_mut()) {
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
            self.api.replace(&self.settings.name, &PostParams::default(), &lease).await?;
        }
        Ok(())
    }
}
