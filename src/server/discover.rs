//! Asks STUN servers by which addresses the media sockets are seen (RFC 8489 §2), before workers own them.
//!
//! Workers that share a port share what comes back too: without a user name to steer by, the kernel's hash
//! decides which of their sockets has the answer. So a question goes out from one and all of them are heard.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll};
use std::time::Duration;

use stun::message::{BINDING_REQUEST, BINDING_SUCCESS, Getter, Message};
use stun::xoraddr::XorMappedAddress;
use tokio::io::ReadBuf;
use tokio::net::{UdpSocket, lookup_host};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use crate::config::{IceUrl, Scheme};
use crate::net::socket::WorkerSockets;
use crate::throttle::throttled;
use crate::time::Now;

/// All of it together: names, questions, answers.
const PATIENCE: Duration = Duration::from_secs(3);

/// For the servers' names alone, so that one that cannot be looked up leaves time for the others.
const LOOKUP_PATIENCE: Duration = Duration::from_millis(1500);

/// From a question to the same again, and then twice as long (RFC 8489 §6.2.1).
const RETRANSMIT: Duration = Duration::from_millis(500);

/// More than any answer has.
const ANSWER_LEN_MAX: usize = 2048;

/// Sockets that share a port in one family, by port and whether it is IPv6.
type Groups = BTreeMap<(u16, bool), Vec<UdpSocket>>;

/// Where the sockets of each worker are seen, IPv4 first; an empty list where nobody said. What went wrong is
/// logged. Never takes longer than 3 s.
///
/// # Errors
/// When the sockets cannot be used, or not be left as they were.
pub(super) async fn discover(urls: &[IceUrl], workers: &[WorkerSockets]) -> io::Result<Vec<Vec<SocketAddr>>> {
    let deadline = Now::read().instant + PATIENCE;
    let groups = borrow(workers)?;
    let seen = ask_all(urls, groups, deadline.into()).await;
    for socket in workers.iter().flat_map(WorkerSockets::sockets) {
        socket.set_nonblocking(false)?; // As the rings want them.
    }
    if seen.is_empty() {
        tracing::warn!(
            "ICE_DISCOVER: no STUN server told the public address in 3 s; clients are offered the machine's own \
             addresses. Is UDP to STUN_SERVERS let through? ICE_ADVERTISE_IP says it without asking"
        );
    }
    let of_worker = |worker: &WorkerSockets| {
        [false, true].iter().filter_map(|&is_ipv6| seen.get(&(worker.port(), is_ipv6)).copied()).collect()
    };
    Ok(workers.iter().map(of_worker).collect())
}

/// The same sockets under other descriptors, which do not block: a property of the socket, not of the descriptor.
fn borrow(workers: &[WorkerSockets]) -> io::Result<Groups> {
    let mut groups = Groups::new();
    for worker in workers {
        for socket in worker.sockets() {
            socket.set_nonblocking(true)?;
            let is_ipv6 = socket.local_addr()?.is_ipv6();
            let borrowed = UdpSocket::from_std(socket.try_clone()?)?;
            groups.entry((worker.port(), is_ipv6)).or_default().push(borrowed);
        }
    }
    Ok(groups)
}

async fn ask_all(urls: &[IceUrl], groups: Groups, deadline: Instant) -> BTreeMap<(u16, bool), SocketAddr> {
    let servers = look_up(urls).await;
    let mut tasks = JoinSet::new();
    for (group, sockets) in groups {
        let servers: Vec<_> = servers.iter().copied().filter(|server| server.is_ipv6() == group.1).collect();
        tasks.spawn_local(async move { (group, timeout_at(deadline, ask(&sockets, &servers)).await) });
    }
    let mut seen = BTreeMap::new();
    while let Some(answer) = tasks.join_next().await {
        if let Ok((group, Ok(Some(address)))) = answer {
            seen.insert(group, address);
        }
    }
    seen
}

