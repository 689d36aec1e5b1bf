//! What a stranger may try at the front door: each ends in a known way, within a known time, and the
//! door stays open for others.

#[allow(dead_code, unreachable_pub, reason = "others use the rest")]
#[path = "support/certificate.rs"]
mod certificate;
#[allow(dead_code, unreachable_pub, reason = "others use the rest")]
#[path = "support/folder.rs"]
mod folder;
#[path = "http_hostile/handshakes.rs"]
mod handshakes;
mod http_support;

use std::num::NonZeroU32;
use std::rc::Rc;
use std::time::Duration;

use gryt_sfu::config::{Rate, TrustedProxies};
use gryt_sfu::http::{Policy, serve_metrics};
use http_support::{
    Door, HANDSHAKE, NEWS_COUNT, Received, STEP_MAX, connect_from, masked, masked_header, short, with_door,
    with_policy,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout};

const TEXT: u8 = 0x81;
const MESSAGE_LEN_MAX: usize = gryt_sfu::http::MESSAGE_LEN_MAX;

/// Another client is served as ever.
async fn expect_open(door: &Door) {
    let mut client = door.websocket().await;
    client.text("hello").await;
    assert_eq!(client.receive().await, Received::Text("hello".into()));
    client.frame(0x88, &[]).await;
    assert_eq!(client.receive().await, Received::Close(None, String::new()));
    assert_eq!(client.receive().await, Received::End);
}

/// Sends one thing and expects to be sent away with `code`.
fn expect_refusal(code: u16, hostile: Vec<u8>) {
    with_door(short(), |door| async move {
        let mut client = door.websocket().await;
        client.try_write(&hostile).await;
        client.expect_close(code).await;
        door.until("the end of the session", |door| door.log.borrow().contains(&"lost".into())).await;
        assert_eq!(door.app.counters().websockets_violated, 1);
        expect_open(&door).await;
        door.until("room", |door| door.app.counters().websockets_open == 0).await;
    });
}

#[test]
fn a_slow_header_is_cut_off() {
    with_door(short(), |door| async move {
        let mut client = door.connect().await;
        // Ten seconds of it, and each byte long before a time of its own would be over.
        let header = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}", "y".repeat(470));
        let mut was_cut = false;
        for byte in header.bytes() {
            let mut answer = [0];
            was_cut = !client.try_write(&[byte]).await || {
                let answer = timeout(Duration::from_millis(20), client.stream.read(&mut answer)).await;
                matches!(answer, Ok(Ok(0) | Err(_)))
            };
            if was_cut {
                break;
            }
        }
        assert!(was_cut, "all of it was waited for");
        door.until("room", |door| door.app.counters().requests_open == 0).await;
        expect_open(&door).await;
    });
}

#[test]
fn an_idle_connection_is_cut_off() {
    with_door(short(), |door| async move {
        for request in ["", "GET /health HTTP/1.1\r\nHost: x\r\n\r\n"] {
            let mut client = door.connect().await;
            client.write(request.as_bytes()).await;
            let mut answer = Vec::new();
            timeout(Duration::from_secs(2), client.stream.read_to_end(&mut answer))
                .await
                .expect("an end")
                .unwrap();
            assert_eq!(answer.starts_with(b"HTTP/1.1 200"), !request.is_empty());
        }
    });
}

