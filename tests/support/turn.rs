//! A TURN client (RFC 8656) that asks for a relay and for leave to send, over UDP.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use stun::attributes::{
    ATTR_NONCE, ATTR_REALM, ATTR_REQUESTED_ADDRESS_FAMILY, ATTR_REQUESTED_TRANSPORT, ATTR_USERNAME,
    ATTR_XOR_PEER_ADDRESS,
};
use stun::error_code::ErrorCodeAttribute;
use stun::integrity::MessageIntegrity;
use stun::message::{
    CLASS_REQUEST, CLASS_SUCCESS_RESPONSE, Getter, METHOD_ALLOCATE, METHOD_CREATE_PERMISSION, Message,
    MessageType, Method, Setter,
};
use stun::xoraddr::XorMappedAddress;

use super::PATIENCE;

/// The protocol number of UDP, as REQUESTED-TRANSPORT wants it.
const UDP: [u8; 4] = [17, 0, 0, 0];

/// A STUN error code (RFC 8489 §14.8).
pub type Refusal = u16;

/// A relay that a server has granted.
#[derive(Debug)]
pub struct Allocation {
    socket: UdpSocket,
    username: String,
    password: String,
    realm: Vec<u8>,
    nonce: Vec<u8>,
}

impl Allocation {
    /// Asks for a relay of this family.
    pub fn request(
        server: SocketAddr,
        username: &str,
        password: &str,
        is_ipv6: bool,
    ) -> Result<Allocation, Refusal> {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.connect(server).expect("loopback");
        socket.set_read_timeout(Some(PATIENCE)).expect("a valid time-out");
        let family = [if is_ipv6 { 2 } else { 1 }, 0, 0, 0];
        let attributes = |message: &mut Message| {
            message.add(ATTR_REQUESTED_TRANSPORT, &UDP);
            message.add(ATTR_REQUESTED_ADDRESS_FAMILY, &family);
        };
        let mut request = new(METHOD_ALLOCATE);
        attributes(&mut request);
        let challenge = exchange(&socket, &request);
        let text = |kind| challenge.get(kind).expect("a challenge has realm and nonce");
        let allocation = Allocation {
            socket,
            username: username.to_owned(),
            password: password.to_owned(),
            realm: text(ATTR_REALM),
            nonce: text(ATTR_NONCE),
        };
        allocation.ask(METHOD_ALLOCATE, attributes).map(|()| allocation)
    }

    /// Asks to exchange datagrams with this address.
    pub fn permit(&self, peer: IpAddr) -> Result<(), Refusal> {
        let peer = XorMappedAddress { ip: peer, port: 3478 };
        self.ask(METHOD_CREATE_PERMISSION, |message| {
            peer.add_to_as(message, ATTR_XOR_PEER_ADDRESS).expect("an address");
        })
    }

    fn ask(&self, method: Method, attributes: impl FnOnce(&mut Message)) -> Result<(), Refusal> {
        let mut request = new(method);
        attributes(&mut request);
        request.add(ATTR_USERNAME, self.username.as_bytes());
        request.add(ATTR_REALM, &self.realm);
        request.add(ATTR_NONCE, &self.nonce);
        let realm = String::from_utf8(self.realm.clone()).expect("UTF-8");
        MessageIntegrity::new_long_term_integrity(self.username.clone(), realm, self.password.clone())
            .add_to(&mut request)
            .expect("room for it");
        let answer = exchange(&self.socket, &request);
        if answer.typ.class == CLASS_SUCCESS_RESPONSE {
            return Ok(());
        }
        let mut code = ErrorCodeAttribute::default();
        code.get_from(&answer).expect("a reason");
        Err(code.code.0)
    }
}

fn new(method: Method) -> Message {
    let mut message = Message::new();
    message.set_type(MessageType { method, class: CLASS_REQUEST });
    message.new_transaction_id().expect("randomness");
    message.write_header();
    message
}

fn exchange(socket: &UdpSocket, request: &Message) -> Message {
    socket.send(&request.raw).expect("loopback");
    loop {
        let mut bytes = [0; 1500];
        let len = socket.recv(&mut bytes).expect("an answer");
        let mut answer = Message::new();
        answer.unmarshal_binary(&bytes[..len]).expect("STUN");
        if answer.transaction_id == request.transaction_id {
            return answer;
        }
    }
}
