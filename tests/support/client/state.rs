//! What a client knows, seen by its test while its task goes on.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use serde_json::Value;
use str0m::IceConnectionState;
use tokio::sync::Notify;

use super::super::frame::{Frame, nanos};
use super::super::sdp::{Description, Line};
use super::super::stun::BindingRequest;

/// A voice packet that came, decrypted and intact.
#[derive(Clone, Debug)]
pub struct Heard {
    /// What its payload says.
    pub frame: Frame,
    /// Of the line it came on.
    pub mid: String,
    /// Stream id that the SDP gave that line, or the user that `slots` gave it since.
    pub carries: Option<String>,
    /// Synchronization source.
    pub ssrc: u32,
    /// With the roll-overs counted.
    pub seq: u64,
    /// RTP timestamp.
    pub timestamp: u32,
    /// Marker bit.
    pub marker: bool,
    /// Audio level in −dBov, where the packet has it.
    pub level: Option<u8>,
    /// From the sender's hand to ours.
    pub latency: Duration,
}

/// What a client knows.
#[derive(Default)]
pub struct State {
    /// Every message of the server: event and data.
    pub messages: Vec<(String, Value)>,
    /// How the WebSocket ended.
    pub closed: Option<(u16, String)>,
    /// ICE and DTLS are up.
    pub connected: bool,
    /// As str0m names it.
    pub ice: Option<IceConnectionState>,
    /// Packets in the order of their coming.
    pub heard: Vec<Heard>,
    /// Packets by sender's id.
    pub counts: HashMap<u32, u64>,
    /// Microseconds from the sender's hand to ours, where packets are not kept.
    pub latencies: Vec<u32>,
    /// Packets whose payload is not a frame.
    pub broken: u64,
    /// The server's last description, by mid.
    pub lines: BTreeMap<String, Line>,
    /// What `slots` said since that description.
    pub slots: HashMap<String, Option<String>>,
    /// Server's ufrag, password, candidates.
    pub remote: Description,
    /// Our ufrag and password.
    pub local: Description,
    /// Where our UDP socket is.
    pub address: Option<SocketAddr>,
    /// Where our datagrams go.
    pub media: Option<SocketAddr>,
    /// The last SRTP datagram that left, ciphertext.
    pub last_rtp: Vec<u8>,
    /// Frames sent.
    pub sent: u32,
    /// Offers of the server that we answered.
    pub answered: usize,
    /// Offers of ours that the server answered.
    pub accepted: usize,
    /// What should not have happened.
    pub faults: Vec<String>,
}

impl State {
    /// Messages of one event since the `from`-th message.
    pub fn events<'a>(&'a self, event: &'a str, from: usize) -> impl Iterator<Item = &'a Value> {
        self.messages.iter().skip(from).filter(move |(name, _)| name == event).map(|(_, data)| data)
    }

    /// How many frames of this sender came.
    pub fn count(&self, sender: u32) -> u64 {
        self.counts.get(&sender).copied().unwrap_or(0)
    }

    /// Packets of this sender.
    pub fn from(&self, sender: u32) -> impl Iterator<Item = &Heard> {
        self.heard.iter().filter(move |heard| heard.frame.sender == sender)
    }

    /// Stream id of a user, as `joined` or `user-joined` told.
    pub fn stream_of(&self, user: &str) -> Option<String> {
        let told = |(event, data): &(String, Value)| {
            let info = match event.as_str() {
                "joined" => &data["peerInfo"][user],
                "user-joined" if data["userId"] == user => &data["userInfo"],
                _ => return None,
            };
            let stream = info["streamId"].as_str().or_else(|| data["streamId"].as_str());
            stream.map(str::to_owned)
        };
        self.messages.iter().rev().find_map(told)
    }

    /// A Binding request as this member may write them.
    pub fn binding_request(&self, use_candidate: bool) -> Vec<u8> {
        let username = format!("{}:{}", self.remote.ufrag, self.local.ufrag);
        let transaction = nanos().to_be_bytes().repeat(2)[..12].try_into().expect("12 bytes");
        let password = &self.remote.pwd;
        BindingRequest { username: &username, password, use_candidate, transaction }.to_bytes()
    }

    pub(super) fn carries(&self, mid: &str) -> Option<String> {
        match self.slots.get(mid) {
            Some(user) => user.clone(),
            None => self.lines.get(mid)?.stream_id.clone(),
        }
    }
}

pub(super) struct Shared {
    pub(super) state: Mutex<State>,
    pub(super) changed: Notify,
}

impl Shared {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic holds it")
    }

    pub(super) fn change<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        let result = act(&mut self.state());
        self.changed.notify_waiters();
        result
    }

    pub(super) fn fault(&self, text: String) {
        self.change(|state| state.faults.push(text));
    }
}
