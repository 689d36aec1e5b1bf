//! Which addresses to offer peers when nobody says: those that the machine reaches the world by.

use std::collections::BTreeSet;
use std::ffi::CStr;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::ptr;

/// Addresses offered, at most: each is a candidate for every peer to check.
pub const ADDRESS_COUNT_MAX: usize = 8;

/// `RTF_UP` and `RTF_REJECT` of `linux/route.h`.
const ROUTE_UP: u32 = 0x0001;
const ROUTE_REJECT: u32 = 0x0200;

/// IPv6 addresses that are not ours to give away: temporary, failed, deprecated, tentative
/// (`IFA_F_*` of `linux/if_addr.h`).
const UNSTABLE: u32 = 0x01 | 0x08 | 0x20 | 0x40;

/// Names that container engines, hypervisors and VPNs give to what they make.
const VIRTUAL_PREFIXES: [&str; 16] = [
    "docker",
    "br-",
    "virbr",
    "lxcbr",
    "lxdbr",
    "cni",
    "flannel",
    "cali",
    "veth",
    "vnet",
    "tun",
    "tap",
    "wg",
    "tailscale",
    "zt",
    "ppp",
];

/// `ARPHRD_*` of `linux/if_arp.h` that are no tunnels.
const ETHERNET: u32 = 1;
const INFINIBAND: u32 = 32;

/// `DEVTYPE` of `uevent` for what is made of other interfaces.
const VIRTUAL_DEVTYPES: [&str; 4] = ["bridge", "wireguard", "vxlan", "geneve"];

/// An address with what decides whether it is offered.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Address {
    ip: IpAddr,
    is_loopback: bool,
    /// Its interface carries a default route of its family.
    is_routed: bool,
    /// Its interface is a bridge, a tunnel or one end of a container's cable.
    is_virtual: bool,
}

/// The addresses to offer, IPv4 first, at most [`ADDRESS_COUNT_MAX`]: of interfaces that are up and carry
/// a default route. Virtual ones count only where no other does, as in a container or on a host whose way
/// out is a bridge. Loopback addresses count `with_loopback`, or where there are no others.
///
/// # Errors
/// When the kernel does not name the interfaces.
pub fn addresses(with_loopback: bool) -> io::Result<Vec<IpAddr>> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let routes_v4 = read("/proc/net/route");
    let routes_v6 = read("/proc/net/ipv6_route");
    let flags_v6 = read("/proc/net/if_inet6");
    let mut found = Vec::new();
    for (name, flags, ip) in interface_addresses()? {
        if flags & libc::IFF_UP as u32 == 0 || is_unstable(&flags_v6, ip) {
            continue;
        }
        let is_routed = match ip {
            IpAddr::V4(_) => has_default_v4(&routes_v4, &name),
            IpAddr::V6(_) => has_default_v6(&routes_v6, &name),
        };
        let is_loopback = flags & libc::IFF_LOOPBACK as u32 != 0;
        let is_point_to_point = flags & libc::IFF_POINTOPOINT as u32 != 0;
        found.push(Address {
            ip,
            is_loopback,
            is_routed,
            is_virtual: is_point_to_point || is_virtual(&name),
        });
    }
    Ok(choose(&found, with_loopback))
}

/// Names of the interfaces that media may pass by, the likeliest first: those that have one of `own`, the addresses that
/// media is bound to or that clients are told, else those that carry a default route.
///
/// # Errors
/// When the kernel does not name the interfaces.
pub fn of_media(own: &[IpAddr]) -> io::Result<Vec<String>> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let (routes_v4, routes_v6) = (read("/proc/net/route"), read("/proc/net/ipv6_route"));
    let is_routed = |name: &str| has_default_v4(&routes_v4, name) || has_default_v6(&routes_v6, name);
    let found = interface_addresses()?;
    let has_own = |(_, _, ip): &&(String, u32, IpAddr)| own.contains(ip);
    let mut names: Vec<String> = found.iter().filter(has_own).map(|(name, _, _)| name.clone()).collect();
    if names.is_empty() {
        names = found.into_iter().map(|(name, _, _)| name).filter(|name| is_routed(name)).collect();
        // Stable, so that among equals the kernel's order stays.
        names.sort_by_key(|name| is_virtual(name));
    }
    let mut seen = BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    Ok(names)
}

