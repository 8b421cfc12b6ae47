//! Why an offer is refused, counted over all of them: whole classes and shelves at a time where that can be.

use super::catalog::{Catalog, Shelf};
use super::filter::{self, Reason};
use super::slot::{Asked, Need, Neighbour};
use super::{Offer, Refused, Request, Tenant, refuse};
use crate::work::FundingId;
use std::collections::BTreeMap;
use std::sync::Arc;

impl Catalog {
    /// What speaks against every offer, counted.
    pub(super) fn refusals(&mut self, request: &Arc<Request>) -> BTreeMap<Reason, Refused> {
        let asked = Asked::new(request, &mut self.words);
        let mut refused = BTreeMap::new();
        let bulk = asked.selector.is_empty() && request.only_nodes.is_none() && request.excluded_nodes.is_empty();
        for class in &self.classes {
            let sold = filter::sold(&class.terms, request);
            let agreed = filter::agreed(&class.terms, request);
            for (shelf, nodes) in &class.shelves {
                let count = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
                let Some(first) = nodes.values().next() else { continue };
                let whole = match (&sold, shelf, &agreed) {
                    (Err((reason, _)), ..) => Some(*reason),
                    (_, Shelf::Closed(closed), _) => Some(filter::closed(*closed).0),
                    (.., Err((reason, _))) => Some(*reason),
                    (_, Shelf::Free(free), Ok((held, _))) => (bulk && *free < held.devices).then_some(Reason::DevicesInUse),
                };
                if let Some(reason) = whole {
                    self.add(&mut refused, reason, count, *first, request);
                    continue;
                }
                let Ok((held, _)) = &agreed else { continue };
                let need = Need::of(held, request);
                // Counted first and put into words once: a shelf may be long.
                let mut counts: BTreeMap<Reason, (u32, u32)> = BTreeMap::new();
                for &slot in nodes.values() {
                    if let Some(reason) = self.slots[slot as usize].refuses(request, &asked, need, class.terms.replicas_per_device) {
                        counts.entry(reason).or_insert((0, slot)).0 += 1;
                    }
                }
                for (reason, (count, first)) in counts {
                    self.add(&mut refused, reason, count, first, request);
                }
            }
        }
        refused
    }

    /// Adds to a reason; the words are made only for an example that will be shown.
    fn add(&self, refused: &mut BTreeMap<Reason, Refused>, reason: Reason, count: u32, example: u32, request: &Request) {
        let node = &*self.slots[example as usize].node;
        match refused.get_mut(&reason) {
            Some(known) if known.example.split(": ").next().is_some_and(|known| known < node) => known.nodes += count,
            _ => {
                let words = filter::check(&self.offer_at(example, request), request).err();
                debug_assert_eq!(words.as_ref().map(|(known, _)| *known), Some(reason), "both filters say the same");
                refuse(refused, reason, count, words.map(|(_, words)| words).unwrap_or_default());
            }
        }
    }

    /// An offer as it stands; of its labels those that the request asks for.
    fn offer_at(&self, index: u32, request: &Request) -> Offer {
        let slot = &self.slots[index as usize];
        let labels = request.node_selector.iter().filter(|(key, value)| self.words.has(&slot.labels, key, value));
        let tenant = |neighbour: &Neighbour| Tenant {
            funding: FundingId::from_stored(self.words.text(neighbour.funding)),
            namespace: self.words.text(neighbour.namespace).to_owned(),
            tenancy: neighbour.tenancy.name().to_owned(),
        };
        Offer {
            node: slot.node.to_string(),
            closed: slot.closed,
            free_devices: slot.room.devices,
            free_cpu_millis: slot.room.cpu_millis,
            free_memory_bytes: slot.room.memory_bytes,
            free_storage_bytes: slot.room.storage_bytes,
            free_pods: slot.room.pods,
            labels: labels.map(|(key, value)| (key.clone(), value.clone())).collect(),
            tenants: slot.neighbours.iter().map(tenant).collect(),
            ..self.classes[slot.class as usize].terms.clone()
        }
    }
}
