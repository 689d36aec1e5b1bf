// The debug page: asks once a second, shows figures. Names come from strangers: they are set as text, never as
// markup.

import { History, plot } from "./plot.js";

const EVERY_MS = 1000;
const ANSWER_MS_MAX = 5000;
const PAGE_MAX = 10; // Of a thousand peers each.
const ui = new Proxy({}, { get: (_, id) => document.getElementById(id) });

let token = takeToken();
let isPaused = false;
let room = null; // An id, or null for all.
let chosen = null; // The peer in the sheet.
let isBeside = false; // Where a press began: beside the open sheet.
let isNews = false; // What is shown has just come, and is one more point of each plot.
let latest = { rooms: [], peers: [], workers: [] };
let before = null;
let timer = 0;
let round = 0;
const histories = new Map();
const rows = new Map();

function takeToken() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) {
    history.replaceState(null, "", location.pathname); // Not to be copied with the address.
    keep(given);
    return given;
  }
  try { return sessionStorage.getItem("gryt.debug") ?? ""; } catch { return ""; }
}

function keep(value) {
  try { sessionStorage.setItem("gryt.debug", value); } catch { /* Then until the reload. */ }
}

// Asking

class Refused extends Error {}

async function ask(path, method = "GET") {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const signal = AbortSignal.timeout(ANSWER_MS_MAX);
  const response = await fetch(path, { method, headers, signal, cache: "no-store", credentials: "omit" });
  if (response.status === 401) throw new Refused(token ? "This is not the token." : "");
  if (response.ok) return response.json();
  const said = await response.text();
  let words = said.trim();
  try { words = JSON.parse(said).error; } catch { /* Plain text. */ }
  throw new Error(words);
}

function wordsOf(error) {
  if (error instanceof TypeError) return "The server cannot be reached.";
  return error.name === "TimeoutError" ? "The server does not answer." : error.message;
}

async function allPeers() {
  const peers = [];
  let after = 0;
  for (let page = 0; page < PAGE_MAX && after !== null; page += 1) {
    const part = await ask(`/debug/peers${after ? `?after=${after}` : ""}`);
    peers.push(...part.peers);
    after = part.next;
  }
  return peers;
}

async function turn() {
  clearTimeout(timer);
  const mine = ++round;
  try {
    const [{ rooms }, peers, { workers, startedAt }] = await Promise.all([ask("/debug/rooms"), allPeers(), ask("/debug/workers")]);
    if (mine !== round) return;
    if (latest.startedAt && startedAt !== latest.startedAt) forget();
    latest = { rooms, peers, workers, startedAt, at: performance.now() };
    ui.key.hidden = true;
    ui.board.hidden = ui.pause.hidden = false;
    say("live", "Live");
    notice("");
    isNews = true;
    show();
    isNews = false;
    if (chosen !== null) await showSheet();
  } catch (error) {
    if (mine !== round) return;
    if (error instanceof Refused) return askForToken(error.message);
    ui.board.hidden = false;
    say("trouble", "No answer");
    notice(wordsOf(error));
  }
  if (!isPaused) timer = setTimeout(turn, EVERY_MS);
}

// Another server now: it counts from zero, and its ids are others'.
function forget() {
  before = room = null;
  for (const known of [histories, latestLoad, captures]) known.clear();
  if (ui.sheet.open) ui.sheet.close();
}

function askForToken(words) {
  ui.board.hidden = ui.pause.hidden = true;
  ui.key.hidden = false;
  say("waiting", "Locked");
  ui["key-notice"].hidden = !words;
  set(ui["key-notice"], words);
  ui.token.focus();
}

ui.key.addEventListener("submit", (event) => {
  event.preventDefault();
  token = ui.token.value.trim();
  keep(token);
  ui.token.value = "";
  turn();
});

// Showing

function set(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function make(tag, className = "", text = "") {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text) element.textContent = text;
  return element;
}

function say(state, text) {
  ui.state.dataset.state = state;
  set(ui["state-text"], text);
}

function notice(text) {
  ui.notice.hidden = !text;
  set(ui.notice, text);
}

