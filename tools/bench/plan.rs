//! The tables: what is varied, and who is compared.

use super::network::SERVER;
use super::subject::{Load, Subject, Voice};

/// A table, and a plot of it.
pub(crate) struct Table {
    /// On the command line.
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) x: &'static str,
    /// Server and load may use all CPUs: several workers on one would show how they take turns.
    pub(crate) is_spread: bool,
    /// The server is asked each second for how long voices lie in its receive queue.
    pub(crate) tells_queue: bool,
    /// The first one is what the others are held against.
    pub(crate) subjects: Vec<(&'static str, Subject)>,
    pub(crate) cases: Vec<Case>,
}

/// A row.
pub(crate) struct Case {
    pub(crate) x: u32,
    pub(crate) label: String,
    pub(crate) load: Load,
}

fn case(x: u32, rooms: u32, speakers: u32, listeners: u32, voice: Voice) -> Case {
    let load = Load { rooms, speakers, listeners, voice, hear_every: 1, deaf_speakers: false };
    Case { x, label: format!("{rooms} × {speakers}+{listeners}"), load }
}

fn server(variables: &[(&'static str, &'static str)]) -> Subject {
    Subject::Server(variables.to_vec())
}

/// Many, of whom one in ten hears: the load has to take in what the server sends, with no more CPU than that has.
fn crowd(rooms: u32) -> Case {
    let full = case(rooms, rooms, 4, 100, Voice::Constant);
    Case { load: Load { hear_every: 10, ..full.load }, ..full }
}

/// There who speaks hears nobody on the same connection.
fn beside_janus(rooms: u32, listeners: u32) -> Case {
    let case = case(rooms * listeners, rooms, 4, listeners, Voice::Constant);
    Case { load: Load { deaf_speakers: true, ..case.load }, ..case }
}

impl Table {
    /// Whether Janus is among its subjects.
    pub(crate) fn has_janus(&self) -> bool {
        self.subjects.iter().any(|(_, subject)| matches!(subject, Subject::Janus))
    }
}

