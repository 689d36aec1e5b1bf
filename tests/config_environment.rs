//! Settings as an operator writes them: what is accepted, what is refused and in which words.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::time::Duration;

use clap::CommandFactory;
use gryt_sfu::config::{
    Config, CpuList, Door, Error, Flags, GROUPS, IoBackend, LogFormat, LogLevel, Rate, Scheduling,
    TrustedProxies, UdpPorts, example, help,
};
use gryt_sfu::ids::WorkerId;

fn parse_on(cpu_count: usize, variables: &[(&str, &str)]) -> Result<Config, Error> {
    let variables: HashMap<_, _> = variables.iter().copied().collect();
    Config::parse(cpu_count, |name| variables.get(name).map(|value| (*value).to_owned()))
}

fn parse(variables: &[(&str, &str)]) -> Result<Config, Error> {
    parse_on(4, variables)
}

#[test]
fn defaults() {
    let config = parse(&[]).unwrap();
    assert_eq!(
        config,
        Config {
            port: 5005,
            ice_udp_mux_port: UdpPorts::shared(3478),
            ice_bind_ip: vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
            ice_advertise_ip: vec![],
            ice_loopback: false,
            door: Door {
                cors_origins: vec![],
                tls: None,
                trusted_proxies: TrustedProxies::default(),
                is_rate_limited: false,
                rate: Rate { requests: NonZeroU32::new(100).unwrap(), window: Duration::from_secs(60) },
            },
            stun_servers: vec![],
            ice_discover: false,
            ice_advertise_private: false,
            turn_servers: vec![],
            turn_username: None,
            turn_password: None,
            turn_secret: None,
            auth: None,
            workers: 3,
            room_span_at: 250,
            worker_cpus: CpuList::empty(),
            max_connections: 1000,
            audio_slots: 32,
            resume_window: Duration::from_secs(15),
            io_backend: IoBackend::Auto,
            batch_wait: Duration::ZERO,
            egress_tick: Duration::ZERO,
            overload_tick: Duration::from_millis(5),
            gso_pad_max: 64,
            busy_poll: Duration::ZERO,
            worker_scheduling: Scheduling::Nice,
            drain_timeout: Duration::ZERO,
            log_level: LogLevel::Info,
            log_format: LogFormat::Human,
            log_file: None,
            metrics_addr: None,
            metrics_token: None,
            debug_token: None,
            capture_dir: None,
            keylog_dir: None,
        }
    );
    let empty: Vec<_> = config.values().into_iter().map(|(name, _)| (name, "")).collect();
    assert_eq!(parse(&empty), Ok(config));
}