const count = (value) => (value === null || value === undefined ? "–" : value >= 10000 ? `${(value / 1000).toFixed(value >= 100000 ? 0 : 1)}k` : String(Math.round(value)));
const bits = (value) => (value >= 1e6 ? `${(value / 1e6).toFixed(1)} Mbit/s` : `${Math.round(value / 1000)} kbit/s`);
const bytes = (value) => (value >= 1e6 ? `${(value / 1e6).toFixed(1)} MB` : `${(value / 1e3).toFixed(1)} kB`);
const ms = (value) => (value === null || value === undefined ? "–" : value >= 60000 ? `${Math.round(value / 60000)} min` : value >= 1000 ? `${(value / 1000).toFixed(1)} s` : value >= 10 ? `${Math.round(value)} ms` : `${value.toFixed(1)} ms`);
const age = (value) => (value === null ? "never" : value < 1000 ? "now" : value < 120000 ? `${Math.round(value / 1000)} s ago` : `${Math.round(value / 60000)} min ago`);
const share = (value) => (value === null || value === undefined ? "–" : value < 10 ? value.toFixed(1) : String(Math.round(value)));
const percent = (value) => (share(value) === "–" ? "–" : `${share(value)} %`);
const sum = (object) => Object.values(object).reduce((total, value) => total + value, 0);
const mutedMark = (peer) => peer.muted && (peer.serverMuted ? "muted for all" : "muted");
// Browsers that are muted go on sending silence.
const lost = ({ muted = 0, ...drops }) => sum(drops);
const words = (reason) => reason.replaceAll("_", " ");

function pastOf(name) {
  if (!histories.has(name)) histories.set(name, new History());
  return histories.get(name);
}

function median(values) {
  const sorted = values.filter((value) => value !== null).sort((a, b) => a - b);
  return sorted.length ? sorted[Math.floor(sorted.length / 2)] : null;
}

function show() {
  showFigures();
  showRooms();
  showPeers();
  showWorkers();
}

function figure(name, value, text, least) {
  const past = pastOf(name);
  if (isNews) past.add(value);
  set(ui[`f-${name}`], text);
  plot(ui[`p-${name}`], past, least);
}

function showFigures() {
  const { peers, workers, at } = latest;
  const total = (field) => peers.reduce((all, peer) => all + peer[field].packetsPerSecond, 0);
  figure("in", total("in"), count(total("in")), 20);
  figure("out", total("out"), count(total("out")), 20);
  const rtt = median(peers.map((peer) => peer.roundTripMs));
  figure("rtt", rtt, rtt === null ? "–" : rtt.toFixed(rtt < 10 ? 1 : 0), 5);
  for (const worker of workers) {
    const last = before?.workers[worker.worker];
    const seconds = last ? (at - before.at) / 1000 : 0;
    const isNew = last && seconds >= 0.9 && (worker.wakeups !== last.wakeups || seconds > 3);
    const kept = latestLoad.get(worker.worker) ?? { load: null, dropped: 0, isOverloaded: false };
    if (isNew) {
      kept.load = Math.min(100, (worker.busyMs - last.busyMs) / (seconds * 10));
      kept.dropped = (lost(worker.drops) - lost(last.drops)) / seconds;
      kept.isOverloaded = worker.overloadMs !== last.overloadMs;
    }
    latestLoad.set(worker.worker, kept);
  }
  const loads = [...latestLoad.values()];
  const dropped = loads.reduce((all, { dropped }) => all + dropped, 0);
  figure("drops", dropped, count(dropped), 5);
  ui["p-drops"].classList.toggle("warm", pastOf("drops").values.some((value) => value > 0));
  const load = loads.length ? Math.max(...loads.map(({ load }) => load ?? 0)) : 0;
  figure("load", load, load < 10 ? load.toFixed(1) : String(Math.round(load)), 100);
  if (!before || at - before.at > 900) before = { workers, at };
}

const latestLoad = new Map();

function showRooms() {
  set(ui["room-count"], String(latest.rooms.length));
  if (room !== null && !latest.rooms.some(({ id }) => id === room)) room = null;
  const all = { id: null, name: "All rooms", members: latest.peers, voices: null, activeSpeakers: [] };
  const items = [all, ...latest.rooms.slice(0, 500)];
  const list = ui.rooms;
  while (list.children.length > items.length) list.lastChild.remove();
  items.forEach((item, at) => {
    let button = list.children[at]?.firstChild;
    if (!button) {
      button = make("button", "room");
      button.type = "button";
      button.append(make("span", "room-name"), make("span", "room-sub"));
      button.addEventListener("click", () => {
        room = button.dataset.room ? Number(button.dataset.room) : null;
        show();
      });
      list.append(make("li"));
      list.lastChild.append(button);
    }
    button.dataset.room = item.id ?? "";
    button.setAttribute("aria-current", String(item.id === room));
    set(button.firstChild, item.name);
    const speakers = item.activeSpeakers.map(({ user }) => user).join(", ");
    const people = `${item.members.length} ${item.members.length === 1 ? "peer" : "peers"}`;
    set(button.lastChild, item.id === null ? people : `${people}, ${item.voices.length} ${item.voices.length === 1 ? "voice" : "voices"}, ${item.workers.length === 1 ? "worker" : "workers"} ${item.workers.join(", ")}${speakers ? `. Speaking: ${speakers}` : ""}`);
  });
}

