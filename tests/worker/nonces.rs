//! AES-GCM gives its authentication away when one key seals twice under one nonce (RFC 7714 §12.1):
//! whatever happens in a room, no (SSRC, index) leaves twice under a key.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

const CALLERS: usize = 4;

#[derive(Clone, Debug)]
enum Step {
    /// Index moves on by so much; the packet is delivered now, or held back until `Late`.
    Speak {
        who: usize,
        jump: u64,
        held: bool,
    },
    Late,
    /// A new SSRC of the same voice.
    ChangeSsrc {
        who: usize,
    },
    Assign {
        who: usize,
        slot: u16,
        source: Option<usize>,
    },
    Mute {
        who: usize,
        muted: bool,
    },
    Deafen {
        who: usize,
        deafened: bool,
    },
    Republish {
        who: usize,
    },
    Rejoin {
        who: usize,
    },
    RestartIce {
        who: usize,
    },
    Flush,
    Pass {
        ms: u64,
    },
}

/// A publisher that shook hands again could repeat all its indices.
#[test]
fn keys_are_set_once() {
    let (mut sim, mut callers) = room_of(2);
    let [speaker, listener] = &mut callers[..] else { panic!("two") };
    sim.speak(speaker, 20, b"before");
    assert_eq!(payloads(&hear(&mut sim, listener)), [b"before"]);
    sim.finish_dtls(speaker, 2);
    speaker.begin_again(2);
    sim.speak(speaker, 20, b"after!");
    sim.speak(speaker, 20, b"after!");
    assert_eq!(payloads(&hear(&mut sim, listener)), [b""; 0]);
    assert_eq!((sim.drops(DropReason::Replayed), sim.drops(DropReason::BadAuthTag)), (1, 1));
}

fn step() -> impl Strategy<Value = Step> {
    let who = 0..CALLERS;
    prop_oneof![
        12 => (who.clone(), prop_oneof![9 => Just(1_u64), 2 => 1..60_u64, 1 => 2_900..33_000_u64], prop::bool::weighted(0.1))
            .prop_map(|(who, jump, held)| Step::Speak { who, jump, held }),
        2 => Just(Step::Late),
        1 => who.clone().prop_map(|who| Step::ChangeSsrc { who }),
        4 => (who.clone(), 0..CALLERS as u16, prop::option::of(who.clone()))
            .prop_map(|(who, slot, source)| Step::Assign { who, slot, source }),
        2 => (who.clone(), any::<bool>()).prop_map(|(who, muted)| Step::Mute { who, muted }),
        2 => (who.clone(), any::<bool>()).prop_map(|(who, deafened)| Step::Deafen { who, deafened }),
        1 => who.clone().prop_map(|who| Step::Republish { who }),
        1 => who.clone().prop_map(|who| Step::Rejoin { who }),
        1 => who.prop_map(|who| Step::RestartIce { who }),
        6 => Just(Step::Flush),
        2 => (1..1_500_u64).prop_map(|ms| Step::Pass { ms }),
    ]
}

struct History {
    sim: Sim,
    callers: Vec<Caller>,
    joined: u16,
    held: Vec<(gryt_sfu::packet::Path, Vec<u8>)>,
    /// Of each key: what it sealed. A transport has one key a direction.
    media: HashSet<(TransportId, Ssrc, u64)>,
    control: HashSet<(TransportId, u32, u32)>,
}

impl History {
    fn new() -> History {
        let mut sim = Sim::new(2); // Fewer slots than voices: the stage takes part.
        let callers = (1..=CALLERS as u16).map(|number| sim.join(number, GCM)).collect();
        let (held, media, control) = Default::default();
        let mut history = History { sim, callers, joined: CALLERS as u16, held, media, control };
        (0..CALLERS).for_each(|who| history.take_seats(who));
        history
    }

    fn take_seats(&mut self, who: usize) {
        self.sim.publish_as(&self.callers[who], track(who));
        for slot in 0..2 {
            self.sim.add_slot(&self.callers[who], slot, Some(track((who + 1 + usize::from(slot)) % CALLERS)));
        }
    }

    fn take(&mut self, step: Step) {
        let sim = &mut self.sim;
        match step {
            Step::Speak { who, jump, held } => {
                let caller = &mut self.callers[who];
                caller.next = PacketIndex(caller.next.0 + jump - 1);
                let mut bytes = [0; 200];
                let len = caller.protect(10 + who as u8, b"voice", &mut bytes);
                if held {
                    self.held.push((caller.path, bytes[..len].to_vec()));
                } else {
                    sim.deliver(caller.path, &mut bytes[..len]);
                }
            }
            Step::Late => self.held.drain(..).for_each(|(path, mut bytes)| sim.deliver(path, &mut bytes)),
            Step::ChangeSsrc { who } => {
                let caller = &mut self.callers[who];
                (caller.ssrc, caller.next) = (Ssrc(caller.ssrc.0 + 0x100), PacketIndex(7));
            }
            Step::Assign { who, slot, source } => sim.command(Command::AssignSlot {
                transport: self.callers[who].transport,
                slot: SlotIndex(slot),
                source: source.map(track),
            }),
            Step::Mute { who, muted } => sim.command(Command::SetMuted { track: track(who), muted }),
            Step::Deafen { who, deafened } => {
                sim.command(Command::SetDeafened { transport: self.callers[who].transport, deafened });
            }
            Step::Republish { who } => {
                sim.command(Command::Unpublish(track(who)));
                sim.publish_as(&self.callers[who], track(who));
            }
            Step::Rejoin { who } => {
                sim.command(Command::RemoveTransport(self.callers[who].transport));
                self.look();
                self.joined += 1;
                self.callers[who] = self.sim.join(self.joined, GCM);
                self.take_seats(who);
            }
            Step::RestartIce { who } => sim.restart_ice(&mut self.callers[who]),
            Step::Flush => sim.flush(),
            Step::Pass { ms } => {
                pass_consenting(sim, Duration::from_millis(ms), &self.callers);
            }
        }
        self.look();
    }

    /// Opens all that left. Each caller's replay window would not do: it forgets.
    fn look(&mut self) {
        for (path, bytes) in self.sim.sent.datagrams() {
            let Some(caller) = self.callers.iter_mut().find(|caller| caller.path == path) else {
                continue;
            };
            if let Some(heard) = caller.unprotect(bytes) {
                let sealed = (caller.transport, heard.ssrc, heard.index);
                assert!(self.media.insert(sealed), "{sealed:?} left twice");
            } else if caller.unprotect_rtcp(bytes).is_some() {
                let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
                let sealed = (caller.transport, word(4), word(bytes.len() - 4));
                assert!(self.control.insert(sealed), "{sealed:?} left twice");
            }
        }
        self.sim.sent.clear();
    }
}

fn track(who: usize) -> TrackId {
    TrackId(1 + who as u64)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn no_index_of_an_ssrc_leaves_twice_under_a_key(steps in prop::collection::vec(step(), 1..250)) {
        let mut history = History::new();
        steps.into_iter().for_each(|step| history.take(step));
    }
}

#[test]
fn a_history_has_something_in_it() {
    let mut history = History::new();
    for _ in 0..20 {
        (0..CALLERS).for_each(|who| history.take(Step::Speak { who, jump: 1, held: false }));
        history.take(Step::Flush);
    }
    history.take(Step::Rejoin { who: 1 });
    history.take(Step::Pass { ms: 2_000 });
    assert!(history.media.len() >= 100, "{}", history.media.len());
    assert!(history.control.len() >= CALLERS, "{}", history.control.len());
}