#[test]
fn what_is_printed_is_accepted() {
    let config = parse(&[
        ("PORT", "0"),
        ("ICE_UDP_MUX_PORT", "3478-3485"),
        ("ICE_BIND_IP", "2001:db8::5, ::ffff:192.0.2.5"),
        (
            "ICE_ADVERTISE_IP",
            "203.0.113.5, 203.0.113.6:13478, 2001:db8::5, [2001:db8::6]:13478, ::ffff:203.0.113.5",
        ),
        ("ICE_LOOPBACK", "on"),
        ("CORS_ORIGINS", "https://App.example:443, http://[::1]:3000,https://app.example, tauri://localhost"),
        ("TLS_CERT", "/etc/sfu/chain.pem"),
        ("TLS_KEY", "/etc/sfu/key.pem"),
        ("TRUSTED_PROXIES", "127.0.0.1, 10.1.2.3/8,2001:db8::1/32, ::1, ::ffff:192.0.2.1"),
        ("RATE_LIMIT_ENABLED", "yes"),
        ("RATE_LIMIT_REQUESTS", "1000000"),
        ("RATE_LIMIT_WINDOW", "2m"),
        ("STUN_SERVERS", "stun:stun.example, stuns:[2001:db8::9]:99, STUN:stun.example"),
        ("ICE_DISCOVER", "true"),
        ("ICE_ADVERTISE_PRIVATE", "true"),
        ("TURN_SERVERS", "turn:turn.example:3479?transport=tcp,turns:turn.example"),
        ("TURN_USERNAME", "wanda"),
        ("TURN_PASSWORD", "pass, word"),
        ("TURN_SECRET", "sixteen and more bytes"),
        ("AUTH_SECRET", "thirty-two bytes at the very least"),
        ("WORKERS", "2"),
        ("ROOM_SPAN_AT", "1"),
        ("WORKER_CPUS", "9, 2-5,7"),
        ("MAX_CONNECTIONS", "100000"),
        ("AUDIO_SLOTS", "256"),
        ("RESUME_WINDOW", "2m"),
        ("DRAIN_TIMEOUT", "2h"),
        ("BATCH_WAIT_US", "500"),
        ("EGRESS_TICK_MS", "10"),
        ("OVERLOAD_TICK_MS", "20"),
        ("GSO_PAD_MAX", "0"),
        ("BUSY_POLL_US", "1000"),
        ("WORKER_SCHEDULING", "FIFO"),
        ("LOG_LEVEL", "Debug"),
        ("LOG_FORMAT", "JSON"),
        ("LOG_FILE", "/var/log/sfu.log"),
        ("METRICS_ADDR", "[::1]:9464"),
        ("METRICS_TOKEN", "another-one-of-more-than-16"),
        ("DEBUG_TOKEN", "0123456789-._~+/abc=="),
        ("CAPTURE_DIR", "/var/lib/gryt-sfu/captures"),
        ("KEYLOG_DIR", "/var/lib/gryt-sfu/keys"),
    ])
    .unwrap();
    assert_eq!(config.ice_advertise_ip.len(), 4, "a mapped address is the address that it maps");
    assert_eq!(config.door.cors_origins.len(), 3, "as browsers write them, each once");
    assert_eq!((config.stun_servers.len(), config.turn_servers.len()), (2, 2));
    let values = config.values();
    let again: Vec<_> = values.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(parse_on(9, &again), Ok(config));
}

#[test]
fn every_variable_is_in_help_example_and_output() {
    let config = parse(&[]).unwrap();
    let printed: Vec<_> = config.values().into_iter().map(|(name, _)| name).collect();
    let table: Vec<_> = GROUPS.iter().flat_map(|(_, variables)| variables.iter().map(|v| v.name)).collect();
    assert_eq!(printed, table);
    let flags_help = Flags::command().render_help().to_string();
    for name in table {
        assert!(flags_help.contains(&format!("\n  {name}\n")), "{name}");
    }
    assert!(flags_help.contains(&help()));
    assert!(flags_help.contains("--check") && flags_help.contains("--version"));
}

#[test]
fn env_example_is_true() {
    let made = example();
    for (line, made) in include_str!("../env.example").lines().zip(made.lines()) {
        assert_eq!(line, made, "write env.example anew from config::example()");
    }
    assert_eq!(include_str!("../env.example").len(), made.len());
    // Taken out of its comments it is a file of defaults.
    let lines: Vec<(String, String)> = made
        .lines()
        .filter_map(|line| line.strip_prefix('#')?.split_once('='))
        .filter(|(name, _)| !name.contains(' '))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    assert_eq!(lines.len(), GROUPS.iter().map(|(_, variables)| variables.len()).sum::<usize>());
    let lines: Vec<_> = lines.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(parse(&lines), parse(&[]));
}

