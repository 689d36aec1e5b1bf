//! Whom the page lets be heard, and what it says of that.

use super::*;

const ALONE: &str = "document.getElementById('alone')";
const SENT: &str = "gryt.peer.getSenders()[0].track";

/// Permission comes when we say so.
const HOLD: &str = "const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
    navigator.mediaDevices.getUserMedia = (what) => new Promise((granted) => {
        window.grant = () => ask(what).then((stream) => { window.late = stream; granted(stream); });
    })";
const LATE_HAS_ENDED: &str = "late?.getTracks()[0].readyState === 'ended'";

/// Chooses a microphone in this list, up to the browser's question.
async fn choose(page: &Browser, list: &str) {
    page.run(&format!(
        "window.grant = window.late = null;
        document.getElementById('{list}').dispatchEvent(new Event('change'))"
    ))
    .await;
    page.until("a question", "window.grant").await;
}

/// Leaves and joins again, up to the browser's question.
async fn come_again(page: &Browser) {
    page.click("leave").await;
    page.until("the door", "document.body.dataset.view === 'door'").await;
    page.run("window.grant = window.late = null").await;
    page.click("join-button").await;
    page.until("a question", "window.grant").await;
}

#[test]
fn a_microphone_that_comes_late_is_taken_or_closed() {
    with_page("late", |page, port| async move {
        page.goto(&format!("http://localhost:{port}/?room=tea")).await;
        page.run(STAND_IN).await;
        page.fill("name", "Grace").await;
        page.click("mic-try").await;
        page.until("a microphone", "document.getElementById('mic-try').textContent === 'Stop trying'").await;
        page.run(HOLD).await;
        choose(&page, "mic-select").await;
        page.click("join-button").await;
        page.until("a connection", "gryt.state === 'connected'").await;
        page.run("window.first = gryt.session.microphone; grant()").await;
        page.until("the first one's end", "first.readyState === 'ended'").await;
        page.until("the other in its place", &format!("{SENT} === late.getTracks()[0]")).await;

        // Nobody answers the browser's question: one goes in without.
        come_again(&page).await;
        page.click("listen-only").await;
        page.click("join-button").await;
        page.until("a connection", "gryt.state === 'connected'").await;
        page.run("grant()").await;
        page.until("the end of what nobody hears", LATE_HAS_ENDED).await;
        assert_eq!(page.run(&format!("return {SENT}")).await, Value::Null);
        // And wants to be heard after all.
        page.run("window.grant = null").await;
        page.click("mute").await;
        page.until("a question", "window.grant").await;
        page.run("grant()").await;
        page.until("a voice", &format!("{SENT}?.readyState === 'live'")).await;

        // One changes one's mind while the question stands, and it is answered then.
        come_again(&page).await;
        page.click("listen-only").await;
        page.run("grant()").await;
        page.until("a connection", "gryt.state === 'connected'").await;
        assert_eq!(page.run("return late.getTracks()[0].readyState").await, "ended");
        assert_eq!(page.run(&format!("return {SENT}")).await, Value::Null);
        assert_eq!(page.console(), Vec::<String>::new());
    });
}

/// One tries it at the door, and has another mind, or another device, before the browser's question is answered.
#[test]
fn a_microphone_that_is_wanted_no_more_is_closed_when_it_comes() {
    with_page("unwanted", |page, port| async move {
        let tries = |words: &str| format!("document.getElementById('mic-try').textContent === '{words}'");
        page.goto(&format!("http://localhost:{port}/?room=tea")).await;
        page.run(HOLD).await;
        page.run("window.grant = window.late = null").await;
        page.click("mic-try").await;
        page.until("a question", "window.grant").await;
        page.click("listen-only").await;
        page.run("grant()").await;
        page.until("its end", LATE_HAS_ENDED).await;
        page.until("what can be done", &tries("Try the microphone")).await;

        page.click("listen-only").await;
        page.run("window.grant = window.late = null").await;
        page.click("mic-try").await;
        page.until("a question", "window.grant").await;
        page.run("grant()").await;
        page.until("a microphone", &tries("Stop trying")).await;
        // Of two that are asked for the first comes last.
        choose(&page, "mic-select").await;
        page.run("window.slow = grant").await;
        choose(&page, "mic-select").await;
        page.run("grant()").await;
        page.until("the second", "late").await;
        page.run("window.quick = late; late = null; slow()").await;
        page.until("the first one's end", LATE_HAS_ENDED).await;
        assert_eq!(page.run("return quick.getTracks()[0].readyState").await, "live");

        choose(&page, "mic-select").await;
        page.click("mic-try").await;
        page.until("no microphone", &tries("Try the microphone")).await;
        page.run("grant()").await;
        page.until("its end", LATE_HAS_ENDED).await;
        assert_eq!(page.console(), Vec::<String>::new());
    });
}

