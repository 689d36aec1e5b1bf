//! Janus, of Debian's package `janus`, set up for what is asked of it here: voices by its video room, and nothing else.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

/// Other plugins and ways in: each has threads of its own.
const PLUGINS: [&str; 11] = [
    "audiobridge",
    "duktape",
    "echotest",
    "lua",
    "nosip",
    "recordplay",
    "sip",
    "streaming",
    "textroom",
    "videocall",
    "voicemail",
];
const TRANSPORTS: [&str; 5] = ["http", "mqtt", "nanomsg", "pfunix", "rabbitmq"];

/// Writes what it reads at its start: a WebSocket and media at this address, no words, and one thread for the media of
/// all, as its documentation advises where there are many; each would have its own.
///
/// # Errors
/// The folder cannot be written to.
pub(crate) fn configure(folder: &Path, ip: &str, port: u16) -> io::Result<()> {
    let libraries =
        |names: &[&str]| names.iter().map(|name| format!("libjanus_{name}.so,")).collect::<String>();
    let main = format!(
        "general: {{ debug_level = 0, event_loops = 1 }}\n\
         nat: {{ ice_enforce_list = \"{ip}\" }}\n\
         plugins: {{ disable = \"{}\" }}\n\
         transports: {{ disable = \"{}\" }}\n\
         loggers: {{ disable = \"libjanus_jsonlog.so\" }}\n\
         events: {{ broadcast = false }}\n",
        libraries(&PLUGINS),
        libraries(&TRANSPORTS)
    );
    let way_in = format!("general: {{ json = \"plain\", ws = true, ws_ip = \"{ip}\", ws_port = {port} }}\n");
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join("janus.jcfg"), main)?;
    std::fs::write(folder.join("janus.transport.websockets.jcfg"), way_in)?;
    std::fs::write(folder.join("janus.plugin.videoroom.jcfg"), "general: {}\n")
}

/// Whether this machine has it.
pub(crate) fn is_installed() -> bool {
    // What it ends with says nothing: its own --version is an error to it.
    Command::new("janus").arg("--help").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}