function showPeers() {
  const wanted = ui.find.value.trim().toLocaleLowerCase();
  const fits = (peer) => !wanted || `${peer.nickname}\n${peer.user}`.toLocaleLowerCase().includes(wanted);
  const all = latest.peers.filter((peer) => (room === null || peer.roomId === room) && fits(peer));
  const shown = all.slice(0, 500);
  set(ui["peers-of"], room === null ? "All peers" : latest.rooms.find(({ id }) => id === room)?.name ?? "");
  set(ui["peer-count"], all.length > shown.length ? `${shown.length} of ${all.length}` : String(all.length));
  ui["no-peers"].hidden = shown.length > 0;
  ui.peers.closest("table").hidden = shown.length === 0;
  const ids = new Set(shown.map(({ id }) => id));
  for (const [id, row] of rows) {
    if (ids.has(id)) continue;
    row.element.remove();
    rows.delete(id);
  }
  const known = new Set(latest.peers.map(({ id }) => id));
  for (const name of histories.keys()) {
    const id = /^peer (\d+) /.exec(name)?.[1];
    if (id && !known.has(Number(id))) histories.delete(name);
  }
  for (const id of captures.keys()) if (!known.has(id)) captures.delete(id);
  for (const peer of isNews ? latest.peers : []) {
    pastOf(`peer ${peer.id} in`).add(peer.in.packetsPerSecond);
    pastOf(`peer ${peer.id} out`).add(peer.out.packetsPerSecond);
  }
  for (const peer of shown) {
    let row = rows.get(peer.id);
    if (!row) {
      row = new Row(peer.id);
      rows.set(peer.id, row);
      ui.peers.append(row.element);
    }
    row.show(peer);
  }
}

const LABELS = ["", "State", "Voice", "In, kbit/s", "Out, kbit/s", "Round trip", "Loss in / out, %", "Last packet", "Drops"];

class Row {
  constructor(id) {
    this.element = make("tr");
    this.element.dataset.peer = id;
    this.cells = LABELS.map((label, at) => {
      const cell = make(at ? "td" : "th", at > 2 ? "n" : "");
      if (label) cell.dataset.label = label;
      else cell.scope = "row";
      this.element.append(cell);
      return cell;
    });
    this.button = make("button", "who");
    this.button.type = "button";
    this.button.append(make("span", "nick"), make("span", "user"));
    this.button.addEventListener("click", () => open(id));
    this.cells[0].append(this.button);
    this.state = make("span", "pill");
    this.cells[1].append(this.state);
    this.level = make("i");
    const meter = make("span", "meter");
    meter.append(this.level);
    this.mark = make("span", "mark");
    this.cells[2].append(meter, this.mark);
    this.plots = ["in", "out"].map((side, at) => {
      const text = make("span");
      const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
      svg.setAttribute("class", "plot spark");
      svg.setAttribute("aria-hidden", "true");
      this.cells[3 + at].append(svg, text);
      return { svg, text, side };
    });
  }

  show(peer) {
    set(this.button.firstChild, peer.nickname);
    set(this.button.lastChild, room === null && peer.room ? `${peer.user} in ${peer.room}` : peer.user);
    this.state.dataset.state = peer.state;
    set(this.state, peer.state);
    this.state.title = `for ${ms(peer.sinceMs)}`;
    const level = peer.in.level === null ? 0 : Math.max(0, 1 - peer.in.level / 90);
    this.level.style.setProperty("--level", level.toFixed(2));
    this.element.classList.toggle("speaking", peer.in.speaking);
    const marks = [mutedMark(peer), peer.deafened && "deafened", peer.in.level === null && "listens only", peer.connection === null && "socket lost", peer.in.speaking && "speaking"];
    set(this.mark, marks.filter(Boolean).join(", ") || "quiet");
    for (const { svg, text, side } of this.plots) {
      plot(svg, pastOf(`peer ${peer.id} ${side}`), 20, 20);
      set(text, String(Math.round(peer[side].bitsPerSecond / 1000)));
    }
    set(this.cells[5], ms(peer.roundTripMs));
    set(this.cells[6], `${share(peer.in.lossPercent)} / ${share(peer.out.lossPercent)}`);
    this.cells[6].classList.toggle("bad", Math.max(peer.in.lossPercent ?? 0, peer.out.lossPercent ?? 0) >= 3);
    set(this.cells[7], age(peer.lastPacketMs));
    this.cells[7].classList.toggle("bad", peer.state === "disconnected");
    set(this.cells[8], count(sum(peer.drops)));
    this.cells[8].title = Object.entries(peer.drops).map(([reason, n]) => `${words(reason)}: ${n}`).join("\n");
  }
}

