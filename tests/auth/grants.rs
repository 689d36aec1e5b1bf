//! Who may be heard and who may hear.

use serde_json::{Value, json};

use crate::signer::{Signer, claims_with, member, server};
use crate::support::{Client, Server, assert_silent};

fn token(user: &str, grants: Value) -> Option<String> {
    Some(Signer::secret().sign(&claims_with("hall", user, grants)))
}

async fn member_of_hall(server: &Server, user: &str, grants: Value) -> Client {
    member(server, "hall", user, grants).await
}

#[tokio::test]
async fn who_may_not_publish_is_not_heard_whatever_it_sends() {
    let server = server();
    let ann = member_of_hall(&server, "ann", json!({"publish": false})).await;
    let ben = member_of_hall(&server, "ben", json!({})).await;
    let cleo = member_of_hall(&server, "cleo", json!({})).await;
    assert_eq!(ann.joined().await["grants"]["publish"], false);
    let answer = ann.message("answer", |_| true).await;
    let sdp = answer["sdp"].as_str().expect("an answer");
    assert!(
        !sdp.contains("a=sendrecv") && !sdp.contains("a=recvonly"),
        "it is answered that it sends: {sdp}"
    );
    // It sends all the same.
    ann.speak(5);
    cleo.speak(20);
    ann.until("frames of hers", |state| (state.sent > 50).then_some(())).await;
    server.metric_reaches("gryt_sfu_drops_total", &["\"rtp_unknown_stream\""], 50.0).await;
    assert_silent(&ben, &ann, &ben, &cleo).await;
    assert_eq!(ben.state().count(ann.id), 0);
    ann.hears(&cleo, 10).await;
    // Another token, and she speaks: over the same place, with another negotiation.
    ann.lose_socket();
    ann.use_token(token("ann", json!({"publish": true})));
    let mark = ann.mark();
    ann.resume();
    let joined = ann.message_since(mark, "joined", |data| data["success"] == true).await;
    assert_eq!((&joined["resumed"], &joined["grants"]["publish"]), (&json!(false), &json!(true)));
}

#[tokio::test]
async fn who_loses_the_right_to_publish_falls_silent() {
    let server = server();
    let ann = member_of_hall(&server, "ann", json!({})).await;
    let ben = member_of_hall(&server, "ben", json!({})).await;
    let cleo = member_of_hall(&server, "cleo", json!({})).await;
    ann.speak(5);
    cleo.speak(20);
    ben.hears(&ann, 10).await;
    ann.lose_socket();
    ann.use_token(token("ann", json!({"publish": false})));
    let mark = ann.mark();
    ann.resume();
    let joined = ann.message_since(mark, "joined", |data| data["success"] == true).await;
    assert_eq!((&joined["resumed"], &joined["grants"]["publish"]), (&json!(false), &json!(false)));
    assert_silent(&ben, &ann, &ben, &cleo).await;
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
