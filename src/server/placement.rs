//! Which CPU each worker has. Control and what it starts stay off those, if there is any other.
//!
//! Workers avoid each other's cores, then the core that is left to control, then nodes that are not the card's. The
//! first CPU is never theirs, unless WORKER_CPUS says so: it is where the kernel likes to put everything else.

use std::cmp::Reverse;
use std::fmt;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, Result};

use super::topology::Topology;
use crate::config::{Advertised, Config};
use crate::net::interfaces;
use crate::net::thread as net_thread;

/// Where workers and control are to run.
pub(super) struct Placement {
    workers: Vec<Option<usize>>,
    control: Vec<usize>,
    /// What is said of the network card, where that makes a difference.
    card: Option<String>,
}

impl Placement {
    /// As WORKER_CPUS says, or as this machine is made.
    ///
    /// # Errors
    /// When the kernel does not say which CPUs there are.
    pub(super) fn new(config: &Config, count: usize) -> Result<Placement> {
        let allowed = net_thread::allowed_cpus().context("cannot read the CPU affinity")?;
        let advertised = config.ice_advertise_ip.iter().map(Advertised::ip);
        let own: Vec<IpAddr> = advertised.chain(config.ice_bind_ip.iter().copied()).collect();
        let interfaces = interfaces::of_media(&own).unwrap_or_default();
        let topology = Topology::read(Path::new("/sys"), &allowed, &interfaces);
        Ok(Placement::on(&topology, allowed, config.worker_cpus.as_slice(), count))
    }

    /// `wanted`: the CPUs that were asked for, empty or enough.
    fn on(topology: &Topology, allowed: Vec<usize>, wanted: &[usize], count: usize) -> Placement {
        let chosen = match wanted.get(..count) {
            Some(wanted) if count > 0 => wanted.to_vec(),
            _ => choose(topology, &allowed, count),
        };
        if chosen.is_empty() {
            return Placement { workers: vec![None; count], control: allowed, card: None };
        }
        let card = topology.card().and_then(|card| {
            let far: Vec<usize> = chosen.iter().copied().filter(|cpu| !topology.is_near(*cpu)).collect();
            let has_far = allowed.iter().any(|cpu| !topology.is_near(*cpu));
            match (has_far, far.is_empty()) {
                (false, _) => None,
                (true, true) => Some(format!(", on the node of {card}")),
                (true, false) => Some(format!(", CPU {} off the node of {card}", join(far))),
            }
        });
        let rest: Vec<usize> = allowed.iter().copied().filter(|cpu| !chosen.contains(cpu)).collect();
        let control = if rest.is_empty() { allowed } else { rest };
        Placement { workers: chosen.into_iter().map(Some).collect(), control, card }
    }

    /// A worker's CPU, if it has one of its own.
    pub(super) fn cpu(&self, worker: usize) -> Option<usize> {
        self.workers[worker]
    }

    /// Keeps this process's threads, all of which are control's as long as no worker has started, and those that they
    /// start, off the workers' CPUs.
    pub(super) fn keep_control_off(&self) {
        // Where they may not move they stay where they were.
        let _ = net_thread::pin_all_to(&self.control);
    }
}

/// CPUs for `count` workers, the best first; none where there are too few for all and control.
fn choose(topology: &Topology, allowed: &[usize], count: usize) -> Vec<usize> {
    let Some((&control, mut free)) = allowed.split_first().map(|(first, rest)| (first, rest.to_vec())) else {
        return Vec::new();
    };
    if free.len() < count {
        return Vec::new();
    }
    let mut chosen: Vec<usize> = Vec::new();
    for _ in 0..count {
        let rank = |cpu: &usize| {
            let beside = chosen.iter().filter(|other| topology.share_a_core(*cpu, **other)).count();
            (beside, topology.share_a_core(*cpu, control), !topology.is_near(*cpu), Reverse(*cpu))
        };
        let Some(best) = free.iter().copied().min_by_key(rank) else { break };
        free.retain(|cpu| *cpu != best);
        chosen.push(best);
    }
    chosen.sort_by_key(|cpu| (!topology.is_near(*cpu), *cpu));
    chosen
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.workers.len())?;
        let pinned: Vec<usize> = self.workers.iter().flatten().copied().collect();
        if pinned.is_empty() {
            return write!(f, ", not pinned");
        }
        write!(f, ", pinned to CPU {}{}", join(pinned), self.card.as_deref().unwrap_or_default())
    }
}

