//! Where media and handshakes go, whoever says what of addresses.

use super::*;

#[test]
fn media_goes_to_no_address_that_a_member_forged() {
    let (mut sim, mut callers) = room_of(2);
    let member = sim.add(3, GCM);
    let victim = path(9, 40_000);
    sim.consent(&member);
    sim.check(victim, &member.local);
    // All of the handshake but what comes last, or but what seems to be of it.
    sim.deliver(member.path, &mut DTLS.clone());
    sim.deliver(victim, &mut DTLS.clone());
    sim.finish_dtls(&member, 1);
    sim.add_slot(&member, 1, Some(TrackId(1)));
    sim.sent.clear();
    for _ in 0..50 {
        sim.check(victim, &member.local);
        sim.speak(&mut callers[0], 20, b"voice");
        sim.flush();
        sim.pass(MS20);
    }
    let is_media = |bytes: &[u8]| (128..192).contains(&bytes[0]);
    assert!(sim.sent.datagrams().any(|(path, bytes)| path == callers[1].path && is_media(bytes)));
    assert!(!sim.sent.datagrams().any(|(path, bytes)| path == victim && is_media(bytes)));
}

#[test]
fn little_of_dtls_goes_where_a_member_moves_it() {
    let mut sim = Sim::new(8);
    let member = sim.add(1, GCM);
    let victim = path(9, 40_000);
    sim.consent(&member);
    sim.check(victim, &member.local);
    sim.sent.clear();
    let flight = || Command::SendDtls { transport: member.transport, datagram: vec![22; 300].into() };
    sim.deliver(member.path, &mut DTLS.clone());
    (0..9).for_each(|_| sim.command(flight()));
    assert_eq!(sim.sent.len(), 9, "the pair that it began over");
    let mut hello = [22; 250];
    sim.deliver(victim, &mut hello);
    sim.sent.clear();
    (0..9).for_each(|_| sim.command(flight()));
    assert_eq!(sim.sent.datagrams().filter(|(path, _)| *path == victim).count(), 2);
    assert_eq!((sim.sent.len(), sim.drops(DropReason::DtlsLimit)), (2, 7));
}

#[test]
fn a_path_that_another_peer_took_comes_back_with_the_next_check() {
    let (mut sim, mut callers) = room_of(3);
    let other = callers[1].local;
    sim.check(callers[0].path, &other);
    sim.speak(&mut callers[0], 20, b"lost");
    assert_eq!(payloads(&hear(&mut sim, &mut callers[2])), [b""; 0]);
    sim.consent(&callers[0]);
    sim.speak(&mut callers[0], 20, b"voice");
    assert_eq!(payloads(&hear(&mut sim, &mut callers[2])), [b"voice"]);
    // Not as often as two may ask for it.
    sim.check(callers[0].path, &other);
    sim.consent(&callers[0]);
    sim.speak(&mut callers[0], 20, b"lost");
    assert_eq!(payloads(&hear(&mut sim, &mut callers[2])), [b""; 0]);
    sim.pass(Duration::from_secs(1));
    sim.consent(&callers[0]);
    sim.speak(&mut callers[0], 20, b"again");
    assert_eq!(payloads(&hear(&mut sim, &mut callers[2])), [b"again"]);
}