/// All of them, in the order of the report.
pub(crate) fn tables() -> Vec<Table> {
    use Voice::{Constant, Opus};
    let both = || vec![("bare fan-out", Subject::Floor), ("sfu", server(&[]))];
    let ticks = |voice| {
        let subjects = vec![
            ("bare fan-out", Subject::Floor),
            ("sfu", server(&[])),
            ("sfu, tick 5 ms", server(&[("EGRESS_TICK_MS", "5")])),
            ("sfu, tick 10 ms", server(&[("EGRESS_TICK_MS", "10")])),
            ("sfu, tick 20 ms", server(&[("EGRESS_TICK_MS", "20")])),
        ];
        (subjects, [1, 3].map(|rooms| case(rooms, rooms, 4, 100, voice)).into())
    };
    let (constant, constant_cases) = ticks(Constant);
    let (opus, opus_cases) = ticks(Opus);
    let tick = ("EGRESS_TICK_MS", "10");
    let two = ("WORKERS", "2");
    let ports = ("ICE_UDP_MUX_PORT", "3478-3479");
    vec![
        Table {
            name: "receivers",
            title: "Cost against receivers: one speaker, 120 B",
            x: "receivers",
            is_spread: false,
            tells_queue: false,
            subjects: both(),
            cases: [2, 10, 100, 1000, 3000].map(|count| case(count, 1, 1, count, Constant)).into(),
        },
        Table {
            name: "rooms",
            title: "Cost against the size of rooms: 4 speakers in each, some 60,000 packets a second in all, 120 B",
            x: "listeners",
            is_spread: false,
            tells_queue: false,
            subjects: vec![
                ("bare fan-out", Subject::Floor),
                ("sfu", server(&[])),
                ("sfu, tick 10 ms", server(&[tick])),
            ],
            cases: [(60, 2), (23, 10), (6, 50), (3, 100), (1, 300)]
                .map(|(rooms, listeners)| case(listeners, rooms, 4, listeners, Constant))
                .into(),
        },
        Table {
            name: "speakers",
            title: "Cost against speakers: 100 listeners, 120 B",
            x: "speakers",
            is_spread: false,
            tells_queue: false,
            subjects: both(),
            cases: (1..=8).map(|count| case(count, 1, count, 100, Constant)).collect(),
        },
        Table {
            name: "load",
            title: "Cost and latency against load: rooms of 4 speakers and 100 listeners, 120 B",
            x: "rooms",
            is_spread: false,
            tells_queue: false,
            subjects: both(),
            cases: [1, 3, 6, 8, 10, 12].map(|rooms| case(rooms, rooms, 4, 100, Constant)).into(),
        },
        Table {
            name: "saturation",
            title: "To the end of a CPU: rooms of 4 speakers and 100 listeners, of whom one in ten hears, 120 B",
            x: "rooms",
            is_spread: false,
            tells_queue: true,
            subjects: vec![
                ("bare fan-out", Subject::Floor),
                ("sfu", server(&[])),
                ("sfu, OVERLOAD_TICK_MS=0", server(&[("OVERLOAD_TICK_MS", "0")])),
            ],
            cases: [6, 8, 12, 14, 16, 20, 24, 28].map(crowd).into(),
        },
        Table {
            name: "tick",
            title: "EGRESS_TICK_MS: rooms of 4 speakers and 100 listeners, 120 B",
            x: "rooms",
            is_spread: false,
            tells_queue: false,
            subjects: constant,
            cases: constant_cases,
        },
        Table {
            name: "tick-opus",
            title: "EGRESS_TICK_MS: the same with Opus at a variable bit rate",
            x: "rooms",
            is_spread: false,
            tells_queue: false,
            subjects: opus,
            cases: opus_cases,
        },
        Table {
            name: "padding",
            title: "GSO_PAD_MAX with EGRESS_TICK_MS=10: Opus at a variable bit rate",
            x: "rooms",
            is_spread: false,
            tells_queue: false,
            subjects: vec![
                ("bare fan-out", Subject::Floor),
                ("0", server(&[tick, ("GSO_PAD_MAX", "0")])),
                ("32", server(&[tick, ("GSO_PAD_MAX", "32")])),
                ("64", server(&[tick, ("GSO_PAD_MAX", "64")])),
                ("255", server(&[tick, ("GSO_PAD_MAX", "255")])),
            ],
            cases: vec![case(1, 1, 4, 100, Opus)],
        },
        Table {
            name: "backends",
            title: "IO_BACKEND: rooms of 4 speakers and 100 listeners, 120 B",
            x: "rooms",
            is_spread: false,
            tells_queue: false,
            subjects: vec![
                ("bare fan-out", Subject::Floor),
                ("uring", server(&[("IO_BACKEND", "uring")])),
                ("mmsg", server(&[("IO_BACKEND", "mmsg")])),
                ("uring, tick 10 ms", server(&[("IO_BACKEND", "uring"), tick])),
                ("mmsg, tick 10 ms", server(&[("IO_BACKEND", "mmsg"), tick])),
            ],
            cases: [1, 3, 8].map(|rooms| case(rooms, rooms, 4, 100, Constant)).into(),
        },
        Table {
            name: "janus",
            title: "Beside Janus: rooms of 4 speakers, 120 B",
            x: "listeners",
            is_spread: false,
            tells_queue: false,
            subjects: vec![
                ("bare fan-out", Subject::Floor),
                ("sfu", server(&[])),
                ("sfu, tick 10 ms", server(&[tick])),
                ("Janus", Subject::Janus),
            ],
            cases: [(1, 10), (8, 10), (1, 100), (2, 100)]
                .map(|(rooms, listeners)| beside_janus(rooms, listeners))
                .into(),
        },
        Table {
            name: "bind",
            title: "ICE_BIND_IP: rooms of 4 speakers and 100 listeners, 120 B",
            x: "rooms",
            is_spread: false,
            tells_queue: false,
            subjects: vec![
                ("bare fan-out", Subject::Floor),
                ("its address", server(&[])),
                ("all addresses", server(&[("ICE_BIND_IP", "0.0.0.0"), ("ICE_ADVERTISE_IP", SERVER)])),
            ],
            cases: [3, 6].map(|rooms| case(rooms, rooms, 4, 100, Constant)).into(),
        },
        Table {
            name: "wait",
            title: "BATCH_WAIT_US: rooms of 4 speakers and 100 listeners, 120 B",
            x: "rooms",
            is_spread: false,
            tells_queue: false,
            subjects: vec![
                ("bare fan-out", Subject::Floor),
                ("0", server(&[])),
                ("200", server(&[("BATCH_WAIT_US", "200")])),
                ("500", server(&[("BATCH_WAIT_US", "500")])),
                ("1000", server(&[("BATCH_WAIT_US", "1000")])),
                ("5000", server(&[("BATCH_WAIT_US", "5000")])),
            ],
            cases: [1, 3].map(|rooms| case(rooms, rooms, 4, 100, Constant)).into(),
        },
        Table {
            name: "workers",
            title: "WORKERS: the same voices in one room that spans them, and in many rooms, 120 B",
            x: "rooms",
            is_spread: true,
            tells_queue: false,
            subjects: vec![
                ("bare fan-out", Subject::Floor),
                ("1 worker", server(&[])),
                ("2 workers", server(&[two, ports, ("ROOM_SPAN_AT", "102")])),
            ],
            cases: [(1, 200), (8, 25)].map(|(rooms, count)| case(rooms, rooms, 4, count, Constant)).into(),
        },
        Table {
            name: "steering",
            title: "Which of 2 workers a datagram comes to: few voices with many listeners, and nothing but voices, 120 B",
            x: "rooms",
            is_spread: true,
            tells_queue: false,
            subjects: vec![
                ("a port each", server(&[two, ports])),
                ("one port, BPF", server(&[two])),
                ("one port, plain relay", Subject::Unsteered(vec![two])),
                ("1 worker", server(&[])),
            ],
            cases: [(2, 100), (40, 0)].map(|(rooms, count)| case(rooms, rooms, 4, count, Constant)).into(),
        },
    ]
}
