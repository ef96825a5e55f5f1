//! What happens in an epoch, all of it determined by the seed: which actors there are, which talk to which, and which
//! faults befall whom and when.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::random::Random;

/// A whole epoch.
#[derive(Debug, PartialEq)]
pub(crate) struct Plan {
    pub(crate) duration: Duration,
    pub(crate) channels: Vec<ChannelPlan>,
    pub(crate) actors: Vec<ActorPlan>,
    pub(crate) faults: Vec<Fault>,
    /// When which supervisor is stopped, and for how long.
    pub(crate) supervisor_stops: Vec<(Duration, usize, Duration)>,
}

/// What becomes of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The supervisor keeps copies of both ends until the drain, for those that it starts again.
    Kept,
    /// Only the actors that use it have it: it dies with them.
    Mortal,
    /// A listener, to which each sender connects anew.
    Listener,
}

#[derive(Debug, PartialEq)]
pub(crate) struct ChannelPlan {
    pub(crate) cluster: usize,
    pub(crate) kind: Kind,
    /// The size of its buffer, if not the default.
    pub(crate) buffer: Option<usize>,
    /// Whether its ends spin.
    pub(crate) spins: bool,
    /// Whether messages have descriptors that no field claims.
    pub(crate) beside: bool,
}

/// The longest packet of a channel with the default buffer.
pub(crate) const DEFAULT_PACKET: usize = 212_992 - 32;

impl ChannelPlan {
    /// The longest packet.
    pub(crate) fn packet(&self) -> usize {
        // KERNEL: the buffer is doubled, and has 4,608 bytes at least.
        let packet = |bytes: usize| (2 * bytes).max(4608) - 32;
        self.buffer.map_or(DEFAULT_PACKET, packet)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Role {
    Producer,
    Relay,
    Consumer,
    /// Connects to an address.
    Client,
    /// Listens at an address.
    Host,
}

/// How a process is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// `wormhole::spawn`.
    Spawn,
    /// `wormhole::spawn`, and the handle is dropped at once.
    Abandon,
    /// `wormhole::spawn_command`.
    Command,
    /// A process that outlives the epochs gets its assignment in a message.
    Worker(usize),
}

#[derive(Debug, PartialEq)]
pub(crate) struct ActorPlan {
    pub(crate) cluster: usize,
    pub(crate) role: Role,
    pub(crate) how: How,
    /// The channels it receives from.
    pub(crate) inputs: Vec<usize>,
    /// The channels it sends to.
    pub(crate) outputs: Vec<usize>,
    /// Whether it is started again when it was killed.
    pub(crate) restarts: bool,
    /// How long it rests after a message.
    pub(crate) pause: Duration,
    /// How many descriptors it may open beyond those it starts with.
    pub(crate) spare_fds: Option<u64>,
    /// Whether it receives through a `ReceiverSet`.
    pub(crate) set: bool,
    /// How often a signal interrupts it.
    pub(crate) tick: Option<Duration>,
}

/// What befalls an actor.
#[derive(Debug, PartialEq)]
pub(crate) struct Fault {
    pub(crate) at: Duration,
    pub(crate) actor: usize,
    /// For how long it is stopped, or else it is killed.
    pub(crate) stop: Option<Duration>,
}

/// How many processes live through all epochs.
pub(crate) const WORKERS: usize = 3;

impl Plan {
    pub(crate) fn new(seed: u64, epoch: u64, duration: Duration) -> Self {
        let mut random = Random::of(&[seed, epoch]);
        let mut plan = Plan {
            duration,
            channels: Vec::new(),
            actors: Vec::new(),
            faults: Vec::new(),
            supervisor_stops: Vec::new(),
        };
        let clusters = random.index(2) + 2;
        for cluster in 0..clusters {
            plan.add_network(cluster, &mut random);
            if random.chance(600) {
                plan.add_hall(cluster, &mut random);
            }
        }
        plan.appoint_workers(&mut random);
        plan.add_faults(clusters, &mut random);
        plan
    }

    /// How many supervisors there are.
    pub(crate) fn clusters(&self) -> usize {
        self.actors.last().map_or(0, |actor| actor.cluster + 1)
    }

    /// Layers of processes, with channels between each layer and the next.
    fn add_network(&mut self, cluster: usize, random: &mut Random) {
        let layers = random.index(3) + 2;
        let beside = random.chance(500);
        let mut above: Vec<usize> = Vec::new();
        for layer in 0..layers {
            let role = match layer {
                0 => Role::Producer,
                _ if layer + 1 == layers => Role::Consumer,
                _ => Role::Relay,
            };
            let layer_actors: Vec<usize> = (0..=random.index(4) + usize::from(layer == 0))
                .map(|_| self.add_actor(cluster, role, random))
                .collect();
            if layer > 0 {
                let count = random.index(3) + 1;
                let between: Vec<usize> = (0..count)
                    .map(|_| self.add_channel(cluster, beside, random))
                    .collect();
                self.connect(&above, &between, random, |actor| &mut actor.outputs);
                self.connect(&layer_actors, &between, random, |actor| &mut actor.inputs);
            }
            above = layer_actors;
        }
    }

    /// Gives each actor one or two of the channels, and each channel at least one actor.
    fn connect(
        &mut self,
        actors: &[usize],
        channels: &[usize],
        random: &mut Random,
        ends: impl Fn(&mut ActorPlan) -> &mut Vec<usize>,
    ) {
        let mut add = |actor: usize, channel: usize| {
            let ends = ends(&mut self.actors[actor]);
            if !ends.contains(&channel) {
                ends.push(channel);
            }
        };
        for &actor in actors {
            for _ in 0..=random.index(2) {
                add(actor, channels[random.index(channels.len())]);
            }
        }
        for &channel in channels {
            add(actors[random.index(actors.len())], channel);
        }
    }