#[test]
fn a_busy_connection_ends_some_day_too() {
    let limits = gryt_sfu::http::Limits { request_lifetime: Duration::from_millis(300), ..short() };
    with_door(limits, |door| async move {
        let mut client = door.connect().await;
        let begun = Instant::now();
        while client.try_write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await {
            let mut scrap = [0; 1024];
            if timeout(STEP_MAX, client.stream.read(&mut scrap)).await.unwrap().unwrap_or(0) == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    });
}

#[test]
fn a_huge_header_is_refused() {
    with_door(short(), |door| async move {
        let mut client = door.connect().await;
        let header = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "y".repeat(1 << 20));
        client.try_write(header.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = timeout(STEP_MAX, client.stream.read_to_end(&mut answer)).await.expect("an end");
        assert!(!answer.starts_with(b"HTTP/1.1 200"));
        expect_open(&door).await;
    });
}

#[test]
fn idle_connections_give_way_to_new_ones() {
    let limits =
        gryt_sfu::http::Limits { requests_max: 3, header_timeout: Duration::from_secs(20), ..short() };
    with_door(limits, |door| async move {
        let mut idle = Vec::new();
        for _ in 0..20 {
            let mut client = door.connect().await;
            client.write(b"GET / HTTP/1.1\r\nX: ").await;
            idle.push(client);
        }
        expect_open(&door).await;
        door.until("order", |door| door.app.counters().requests_open <= 3).await;
        assert!(door.app.counters().connections_evicted >= 17);
        // WebSockets are not in the way of anybody, and nobody is in theirs.
        let mut websocket = door.websocket().await;
        for _ in 0..20 {
            idle.push(door.connect().await);
        }
        websocket.text("still here").await;
        assert_eq!(websocket.receive().await, Received::Text("still here".into()));
        drop(idle);
        door.until("room", |door| door.app.counters().requests_open == 0).await;
    });
}

#[test]
fn one_address_cannot_take_the_room_of_another() {
    let limits =
        gryt_sfu::http::Limits { requests_max: 8, header_timeout: Duration::from_secs(20), ..short() };
    with_door(limits, |door| async move {
        let mut slow = door.connect_from([127, 0, 0, 1]).await;
        slow.write(b"GET /health HTTP/1.1\r\n").await;
        door.until("the first", |door| door.app.counters().requests_open == 1).await;
        let mut flood = Vec::new();
        for _ in 0..200 {
            flood.push(door.connect_from([127, 0, 0, 2]).await);
        }
        door.until("the flood", |door| door.app.counters().connections_accepted == 201).await;
        assert_eq!(door.app.counters().connections_evicted, 193);
        assert!(slow.try_write(b"Host: x\r\n\r\n").await);
        assert!(slow.response_head().await.starts_with("HTTP/1.1 200 "));
        drop((slow, flood));
        door.until("room", |door| door.app.counters().requests_open == 0).await;
    });
}

#[test]
fn a_flood_at_the_front_door_is_none_at_the_metrics_own() {
    let limits =
        gryt_sfu::http::Limits { requests_max: 8, header_timeout: Duration::from_secs(20), ..short() };
    with_door(limits, |door| async move {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let metrics = listener.local_addr().unwrap();
        tokio::task::spawn_local(serve_metrics(listener, Rc::clone(&door.app)));
        let mut scraper = connect_from([127, 0, 0, 1], metrics).await;
        scraper.write(b"GET /metrics HTTP/1.1\r\n").await;
        door.until("the scraper", |door| door.app.counters().requests_open == 1).await;
        let mut flood = Vec::new();
        for _ in 0..200 {
            flood.push(door.connect_from([127, 0, 0, 1]).await);
        }
        door.until("the flood", |door| door.app.counters().connections_evicted == 192).await;
        assert!(scraper.try_write(b"Host: x\r\n\r\n").await);
        assert!(scraper.response_head().await.starts_with("HTTP/1.1 200 "));
    });
}

#[test]
fn pipelined_requests_take_turns_with_everybody_else() {
    const CONNECTIONS: u64 = 32;
    const PIPELINED: u64 = 200;
    for path in ["/metrics", "/health", "/nothing"] {
        with_door(short(), |door| async move {
            let begun = Instant::now();
            let mut flood = Vec::new();
            for _ in 0..CONNECTIONS {
                flood.push(door.connect().await);
            }
            let requests = format!("HEAD {path} HTTP/1.1\r\nHost: x\r\n\r\n").repeat(PIPELINED as usize);
            for client in &mut flood {
                client.write(requests.as_bytes()).await;
            }
            let before = door.app.counters().requests;
            let mut client = door.websocket().await;
            client.text("hello").await;
            assert_eq!(client.receive().await, Received::Text("hello".into()));
            // It takes him a few turns, and in each one request of each of the others is answered.
            let meanwhile = door.app.counters().requests - before;
            assert!(meanwhile <= 8 * CONNECTIONS, "{path}: he waited for {meanwhile}");

            let all = CONNECTIONS * PIPELINED;
            door.until("the end of the flood", |door| door.app.counters().requests > all).await;
            let pages = begun.elapsed().as_millis() / 500 + 1;
            let made = u128::from(door.snapshots.get());
            assert!(made <= pages, "{path}: a page twice a second, not {made} in {:?}", begun.elapsed());
        });
    }
}

#[test]
fn too_many_websockets_are_refused() {
    let limits = gryt_sfu::http::Limits { websockets_max: 2, ..short() };
    with_door(limits, |door| async move {
        let (first, _second) = (door.websocket().await, door.websocket().await);
        let mut third = door.connect().await;
        third.write(HANDSHAKE.as_bytes()).await;
        assert!(third.response_head().await.starts_with("HTTP/1.1 503 "));
        assert_eq!(door.app.counters().websockets_refused, 1);
        drop(first);
        door.until("room", |door| door.app.counters().websockets_open == 1).await;
        expect_open(&door).await;
    });
}

#[test]
fn who_has_not_joined_gives_way_to_who_comes() {
    let limits = gryt_sfu::http::Limits { websockets_max: 3, ..short() };
    with_door(limits, |door| async move {
        door.has_strangers.set(true);
        let mut member = door.websocket().await;
        member.text("join").await;
        assert_eq!(member.receive().await, Received::Text("join".into()));
        let mut strangers = Vec::new();
        for _ in 0..20 {
            strangers.push(door.websocket().await);
        }
        door.until("order", |door| door.app.counters().websockets_open == 3).await;
        assert_eq!(door.app.counters().websockets_evicted, 18);
        assert_eq!(door.app.counters().websockets_refused, 0);
        for client in strangers.iter_mut().skip(18).chain([&mut member]) {
            client.text("join").await;
            assert_eq!(client.receive().await, Received::Text("join".into()));
        }
        // Members give way to nobody.
        let mut late = door.connect().await;
        late.write(HANDSHAKE.as_bytes()).await;
        assert!(late.response_head().await.starts_with("HTTP/1.1 503 "));
    });
}

/// Whoever closes, and however long the peer takes over it.
#[test]
fn who_is_no_member_any_more_gives_way_to_who_comes() {
    let long = Duration::from_secs(25);
    let farewells: [&[(u8, &[u8])]; 4] = [
        &[(TEXT, b"close")],
        &[(TEXT, b"forget")],
        &[(TEXT, b"flood"), (TEXT, b"close")], // Behind what the peer does not read.
        &[(0x88, b"\x03\xE9")],                // The peer's own, who goes on holding the stream.
    ];
    for farewell in farewells {
        let limits =
            gryt_sfu::http::Limits { websockets_max: 2, write_timeout: long, close_timeout: long, ..short() };
        with_door(limits, |door| async move {
            let mut former = [door.websocket().await, door.websocket().await];
            let mut early = door.connect().await;
            early.write(HANDSHAKE.as_bytes()).await;
            assert!(early.response_head().await.starts_with("HTTP/1.1 503 "), "two are members");
            for client in &mut former {
                for (first, payload) in farewell {
                    client.frame(*first, payload).await;
                }
            }
            door.until("two farewells", |door| {
                let closed = door.log.borrow().iter().filter(|line| line.starts_with("closed")).count();
                door.app.counters().messages_in as usize + closed == 2 * farewell.len()
            })
            .await;
            let _newcomers = [door.websocket().await, door.websocket().await];
            let counters = door.app.counters();
            assert_eq!((counters.websockets_evicted, counters.websockets_refused), (2, 1));
            let mut late = door.connect().await;
            late.write(HANDSHAKE.as_bytes()).await;
            assert!(late.response_head().await.starts_with("HTTP/1.1 503 "), "two others are members");
            drop(former);
        });
    }
}

/// Whom a trusted proxy names is whom it counts for.
#[test]
fn strangers_of_one_address_cannot_take_the_room_of_another() {
    let limits = gryt_sfu::http::Limits { websockets_max: 4, ..short() };
    let trusted_proxies = TrustedProxies::parse("127.0.0.1").unwrap();
    let policy = Policy { trusted_proxies, ..Policy::default() };
    with_policy(Duration::from_secs(30), limits, policy, |door| async move {
        door.has_strangers.set(true);
        let by_proxy = HANDSHAKE.replace("Host: x\r\n", "Host: x\r\nX-Forwarded-For: 192.0.2.1\r\n");
        let mut early = [
            door.connect_from([127, 0, 0, 2]).await.upgraded(HANDSHAKE).await,
            door.connect().await.upgraded(&by_proxy).await,
        ];
        let mut flood = Vec::new();
        for _ in 0..50 {
            flood.push(door.websocket().await);
        }
        assert_eq!(door.app.counters().websockets_evicted, 48);
        for client in &mut early {
            client.text("join").await;
            assert_eq!(client.receive().await, Received::Text("join".into()));
        }
    });
}

#[test]
fn who_has_not_joined_may_not_say_much() {
    with_door(short(), |door| async move {
        door.has_strangers.set(true);
        for hostile in [
            // The head of a frame is enough, of the first as of one that goes on with it.
            masked_header(TEXT, 16 * 1024 + 1),
            [masked(0x01, &[b'x'; 16 * 1024]), masked_header(0x80, 126)].concat(),
        ] {
            let mut client = door.websocket().await;
            client.write(&hostile).await;
            client.expect_close(1009).await;
        }
        let mut client = door.websocket().await;
        client.text("join").await;
        assert_eq!(client.receive().await, Received::Text("join".into()));
        let text = "x".repeat(MESSAGE_LEN_MAX);
        client.text(&text).await;
        assert_eq!(client.receive().await, Received::Text(text));
    });
}

#[test]
fn what_comes_at_once_is_heard_in_turns() {
    with_door(short(), |door| async move {
        let mut client = door.websocket().await;
        // More than wait for a client that reads.
        client.write(&masked(TEXT, b"x").repeat(200)).await;
        for _ in 0..200 {
            assert_eq!(client.receive().await, Received::Text("x".into()));
        }
        assert!(!door.log.borrow().contains(&"queue full".into()));
    });
}

#[test]
fn answers_that_were_asked_for_cost_nothing_of_a_clients_messages() {
    let rate = Rate { requests: NonZeroU32::new(20).unwrap(), window: Duration::from_secs(3600) };
    let policy = Policy { rate: Some(rate), ..Policy::default() };
    with_policy(Duration::from_secs(30), short(), policy, |door| async move {
        let mut client = door.websocket().await;
        for _ in 0..60 {
            client.text("answer").await;
            assert_eq!(client.receive().await, Received::Text("answer".into()));
        }
        for _ in 0..20 {
            client.text("other").await;
            assert_eq!(client.receive().await, Received::Text("other".into()));
        }
        client.text("one too many").await;
        while !matches!(client.receive().await, Received::Text(text) if text.contains("rate-limited")) {}
        client.expect_close(1008).await;
    });
}

#[test]
fn a_handshake_that_is_none_is_refused() {
    with_door(short(), |door| async move {
        for (from, to, status) in [
            ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "", "400"),
            ("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ=", "400"),
            ("dGhlIHNhbXBsZSBub25jZQ==", "!!!!", "400"),
            ("Version: 13", "Version: 8", "426"),
            ("Sec-WebSocket-Version: 13\r\n", "", "426"),
            ("GET ", "POST ", "400"),
            ("/any/path", "/server", "404"),
            ("Connection: keep-alive, Upgrade\r\n", "", "404"), // An ordinary request for an unknown path.
            ("Upgrade: websocket\r\n", "Upgrade: h2c\r\n", "404"),
        ] {
            let mut client = door.connect().await;
            client.write(HANDSHAKE.replace(from, to).as_bytes()).await;
            let head = client.response_head().await;
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{from:?} -> {to:?}: {head}");
        }
        assert_eq!(door.app.counters().websockets_open, 0);
        expect_open(&door).await;
    });
}

