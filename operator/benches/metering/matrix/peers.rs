//! What others would have measured of the same containers: a poller of the API server every 15 s, and samplers of Prometheus
//! that take a container's lifetime for what lies between its first sample and its last.

use super::cluster::Container;
use super::faults::{Absences, Faults};
use super::play::Play;
use super::trace::{Dice, Nanos, SECOND};

/// One peer's answers: `None` where it never saw the container.
pub struct Peer {
    pub name: &'static str,
    pub measured: Vec<Option<Nanos>>,
}

/// What became of Prometheus in a row.
struct Prometheus {
    seed: u64,
    away: Absences,
    wiped: Option<Nanos>,
    /// The part of its scrapes that fail.
    loses: f64,
    late: bool,
}

impl Prometheus {
    fn new(play: &Play) -> Self {
        let Faults { prometheus, .. } = &play.faults;
        let (seed, span) = (play.trace.seed, play.trace.span);
        let mut dice = Dice::of(&[seed, 5]);
        let mut away = Absences::default();
        if prometheus.away {
            let longest = (span / 2).min(86_400 * SECOND);
            away = Absences::draw(&mut dice, span, 6, 60 * SECOND, longest);
        }
        if prometheus.resets {
            // An exporter that begins again is not there for a scrape or two.
            let restarts = Absences::draw(&mut dice, span, 200, 5 * SECOND, 60 * SECOND);
            away.0.extend(restarts.0);
        }
        let wiped = prometheus.wiped.then(|| super::trace::BEGIN + dice.between(span / 4, span * 3 / 4));
        let loses = if prometheus.loses { 0.01 * 50_f64.powf(dice.fraction()) } else { 0.0 };
        Self { seed, away, wiped, loses, late: prometheus.late }
    }

    /// When a sample counts as taken, if it is there at all. Twice the same sample is one.
    fn keeps(&self, container: usize, at: Nanos) -> Option<Nanos> {
        let mut dice = Dice::of(&[self.seed, 6, container as u64, at.unsigned_abs()]);
        if self.away.covers(at) || self.wiped.is_some_and(|wiped| at < wiped) || dice.chance(self.loses) {
            return None;
        }
        Some(if self.late && dice.chance(0.05) { at + dice.between(0, 60 * SECOND) } else { at })
    }
}

/// The moments within a stretch of time at which somebody looks.
fn looks(from: Nanos, until: Nanos, every: Nanos) -> impl Iterator<Item = Nanos> {
    ((from + every - 1).div_euclid(every)..=until.div_euclid(every)).map(move |turn| turn * every)
}

/// Each poll that sees it running is worth the time until the next.
fn polled(play: &Play, container: &Container) -> Option<Nanos> {
    const EVERY: Nanos = 15 * SECOND;
    let from = container.shown.0?;
    let until = container.shown.1.unwrap_or(play.now);
    let polls = looks(from, until, EVERY).filter(|at| !play.api_away.covers(*at)).count();
    (polls > 0).then(|| polls as Nanos * EVERY)
}

fn sampled(prometheus: &Prometheus, id: usize, container: &Container, every: Nanos) -> Option<Nanos> {
    let samples = looks(container.started?, container.ended?, every).filter_map(|at| prometheus.keeps(id, at));
    let (first, last) =
        samples.fold(None, |range: Option<(Nanos, Nanos)>, at| Some(range.map_or((at, at), |(a, b)| (a.min(at), b.max(at)))))?;
    Some(last - first)
}

/// In the order of the play's containers.
pub fn all(play: &Play) -> Vec<Peer> {
    let prometheus = Prometheus::new(play);
    let sampler = |name, every| Peer {
        name,
        measured: play.containers.iter().enumerate().map(|(id, container)| sampled(&prometheus, id, container, every)).collect(),
    };
    vec![
        Peer { name: "poller, 15 s", measured: play.containers.iter().map(|container| polled(play, container)).collect() },
        sampler("sampler, 60 s", 60 * SECOND),
        sampler("sampler, 300 s", 300 * SECOND),
    ]
}