    fn add_hall(&mut self, cluster: usize, random: &mut Random) {
        let channel = self.channels.len();
        self.channels.push(ChannelPlan {
            cluster,
            kind: Kind::Listener,
            buffer: None,
            spins: true,
            beside: false,
        });
        let host = self.add_actor(cluster, Role::Host, random);
        self.actors[host].inputs.push(channel);
        self.actors[host].spare_fds = None; // it would refuse clients forever
        for _ in 0..=random.index(4) {
            let client = self.add_actor(cluster, Role::Client, random);
            self.actors[client].outputs.push(channel);
        }
    }

    fn add_channel(&mut self, cluster: usize, beside: bool, random: &mut Random) -> usize {
        self.channels.push(ChannelPlan {
            cluster,
            kind: match random.below(10) {
                0..=6 => Kind::Kept,
                _ => Kind::Mortal,
            },
            buffer: match random.below(10) {
                0..=4 => None,
                5..=6 => Some(1),
                _ => Some(4000 << random.below(5)),
            },
            spins: random.chance(700),
            beside,
        });
        self.channels.len() - 1
    }

    fn add_actor(&mut self, cluster: usize, role: Role, random: &mut Random) -> usize {
        self.actors.push(ActorPlan {
            cluster,
            role,
            how: match random.below(20) {
                0..=4 => How::Command,
                5 => How::Abandon,
                _ => How::Spawn,
            },
            inputs: Vec::new(),
            outputs: Vec::new(),
            restarts: random.chance(800),
            pause: match random.below(10) {
                0..=6 => Duration::ZERO,
                7..=8 => Duration::from_micros(random.between(20, 1000)),
                _ => Duration::from_micros(random.between(1000, 10_000)),
            },
            spare_fds: random.chance(250).then(|| random.below(12)),
            set: random.chance(300),
            tick: random
                .chance(150)
                .then(|| Duration::from_micros(random.between(700, 5000))),
        });
        self.actors.len() - 1
    }

    /// Gives some assignments to the processes that live on.
    fn appoint_workers(&mut self, random: &mut Random) {
        for worker in 0..WORKERS {
            let actor = random.index(self.actors.len());
            let actor = &mut self.actors[actor];
            // A limit of descriptors would outlive the assignment.
            if !matches!(actor.how, How::Worker(_)) {
                actor.how = How::Worker(worker);
                actor.spare_fds = None;
            }
        }
    }

    fn add_faults(&mut self, clusters: usize, random: &mut Random) {
        // An actor that uses a channel whose ends nobody keeps cannot be given them again.
        for actor in &mut self.actors {
            let mut all = actor.inputs.iter().chain(&actor.outputs);
            actor.restarts &= all.all(|&channel| self.channels[channel].kind != Kind::Mortal);
        }
        let millis = u64::try_from(self.duration.as_millis()).expect("an epoch is short");
        let mut count = random.between(1, 3) * self.actors.len() as u64 / 2;
        if random.chance(250) {
            count *= 5; // hardly anybody lives to see the end
        }
        for _ in 0..count {
            let fault = Fault {
                at: Duration::from_millis(random.below(millis + 300)), // some in the drain
                actor: random.index(self.actors.len()),
                stop: match random.below(10) {
                    0..=4 => None,
                    _ => Some(Duration::from_millis(random.between(1, 600))),
                },
            };
            // The handle of one is gone, and the other is needed again.
            let spared = match self.actors[fault.actor].how {
                How::Abandon => true,
                How::Worker(_) => fault.stop.is_none(),
                How::Spawn | How::Command => false,
            };
            if !spared {
                self.faults.push(fault);
            }
        }
        self.faults.sort_by_key(|fault| fault.at);
        for _ in 0..random.below(3) {
            let at = Duration::from_millis(random.below(millis));
            let cluster = random.index(clusters);
            let length = Duration::from_millis(random.between(1, 300));
            self.supervisor_stops.push((at, cluster, length));
        }
        self.supervisor_stops.sort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_and_the_epoch_determine_the_plan() {
        let plan = |seed, epoch| Plan::new(seed, epoch, Duration::from_secs(2));
        assert_eq!(plan(1, 2), plan(1, 2));
        assert_ne!(plan(1, 2), plan(1, 3));
        assert_ne!(plan(1, 2), plan(2, 2));
    }

    #[test]
    fn every_plan_can_be_carried_out() {
        for epoch in 0..500 {
            let plan = Plan::new(7, epoch, Duration::from_secs(2));
            assert!(plan.channels.len() <= crate::ledger::CHANNELS);
            assert!(plan.actors.len() <= crate::ledger::ACTORS);
            for actor in &plan.actors {
                let (ins, outs) = (!actor.inputs.is_empty(), !actor.outputs.is_empty());
                let expected = match actor.role {
                    Role::Producer | Role::Client => (false, true),
                    Role::Relay => (true, true),
                    Role::Consumer | Role::Host => (true, false),
                };
                assert_eq!((ins, outs), expected, "{actor:?}");
                assert!(actor.inputs.len() < 64);
            }
            for channel in 0..plan.channels.len() {
                let receives = |actor: &ActorPlan| actor.inputs.contains(&channel);
                let sends = |actor: &ActorPlan| actor.outputs.contains(&channel);
                assert!(plan.actors.iter().any(receives) && plan.actors.iter().any(sends));
            }
            let workers = plan.actors.iter().filter_map(|actor| match actor.how {
                How::Worker(number) => Some(number),
                _ => None,
            });
            let mut workers: Vec<usize> = workers.collect();
            let assignments = workers.len();
            workers.sort();
            workers.dedup();
            assert_eq!(workers.len(), assignments);
        }
    }
}