#[test]
fn an_unmasked_frame_is_refused() {
    expect_refusal(1002, b"\x81\x05hello".to_vec());
}

#[test]
fn a_masked_frame_with_a_mask_of_zero_is_taken() {
    with_door(short(), |door| async move {
        let mut client = door.websocket().await;
        let mut frame = masked_header(TEXT, 2);
        frame.extend(b"ok");
        client.write(&frame).await;
        assert_eq!(client.receive().await, Received::Text("ok".into()));
    });
}

#[test]
fn a_frame_that_claims_100_mb_is_refused_at_its_header() {
    expect_refusal(1009, masked_header(TEXT, 100_000_000));
    expect_refusal(1009, masked_header(TEXT, u64::MAX));
    expect_refusal(1009, masked_header(TEXT, MESSAGE_LEN_MAX as u64 + 1));
}

#[test]
fn unread_megabytes_do_not_turn_the_goodbye_into_a_reset() {
    with_door(short(), |door| async move {
        let mut client = door.websocket().await;
        let mut hostile = masked_header(TEXT, 100_000_000);
        hostile.resize(16 << 20, b'x');
        assert!(client.try_write(&hostile).await, "the server reads to the end what it does not want");
        client.expect_close(1009).await;
    });
}

#[test]
fn the_largest_message_is_taken_whole_and_in_fragments() {
    with_door(short(), |door| async move {
        let mut client = door.websocket().await;
        let text = "x".repeat(MESSAGE_LEN_MAX);
        client.text(&text).await;
        assert_eq!(client.receive().await, Received::Text(text.clone()));
        let (head, tail) = text.as_bytes().split_at(1000);
        client.frame(0x01, head).await;
        client.frame(0x89, b"in between").await;
        client.frame(0x80, tail).await;
        assert_eq!(client.receive().await, Received::Pong(b"in between".to_vec()));
        assert_eq!(client.receive().await, Received::Text(text));
    });
}

