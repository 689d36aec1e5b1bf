//! Where this machine's CPUs are: which of them are threads of one core, and which are on the node of the
//! network card. Read from sysfs; what cannot be read is not known, and nothing depends on it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::config::CpuList;

/// Interfaces below interfaces that are looked into for a card: a VLAN on a bridge on a bond.
const DEPTH_MAX: usize = 3;

/// What is known of the CPUs.
#[derive(Debug, Default)]
pub(super) struct Topology {
    /// Threads of each core that has several.
    cores: BTreeSet<Vec<usize>>,
    card: Option<Card>,
}

/// The card that media passes by.
#[derive(Debug)]
struct Card {
    interface: String,
    /// CPUs of its node.
    near: Vec<usize>,
}

impl Topology {
    /// Of these CPUs, from `sys`, which is `/sys`. `interfaces`: what media may pass by, the likeliest first.
    pub(super) fn read(sys: &Path, cpus: &[usize], interfaces: &[String]) -> Topology {
        let list = |path: PathBuf| fs::read_to_string(path).ok()?.trim().parse::<CpuList>().ok();
        let threads = |cpu: &usize| {
            let path = format!("devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
            let threads = list(sys.join(path))?;
            (threads.as_slice().contains(cpu) && threads.as_slice().len() > 1)
                .then(|| threads.as_slice().to_vec())
        };
        let card = |interface: &String| {
            let node = node_of(&sys.join("class/net").join(interface), DEPTH_MAX)?;
            let near = list(sys.join(format!("devices/system/node/node{node}/cpulist")))?;
            Some(Card { interface: interface.clone(), near: near.as_slice().to_vec() })
        };
        Topology { cores: cpus.iter().filter_map(threads).collect(), card: interfaces.iter().find_map(card) }
    }

    /// They are different threads of one core.
    pub(super) fn share_a_core(&self, cpu: usize, other: usize) -> bool {
        cpu != other && self.cores.iter().any(|core| core.contains(&cpu) && core.contains(&other))
    }

    /// On the card's node, as far as is known.
    pub(super) fn is_near(&self, cpu: usize) -> bool {
        self.card.as_ref().is_none_or(|card| card.near.contains(&cpu))
    }

    /// The card's name, if it is known where it is.
    pub(super) fn card(&self) -> Option<&str> {
        self.card.as_ref().map(|card| card.interface.as_str())
    }
}

/// The node of an interface's card, or of a card below it.
fn node_of(interface: &Path, depth: usize) -> Option<u32> {
    // -1 on a machine of one node.
    if let Ok(node) = fs::read_to_string(interface.join("device/numa_node")) {
        return node.trim().parse().ok();
    }
    let depth = depth.checked_sub(1)?;
    let is_lower =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("lower_"));
    let mut lower: Vec<PathBuf> =
        fs::read_dir(interface).ok()?.flatten().map(|entry| entry.path()).filter(is_lower).collect();
    lower.sort();
    lower.iter().find_map(|path| node_of(path, depth))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Cores as lists, and the CPUs of the card's node.
    pub(crate) fn topology(cores: &[&str], near: Option<&str>) -> Topology {
        let list = |text: &str| text.parse::<CpuList>().unwrap().as_slice().to_vec();
        Topology {
            cores: cores.iter().map(|core| list(core)).collect(),
            card: near.map(|near| Card { interface: "eth0".to_owned(), near: list(near) }),
        }
    }

    /// A `/sys` of the test's own.
    struct Sys(PathBuf);

    impl Sys {
        fn new(name: &str, files: &[(&str, &str)]) -> Sys {
            let sys = Sys(std::env::temp_dir().join(format!("sfu-sys-{name}-{}", std::process::id())));
            let _ = fs::remove_dir_all(&sys.0);
            for (path, text) in files {
                let path = sys.0.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            sys
        }
    }

    impl Drop for Sys {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn cores_and_the_card_are_found() {
        let sys = Sys::new(
            "whole",
            &[
                ("devices/system/cpu/cpu0/topology/thread_siblings_list", "0,2\n"),
                ("devices/system/cpu/cpu1/topology/thread_siblings_list", "1,3\n"),
                ("devices/system/cpu/cpu2/topology/thread_siblings_list", "0,2\n"),
                ("devices/system/cpu/cpu4/topology/thread_siblings_list", "4\n"),
                ("devices/system/node/node0/cpulist", "0,2\n"),
                ("devices/system/node/node1/cpulist", "1,3-4\n"),
                ("class/net/wan/lower_bond0/lower_eth1/device/numa_node", "1\n"),
                ("class/net/wan/mtu", "1500\n"),
                ("class/net/lo/mtu", "65536\n"),
            ],
        );
        let interfaces = ["lo", "none", "wan"].map(str::to_owned);
        let topology = Topology::read(&sys.0, &[0, 1, 2, 4], &interfaces);
        assert_eq!(topology.card(), Some("wan"));
        assert_eq!([0, 1, 2, 3, 4].map(|cpu| topology.is_near(cpu)), [false, true, false, true, true]);
        assert!(topology.share_a_core(2, 0) && topology.share_a_core(1, 3));
        assert!(!topology.share_a_core(0, 1) && !topology.share_a_core(4, 4) && !topology.share_a_core(2, 2));
    }

    #[test]
    fn what_makes_no_sense_is_not_known() {
        let too_deep = "class/net/eth5/lower_a/lower_b/lower_c/lower_d/device/numa_node";
        let sys = Sys::new(
            "garbage",
            &[
                ("devices/system/cpu/cpu0/topology/thread_siblings_list", "0-4294967295\n"),
                ("devices/system/cpu/cpu1/topology/thread_siblings_list", "two and three\n"),
                ("devices/system/cpu/cpu2/topology/thread_siblings_list", "3,4\n"),
                ("devices/system/cpu/cpu3/topology/thread_siblings_list", "\u{0}\n"),
                ("devices/system/node/node0/cpulist", "\n"),
                ("devices/system/node/node3/cpulist", "0-3\n"),
                ("class/net/eth0/device/numa_node", "0\n"),
                ("class/net/eth1/device/numa_node", "-1\n"),
                ("class/net/eth2/device/numa_node", "banana\n"),
                ("class/net/eth3/device/numa_node", "7\n"),
                ("class/net/eth4/device/numa_node", "../node/node3\n"),
                (too_deep, "3\n"),
            ],
        );
        let interfaces: Vec<String> = (0..6).map(|index| format!("eth{index}")).collect();
        for topology in [
            Topology::read(&sys.0, &[0, 1, 2, 3], &interfaces),
            Topology::read(Path::new("/nonexistent"), &[0, 1], &interfaces),
        ] {
            assert!(topology.card().is_none() && topology.cores.is_empty(), "{topology:?}");
            assert!(topology.is_near(0));
        }
    }
}