fn choose(found: &[Address], with_loopback: bool) -> Vec<IpAddr> {
    let of = |wanted: &dyn Fn(&Address) -> bool| -> Vec<IpAddr> {
        found.iter().filter(|address| wanted(address)).map(|address| address.ip).collect()
    };
    let is_candidate =
        |address: &Address| address.is_routed && !address.is_loopback && is_offerable(address.ip);
    let mut chosen = of(&|address| is_candidate(address) && !address.is_virtual);
    if chosen.is_empty() {
        chosen = of(&is_candidate);
    }
    if chosen.is_empty() || with_loopback {
        chosen.extend(of(&|address| address.is_loopback && address.ip.is_loopback()));
    }
    // Stable, so that within a family the kernel's order stays.
    chosen.sort_by_key(IpAddr::is_ipv6);
    chosen.truncate(ADDRESS_COUNT_MAX);
    chosen
}

/// Of more than the link's scope.
fn is_offerable(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_link_local() && !ip.is_unspecified() && !ip.is_loopback(),
        IpAddr::V6(ip) => !ip.is_unicast_link_local() && !ip.is_unspecified() && !ip.is_loopback(),
    }
}

/// A line of `/proc/net/route`: interface, destination, gateway, flags, three counts, mask, in hexadecimal.
fn has_default_v4(routes: &str, interface: &str) -> bool {
    routes.lines().any(|line| {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        let [name, destination, _, flags, _, _, _, mask, ..] = fields[..] else { return false };
        name == interface && destination == "00000000" && mask == "00000000" && is_usable(flags)
    })
}

/// A line of `/proc/net/ipv6_route`: destination, its length, source, its length, next hop, metric, two
/// counts, flags, interface, in hexadecimal.
fn has_default_v6(routes: &str, interface: &str) -> bool {
    routes.lines().any(|line| {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        let [destination, len, _, _, _, _, _, _, flags, name] = fields[..] else { return false };
        name == interface && len == "00" && destination.bytes().all(|b| b == b'0') && is_usable(flags)
    })
}

fn is_usable(flags: &str) -> bool {
    u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & (ROUTE_UP | ROUTE_REJECT) == ROUTE_UP)
}

/// A line of `/proc/net/if_inet6`: address, index, prefix length, scope, flags, interface.
fn is_unstable(addresses: &str, ip: IpAddr) -> bool {
    let IpAddr::V6(ip) = ip else { return false };
    let text = format!("{:032x}", ip.to_bits());
    addresses.lines().any(|line| {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        let [address, _, _, _, flags, _] = fields[..] else { return false };
        address == text && u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & UNSTABLE != 0)
    })
}

fn is_virtual(name: &str) -> bool {
    let device = Path::new("/sys/class/net").join(name);
    let read = |file| fs::read_to_string(device.join(file)).unwrap_or_default();
    is_named_virtual(name)
        || device.join("bridge").exists()
        || device.join("tun_flags").exists()
        || is_typed_virtual(&read("type"), &read("uevent"))
}