#[test]
fn a_bad_value_is_named_with_what_is_accepted() {
    for (name, bad) in [
        ("DRAIN_TIMEOUT", "25h"),
        ("DRAIN_TIMEOUT", "soon"),
        ("LOG_FORMAT", "xml"),
        ("PORT", "65536"),
        ("PORT", "http"),
        ("PORT", "-1"),
        ("ICE_UDP_MUX_PORT", "3478-3470"),
        ("ICE_UDP_MUX_PORT", "0-5"),
        ("ICE_UDP_MUX_PORT", "3478-"),
        ("ICE_UDP_MUX_PORT", "1-2-3"),
        ("ICE_BIND_IP", "eth0"),
        ("ICE_BIND_IP", "192.0.2.1,192.0.2.2"),
        ("ICE_BIND_IP", "192.0.2.1:3478"),
        ("ICE_BIND_IP", "224.0.0.1"),
        ("ICE_BIND_IP", "255.255.255.255"),
        ("ICE_BIND_IP", "fe80::1"),
        ("ICE_BIND_IP", "ff02::1"),
        ("ICE_ADVERTISE_IP", "sfu.example"),
        ("ICE_ADVERTISE_IP", "0.0.0.0"),
        ("ICE_ADVERTISE_IP", "::ffff:0.0.0.0"),
        ("ICE_ADVERTISE_IP", "255.255.255.255"),
        ("ICE_ADVERTISE_IP", "224.0.0.1"),
        ("ICE_ADVERTISE_IP", "203.0.113.5:0"),
        ("ICE_ADVERTISE_IP", "203.0.113.5,,203.0.113.6"),
        ("ICE_ADVERTISE_IP", "1.1.1.1,1.1.1.2,1.1.1.3,1.1.1.4,1.1.1.5,1.1.1.6,1.1.1.7,1.1.1.8,1.1.1.9"),
        ("ICE_LOOPBACK", "maybe"),
        ("CORS_ORIGINS", "*"),
        ("CORS_ORIGINS", "app.example"),
        ("CORS_ORIGINS", "https://app.example/"),
        ("CORS_ORIGINS", "https://app.example,"),
        ("TRUSTED_PROXIES", "proxy.example"),
        ("TRUSTED_PROXIES", "10.0.0.0/33"),
        ("TRUSTED_PROXIES", "10.0.0.1:80"),
        ("TRUSTED_PROXIES", "10.0.0.1,,10.0.0.2"),
        ("RATE_LIMIT_ENABLED", "perhaps"),
        ("RATE_LIMIT_REQUESTS", "0"),
        ("RATE_LIMIT_REQUESTS", "1000001"),
        ("RATE_LIMIT_WINDOW", "60"),
        ("RATE_LIMIT_WINDOW", "0s"),
        ("RATE_LIMIT_WINDOW", "25h"),
        ("RATE_LIMIT_WINDOW", "18446744073709551615h"),
        ("STUN_SERVERS", "stun.example"),
        ("STUN_SERVERS", "turn:turn.example"),
        ("STUN_SERVERS", "stun:stun.example,"),
        ("STUN_SERVERS", "stun:a,stun:b,stun:c,stun:d,stun:e,stun:f,stun:g,stun:h,stun:i"),
        ("TURN_SERVERS", "stun:stun.example"),
        ("TURN_SERVERS", "turn:turn.example?transport=quic"),
        ("TURN_USERNAME", "a\nb"),
        ("ICE_DISCOVER", "perhaps"),
        ("WORKERS", "0"),
        ("WORKERS", "65"),
        ("WORKERS", "two"),
        ("ROOM_SPAN_AT", "0"),
        ("ROOM_SPAN_AT", "100001"),
        ("WORKER_CPUS", "all"),
        ("WORKER_CPUS", "5-2"),
        ("WORKER_CPUS", "1,1"),
        ("WORKER_CPUS", "0-64"),
        ("WORKER_CPUS", "9999"),
        ("MAX_CONNECTIONS", "0"),
        ("MAX_CONNECTIONS", "100001"),
        ("AUDIO_SLOTS", "0"),
        ("AUDIO_SLOTS", "257"),
        ("RESUME_WINDOW", "15"),
        ("RESUME_WINDOW", "-1s"),
        ("RESUME_WINDOW", "1h"),
        ("RESUME_WINDOW", "11m"),
        ("RESUME_WINDOW", "99999999999999999999s"),
        ("RESUME_WINDOW", "18446744073709551615m"),
        ("IO_BACKEND", "epoll"),
        ("BATCH_WAIT_US", "10001"),
        ("EGRESS_TICK_MS", "21"),
        ("EGRESS_TICK_MS", "1.5"),
        ("OVERLOAD_TICK_MS", "21"),
        ("GSO_PAD_MAX", "256"),
        ("GSO_PAD_MAX", "-1"),
        ("BUSY_POLL_US", "1001"),
        ("BUSY_POLL_US", "-1"),
        ("WORKER_SCHEDULING", "rr"),
        ("WORKER_SCHEDULING", "-10"),
        ("LOG_LEVEL", "loud"),
        ("METRICS_ADDR", "9464"),
        ("METRICS_ADDR", "localhost:9464"),
        ("METRICS_ADDR", "127.0.0.1"),
        ("METRICS_ADDR", "::1:9464"),
        ("METRICS_ADDR", "127.0.0.1:65536"),
        ("METRICS_ADDR", "224.0.0.1:9464"),
    ] {
        let message = parse(&[(name, bad)]).expect_err(bad).to_string();
        let accepted =
            GROUPS.iter().flat_map(|(_, variables)| *variables).find(|v| v.name == name).unwrap().accepted;
        assert_eq!(message, format!("{name}={bad:?} is not accepted; accepted: {accepted}"));
    }
}