/// One address of each family for each server.
async fn look_up(urls: &[IceUrl]) -> BTreeSet<SocketAddr> {
    let mut names = JoinSet::new();
    for url in urls.iter().filter(|url| url.scheme() == Scheme::Stun) {
        let url = url.clone();
        names.spawn_local(async move {
            let found = timeout(LOOKUP_PATIENCE, lookup_host((url.host(), url.port()))).await;
            match found.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(found) => found.collect(),
                Err(error) => {
                    tracing::warn!(server = %url, %error, "ICE_DISCOVER: cannot look up a STUN server");
                    Vec::new()
                }
            }
        });
    }
    let mut servers = BTreeSet::new();
    while let Some(found) = names.join_next().await {
        let found = found.unwrap_or_default();
        servers.extend(found.iter().find(|server| server.is_ipv4()));
        servers.extend(found.iter().find(|server| server.is_ipv6()));
    }
    servers
}

/// The first answer of any server; `None` where there is nobody to ask. Else goes on until it is dropped.
async fn ask(sockets: &[UdpSocket], servers: &[SocketAddr]) -> Option<SocketAddr> {
    let question = |&server: &SocketAddr| {
        let mut message = Message::new();
        message.set_type(BINDING_REQUEST);
        message.new_transaction_id().ok()?;
        message.write_header();
        Some((server, message))
    };
    let questions: Vec<(SocketAddr, Message)> = servers.iter().filter_map(question).collect();
    let first = sockets.first().filter(|_| !questions.is_empty())?;
    let mut pause = RETRANSMIT;
    loop {
        for (server, question) in &questions {
            // One that is out of reach says so here or by silence: the others count.
            let _ = first.send_to(&question.raw, *server).await;
        }
        if let Ok(seen) = timeout(pause, poll_fn(|cx| poll_answer(cx, sockets, &questions))).await {
            return Some(seen);
        }
        pause *= 2;
    }
}

fn poll_answer(
    cx: &mut Context<'_>,
    sockets: &[UdpSocket],
    questions: &[(SocketAddr, Message)],
) -> Poll<SocketAddr> {
    let mut bytes = [0; ANSWER_LEN_MAX];
    for socket in sockets {
        loop {
            let mut buffer = ReadBuf::new(&mut bytes);
            match socket.poll_recv_from(cx, &mut buffer) {
                Poll::Pending => break,
                Poll::Ready(Ok(from)) => {
                    if let Some(seen) = read(buffer.filled(), from, questions) {
                        return Poll::Ready(seen);
                    }
                }
                Poll::Ready(Err(_)) => {
                    cx.waker().wake_by_ref(); // Look again, but not before the deadline had a look.
                    break;
                }
            }
        }
    }
    Poll::Pending
}

/// An answer to one of the questions, from whom it was put to, with an address that others can use.
fn read(bytes: &[u8], from: SocketAddr, questions: &[(SocketAddr, Message)]) -> Option<SocketAddr> {
    let mut answer = Message::new();
    answer.unmarshal_binary(bytes).ok()?;
    let is_asked = |(server, question): &&(SocketAddr, Message)| {
        *server == from && question.transaction_id == answer.transaction_id
    };
    let (server, _) = questions.iter().find(is_asked)?;
    if answer.typ != BINDING_SUCCESS {
        return None;
    }
    let mut mapped = XorMappedAddress::default();
    mapped.get_from(&answer).ok()?;
    let seen = SocketAddr::new(mapped.ip, mapped.port);
    let is_broadcast = matches!(seen.ip(), IpAddr::V4(ip) if ip.is_broadcast());
    let is_reachable =
        !(seen.ip().is_unspecified() || seen.ip().is_loopback() || seen.ip().is_multicast() || is_broadcast);
    if seen.port() == 0 || !is_reachable || seen.is_ipv6() != server.is_ipv6() {
        throttled!(warn, "ICE_DISCOVER: a STUN server told an address that nobody can reach");
        return None;
    }
    Some(seen)
}