fn is_named_virtual(name: &str) -> bool {
    VIRTUAL_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

fn is_typed_virtual(link_type: &str, uevent: &str) -> bool {
    let is_tunnel = link_type.trim().parse().is_ok_and(|kind: u32| kind != ETHERNET && kind != INFINIBAND);
    let devtype = uevent.lines().find_map(|line| line.strip_prefix("DEVTYPE="));
    is_tunnel || devtype.is_some_and(|devtype| VIRTUAL_DEVTYPES.contains(&devtype))
}

/// Name, flags and address, as the kernel lists them.
fn interface_addresses() -> io::Result<Vec<(String, u32, IpAddr)>> {
    let mut first: *mut libc::ifaddrs = ptr::null_mut();
    // SAFETY: writes one pointer.
    if unsafe { libc::getifaddrs(&raw mut first) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut found = Vec::new();
    let mut next = first;
    // SAFETY: each is null or an element of the list, which is freed only below.
    while let Some(entry) = unsafe { next.as_ref() } {
        next = entry.ifa_next;
        if let Some(ip) = ip_of(entry.ifa_addr) {
            // SAFETY: a string of the list, ended by a zero.
            let name = unsafe { CStr::from_ptr(entry.ifa_name) };
            found.push((name.to_string_lossy().into_owned(), entry.ifa_flags, ip));
        }
    }
    // SAFETY: the list made above; nothing of it was kept.
    unsafe { libc::freeifaddrs(first) };
    Ok(found)
}

/// `None` for null and for addresses that are not of the internet.
fn ip_of(address: *const libc::sockaddr) -> Option<IpAddr> {
    // SAFETY: null, or an address that getifaddrs made, as long as its family says.
    let family = unsafe { address.as_ref() }?.sa_family;
    match i32::from(family) {
        libc::AF_INET => {
            // SAFETY: of this family, so of this type.
            let address = unsafe { &*address.cast::<libc::sockaddr_in>() };
            Some(Ipv4Addr::from_bits(u32::from_be(address.sin_addr.s_addr)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: of this family, so of this type.
            let address = unsafe { &*address.cast::<libc::sockaddr_in6>() };
            Some(Ipv6Addr::from_octets(address.sin6_addr.s6_addr).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(ip: &str, is_routed: bool, is_virtual: bool) -> Address {
        let ip: IpAddr = ip.parse().unwrap();
        Address { ip, is_loopback: ip.is_loopback(), is_routed, is_virtual }
    }

    fn chosen(found: &[Address], with_loopback: bool) -> Vec<String> {
        choose(found, with_loopback).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_way_out_is_offered_and_the_neighbourhood_is_not() {
        let found = [
            address("127.0.0.1", false, false),
            address("2001:db8::7", true, false),
            address("fe80::1", true, false),
            address("192.0.2.7", true, false),
            address("169.254.3.4", true, false),
            address("172.17.0.1", false, true),
            address("10.8.0.2", true, true),
            address("10.9.9.9", false, false),
        ];
        assert_eq!(chosen(&found, false), ["192.0.2.7", "2001:db8::7"]);
        assert_eq!(chosen(&found, true), ["192.0.2.7", "127.0.0.1", "2001:db8::7"]);
    }

    #[test]
    fn a_bridge_or_tunnel_counts_when_it_is_the_only_way_out() {
        let found = [address("127.0.0.1", false, false), address("192.0.2.7", true, true)];
        assert_eq!(chosen(&found, false), ["192.0.2.7"]);
    }

    #[test]
    fn loopback_is_better_than_nothing_and_too_many_are_cut() {
        let found = [address("::1", false, false), address("127.0.0.1", false, false)];
        assert_eq!(chosen(&found, false), ["127.0.0.1", "::1"]);
        let many: Vec<_> = (1..30).map(|i| address(&format!("192.0.2.{i}"), true, false)).collect();
        assert_eq!(chosen(&many, false).len(), ADDRESS_COUNT_MAX);
    }

    #[test]
    fn default_routes_are_found_by_interface() {
        let v4 = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n\
                  eth0 00000000 010200C0 0003 0 0 0 00000000 0 0 0\n\
                  eth1 000200C0 00000000 0001 0 0 0 00FFFFFF 0 0 0\n\
                  eth2 00000000 00000000 0200 0 0 0 00000000 0 0 0\n";
        let is_default = |name| has_default_v4(v4, name);
        assert_eq!(["eth0", "eth1", "eth2", "eth"].map(is_default), [true, false, false, false]);

        let zero = "0".repeat(32);
        let v6 = format!(
            "fd{} 40 {zero} 00 {zero} 00000100 00000001 00000000 00000001 eth1\n\
             {zero} 00 {zero} 00 fe80{} 00000400 00000002 00000000 00000003 eth0\n\
             {zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200 lo\n",
            "0".repeat(30),
            "0".repeat(28),
        );
        let is_default = |name| has_default_v6(&v6, name);
        assert_eq!(["eth0", "eth1", "lo"].map(is_default), [true, false, false]);
    }

    #[test]
    fn temporary_addresses_are_not_given_away() {
        let flags = "20010db8000000000000000000000007 02 40 00 80 eth0\n\
                     20010db8000000000000000000000008 02 40 00 01 eth0\n";
        assert!(!is_unstable(flags, "2001:db8::7".parse().unwrap()));
        assert!(is_unstable(flags, "2001:db8::8".parse().unwrap()));
        assert!(!is_unstable(flags, "192.0.2.1".parse().unwrap()));
    }

    #[test]
    fn virtual_interfaces_are_known_by_name_type_and_maker() {
        assert!(is_named_virtual("docker0") && is_named_virtual("br-12ab") && is_named_virtual("wg0"));
        assert!(!is_named_virtual("eth0") && !is_named_virtual("enp3s0") && !is_named_virtual("bond0"));
        assert!(is_typed_virtual("65534\n", ""));
        assert!(is_typed_virtual("1\n", "DEVTYPE=bridge\nINTERFACE=lan\n"));
        assert!(!is_typed_virtual("1\n", "DEVTYPE=wlan\nINTERFACE=wlan0\n"));
        assert!(!is_typed_virtual("", ""));
    }

    #[test]
    fn media_passes_by_the_interface_of_what_clients_are_told() {
        assert_eq!(of_media(&[Ipv4Addr::LOCALHOST.into()]).unwrap(), ["lo"]);
        let routed = of_media(&[]).unwrap();
        assert!(!routed.contains(&"lo".to_owned()), "{routed:?}");
        assert_eq!(of_media(&["203.0.113.77".parse().unwrap()]).unwrap(), routed, "an address of a NAT");
    }

    #[test]
    fn this_machine_has_something_to_offer() {
        let with_loopback = addresses(true).unwrap();
        assert!(with_loopback.iter().any(IpAddr::is_loopback));
        assert!(!addresses(false).unwrap().is_empty());
    }
}