#[test]
fn a_bomb_of_fragments_is_refused_when_their_sum_is_too_big() {
    let mut hostile = masked(0x01, &[b'x'; 4096]);
    for _ in 0..MESSAGE_LEN_MAX / 4096 {
        hostile.extend(masked(0x00, &[b'x'; 4096]));
    }
    expect_refusal(1009, hostile);
}

#[test]
fn a_bomb_of_tiny_fragments_is_refused_for_their_number() {
    let mut hostile = masked(0x01, b"x");
    for _ in 0..20_000 {
        hostile.extend(masked(0x00, b"x"));
    }
    expect_refusal(1008, hostile);
}

/// In a large room where much changes an answer is long, and there are many: that is the server's doing.
#[test]
fn answers_that_were_asked_for_are_free_however_many() {
    with_door(short(), |door| async move {
        let mut client = door.websocket().await;
        let answer = format!("answer {}", "x".repeat(30_000));
        for _ in 0..200 {
            client.frame(TEXT, answer.as_bytes()).await;
            assert_eq!(client.receive().await, Received::Text(answer.clone()));
        }
    });
}

#[test]
fn text_that_is_not_utf8_is_refused() {
    expect_refusal(1007, masked(TEXT, b"\xC3\x28"));
    let mut split = masked(0x01, b"\xE2\x82");
    split.extend(masked(0x80, b"\x28"));
    expect_refusal(1007, split);
}