/// Its device goes while another is on its way, which is why people choose another.
#[test]
fn a_microphone_in_place_of_one_that_is_gone_is_as_open_as_that_was() {
    with_page("replaced", |page, port| async move {
        page.goto(&format!("http://localhost:{port}/?room=tea")).await;
        page.run(STAND_IN).await;
        join(&page, "Grace", "tea").await;
        page.run(HOLD).await;
        for (is_muted, can_be) in [(true, "Unmute"), (false, "Mute")] {
            page.click("mute").await;
            choose(&page, "settings-mic").await;
            page.run("gryt.session.microphone.dispatchEvent(new Event('ended'))").await;
            page.until("a word", &contains(HALL_NOTICE, "The microphone is gone")).await;
            page.run("grant()").await;
            page.until("the other in its place", &format!("late && {SENT} === late.getTracks()[0]")).await;
            let told = "StandIn.sent.filter((m) => m.event === 'user-info').at(-1).data.isMuted";
            page.until("the other's state", &format!("{told} === {is_muted}")).await;
            assert_eq!(page.run(&format!("return {SENT}.enabled")).await, !is_muted);
            page.until(
                "what can be done",
                &format!("document.getElementById('mute-text').textContent === '{can_be}'"),
            )
            .await;
        }
        assert_eq!(page.console(), Vec::<String>::new());
    });
}

/// Browsers that play nothing before a click take any, and so does the page.
#[test]
fn what_the_browser_would_not_play_is_heard_after_any_click() {
    with_page("blocked", |page, port| async move {
        page.goto(&format!("http://localhost:{port}/?room=tea")).await;
        page.run(STAND_IN).await;
        page.run(
            "window.played = new Set(); window.isBlocked = true;
            const play = HTMLMediaElement.prototype.play;
            HTMLMediaElement.prototype.play = function () {
                if (isBlocked) return Promise.reject(new DOMException('no', 'NotAllowedError'));
                played.add(this);
                return play.call(this);
            }",
        )
        .await;
        page.click("listen-only").await;
        join(&page, "Grace", "tea").await;
        page.until("a word", &contains(HALL_NOTICE, "waits for a click")).await;
        // Another word takes its place.
        page.run(
            "StandIn.last.say('user-info', {userId: gryt.userId, userInfo: {isServerMuted: true}});
            isBlocked = false",
        )
        .await;
        page.until("another word", &contains(HALL_NOTICE, "nobody hears you")).await;
        assert_eq!(page.run("return played.size").await, 0);
        page.click("deafen").await;
        page.until("all voices", "played.size >= 4").await;
        assert_eq!(page.console(), Vec::<String>::new());
    });
}

