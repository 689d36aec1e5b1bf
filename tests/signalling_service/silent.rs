//! Members who never begin their media, in a house that is full.

use std::time::Duration;

use serde_json::{Value, json};
use str0m::media::Direction;

use crate::harness::{Client, House, Shape};

const MEDIA_WAIT: Duration = Duration::from_secs(30);
const LITTLE: Duration = Duration::from_millis(1);

fn house(max_connections: usize) -> House {
    House::of(&Shape { max_connections, ..Shape::default() })
}

/// A client from this address, and whether it was let in.
fn come(house: &House, host: u8, room: &str, user: &str) -> (Client, bool) {
    let mut client = house.connect_from(host);
    let joined = client.join(house, room, user);
    (client, joined["success"] == true)
}

fn member(house: &House, host: u8, room: &str, user: &str) -> Client {
    let (client, is_in) = come(house, host, room, user);
    assert!(is_in, "{user}");
    client
}

/// The last two things that it heard are why it has to go, and it goes.
fn assert_gave_way(house: &House, client: &mut Client) {
    let heard = client.heard();
    let [.., error, close] = &heard[..] else { panic!("{heard:?}") };
    let words = json!({"code": "server-full", "message": "the server is full, and you have begun no media"});
    assert_eq!((&error["event"], &error["data"]), (&json!("error"), &words));
    assert_eq!(close, &json!({"close": 1013}));
    client.lose(house);
}

fn is_there(client: &mut Client) -> bool {
    client.heard().iter().all(|message| message.get("close").is_none())
}

#[test]
fn who_never_begins_media_gives_way_to_who_comes() {
    let mut house = house(5);
    // One waits for a voice, one has media, and three are of one address.
    let mut listener = member(&house, 1, "quiet", "listener");
    let mut speaker = member(&house, 2, "hall", "speaker");
    speaker.publish(&house);
    let mut flood: Vec<Client> = (0..3).map(|at| member(&house, 66, "flood", &at.to_string())).collect();
    house.pass(MEDIA_WAIT - LITTLE);
    let (mut early, is_in) = come(&house, 3, "hall", "early");
    assert!(!is_in, "they have some time");
    assert_eq!(early.heard_words(), ["1013"]);
    early.lose(&house);
    flood.iter_mut().for_each(Client::read_all);

    house.pass(LITTLE);
    let mut newcomers = vec![member(&house, 3, "hall", "first")];
    assert_gave_way(&house, &mut flood[0]);
    let left = json!({"roomId": "flood", "userId": "0", "reason": "disconnected"});
    let told: Vec<Value> = flood[1].heard();
    assert_eq!(told, [json!({"event": "user-left", "data": left})]);
    newcomers.push(member(&house, 4, "hall", "second"));
    assert_gave_way(&house, &mut flood[1]);
    // Each address has one: the oldest.
    newcomers.push(member(&house, 5, "hall", "third"));
    assert_gave_way(&house, &mut listener);
    assert!(!come(&house, 5, "hall", "fourth").1, "the one from there would be the next, and has some time");
    newcomers.push(member(&house, 6, "hall", "fifth"));
    assert_gave_way(&house, &mut flood[2]);
    // Who is left has media, or has not been there for long.
    assert!(!come(&house, 7, "hall", "late").1);
    assert!(is_there(&mut speaker) && newcomers.iter_mut().all(is_there));
    assert_eq!(house.signalling.counts().participants, 5);
}

#[test]
fn who_has_a_transport_stays() {
    let mut house = house(2);
    let mut ann = member(&house, 66, "a", "ann");
    let mut ben = member(&house, 66, "b", "ben");
    house.pass(2 * MEDIA_WAIT);
    ann.offer(&house, Direction::RecvOnly);
    ben.offer(&house, Direction::RecvOnly);
    assert!(!come(&house, 1, "c", "cleo").1);
    ben.lose(&house);
    assert_eq!(ben.resume(&house, "b", "ben")["resumed"], true);
    // A transport that ends is as if there never had been one, from then on.
    let mut again = member(&house, 66, "a", "ann");
    ann.lose(&house);
    house.pass(MEDIA_WAIT - LITTLE);
    assert!(!come(&house, 1, "c", "cleo").1);
    house.pass(LITTLE);
    let _cleo = member(&house, 1, "c", "cleo");
    assert_gave_way(&house, &mut again);
    assert!(is_there(&mut ben));
    assert!(!come(&house, 1, "c", "dan").1);
}

#[test]
fn joining_over_oneself_or_resuming_buys_no_time() {
    let mut house = house(2);
    let mut ann = member(&house, 66, "a", "ann");
    let mut ben = member(&house, 66, "b", "ben");
    house.pass(MEDIA_WAIT - LITTLE);
    let mut ann_again = member(&house, 67, "a", "ann");
    assert_eq!(ann.heard_end(), ("already-joined".into(), 1008));
    ann.lose(&house);
    ben.lose(&house);
    assert_eq!(ben.resume(&house, "b", "ben")["resumed"], true);
    house.pass(LITTLE);
    let _newcomers = [member(&house, 1, "c", "cleo"), member(&house, 2, "c", "dan")];
    assert_gave_way(&house, &mut ann_again);
    assert_gave_way(&house, &mut ben);
}

/// Joining and going away costs next to nothing, and is not what keeps others out: not for a while, and not behind one who
/// stays.
#[test]
fn whose_connection_is_lost_gives_way_at_once() {
    let mut house = house(5);
    let mut ann = member(&house, 66, "a", "ann");
    let mut ben = member(&house, 66, "b", "ben");
    let mut flood: Vec<Client> = (0..3).map(|at| member(&house, 66, "flood", &at.to_string())).collect();
    ben.lose(&house);
    flood.iter_mut().for_each(|client| client.lose(&house));
    // Who comes back is there as before.
    assert_eq!(ben.resume(&house, "b", "ben")["resumed"], true);
    let mut newcomers: Vec<Client> =
        ["cleo", "dan", "eve"].iter().map(|user| member(&house, 1, user, user)).collect();
    assert!(!come(&house, 1, "c", "fay").1, "the others are there, and have some time");
    assert!(is_there(&mut ann) && is_there(&mut ben) && newcomers.iter_mut().all(is_there));
    house.pass(MEDIA_WAIT);
    newcomers.iter_mut().for_each(|client| client.publish(&house));
    let _fay = member(&house, 1, "c", "fay");
    assert_gave_way(&house, &mut ann);
}

/// Who has left, or whose connection is lost, makes no room twice.
#[test]
fn who_is_gone_is_not_looked_for() {
    let mut house = house(2);
    let (ann, ben) = (member(&house, 66, "a", "ann"), member(&house, 66, "b", "ben"));
    house.pass(MEDIA_WAIT);
    ann.say(&house, "leave", json!({}));
    let mut cleo = member(&house, 1, "c", "cleo");
    drop(ben); // Waited for, but not at the cost of others.
    let _dan = member(&house, 2, "d", "dan");
    assert!(!come(&house, 3, "e", "eve").1);
    assert!(is_there(&mut cleo));
    assert_eq!(house.signalling.counts().participants, 2);
}