#[test]
fn workers_follow_cpus_and_ports() {
    let workers = |cpu_count, variables: &[_]| parse_on(cpu_count, variables).map(|config| config.workers);
    assert_eq!([0, 1, 2, 3, 500].map(|cpus| workers(cpus, &[]).unwrap()), [1, 1, 1, 2, 64]);
    assert_eq!(workers(16, &[("ICE_UDP_MUX_PORT", "3478-3481")]), Ok(4), "as many as there are ports");
    assert_eq!(workers(16, &[("ICE_UDP_MUX_PORT", "3478-3481"), ("WORKERS", "2")]), Ok(2));
    let short = workers(16, &[("ICE_UDP_MUX_PORT", "3478-3481"), ("WORKERS", "5")]).unwrap_err();
    assert!(
        short.to_string().starts_with("ICE_UDP_MUX_PORT=\"3478-3481\" is not accepted with WORKERS=\"5\";")
    );
}

#[test]
fn workers_follow_their_cpus() {
    let parsed = |variables: &[_]| parse_on(4, variables);
    let cpus = ("WORKER_CPUS", "2-5,8");
    assert_eq!(parsed(&[cpus]).unwrap().workers, 5);
    assert_eq!(parsed(&[cpus, ("WORKERS", "2")]).unwrap().workers, 2);
    let short = parsed(&[cpus, ("WORKERS", "6")]).unwrap_err().to_string();
    assert_eq!(
        short,
        "WORKER_CPUS=\"2-5,8\" is not accepted with WORKERS=\"6\"; accepted: a CPU for every worker"
    );
    let short = parsed(&[cpus, ("ICE_UDP_MUX_PORT", "3478-3481")]).unwrap_err().to_string();
    assert!(
        short.starts_with("ICE_UDP_MUX_PORT=\"3478-3481\" is not accepted with WORKERS=\"5\""),
        "{short}"
    );
    let config = parsed(&[cpus]).unwrap();
    assert_eq!(config.check_cpus(&[0, 2, 3, 4, 5, 8]), Ok(()));
    let forbidden = config.check_cpus(&[0, 1, 2, 3, 8]).unwrap_err().to_string();
    assert_eq!(
        forbidden,
        "WORKER_CPUS=\"2-5,8\" is not accepted; accepted: CPUs that this process may use, which are 0-3,8"
    );
    assert_eq!(parsed(&[]).unwrap().check_cpus(&[]), Ok(()));
}

#[test]
fn each_worker_is_reached_by_its_own_port() {
    let addresses = |ports, advertised| {
        let config =
            parse(&[("ICE_UDP_MUX_PORT", ports), ("ICE_ADVERTISE_IP", advertised), ("WORKERS", "2")])
                .unwrap();
        [WorkerId(0), WorkerId(1)].map(|worker| {
            let bound = config.ice_udp_mux_port.of(worker);
            config.ice_advertise_ip[0].of(config.ice_udp_mux_port, worker, bound)
        })
    };
    let expected = |text: [&str; 2]| text.map(|text| text.parse::<SocketAddr>().unwrap());
    assert_eq!(addresses("3478", "203.0.113.5"), expected(["203.0.113.5:3478", "203.0.113.5:3478"]));
    assert_eq!(addresses("3478", "203.0.113.5:99"), expected(["203.0.113.5:99", "203.0.113.5:99"]));
    assert_eq!(addresses("3478-3479", "2001:db8::1"), expected(["[2001:db8::1]:3478", "[2001:db8::1]:3479"]));
    assert_eq!(
        addresses("3478-3479", "[2001:db8::1]:99"),
        expected(["[2001:db8::1]:99", "[2001:db8::1]:100"])
    );
    let crowded = [("ICE_UDP_MUX_PORT", "1-2"), ("ICE_ADVERTISE_IP", "203.0.113.5:65535"), ("WORKERS", "2")];
    assert!(parse(&crowded).unwrap_err().to_string().starts_with("ICE_ADVERTISE_IP=\"203.0.113.5:65535\""));
}