#[test]
fn who_is_muted_is_told_the_truth_and_stays_so() {
    with_page("muted", |page, port| async move {
        page.goto(&format!("http://localhost:{port}/?room=tea")).await;
        page.run(STAND_IN).await;
        // No answer at first.
        page.run("StandIn.isSilent = true").await;
        page.fill("name", "Grace").await;
        page.click("join-button").await;
        page.until("a join", "StandIn.sent.some((m) => m.event === 'join')").await;
        assert_eq!(page.run(&format!("return {ALONE}.hidden")).await, true, "nobody knows yet");
        page.run("StandIn.last.drop()").await;
        page.until("a word", &contains(HALL_NOTICE, "does not answer")).await;
        page.run("StandIn.isSilent = false").await;
        page.until("a connection", "gryt.state === 'connected'").await;
        page.until("no word", "document.getElementById('hall-notice').hidden").await;

        // By key, too, which shows nowhere near where one is.
        let announced = "document.getElementById('announce').textContent";
        for (key, words) in [("m", "Muted."), ("M", "Unmuted."), ("d", "Deafened."), ("D", "Undeafened.")] {
            page.run(&format!(
                "document.body.dispatchEvent(new KeyboardEvent('keydown', {{key: '{key}', bubbles: true}}))"
            ))
            .await;
            assert_eq!(page.run(&format!("return {announced}")).await, words);
        }
        page.run("StandIn.sent.length = 0").await;

        // The headset is gone, and the next microphone is no more open than that was.
        page.click("mute").await;
        page.run("gryt.session.microphone.dispatchEvent(new Event('ended'))").await;
        page.until("a word", &contains(HALL_NOTICE, "The microphone is gone")).await;
        page.run("document.getElementById('hall-notice-button').focus()").await;
        page.click("hall-notice-button").await;
        page.until("another microphone", &format!("{SENT}?.readyState === 'live'")).await;
        page.until("what it is", "document.getElementById('mute-text').textContent === 'Unmute'").await;
        assert_eq!(page.run(&format!("return {announced}")).await, "Muted.");
        assert_eq!(page.run("return document.activeElement.id").await, "mute", "not lost with the button");
        let told = "StandIn.sent.filter((m) => m.event === 'user-info').map((m) => m.data.isMuted)";
        assert_eq!(page.run(&format!("return {told}")).await, json!([true, true, true]));
        assert_eq!(page.run(&format!("return {SENT}.enabled")).await, false);

        // What may have changed while we were away is not said any longer.
        page.run(
            "StandIn.last.say('user-info', {userId: gryt.userId, userInfo: {isServerMuted: true}});
            StandIn.last.say('active-speakers', {speakers: [{userId: 'mei', level: 20}]})",
        )
        .await;
        page.until("a word", &contains(HALL_NOTICE, "nobody hears you")).await;
        let mark = "document.querySelector('[data-user=\"mei\"] .mark').textContent";
        page.until("a speaker", &format!("{mark} === 'speaking'")).await;
        page.run("window.before = StandIn.last; StandIn.last.drop()").await;
        page.until("a new socket", "StandIn.last !== before && gryt.state === 'connected'").await;
        page.until("no word", "document.getElementById('hall-notice').hidden").await;
        page.until("no speaker", &format!("{mark} === ''")).await;
        assert_eq!(page.console(), Vec::<String>::new());
    });
}

#[test]
fn what_is_pressed_while_a_join_is_on_its_way_is_told_after_it() {
    with_page("pressed", |page, port| async move {
        page.goto(&format!("http://localhost:{port}/?room=tea")).await;
        page.run(STAND_IN).await;
        page.run("StandIn.isSilent = true").await;
        page.fill("name", "Grace").await;
        page.click("join-button").await;
        let told = "JSON.stringify(StandIn.sent.filter((m) => m.event === 'user-info')
            .map(({data}) => [data.isMuted, data.isDeafened]))";
        page.until("a join", "StandIn.last?.asked").await;
        page.click("mute").await;
        assert_eq!(page.run(&format!("return {told}")).await, "[]", "not before it has joined");
        page.run("StandIn.last.letIn()").await;
        page.until("a connection", "gryt.state === 'connected'").await;
        page.until("it told", &format!("{told} === '[[true,false]]'")).await;

        // Likewise when it comes back, and nothing is repeated that the join itself has said.
        for changes in [false, true] {
            page.run("window.before = StandIn.last; StandIn.sent.length = 0; StandIn.last.drop()").await;
            page.until("a join", "StandIn.last !== before && StandIn.last.asked").await;
            if changes {
                page.click("deafen").await;
            }
            page.run("StandIn.last.letIn()").await;
            page.until("a connection", "gryt.state === 'connected'").await;
            let expected = if changes { "[[true,true]]" } else { "[]" };
            page.until("it told", &format!("{told} === '{expected}'")).await;
        }
        assert_eq!(page.console(), Vec::<String>::new());
    });
}
