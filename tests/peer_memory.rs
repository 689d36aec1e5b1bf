//! What the server owns for each peer that is connected and silent, to the byte: everything that its threads allocate and
//! do not free, with so many peers there and with twice as many.
//!
//! The server runs in this process. The clients, all on one thread, are not counted.

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicIsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use gryt_sfu::config::Config;
use gryt_sfu::server::{Io, Server};
use support::{Client, Options, PATIENCE};

struct Counting;

static LIVE: AtomicIsize = AtomicIsize::new(0);

thread_local! {
    static IS_CLIENTS: Cell<bool> = const { Cell::new(false) };
}

fn count(bytes: isize) {
    // Gone while a thread ends; none does here.
    if IS_CLIENTS.try_with(Cell::get) == Ok(false) {
        LIVE.fetch_add(bytes, Ordering::Relaxed);
    }
}

#[expect(unsafe_code, reason = "an allocator that counts has to be one")]
// SAFETY: every call goes on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: by the caller's word.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: by the caller's word.
        unsafe { System.dealloc(old, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Even, as peers come in pairs: each says that it would speak, and each would hear the other.
const COUNT: usize = 64;

/// What aws-lc allocates goes past Rust's allocator: four contexts of 592 bytes, where the processor has nothing wider.
const FOREIGN: isize = 4 * 592;

/// A server on a thread of its own, for the rest of the process's life.
fn serve() -> SocketAddr {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = free.local_addr().expect("bound");
    drop(free);
    let port = address.port().to_string();
    let backend = std::env::var("IO_BACKEND").ok();
    let config = Config::parse(1, |name| match name {
        "PORT" => Some(port.clone()),
        "ICE_UDP_MUX_PORT" => Some("0".into()),
        "ICE_LOOPBACK" => Some("true".into()),
        "IO_BACKEND" => backend.clone(),
        _ => None,
    })
    .expect("accepted");
    let (started, is_started) = mpsc::channel();
    std::thread::spawn(move || {
        let io = Io::choose(config.io_backend).expect("a backend");
        let served = io.block_on(async {
            let server = Server::start(&config, None, &io).await.expect("it starts");
            started.send(()).expect("somebody waits");
            std::future::pending::<()>().await;
            drop(server);
        });
        served.expect("a runtime");
    });
    is_started.recv_timeout(PATIENCE).expect("it starts");
    address
}

async fn join(server: SocketAddr, numbers: std::ops::Range<usize>) -> Vec<Client> {
    let mut clients = vec![];
    for number in numbers {
        let (room, user) = (format!("room {}", number / 2), format!("user {number}"));
        let client = Client::start(server, &room, &user, Options::default()).await;
        client.until("a connection", |state| state.connected.then_some(())).await;
        clients.push(client);
    }
    clients
}

/// Bytes, once they have been the same to a percent for a second: handshakes leave theirs a little later.
async fn resting() -> isize {
    let mut looks = vec![LIVE.load(Ordering::Relaxed)];
    for _ in 0..50 {
        tokio::time::sleep(Duration::from_millis(250)).await; // Nobody tells when it changes.
        looks.push(LIVE.load(Ordering::Relaxed));
        if let [.., a, b, c, d] = looks[..]
            && a.max(b).max(c).max(d) - a.min(b).min(c).min(d) <= d / 100
        {
            break;
        }
    }
    looks[looks.len() - 1]
}

#[test]
fn a_connected_peer_owns_at_most_32_kb() {
    let server = serve();
    IS_CLIENTS.set(true);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let some = join(server, 0..COUNT).await;
        let before = resting().await;
        let more = join(server, COUNT..2 * COUNT).await;
        let after = resting().await;
        let each = (after - before) / COUNT as isize + FOREIGN;
        println!("{each} bytes each, with the second {COUNT} peers");
        assert!(each > 4 * 1024, "{each} bytes: it is not counted");
        assert!(each <= 32 * 1024, "{each} bytes each");
        drop((some, more));
    });
}
