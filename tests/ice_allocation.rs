//! Binding requests and RTCP are the packet path: nothing on it may allocate.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use gryt_sfu::ice::agent::Agent;
use gryt_sfu::ice::credentials::{LocalUfrag, RemoteCredentials, Secret};
use gryt_sfu::ice::integrity::IntegrityKey;
use gryt_sfu::ice::stun::{ANSWER_LEN_MAX, CHECK_LEN_MAX, Check, Message, TransactionId, write_check};
use gryt_sfu::ids::{Ssrc, WorkerId};
use gryt_sfu::packet::{Path, SocketId};
use gryt_sfu::rtcp::packet::{Compound, Packet};
use gryt_sfu::rtcp::reception::Reception;
use gryt_sfu::rtcp::report::SenderInfo;
use gryt_sfu::rtcp::writer::Writer;
use gryt_sfu::time::{Now, RtpTime};

/// Counts what each thread allocates.
struct Counting;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: `System` does all of it; counting touches a `Cell` that needs no allocation.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How often `work` allocates.
fn allocation_count<T>(work: impl FnOnce() -> T) -> (usize, T) {
    let before = COUNT.with(Cell::get);
    let result = work();
    (COUNT.with(Cell::get) - before, result)
}

#[test]
fn a_request_is_verified_and_answered_without_allocation() {
    let now = Now::read().instant;
    let secret = Secret::from_bytes(&[1; 32]);
    let ufrag = LocalUfrag::new(WorkerId(0), [2; 11]);
    let local = gryt_sfu::ice::credentials::LocalCredentials { ufrag, password: secret.password(&ufrag) };
    let remote = RemoteCredentials::parse("abcd", "0123456789abcdefghijkl").unwrap();
    let mut agent = Agent::new(now, local, remote, [3; 32]);
    let path = |port: u16| Path {
        socket: SocketId(0),
        local: "10.0.0.1".parse().unwrap(),
        remote: ([192, 0, 2, 1], port).into(),
    };
    let paths = [path(1), path(2)];
    let mut request_bytes = [0; CHECK_LEN_MAX];
    let len = {
        // A peer's request is a check of ours with the names turned round, but for the role.
        let name = format!("{}:abcd", ufrag.as_str());
        let mut message = stun::message::Message::new();
        message.set_type(stun::message::BINDING_REQUEST);
        message.write_header();
        message.add(stun::attributes::ATTR_USERNAME, name.as_bytes());
        message.add(stun::attributes::ATTR_USE_CANDIDATE, &[]);
        use stun::message::Setter;
        let password = local.password.as_str().to_owned();
        stun::integrity::MessageIntegrity::new_short_term_integrity(password).add_to(&mut message).unwrap();
        stun::fingerprint::FINGERPRINT.add_to(&mut message).unwrap();
        request_bytes[..message.raw.len()].copy_from_slice(&message.raw);
        message.raw.len()
    };

    let (count, ()) = allocation_count(|| {
        let mut out = [0; ANSWER_LEN_MAX];
        for path in paths {
            let Ok(Message::Request(request)) = Message::parse(&request_bytes[..len]) else {
                panic!("no request")
            };
            let ufrag = request.local_ufrag().unwrap();
            request.verify(&secret.password(&ufrag)).unwrap(); // As a worker that does not own it.
            agent.handle_request(now, path, &request, &mut out).unwrap();
            agent.handle_dtls_finished(now, Some(paths[0]));
        }
        let mut check = [0; CHECK_LEN_MAX];
        assert!(agent.next_check(now, &mut check).is_some());
        assert_eq!(agent.selected(), Some(paths[1]));
        let _ = (agent.consent(now), agent.next_timeout());
    });
    assert_eq!(count, 0);

    let key = IntegrityKey::new("0123456789abcdefghijkl");
    let check = Check { transaction_id: TransactionId([0; 12]), remote_ufrag: "abcd", local_ufrag: ufrag };
    let (count, len) = allocation_count(|| write_check(&check, &key, &mut request_bytes));
    assert_eq!((count, len.is_some()), (0, true));
}

#[test]
fn rtcp_is_written_read_and_counted_without_allocation() {
    let now = Now::read();
    let (count, packet_count) = allocation_count(|| {
        let mut reception = Reception::new(Ssrc(1));
        for seq in 0..10 {
            reception.handle_packet(now.instant, RtpTime(0), seq, 48_000);
        }
        reception.handle_sender_report(now.instant, now.ntp);
        let mut out = [0; 1500];
        let mut writer = Writer::new(&mut out);
        let info =
            SenderInfo { ssrc: Ssrc(1), ntp: now.ntp, rtp_time: RtpTime(0), packet_count: 0, octet_count: 0 };
        writer.sender_report(&info, reception.report_block(now.instant)).unwrap();
        writer.cname(Ssrc(1), "gryt").unwrap();
        writer.nack(Ssrc(1), Ssrc(2), [1, 2, 3]).unwrap();
        writer.pli(Ssrc(1), Ssrc(2)).unwrap();
        writer.bye(&[Ssrc(1)]).unwrap();
        let len = writer.len();
        let compound = Compound::parse(&out[..len]).unwrap();
        compound
            .packets()
            .map(|packet| match packet {
                Packet::Sdes(sdes) => sdes.chunks().count(),
                Packet::Nack { lost, .. } => lost.seqs().count(),
                _ => 1,
            })
            .sum::<usize>()
    });
    assert_eq!((count, packet_count), (0, 7));
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocation_count(|| Box::new(1_u8)).0, 1);
}
