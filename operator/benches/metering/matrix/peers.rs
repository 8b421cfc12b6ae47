//! What others would have measured of the same containers: a poller of the API server every 15 s, and samplers of Prometheus
//! that take a container's lifetime for what lies between its first sample and its last.

use super::cluster::Container;
use super::play::Play;
use super::prometheus::{Prometheus, looks};
use super::trace::{Nanos, SECOND};

/// One peer's answers: `None` where it never saw the container.
pub struct Peer {
    pub name: &'static str,
    pub measured: Vec<Option<Nanos>>,
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
    let sampler = |name, every| Peer {
        name,
        measured: play.containers.iter().enumerate().map(|(id, container)| sampled(&play.prometheus, id, container, every)).collect(),
    };
    vec![
        Peer { name: "poller, 15 s", measured: play.containers.iter().map(|container| polled(play, container)).collect() },
        sampler("sampler, 60 s", 60 * SECOND),
        sampler("sampler, 300 s", 300 * SECOND),
    ]
}