/// What a worker offers: where it is seen, then what the machine has. The machine's private addresses stay
/// unknown where one of their family is seen, unless they are wanted, or are loopback ones, which are only
/// there when asked for.
pub(super) fn beside(
    seen: &[SocketAddr],
    own: impl Iterator<Item = SocketAddr>,
    with_private: bool,
) -> Vec<SocketAddr> {
    let mut all = seen.to_vec();
    for address in own {
        let is_seen = seen.iter().any(|seen| seen.is_ipv6() == address.is_ipv6());
        if (!is_seen || with_private || !is_private(address.ip())) && !all.contains(&address) {
            all.push(address);
        }
    }
    all
}

/// Of no use outside its own network: RFC 1918, RFC 6598, RFC 3927, RFC 4193, RFC 4291 §2.5.6.
fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let is_shared = matches!(ip.octets(), [100, 64..=127, ..]);
            ip.is_private() || ip.is_link_local() || is_shared
        }
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Vec<SocketAddr> {
        text.split_whitespace().map(|text| text.parse().expect(text)).collect()
    }

    #[test]
    fn private_addresses_stay_unknown_beside_a_public_one_of_their_family() {
        let own = "192.168.1.9:3478 100.64.0.1:3478 198.51.100.7:3478 127.0.0.1:3478 [fd00::1]:3478 [2001:db8::1]:3478";
        let beside = |seen, with_private| beside(&list(seen), list(own).into_iter(), with_private);
        assert_eq!(beside("", false), list(own));
        assert_eq!(
            beside("203.0.113.5:99", false),
            list("203.0.113.5:99 198.51.100.7:3478 127.0.0.1:3478 [fd00::1]:3478 [2001:db8::1]:3478")
        );
        assert_eq!(
            beside("[2001:db8::1]:3478", false),
            list("[2001:db8::1]:3478 192.168.1.9:3478 100.64.0.1:3478 198.51.100.7:3478 127.0.0.1:3478")
        );
        assert_eq!(beside("203.0.113.5:99", true), list(&format!("203.0.113.5:99 {own}")));
    }

    #[test]
    fn only_an_answer_to_the_question_counts() {
        use stun::message::Setter;

        let server: SocketAddr = "192.0.2.1:3478".parse().unwrap();
        let mut question = Message::new();
        question.set_type(BINDING_REQUEST);
        question.new_transaction_id().unwrap();
        let questions = [(server, question)];
        let answer = |kind, ip: &str, port, is_mine: bool| {
            let mut answer = Message::new();
            answer.set_type(kind);
            answer.transaction_id = questions[0].1.transaction_id;
            if !is_mine {
                answer.new_transaction_id().unwrap();
            }
            answer.write_header();
            XorMappedAddress { ip: ip.parse().unwrap(), port }.add_to(&mut answer).unwrap();
            answer.raw
        };
        let good = answer(BINDING_SUCCESS, "203.0.113.5", 99, true);
        assert_eq!(read(&good, server, &questions), Some("203.0.113.5:99".parse().unwrap()));
        assert_eq!(read(&good, "192.0.2.1:3479".parse().unwrap(), &questions), None);
        assert_eq!(read(&good[..good.len() - 1], server, &questions), None);
        for bad in [
            answer(BINDING_SUCCESS, "203.0.113.5", 99, false),
            answer(BINDING_REQUEST, "203.0.113.5", 99, true),
            answer(BINDING_SUCCESS, "203.0.113.5", 0, true),
            answer(BINDING_SUCCESS, "0.0.0.0", 99, true),
            answer(BINDING_SUCCESS, "127.0.0.1", 99, true),
            answer(BINDING_SUCCESS, "224.0.0.1", 99, true),
            answer(BINDING_SUCCESS, "255.255.255.255", 99, true),
            answer(BINDING_SUCCESS, "2001:db8::1", 99, true),
        ] {
            assert_eq!(read(&bad, server, &questions), None);
        }
    }
}
