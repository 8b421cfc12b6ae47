//! Everything that is asked for, once each: ten thousand tasks ask for some hundred different things. A shape is one
//! request, with who asks; shapes that want the same of an offer's terms share a wish, and with it one ranking of the
//! classes. What was found out for a shape is found out for everyone who asks the same.

use super::Request;
use super::catalog::Catalog;
use super::neighbours::{Tenancy, Who};
use super::ranking::Ranking;
use super::slot::{Asker, Only, bits};
use super::survey::Tally;
use super::wish::Wish;
use super::words::label;
use foldhash::HashMap;
use std::sync::Arc;

/// Shapes that nobody asks for any more are kept for the next who does, up to so many.
const IDLE: usize = 512;

#[derive(Debug)]
pub(super) struct Shape {
    pub(super) request: Arc<Request>,
    users: u32,
    pub(super) wish: u32,
    pub(super) asker: Asker,
    /// Why offers refuse it, as of a moment of the journal.
    pub(super) tally: Option<Tally>,
}

#[derive(Debug)]
pub(super) struct Wished {
    pub(super) wish: Wish,
    key: Arc<Request>,
    shapes: u32,
    pub(super) ranking: Ranking,
}

#[derive(Debug, Default)]
pub(super) struct Shapes {
    by_request: HashMap<Arc<Request>, u32>,
    shapes: Vec<Option<Shape>>,
    vacant_shapes: Vec<u32>,
    idle: usize,
    by_wish: HashMap<Arc<Request>, u32>,
    wishes: Vec<Option<Wished>>,
    vacant_wishes: Vec<u32>,
}

fn place<T>(all: &mut Vec<Option<T>>, vacant: &mut Vec<u32>, new: T) -> u32 {
    let number = vacant.pop().unwrap_or_else(|| u32::try_from(all.len()).unwrap_or(u32::MAX));
    match all.get_mut(number as usize) {
        Some(place) => *place = Some(new),
        None => all.push(Some(new)),
    }
    number
}

impl Shapes {
    pub(super) fn shape(&self, shape: u32) -> &Shape {
        self.shapes[shape as usize].as_ref().expect("a shape that is used is kept")
    }

    pub(super) fn shape_mut(&mut self, shape: u32) -> &mut Shape {
        self.shapes[shape as usize].as_mut().expect("a shape that is used is kept")
    }

    pub(super) fn wished(&self, wish: u32) -> &Wished {
        self.wishes[wish as usize].as_ref().expect("a wish is kept while a shape has it")
    }

    pub(super) fn wished_mut(&mut self, wish: u32) -> &mut Wished {
        self.wishes[wish as usize].as_mut().expect("a wish is kept while a shape has it")
    }

    pub(super) fn rankings(&self) -> impl Iterator<Item = &Ranking> {
        self.wishes.iter().flatten().map(|wished| &wished.ranking)
    }

    pub(super) fn forget_rankings(&mut self) {
        self.wishes.iter_mut().flatten().for_each(|wished| wished.ranking = Ranking::default());
    }
}

impl Catalog {
    /// The shape of a request, used once more.
    pub(super) fn enter(&mut self, request: &Arc<Request>) -> u32 {
        if let Some(&known) = self.shapes.by_request.get(request) {
            let shape = self.shapes.shape_mut(known);
            shape.users += 1;
            self.shapes.idle -= usize::from(shape.users == 1);
            return known;
        }
        let shape = Shape { request: request.clone(), users: 1, wish: self.wish_of(request), asker: self.asker(request), tally: None };
        let shapes = &mut self.shapes;
        let number = place(&mut shapes.shapes, &mut shapes.vacant_shapes, shape);
        shapes.by_request.insert(request.clone(), number);
        number
    }

    /// Used once less. Whether numbers of shapes were let go: others will have them.
    pub(super) fn leave(&mut self, number: u32) -> bool {
        let shape = self.shapes.shape_mut(number);
        shape.users -= 1;
        if shape.users > 0 {
            return false;
        }
        self.shapes.idle += 1;
        let too_many = self.shapes.idle > IDLE;
        if too_many {
            let all = 0..u32::try_from(self.shapes.shapes.len()).unwrap_or(u32::MAX);
            all.for_each(|number| self.end_if_idle(number));
            self.shapes.idle = 0;
        }
        too_many
    }

    fn end_if_idle(&mut self, number: u32) {
        let shapes = &mut self.shapes;
        let Some(shape) = shapes.shapes[number as usize].take_if(|shape| shape.users == 0) else { return };
        shapes.by_request.remove(&shape.request);
        shapes.vacant_shapes.push(number);
        shape.asker.selector.iter().for_each(|label| self.labels.release(*label));
        shape.asker.excluded.iter().chain(shape.asker.only.iter().flat_map(|only| &only.nodes)).for_each(|node| self.nodes.release(*node));
        let wished = shapes.wished_mut(shape.wish);
        wished.shapes -= 1;
        if wished.shapes == 0 {
            let key = wished.key.clone();
            shapes.by_wish.remove(&key);
            shapes.wishes[shape.wish as usize] = None;
            shapes.vacant_wishes.push(shape.wish);
        }
    }

    fn wish_of(&mut self, request: &Request) -> u32 {
        let key = Wish::key(request);
        let shapes = &mut self.shapes;
        if let Some(&known) = shapes.by_wish.get(&key) {
            shapes.wished_mut(known).shapes += 1;
            return known;
        }
        let key = Arc::new(key);
        let wished = Wished { wish: Wish::new(key.clone()), key: key.clone(), shapes: 1, ranking: Ranking::default() };
        let number = place(&mut shapes.wishes, &mut shapes.vacant_wishes, wished);
        shapes.by_wish.insert(key, number);
        number
    }

    fn asker(&mut self, request: &Request) -> Asker {
        let mut sorted = |names: &Vec<String>| {
            let mut numbers: Vec<u32> = names.iter().map(|name| self.nodes.keep(name)).collect();
            numbers.sort_unstable();
            numbers
        };
        let (excluded, only) = (sorted(&request.excluded_nodes), request.only_nodes.as_ref().map(sorted).map(Only::new));
        let selector: Vec<u32> = request.node_selector.iter().map(|(key, value)| self.labels.keep(&label(key, value))).collect();
        Asker {
            who: Who {
                funding: self.fundings.number(request.funding.as_str()),
                namespace: self.namespaces.number(&request.namespace),
                tenancy: Tenancy::named(&request.tenancy),
            },
            has_devices: request.devices > 0,
            selector_bits: bits(&selector),
            selector,
            excluded,
            only,
        }
    }
}