#[test]
fn a_character_may_be_split_between_fragments() {
    with_door(short(), |door| async move {
        let mut client = door.websocket().await;
        client.frame(0x01, b"\xE2\x82").await;
        client.frame(0x80, b"\xAC").await;
        assert_eq!(client.receive().await, Received::Text("€".into()));
    });
}

#[test]
fn other_breaches_of_the_protocol_are_refused() {
    expect_refusal(1003, masked(0x82, b"binary"));
    expect_refusal(1002, masked(0x80, b"continues nothing"));
    expect_refusal(1002, [masked(0x01, b"a"), masked(TEXT, b"b")].concat());
    expect_refusal(1002, masked(0xC1, b"compressed"));
    expect_refusal(1002, masked(0x83, b"reserved opcode"));
    expect_refusal(1002, masked(0x09, b"fragmented ping"));
    expect_refusal(1002, masked(0x89, &[0; 126]));
    expect_refusal(1002, masked(0x8A, &[0; 126]));
    expect_refusal(1002, masked(0x88, &[3]));
    expect_refusal(1002, masked(0x88, &1005_u16.to_be_bytes()));
    expect_refusal(1002, masked(0x88, &999_u16.to_be_bytes()));
    expect_refusal(1007, masked(0x88, b"\x03\xE8\xFF"));
}

#[test]
fn a_flood_of_pings_is_ended() {
    expect_refusal(1008, masked(0x89, b"ping").repeat(50_000));
}

