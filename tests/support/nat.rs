//! A NAT before the server's media port. It forgets a client's mapping when it is told to, or loses the client.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use tokio::sync::Notify;

use super::PATIENCE;

/// How soon a thread sees that it is not wanted any more.
const LOOK_AROUND: Duration = Duration::from_millis(100);

/// Forwards between its clients and the server. Ends with the value.
pub struct Nat {
    /// Where clients find the server.
    pub address: SocketAddr,
    inner: Arc<Inner>,
}

struct Inner {
    inside: UdpSocket,
    server: Mutex<Option<SocketAddr>>,
    flows: Mutex<HashMap<SocketAddr, Flow>>,
    /// USERNAMEs of clients that were cut off.
    barred: Mutex<HashSet<Vec<u8>>>,
    checked: Notify,
}

struct Flow {
    /// Connected to the server; `None` when nothing passes any more.
    outside: Option<Arc<UdpSocket>>,
    /// Mappings of before. They are kept, so that what still goes there vanishes without an ICMP error.
    forgotten: Vec<Arc<UdpSocket>>,
    /// USERNAME of its latest Binding request.
    username: Vec<u8>,
    /// Binding requests of the client that have passed.
    checks: u64,
}

impl Nat {
    /// Drops everything until [`Nat::aim`].
    pub fn start() -> Nat {
        let inside = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        inside.set_read_timeout(Some(LOOK_AROUND)).expect("a valid time-out");
        let address = inside.local_addr().expect("bound");
        let inner = Arc::new(Inner {
            inside,
            server: Mutex::default(),
            flows: Mutex::default(),
            barred: Mutex::default(),
            checked: Notify::new(),
        });
        let weak = Arc::downgrade(&inner);
        std::thread::spawn(move || forward_in(&weak));
        Nat { address, inner }
    }

    /// Where the server is.
    pub fn aim(&self, port: u16) {
        *self.inner.server.lock().expect("no panic holds it") = Some((Ipv4Addr::LOCALHOST, port).into());
    }

    /// From now on this client comes from another port of this address, and what goes to the one before is lost.
    /// Returns where it comes from.
    pub fn rebind(&self, client: SocketAddr, ip: IpAddr) -> SocketAddr {
        let outside = self.inner.open(client, ip);
        let mut flows = self.inner.flows();
        let flow = flows.get_mut(&client).expect("a client that has been seen");
        let address = outside.local_addr().expect("bound");
        flow.forgotten.extend(flow.outside.replace(outside));
        address
    }

    /// Nothing passes from or to this client any more, until it has another socket and other ICE credentials.
    pub fn cut(&self, client: SocketAddr) {
        let mut flows = self.inner.flows();
        let flow = flows.get_mut(&client).expect("a client that has been seen");
        flow.forgotten.extend(flow.outside.take());
        self.inner.barred.lock().expect("no panic holds it").insert(flow.username.clone());
    }

    /// The clients that are not cut off, each with where the server sees it.
    pub fn clients(&self) -> Vec<(SocketAddr, SocketAddr)> {
        let flows = self.inner.flows();
        let outside = |flow: &Flow| flow.outside.as_ref()?.local_addr().ok();
        flows.iter().filter_map(|(client, flow)| Some((*client, outside(flow)?))).collect()
    }

    /// The moment after the client's next Binding request, when it is farthest from the one after that.
    pub async fn checked(&self, client: SocketAddr) {
        let checks = || self.inner.flows().get(&client).map_or(0, |flow| flow.checks);
        let before = checks();
        let wait = async {
            loop {
                let next = self.inner.checked.notified();
                if checks() > before {
                    return;
                }
                next.await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("the client checks its path");
    }
}

impl Inner {
    fn flows(&self) -> MutexGuard<'_, HashMap<SocketAddr, Flow>> {
        self.flows.lock().expect("no panic holds it")
    }

    /// A mapping for this client, and the thread that brings back what comes over it.
    fn open(self: &Arc<Inner>, client: SocketAddr, ip: IpAddr) -> Arc<UdpSocket> {
        let server = self.server.lock().expect("no panic holds it").expect("aimed");
        let outside = UdpSocket::bind((ip, 0)).expect("a free port");
        outside.connect(server).expect("loopback");
        outside.set_read_timeout(Some(LOOK_AROUND)).expect("a valid time-out");
        let outside = Arc::new(outside);
        let (weak, socket) = (Arc::downgrade(self), Arc::clone(&outside));
        std::thread::spawn(move || forward_out(&weak, client, &socket));
        outside
    }
}

fn forward_in(inner: &Weak<Inner>) {
    let mut buffer = [0; 2000];
    while let Some(inner) = inner.upgrade() {
        let Ok((len, client)) = inner.inside.recv_from(&mut buffer) else { continue };
        // One way from each client: a browser would try every interface's.
        if !client.ip().is_loopback() || inner.server.lock().expect("no panic holds it").is_none() {
            continue;
        }
        let datagram = &buffer[..len];
        let username = username(datagram);
        if !inner.flows().contains_key(&client) {
            let barred = inner.barred.lock().expect("no panic holds it");
            if username.is_none_or(|username| barred.contains(username)) {
                continue;
            }
            let outside = Some(inner.open(client, Ipv4Addr::LOCALHOST.into()));
            let flow = Flow { outside, forgotten: Vec::new(), username: Vec::new(), checks: 0 };
            inner.flows().insert(client, flow);
        }
        let mut flows = inner.flows();
        let Some(flow) = flows.get_mut(&client) else { continue };
        let Some(outside) = &flow.outside else { continue };
        let _ = outside.send(datagram); // A full buffer loses a datagram, as networks do.
        if let Some(username) = username {
            flow.username = username.to_vec();
            flow.checks += 1;
            inner.checked.notify_waiters();
        }
    }
}

/// USERNAME of a Binding request (RFC 8489 §14.3).
fn username(datagram: &[u8]) -> Option<&[u8]> {
    let mut attributes = datagram.strip_prefix(&[0, 1])?.get(18..)?;
    while let [kind_high, kind_low, len_high, len_low, rest @ ..] = attributes {
        let len = usize::from(u16::from_be_bytes([*len_high, *len_low]));
        if [*kind_high, *kind_low] == [0, 6] {
            return rest.get(..len);
        }
        attributes = rest.get(len.next_multiple_of(4)..)?;
    }
    None
}

fn forward_out(inner: &Weak<Inner>, client: SocketAddr, outside: &Arc<UdpSocket>) {
    let mut buffer = [0; 2000];
    while let Some(inner) = inner.upgrade() {
        let Ok(len) = outside.recv(&mut buffer) else { continue };
        let flows = inner.flows();
        let is_current = |flow: &Flow| flow.outside.as_ref().is_some_and(|it| Arc::ptr_eq(it, outside));
        if flows.get(&client).is_some_and(is_current) {
            let _ = inner.inside.send_to(&buffer[..len], client); // As above.
        }
    }
}
