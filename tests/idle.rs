//! A server with nothing to do does next to nothing: wake-ups of a worker without peers, and with peers that only check.

mod support;

use std::net::Ipv4Addr;
use std::time::Duration;

use support::{Client, Options, PATIENCE, Server, now};
use tokio::net::UdpSocket;
use tokio::time::interval;

const WAKEUPS: &str = "gryt_sfu_wakeups_total";
const CPU_SECONDS: &str = "gryt_sfu_worker_cpu_seconds_total";
const DATAGRAMS: &str = "gryt_sfu_datagrams_in_total";

#[tokio::test]
async fn without_peers_a_worker_sleeps() {
    let server = Server::spawn(&[("WORKERS", "1")]);
    server.metric_reaches(WAKEUPS, &[], 1.0).await;
    let ([before], begun) = (server.metrics([WAKEUPS]), now());
    tokio::time::sleep(Duration::from_secs(3)).await; // What is not to happen cannot be awaited.
    let ([after], took) = (server.metrics([WAKEUPS]), now() - begun);
    // A worker tells every second, and a page is kept for half of one.
    let most = 3.0 * (took.as_secs_f64() + 1.5);
    assert!(after - before <= most, "{} wake-ups in {took:?}", after - before);
    // What that takes is counted all the same.
    let cpu = server.metric(CPU_SECONDS, &[]);
    server.metric_reaches(CPU_SECONDS, &[], cpu + 0.000_001).await;
}

#[tokio::test]
async fn checks_of_silent_peers_are_answered_several_at_a_time() {
    let server = Server::spawn(&[("WORKERS", "1")]);
    let member = Client::join(&server, "hall", "ada", Options::default()).await;
    let media = (Ipv4Addr::LOCALHOST, server.media);
    // As a thousand peers would, and a few more.
    let crowd = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
    let check = member.state().binding_request(false);
    let mut pace = interval(Duration::from_millis(1));
    let begun = now();
    let mut look = (begun, server.metrics([WAKEUPS, DATAGRAMS]));
    let mut windows = vec![];
    loop {
        pace.tick().await;
        crowd.send_to(&check, media).await.expect("loopback takes it");
        if now() - look.0 < Duration::from_millis(2500) {
            continue;
        }
        let [wakeups, datagrams] = server.metrics([WAKEUPS, DATAGRAMS]);
        let window = (wakeups - look.1[0], datagrams - look.1[1]);
        look = (now(), [wakeups, datagrams]);
        if window.1 >= 500.0 && window.0 <= window.1 / 2.0 {
            break;
        }
        windows.push(window);
        assert!(now() - begun < PATIENCE, "wake-ups and datagrams: {windows:?}");
    }
    // All of them were answered, and not much later.
    let mut answer = [0; 256];
    let answered = async {
        let mut count = 0;
        while count < 100 {
            let len = crowd.recv(&mut answer).await.expect("loopback gives it");
            count += u32::from(support::stun::is_success(&answer[..len]));
        }
    };
    tokio::time::timeout(PATIENCE, answered).await.expect("answers");
}