#[test]
fn a_close_is_echoed_once_and_ends_the_session() {
    with_door(short(), |door| async move {
        let mut client = door.websocket().await;
        client.frame(0x88, b"\x03\xE9bye").await;
        client.text("after the end").await;
        client.frame(0x88, b"\x03\xE9bye").await;
        assert_eq!(client.receive().await, Received::Close(Some(1001), String::new()));
        assert_eq!(client.receive().await, Received::End);
        door.until("the end", |door| door.app.counters().websockets_open == 0).await;
        assert_eq!(*door.log.borrow(), ["connected", "closed 1001"]);
    });
}

#[test]
fn the_server_closes_politely_and_waits_for_the_answer() {
    for word in ["close", "forget"] {
        with_door(short(), |door| async move {
            let mut client = door.websocket().await;
            client.text(word).await;
            let reason = if word == "close" { "as you wish" } else { "" };
            assert_eq!(client.receive().await, Received::Close(Some(1000), reason.into()));
            client.text("not heard any more").await;
            client.frame(0x88, b"\x03\xE8").await;
            assert_eq!(client.receive().await, Received::End, "no second close frame");
            door.until("the end", |door| door.app.counters().websockets_open == 0).await;
            assert_eq!(*door.log.borrow(), ["connected", "closed 1000"]);
        });
    }
}

#[test]
fn what_may_wait_leaves_together_and_nothing_overtakes_it() {
    with_door(short(), |door| async move {
        let mut client = door.websocket().await;
        for asked in [&["hot news"][..], &["news"], &["slow news", "now"], &["slow news", "close"]] {
            let before = door.app.counters().writes;
            for text in asked {
                client.text(text).await;
            }
            for i in 0..NEWS_COUNT {
                assert_eq!(client.receive().await, Received::Text(format!("news {i}")));
            }
            match asked.last() {
                Some(&"now") => assert_eq!(client.receive().await, Received::Text("now".into())),
                Some(&"close") => client.expect_close(1000).await,
                _ => {}
            }
            assert_eq!(door.app.counters().writes, before + 1, "{asked:?}");
        }
    });
}

#[test]
fn a_close_that_nobody_answers_is_the_end_all_the_same() {
    with_door(short(), |door| async move {
        let mut client = door.websocket().await;
        client.text("close").await;
        assert!(matches!(client.receive().await, Received::Close(Some(1000), _)));
        door.until("the end", |door| door.app.counters().websockets_open == 0).await;
    });
}

#[test]
fn a_vanished_client_is_lost_not_closed() {
    with_door(short(), |door| async move {
        let mut client = door.websocket().await;
        client.stream.shutdown().await.unwrap();
        door.until("the end", |door| door.app.counters().websockets_open == 0).await;
        assert_eq!(*door.log.borrow(), ["connected", "lost"]);
    });
}

#[test]
fn a_client_that_does_not_read_is_let_go() {
    with_door(short(), |door| async move {
        let mut client = door.websocket().await;
        client.text("flood").await;
        door.until("the end", |door| door.app.counters().websockets_open == 0).await;
        assert_eq!(door.app.counters().websockets_stuck, 1);
        assert_eq!(*door.log.borrow(), ["connected", "lost"]);
    });
}

#[test]
fn a_silent_client_is_pinged_and_then_let_go() {
    let limits = gryt_sfu::http::Limits {
        ping_interval: Duration::from_millis(400),
        silence_max: Duration::from_millis(1400),
        ..short()
    };
    with_door(limits, |door| async move {
        let mut client = door.websocket().await;
        // As long as it answers, it stays.
        for _ in 0..8 {
            let Received::Ping(payload) = client.receive().await else { panic!("a ping was due") };
            client.frame(0x8A, &payload).await;
        }
        // Pings of its own are no sign that it reads ours.
        let mut pings = 0;
        let code = loop {
            match client.receive().await {
                Received::Ping(_) => {
                    pings += 1;
                    client.try_write(&masked(0x89, b"")).await;
                }
                Received::Pong(_) => {}
                Received::Close(code, _) => break code,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(code, Some(1008));
        assert!((2..=4).contains(&pings), "{pings} pings without an answer");
        door.until("the end", |door| door.app.counters().websockets_open == 0).await;
        assert_eq!(door.app.counters().websockets_silent, 1);
        assert_eq!(*door.log.borrow(), ["connected", "lost"]);
    });
}