fn join(cpus: Vec<usize>) -> String {
    cpus.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::topology::tests::topology;
    use super::*;

    /// Two nodes of four cores with two threads each, numbered as Linux does.
    const TWO_NODES: &[&str] = &["0,8", "1,9", "2,10", "3,11", "4,12", "5,13", "6,14", "7,15"];
    const NODE_0: &str = "0-3,8-11";
    const NODE_1: &str = "4-7,12-15";

    fn all(count: usize) -> Vec<usize> {
        (0..count).collect()
    }

    #[test]
    fn without_threads_and_nodes_it_goes_from_the_end() {
        let plain = topology(&[], None);
        assert_eq!(choose(&plain, &all(8), 3), [5, 6, 7]);
        assert_eq!(choose(&plain, &all(8), 7), [1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(choose(&plain, &[3, 5, 6], 1), [6]);
        // One for control has to be left.
        for (allowed, count) in [(all(8), 8), (all(1), 1), (vec![], 1)] {
            assert_eq!(choose(&plain, &allowed, count), [0_usize; 0], "{allowed:?}");
        }
    }

    #[test]
    fn threads_of_one_core_are_the_last_resort() {
        let cores = topology(&["0,4", "1,5", "2,6", "3,7"], None);
        assert_eq!(choose(&cores, &all(8), 3), [5, 6, 7]);
        // Rather beside control than beside a worker.
        assert_eq!(choose(&cores, &all(8), 4), [4, 5, 6, 7]);
        assert_eq!(choose(&cores, &all(8), 5), [3, 4, 5, 6, 7]);
        // Neighbours, as other machines number them.
        let pairs = topology(&["0-1", "2-3", "4-5", "6-7"], None);
        assert_eq!(choose(&pairs, &all(8), 3), [3, 5, 7]);
        assert_eq!(choose(&pairs, &all(8), 4), [1, 3, 5, 7]);
        assert_eq!(choose(&pairs, &all(8), 7), [1, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn the_cards_node_is_filled_first() {
        let far = topology(TWO_NODES, Some(NODE_1));
        assert_eq!(choose(&far, &all(16), 2), [14, 15]);
        assert_eq!(choose(&far, &all(16), 4), [12, 13, 14, 15]);
        // Another node's whole core is better than half of one here.
        assert_eq!(choose(&far, &all(16), 5), [12, 13, 14, 15, 11]);
        assert_eq!(choose(&far, &all(16), 8), [12, 13, 14, 15, 8, 9, 10, 11]);
        assert_eq!(choose(&far, &all(16), 9), [7, 12, 13, 14, 15, 8, 9, 10, 11]);
        let near = topology(TWO_NODES, Some(NODE_0));
        assert_eq!(choose(&near, &all(16), 3), [9, 10, 11]);
        assert_eq!(choose(&near, &all(16), 4), [9, 10, 11, 15]);
        let unknown = topology(TWO_NODES, None);
        assert_eq!(choose(&unknown, &all(16), 4), [12, 13, 14, 15]);
    }

    #[test]
    fn only_what_the_mask_allows_is_chosen() {
        let near = topology(TWO_NODES, Some(NODE_0));
        assert_eq!(choose(&near, &[1, 2, 9, 10], 2), [9, 10]);
        assert_eq!(choose(&near, &[1, 2, 9, 10], 3), [2, 9, 10]);
        // None of them is near.
        assert_eq!(choose(&near, &[4, 5, 6, 7], 2), [6, 7]);
        assert_eq!(choose(&near, &[4, 5, 6, 7], 4), [0_usize; 0]);
        for count in 1..16 {
            let chosen = choose(&near, &all(16), count);
            let distinct: std::collections::BTreeSet<_> = chosen.iter().collect();
            assert!(distinct.len() == count && !chosen.contains(&0), "{chosen:?}");
        }
    }

    #[test]
    fn what_was_asked_for_is_taken_as_it_is() {
        let near = topology(TWO_NODES, Some(NODE_0));
        let placed = Placement::on(&near, all(16), &[0, 8, 4], 2);
        assert_eq!((placed.cpu(0), placed.cpu(1)), (Some(0), Some(8)));
        assert_eq!(placed.control, [1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15]);
        assert_eq!(placed.to_string(), "2, pinned to CPU 0, 8, on the node of eth0");
        let placed = Placement::on(&near, vec![2, 3], &[2, 3], 2);
        assert_eq!(placed.control, [2, 3], "control is somewhere");
    }

    #[test]
    fn the_banner_says_where() {
        let near = topology(TWO_NODES, Some(NODE_0));
        let said = |allowed, count| Placement::on(&near, allowed, &[], count).to_string();
        assert_eq!(said(all(16), 3), "3, pinned to CPU 9, 10, 11, on the node of eth0");
        assert_eq!(said(all(16), 5), "5, pinned to CPU 9, 10, 11, 14, 15, CPU 14, 15 off the node of eth0");
        assert_eq!(said(vec![0, 1, 2], 2), "2, pinned to CPU 1, 2");
        assert_eq!(said(all(2), 2), "2, not pinned");
    }
}