function showWorkers() {
  const list = ui.workers;
  while (list.children.length > latest.workers.length) list.lastChild.remove();
  latest.workers.forEach((worker, at) => {
    const item = list.children[at] ?? list.appendChild(make("li", "worker"));
    if (!item.children.length) {
      const meter = make("span", "meter wide");
      meter.append(make("i"));
      item.append(make("b"), meter, make("span", "load"), make("p", "soft"), make("p", "drops"));
    }
    const [name, meter, load, what, drops] = item.children;
    const { load: share, isOverloaded } = latestLoad.get(worker.worker) ?? {};
    set(name, `Worker ${worker.worker}`);
    meter.firstChild.style.setProperty("--level", ((share ?? 0) / 100).toFixed(3));
    set(load, share === null || share === undefined ? "–" : `${share.toFixed(1)} % busy`);
    load.classList.toggle("bad", isOverloaded ?? false);
    const saves = isOverloaded ? "Its CPU was used up: packets wait to leave in fewer sends. " : "";
    set(what, `${saves}UDP ${worker.udpPort}. ${worker.rooms} ${worker.rooms === 1 ? "room" : "rooms"}, ${worker.peers} ${worker.peers === 1 ? "peer" : "peers"}, ${worker.slots} slots. ${count(worker.rtpIn)} packets in, ${count(worker.rtpOut)} out.`);
    const reasons = Object.entries(worker.drops).sort(([, a], [, b]) => b - a);
    set(drops, reasons.length ? `Dropped since the start: ${reasons.map(([reason, n]) => `${words(reason)} ${count(n)}`).join(", ")}` : "Nothing dropped since the start");
  });
}

// One peer

function open(id) {
  chosen = id;
  showCapture(id);
  showSheet();
  ui.sheet.showModal();
}

async function showSheet() {
  const id = chosen;
  const known = latest.peers.find((peer) => peer.id === id);
  if (known) facts(known, []);
  try {
    const peer = await ask(`/debug/peers/${id}`);
    if (chosen === id) facts(peer, peer.slots);
  } catch (error) {
    if (error instanceof Refused) throw error;
    const isLost = error instanceof TypeError || error.name === "TimeoutError";
    if (chosen === id) set(ui["sheet-sub"], isLost ? wordsOf(error) : "It has left.");
  }
}

