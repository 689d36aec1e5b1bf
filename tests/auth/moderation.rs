//! Kick and mute, as packets show them.

use serde_json::{Value, json};

use crate::signer::{SECRET, Signer, claims_with, member, server};
use crate::support::debug::peer_until;
use crate::support::{Client, Options, Server, assert_silent};

struct Room {
    server: Server,
    moderator: Client,
    ann: Client,
    ben: Client,
}

/// A moderator and two others, all of whom speak and hear each other.
async fn room_of(server: Server) -> Room {
    let moderator = member(&server, "hall", "mod", json!({"moderate": true})).await;
    let ann = member(&server, "hall", "ann", json!({})).await;
    let ben = member(&server, "hall", "ben", json!({})).await;
    for client in [&moderator, &ann, &ben] {
        client.speak(20);
    }
    tokio::join!(
        ben.hears(&ann, 10),
        moderator.hears(&ann, 10),
        ann.hears(&ben, 10),
        ben.hears(&moderator, 10)
    );
    Room { server, moderator, ann, ben }
}

fn is_muted(muted: bool) -> impl Fn(&Value) -> bool {
    move |data| data["userId"] == "ann" && data["userInfo"]["isServerMuted"] == muted
}

fn mute(by: &Client, user: &str, muted: bool) {
    by.send("mute", &json!({"userId": user, "muted": muted}));
}

#[tokio::test]
async fn a_muted_user_is_not_heard_whatever_it_says() {
    let Room { server, moderator, ann, ben } = room_of(server()).await;
    assert_eq!(moderator.joined().await["grants"]["moderate"], true);
    mute(&moderator, "ann", true);
    for client in [&ann, &ben, &moderator] {
        client.message("user-info", is_muted(true)).await;
    }
    assert_silent(&ben, &ann, &ben, &moderator).await;
    server.metric_reaches("gryt_sfu_drops_total", &["\"muted\""], 10.0).await;
    let row = peer_until(&server, "ann", "muted", |peer| peer["muted"] == true).await;
    assert_eq!(row["serverMuted"], true, "{row:#}");
    // It cannot unmute itself, by any name.
    ann.send("user-info", &json!({"isMuted": false, "isServerMuted": false}));
    mute(&ann, "ann", false);
    ann.error("unauthorized").await;
    ann.set_muted(true);
    ann.set_muted(false);
    ben.message("user-info", |data| data["userId"] == "ann" && data["userInfo"]["isMuted"] == true).await;
    assert_silent(&ben, &ann, &ben, &moderator).await;
    // Whoever comes later sees it.
    let cleo = member(&server, "hall", "cleo", json!({})).await;
    assert_eq!(cleo.joined().await["peerInfo"]["ann"]["isServerMuted"], true);
    assert_eq!(cleo.joined().await["peerInfo"]["ben"]["isServerMuted"], false);
    let mark = ben.mark();
    mute(&moderator, "ann", false);
    ben.message_since(mark, "user-info", is_muted(false)).await;
    ben.hears(&ann, 10).await;
}

#[tokio::test]
async fn a_mute_outlasts_resume_and_rejoin() {
    let Room { server, moderator, ann, ben } = room_of(server()).await;
    mute(&moderator, "ann", true);
    ben.message("user-info", is_muted(true)).await;
    // Another socket.
    let mark = ann.mark();
    ann.lose_socket();
    ann.resume();
    ann.message_since(mark, "joined", |data| data["resumed"] == true).await;
    ann.message_since(mark, "user-info", is_muted(true)).await;
    assert_silent(&ben, &ann, &ben, &moderator).await;
    // Over herself.
    let again = member(&server, "hall", "ann", json!({})).await;
    again.message("user-info", is_muted(true)).await;
    again.speak(20);
    again.until("frames", |state| (state.sent > 20).then_some(())).await;
    assert_silent(&ben, &again, &ben, &moderator).await;
    // Away and back.
    let mark = ben.mark();
    again.leave();
    ben.message_since(mark, "user-left", |data| data["userId"] == "ann").await;
    let back = member(&server, "hall", "ann", json!({})).await;
    back.message("user-info", is_muted(true)).await;
    back.speak(20);
    back.until("frames", |state| (state.sent > 20).then_some(())).await;
    assert_silent(&ben, &back, &ben, &moderator).await;
    // Forgiven while she is away.
    let mark = ben.mark();
    back.leave();
    ben.message_since(mark, "user-left", |data| data["userId"] == "ann").await;
    mute(&moderator, "ann", false);
    mute(&moderator, "nobody", true);
    moderator.error("bad-message").await;
    let free = member(&server, "hall", "ann", json!({})).await;
    free.speak(20);
    ben.hears(&free, 10).await;
}

#[tokio::test]
async fn a_kicked_user_is_gone_and_cannot_resume() {
    let Room { server, moderator, ann, ben } =
        room_of(Server::spawn(&[("AUTH_SECRET", SECRET), ("RESUME_WINDOW", "5m")])).await;
    moderator.send("kick", &json!({"userId": "ann"}));
    ann.error("kicked").await;
    assert_eq!(ann.closed().await, (1008, "kicked".to_owned()));
    for client in [&ben, &moderator] {
        let left = client.message("user-left", |data| data["userId"] == "ann").await;
        assert_eq!(left["reason"], "kicked");
    }
    // Her transport is gone with her: what she still sends reaches nobody.
    assert_silent(&ben, &ann, &ben, &moderator).await;
    server.metrics_fall_to(&["gryt_sfu_peers_active"], 2.0, crate::support::PATIENCE).await;
    let mark = ann.mark();
    ann.resume();
    let joined = ann.message_since(mark, "joined", |data| data["success"] == true).await;
    assert_eq!(joined["resumed"], false, "as anybody new, while her token is good");
    moderator.send("kick", &json!({"userId": "nobody"}));
    moderator.error("bad-message").await;
}

#[tokio::test]
async fn only_a_moderator_of_the_room_moderates() {
    let Room { server, moderator, ann, ben } = room_of(server()).await;
    let other = member(&server, "attic", "mod2", json!({"moderate": true})).await;
    other.speak(20);
    ann.send("kick", &json!({"userId": "ben"}));
    mute(&ann, "ben", true);
    ann.until("two refusals", |state| (state.events("error", 0).count() == 2).then_some(())).await;
    assert!(ann.state().events("error", 0).all(|error| error["code"] == "unauthorized"));
    // In another room there is nobody of that name.
    other.send("kick", &json!({"userId": "ben"}));
    mute(&other, "ben", true);
    other.until("two refusals", |state| (state.events("error", 0).count() == 2).then_some(())).await;
    assert!(other.state().events("error", 0).all(|error| error["code"] == "bad-message"));
    // Before joining, nobody is anything.
    let stranger = Client::start(server.http, "hall", "eve", Options::default()).await;
    stranger.error("unauthorized").await;
    ann.hears(&ben, 25).await;
    // Who resumes with a token that allows less may do less.
    let less = Signer::secret().sign(&claims_with("hall", "mod", json!({})));
    let mark = moderator.mark();
    moderator.lose_socket();
    moderator.use_token(Some(less));
    moderator.resume();
    let joined = moderator.message_since(mark, "joined", |data| data["success"] == true).await;
    assert_eq!((&joined["resumed"], &joined["grants"]["moderate"]), (&json!(true), &json!(false)));
    mute(&moderator, "ben", true);
    moderator.error("unauthorized").await;
    ann.hears(&ben, 25).await;
}
