//! Who may be heard and who may hear.

use serde_json::{Value, json};

use crate::signer::{Signer, claims_with, member, server};
use crate::support::{Client, Server, assert_silent};

async fn member_of_hall(server: &Server, user: &str, grants: Value) -> Client {
    member(server, "hall", user, grants).await
}

/// Whether the server's answer lets her send.
async fn is_answered_as_sender(client: &Client) -> bool {
    let answer = client.message("answer", |_| true).await;
    let sdp = answer["sdp"].as_str().expect("an answer");
    sdp.contains("a=sendrecv") || sdp.contains("a=recvonly")
}

/// Answered that she sends nothing, ann sends all the same, and ben does not hear it; cleo is heard.
async fn assert_voiceless(server: &Server, ann: &Client, ben: &Client, cleo: &Client) {
    assert_eq!(ann.joined().await["grants"]["publish"], false);
    assert!(!is_answered_as_sender(ann).await, "{}", ann.message("answer", |_| true).await);
    ann.speak(5);
    cleo.speak(20);
    ann.until("frames of hers", |state| (state.sent > 50).then_some(())).await;
    server.metric_reaches("gryt_sfu_drops_total", &["\"rtp_unknown_stream\""], 50.0).await;
    assert_silent(ben, ann, ben, cleo).await;
    assert_eq!(ben.state().count(ann.id), 0);
    ann.hears(cleo, 10).await;
}

/// Ann anew, over her own place, with a token that lets her publish or not.
async fn rejoin(server: &Server, ann: Client, publish: bool) -> Client {
    let again = member_of_hall(server, "ann", json!({"publish": publish})).await;
    ann.error("already-joined").await;
    assert_eq!(again.joined().await["resumed"], false);
    again
}

async fn assert_has_voice(ann: &Client, ben: &Client) {
    assert_eq!(ann.joined().await["grants"]["publish"], true);
    assert!(is_answered_as_sender(ann).await);
    ann.speak(5);
    ben.hears(ann, 10).await;
}

#[tokio::test]
async fn who_may_not_publish_is_not_heard_whatever_it_sends_until_it_may() {
    let server = server();
    let ann = member_of_hall(&server, "ann", json!({"publish": false})).await;
    let ben = member_of_hall(&server, "ben", json!({})).await;
    let cleo = member_of_hall(&server, "cleo", json!({})).await;
    assert_voiceless(&server, &ann, &ben, &cleo).await;
    let ann = rejoin(&server, ann, true).await;
    assert_has_voice(&ann, &ben).await;
}

/// Her track outlives her old negotiation: a new one must not find its way back to it.
#[tokio::test]
async fn who_loses_the_right_to_publish_falls_silent_until_it_is_back() {
    let server = server();
    let ann = member_of_hall(&server, "ann", json!({})).await;
    let ben = member_of_hall(&server, "ben", json!({})).await;
    let cleo = member_of_hall(&server, "cleo", json!({})).await;
    assert_has_voice(&ann, &ben).await;
    let ann = rejoin(&server, ann, false).await;
    assert_voiceless(&server, &ann, &ben, &cleo).await;
    let ann = rejoin(&server, ann, true).await;
    assert_has_voice(&ann, &ben).await;
}

/// What was negotiated fits the grants of that time alone.
#[tokio::test]
async fn who_resumes_with_another_right_to_publish_begins_anew() {
    let server = server();
    for (before, after) in [(false, true), (true, false)] {
        let ann = member_of_hall(&server, "ann", json!({"publish": before})).await;
        ann.lose_socket();
        let grants = claims_with("hall", "ann", json!({"publish": after}));
        ann.use_token(Some(Signer::secret().sign(&grants)));
        let mark = ann.mark();
        ann.resume();
        let joined = ann.message_since(mark, "joined", |data| data["success"] == true).await;
        assert_eq!((&joined["resumed"], &joined["grants"]["publish"]), (&json!(false), &json!(after)));
    }
}

#[tokio::test]
async fn who_may_not_subscribe_is_sent_nothing() {
    let server = server();
    let ann = member_of_hall(&server, "ann", json!({"subscribe": false})).await;
    let ben = member_of_hall(&server, "ben", json!({})).await;
    let cleo = member_of_hall(&server, "cleo", json!({})).await;
    assert_eq!(ann.joined().await["grants"]["subscribe"], false);
    for client in [&ann, &ben, &cleo] {
        client.speak(20);
    }
    tokio::join!(ben.hears(&ann, 50), cleo.hears(&ben, 50), ben.hears(&cleo, 50));
    let state = ann.state();
    assert_eq!((state.count(ben.id), state.count(cleo.id), state.broken), (0, 0, 0));
    assert_eq!(state.events("offer", 0).count(), 0, "nor is it offered anything");
    assert!(state.lines.values().all(|line| line.stream_id.is_none()), "{:?}", state.lines);
}