function facts(peer, slots) {
  showCapture(peer.id);
  set(ui["sheet-title"], peer.nickname);
  set(ui["sheet-sub"], `${peer.user} in ${peer.room ?? "no room"}, worker ${peer.worker ?? "–"}`);
  plot(ui["s-in"], pastOf(`peer ${peer.id} in`), 20);
  plot(ui["s-out"], pastOf(`peer ${peer.id} out`), 20);
  const drops = Object.entries(peer.drops).map(([reason, n]) => `${words(reason)} ${n}`).join(", ");
  const list = [
    ["State", `${peer.state} for ${ms(peer.sinceMs)}`],
    ["Pair", peer.pair ? `${peer.pair.local} ↔ ${peer.pair.remote}` : "none"],
    ["DTLS", peer.dtls],
    ["SRTP", peer.srtpProfile ?? "no keys"],
    ["Round trip", ms(peer.roundTripMs)],
    ["Last packet", age(peer.lastPacketMs)],
    ["In", `${count(peer.in.packetsPerSecond)} /s, ${bits(peer.in.bitsPerSecond)}; ${peer.in.packets} packets, ${bytes(peer.in.bytes)}`],
    ["In, lost", peer.in.lost === null ? "publishes nothing" : `${peer.in.lost}, now ${percent(peer.in.lossPercent)}, jitter ${ms(peer.in.jitterMs)}`],
    ["Out", `${count(peer.out.packetsPerSecond)} /s, ${bits(peer.out.bitsPerSecond)}; ${peer.out.packets} packets, ${bytes(peer.out.bytes)}`],
    ["Out, lost", peer.out.lost === null ? "not reported" : `${peer.out.lost}, now ${percent(peer.out.lossPercent)}, jitter ${ms(peer.out.jitterMs)}`],
    ["Voice", peer.in.level === null ? "none" : `${peer.in.level === 127 ? "silent" : `−${peer.in.level} dBov`}${peer.muted ? `, ${mutedMark(peer)}` : ""}${peer.deafened ? ", deafened" : ""}`],
    ["Drops", drops || "none"],
    ["Ids", `peer ${peer.id}, connection ${peer.connection ?? "lost"}, transport ${peer.transport ?? "none"}`],
  ];
  const place = ui.facts;
  list.forEach(([name, value], at) => {
    if (!place.children[at * 2]) place.append(make("dt"), make("dd"));
    set(place.children[at * 2], name);
    set(place.children[at * 2 + 1], value);
  });
  const carrying = slots.filter((slot) => slot.from !== null || slot.packets > 0);
  const body = ui.slots;
  while (body.children.length > carrying.length) body.lastChild.remove();
  carrying.forEach((slot, at) => {
    const row = body.children[at] ?? body.appendChild(make("tr"));
    while (row.children.length < 5) row.append(make("td", row.children.length > 1 ? "n" : ""));
    const values = [slot.mid, slot.from ?? "silent", count(slot.packets), slot.lost === null ? "–" : `${slot.lost} (${percent(slot.lossPercent)})`, ms(slot.jitterMs)];
    values.forEach((value, cell) => set(row.children[cell], value));
  });
  body.closest("table").hidden = carrying.length === 0;
  ui["no-slots"].hidden = carrying.length > 0;
}

// Its packets in a file on the server

const CAPTURE_S = 10;
const captures = new Map(); // By peer: what became of the last one.

function showCapture(id) {
  if (id !== chosen) return;
  const { text, isBusy = false, isWrong = false } = captures.get(id) ?? { text: "Writes what this peer says and is sent to a pcap on the server, decrypted." };
  ui.capture.setAttribute("aria-disabled", String(isBusy));
  ui["capture-said"].classList.toggle("wrong", isWrong);
  set(ui["capture-said"], text);
}

function sayCapture(id, what) {
  captures.set(id, what);
  showCapture(id);
}

async function capture(id) {
  if (captures.get(id)?.isBusy) return;
  sayCapture(id, { text: "Asking for a capture", isBusy: true });
  try {
    const { file, seconds } = await ask(`/debug/peers/${id}/capture?seconds=${CAPTURE_S}`, "POST");
    sayCapture(id, { text: `Writing ${file}, for ${seconds} s`, isBusy: true });
    setTimeout(() => sayCapture(id, { text: `${file} is in CAPTURE_DIR` }), seconds * 1000);
  } catch (error) {
    const text = error instanceof Refused ? "The server wants another token." : wordsOf(error);
    sayCapture(id, { text, isWrong: true });
  }
}

ui.capture.addEventListener("click", () => capture(chosen));

ui.sheet.addEventListener("close", () => {
  if (ui.sheet.open) return; // The event comes late: it is another's by now.
  const row = rows.get(chosen);
  chosen = null;
  row?.button.focus();
});
ui["sheet-close"].addEventListener("click", () => ui.sheet.close());
// By a press that begins beside it, and not by one that only ends there.
ui.sheet.addEventListener("pointerdown", ({ clientX: x, clientY: y }) => {
  const { left, right, top, bottom } = ui.sheet.getBoundingClientRect();
  isBeside = x < left || x > right || y < top || y > bottom;
});
ui.sheet.addEventListener("click", ({ target }) => { if (isBeside && target === ui.sheet) ui.sheet.close(); });

// Controls

function pause() {
  isPaused = !isPaused;
  ui.pause.setAttribute("aria-pressed", String(isPaused));
  ui.pause.firstChild.textContent = isPaused ? "Go on " : "Pause ";
  clearTimeout(timer);
  if (isPaused) {
    round += 1; // What is on its way comes too late.
    say("paused", "Paused");
  } else {
    turn();
  }
}

ui.pause.addEventListener("click", pause);
ui.find.addEventListener("input", showPeers);
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input")) return;
  if (event.key === "/" && !ui.sheet.open) {
    event.preventDefault();
    ui.find.focus();
  }
  if (event.key.toLowerCase() === "p" && !ui.board.hidden) pause();
});

turn();