#[test]
fn secrets_are_not_shown() {
    let secrets = [
        ("TURN_PASSWORD", "hunter2"),
        ("TURN_SECRET", "a secret of the house"),
        ("AUTH_SECRET", "thirty-two bytes at the very least"),
        ("METRICS_TOKEN", "the-key-to-the-counters"),
        ("DEBUG_TOKEN", "the-key-to-the-cellar"),
    ];
    let config = parse(&secrets).unwrap();
    let shown = config.to_string() + &format!("{config:?}");
    assert!(shown.contains("TURN_PASSWORD=…\n") && shown.contains("TURN_SECRET=…\n"), "{shown}");
    assert!(shown.contains("AUTH_SECRET=…\n"), "{shown}");
    assert!(secrets.iter().all(|(_, secret)| !shown.contains(secret)), "{shown}");
    for bad in ["fifteen-letters", "a blank in the middle", "=0123456789abcdef", &"x".repeat(257)] {
        let said = parse(&[("DEBUG_TOKEN", bad)]).unwrap_err().to_string();
        assert!(said.starts_with("DEBUG_TOKEN=\"…\" is not accepted; accepted: 16 to 256"), "{said}");
    }
    let short = parse(&[("TURN_SECRET", "fifteen letters")]).unwrap_err().to_string();
    assert!(short.starts_with("TURN_SECRET=\"…\" is not accepted; accepted: 16 to 256 bytes"), "{short}");
}

#[test]
fn what_needs_something_else_says_so() {
    let turn = ("TURN_SERVERS", "turn:turn.example");
    let (name, password) = (("TURN_USERNAME", "wanda"), ("TURN_PASSWORD", "hunter2"));
    for given in [&[turn][..], &[turn, name], &[turn, password]] {
        assert_eq!(parse(given), Err(Error::TurnUnsigned));
    }
    assert!(parse(&[turn, name, password]).is_ok());
    assert!(parse(&[turn, ("TURN_SECRET", "sixteen and more bytes")]).is_ok());
    for (one, other) in [("TLS_CERT", "TLS_KEY"), ("TLS_KEY", "TLS_CERT")] {
        let alone = parse(&[(one, "a.pem")]).unwrap_err();
        assert_eq!(alone.to_string(), format!("{one} is not accepted alone; it needs {other}"));
    }
    for name in ["CAPTURE_DIR", "KEYLOG_DIR"] {
        let alone = parse(&[(name, "/tmp")]).unwrap_err().to_string();
        assert_eq!(alone, format!("{name} is not accepted alone; it needs DEBUG_TOKEN"));
        assert!(parse(&[(name, "/tmp"), ("DEBUG_TOKEN", "sixteen-and-more")]).is_ok());
    }
    let discover = ("ICE_DISCOVER", "true");
    assert_eq!(parse(&[discover]), Err(Error::NobodyToAsk));
    assert_eq!(parse(&[discover, ("STUN_SERVERS", "stuns:stun.example")]), Err(Error::NobodyToAsk));
    assert!(parse(&[discover, ("STUN_SERVERS", "stun:stun.example")]).is_ok());
}

#[test]
fn lists_have_an_end() {
    for (name, most, item) in
        [("CORS_ORIGINS", 32, "https://site.example:1"), ("TRUSTED_PROXIES", 64, "10.0.0.1")]
    {
        let listed = |count: usize| (0..count).map(|i| format!("{item}{i:02}")).collect::<Vec<_>>().join(",");
        assert!(parse(&[(name, &listed(most))]).is_ok(), "{name}");
        assert!(parse(&[(name, &listed(most + 1))]).is_err(), "{name}");
    }
}
