// The demo page: ties session, sound and view together.

import { Session } from "./session.js";
import { Ears, Microphone, adviceFor, devices, wakeSound } from "./sound.js";
import { LineQuality } from "./stats.js";
import {
  People, announce, fillDevices, hallNotice, setMeter, setText, showAdvice, showDoorNotice, showHallNotice, showState, showView, ui,
} from "./view.js";

const ROOM_BYTES_MAX = 128;
const STATS_MS = 1000;
const SILENCED = "A moderator has muted you: nobody hears you.";
const BLOCKED = "The browser waits for a click before it plays sound.";

const remembered = {
  get: (key) => { try { return localStorage.getItem(`gryt.${key}`) ?? ""; } catch { return ""; } },
  set: (key, value) => { try { localStorage.setItem(`gryt.${key}`, value); } catch { /* Then not. */ } },
};

const microphone = new Microphone();
const ears = new Ears();
const people = new People({
  setVolume: (userId, volume) => ears.setVolume(userId, volume),
  mute: (userId, muted) => session?.mute(userId, muted),
  kick: (userId) => session?.kick(userId),
});
const token = takeToken();
const claims = claimsOf(token);
const userId = takeUserId();
let session = null;
let line = null;
let micProblem = null;
let waitingText = "";
let noticeBefore = null;
let joins = 0;
let isBeside = false; // Where a press began: beside the open sheet.
let isBlocked = false; // The browser refuses to play.
let wasMuted = false; // Of who loses the microphone, for the next one.

// A personal invitation ends in `#token=…`, which browsers send to no server. It goes from the address bar at
// once, so that no copy of the address and no glance at it gives it away, and is kept for a reload.
function takeToken() {
  const url = new URL(location.href);
  const given = new URLSearchParams(url.hash.slice(1)).get("token") ?? url.searchParams.get("token");
  if (given) {
    url.searchParams.delete("token");
    url.hash = "";
    history.replaceState(null, "", url);
  }
  try {
    const kept = sessionStorage.getItem("gryt.token");
    sessionStorage.removeItem("gryt.token");
    return given || kept || "";
  } catch {
    return given ?? ""; // No storage.
  }
}

// Whom a token is for. The server alone can tell whether it is good.
function claimsOf(token) {
  try {
    const payload = atob(token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/"));
    const { sub, room } = JSON.parse(new TextDecoder().decode(Uint8Array.from(payload, (c) => c.charCodeAt(0))));
    return { sub: typeof sub === "string" ? sub : "", room: typeof room === "string" ? room : "" };
  } catch {
    return { sub: "", room: "" };
  }
}

// A reload comes back as the same user. The id is put down only when the page goes, so that a tab that
// was duplicated meanwhile gets its own.
function takeUserId() {
  let id = null;
  try {
    id = sessionStorage.getItem("gryt.user");
    sessionStorage.removeItem("gryt.user");
  } catch { /* No storage: a new user each time. */ }
  return claims.sub || (id ?? Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => byte.toString(16).padStart(2, "0")).join(""));
}

addEventListener("pagehide", () => {
  session?.leave(); // Or the others would wait for us as for somebody whose connection broke.
  try {
    sessionStorage.setItem("gryt.user", userId);
    if (token) sessionStorage.setItem("gryt.token", token);
  } catch { /* As above. */ }
});

// The door

function prepareDoor() {
  const asked = new URLSearchParams(location.search);
  const room = claims.room || (asked.get("room") ?? "").trim();
  ui.name.value = (asked.get("name") ?? remembered.get("name")).trim().slice(0, 64);
  ui.room.value = room || remembered.get("room");
  ui.room.readOnly = Boolean(claims.room);
  if (claims.room) {
    setText(ui["door-title"], room);
    setText(ui["door-lede"], "This is your personal invitation to this voice room. Say who you are and come in.");
  } else if (room) {
    setText(ui["door-title"], room);
    setText(ui["door-lede"], "You are invited to this voice room. No account, nothing to install: say who you are and come in.");
  }
  if (Microphone.isPossible) {
    ui["listen-only"].checked = remembered.get("listen") === "yes";
  } else {
    ui["mic-field"].hidden = ui["try-row"].hidden = true;
    ui["listen-only"].checked = ui["listen-only"].disabled = true;
    showAdvice("mic", adviceFor());
  }
  showJoinButton();
  (ui.name.value && room ? ui["join-button"] : ui.name.value ? ui.room : ui.name).focus();
}

function showJoinButton() {
  const listens = ui["listen-only"].checked;
  setText(ui["join-button"], listens ? "Join and listen" : "Join and talk");
  ui["mic-select"].disabled = ui["mic-try"].disabled = listens;
}

async function showDevices() {
  const [inputs, outputs] = await Promise.all([devices("audioinput"), devices("audiooutput")]);
  const speakers = Ears.canChooseSpeaker && outputs.length > 0;
  for (const prefix of ["", "settings-"]) {
    fillDevices(ui[prefix ? "settings-mic" : "mic-select"], inputs, remembered.get("mic"), "Default", "Microphone");
    fillDevices(ui[prefix ? "settings-speaker" : "speaker-select"], outputs, remembered.get("speaker"), "Default", "Speaker");
    ui[`${prefix}speaker-field`].hidden = !speakers;
  }
  ears.setSpeaker(speakers ? ui["speaker-select"].value : "");
}

// Opens the chosen microphone. On failure `micProblem` says why.
async function openMicrophone() {
  micProblem = null;
  try {
    if (!Microphone.isPossible) throw new Error();
    const chosen = remembered.get("mic");
    await microphone.open(chosen).catch((error) => {
      if (!chosen || error.name !== "OverconstrainedError") throw error;
      return microphone.open(""); // The device of last time is not there.
    });
    await showDevices();
  } catch (error) {
    micProblem = adviceFor(error);
  }
  return !micProblem;
}

async function tryMicrophone() {
  if (microphone.track) {
    microphone.close();
  } else {
    wakeSound();
    await openMicrophone();
    showAdvice("mic", micProblem);
  }
  showTry();
  await fitSession();
}

function showTry() {
  setText(ui["mic-try"], microphone.track ? "Stop trying" : "Try the microphone");
}

// Permission, or another device, that came only after we went in.
async function fitSession() {
  if (!session || session.microphone === microphone.track) return;
  if (ui["listen-only"].checked || !session.grants.publish) return microphone.close();
  await takeMicrophone();
}

// Why the server would take no room of this name.
function problemOf(room) {
  if (!room) return "Which room?";
  if (new TextEncoder().encode(room).length > ROOM_BYTES_MAX) return "That room's name is too long.";
  return /\p{Cc}/u.test(room) ? "That room's name has a tab or the like in it, which no name may have." : "";
}

async function join(event) {
  event.preventDefault();
  const [name, room] = [ui.name.value.trim(), ui.room.value.trim()];
  const roomProblem = problemOf(room);
  ui.name.setAttribute("aria-invalid", String(!name));
  ui.room.setAttribute("aria-invalid", String(Boolean(roomProblem)));
  if (!name || roomProblem) {
    showDoorNotice(name ? roomProblem : "Say who you are first.");
    return (name ? ui.room : ui.name).focus();
  }
  remembered.set("name", name);
  remembered.set("room", room);
  if (Microphone.isPossible) remembered.set("listen", ui["listen-only"].checked ? "yes" : "");
  ui["join-button"].disabled = true;
  wakeSound();
  const mine = ++joins;
  if (!ui["listen-only"].checked && !microphone.track) await openMicrophone();
  if (mine !== joins) { // We went in without waiting for it, or a newer try waits.
    if (session) return fitSession();
    if (!ui["join-button"].disabled) microphone.close();
    return;
  }
  if (ui["listen-only"].checked) microphone.close();
  ui["join-button"].disabled = false;
  enter(name, room);
}

// The hall

function enter(name, room) {
  const url = new URL(location.href);
  url.search = new URLSearchParams({ room }).toString();
  url.hash = "";
  history.replaceState(null, "", url);
  document.title = `${room} · Gryt voice rooms`;
  setText(ui["hall-title"], room);
  showDoorNotice("");
  showHallNotice("");
  showView("hall");
  line = new LineQuality();
  wasMuted = false;
  ears.setDeaf(false);
  if (microphone.track) microphone.track.enabled = true;
  session = new Session({
    url: `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`,
    roomId: room,
    userId,
    token,
    nickname: name,
    isMuted: !microphone.track,
    isDeafened: false,
    microphone: microphone.track,
    on: handle,
  });
  showMicrophone();
  showDeafened();
  showPeople();
  showState(session.state, false);
  if (!microphone.track && !ui["listen-only"].checked) {
    showHallNotice(`You are listening only.${micProblem ? ` ${micProblem.title}.` : ""}`, { button: "Use a microphone", act: openSettings });
  }
  ui["hall-title"].focus({ preventScroll: true });
}

function handle(event) {
  if (!session && event.type !== "ended") return;
  switch (event.type) {
    case "state":
      showState(session.state, !microphone.track);
      if (session.state === "trouble") announce("Connection lost. Reconnecting.");
      if (session.state === "connected") announce("Connected.");
      return;
    case "members": return showPeople();
    case "voices": return ears.update(session.voices());
    case "speakers": return people.setSpeakers(event.userIds);
    case "arrived": return announce(`${event.nickname} came in.`);
    case "departed": return announce(`${event.nickname} left.`);
    case "notice": return showHallNotice(event.text);
    case "waiting": return showWaiting(event.text);
    case "grants": return takeGrants();
    case "silenced": return showSilenced();
    case "ended": return comeOut(event);
  }
}

// Goes by itself, for what was there before, unless something else has been said since.
function showWaiting(text) {
  const isShown = waitingText && ui["hall-notice-text"].textContent === waitingText;
  if (!isShown) noticeBefore = hallNotice;
  if (text) showHallNotice(text);
  else if (isShown) noticeBefore();
  waitingText = text;
}

// What the invitation allows.
function takeGrants() {
  if (ui["hall-notice-text"].textContent === SILENCED) showHallNotice(""); // If it is still so, we are told next.
  const { publish, subscribe } = session.grants;
  if (!publish) {
    microphone.close();
    session.setMicrophone(null);
    showHallNotice(subscribe ? "Your invitation lets you listen, not speak." : "Your invitation lets you neither listen nor speak.");
  } else if (!subscribe) {
    showHallNotice("Your invitation lets you speak, not listen.");
  }
  showMicrophone();
  showPeople();
}

function showSilenced() {
  const text = session.isServerMuted ? SILENCED : "You can be heard again.";
  showHallNotice(text, { tone: session.isServerMuted ? "" : "calm" });
  showMicrophone();
}

function messageOf(reason, message) {
  if (reason !== "unauthorized") return message;
  if (!token) return "This room is open by personal invitation only: a link with a token in it. Ask whoever runs this server for one.";
  return `You were not let in: ${message}. Ask for a new invitation.`;
}

function comeOut({ reason, message }) {
  session = line = null;
  ears.close();
  microphone.close();
  people.clear();
  if (ui.settings.open) ui.settings.close();
  document.title = "Gryt voice rooms";
  showTry();
  showState("idle", false);
  showView("door");
  showJoinButton();
  showDoorNotice(messageOf(reason, message), reason === "left" ? "calm" : "");
  ui["join-button"].focus();
  if (reason === "left") announce("You left the room.");
}

function showPeople() {
  const { isServerMuted, grants } = session;
  const me = { userId, ...session.info, isServerMuted, isSelf: true, isListening: !microphone.track, volume: 1 };
  const others = [...session.members].map(([id, member]) => ({
    userId: id, ...member, isSelf: false, isListening: false, volume: ears.volume(id),
    canModerate: grants.moderate,
  }));
  people.update([me, ...others]);
  if (session.hasJoined) return;
  ui.alone.hidden = true; // Nobody knows yet.
  setText(ui.count, "");
}

function showMicrophone() {
  const isListening = !microphone.track;
  const { isMuted } = session.info;
  // Whom a moderator has muted may mute himself as well, for when the moderator relents.
  ui.mute.disabled = !session.grants.publish;
  ui.mute.classList.toggle("is-off", isListening || isMuted);
  setText(ui["mute-text"], ui.mute.disabled ? "Muted" : isListening ? "Use mic" : isMuted ? "Unmute" : "Mute");
}

function showDeafened() {
  const { isDeafened } = session.info;
  ui.deafen.classList.toggle("is-off", isDeafened);
  setText(ui["deafen-text"], isDeafened ? "Undeafen" : "Deafen");
}

// For who does not see the button change, or is elsewhere: the keys work everywhere.
function announceMuted() {
  announce(session.info.isMuted ? "Muted." : "Unmuted.");
}

async function toggleMute() {
  if (ui.mute.disabled) return;
  if (!microphone.track) return useMicrophone();
  const isMuted = !session.info.isMuted;
  microphone.track.enabled = !isMuted;
  session.tell({ isMuted });
  announceMuted();
  showMicrophone();
  showPeople();
}

function toggleDeafen() {
  const isDeafened = !session.info.isDeafened;
  ears.setDeaf(isDeafened);
  session.tell({ isDeafened });
  announce(isDeafened ? "Deafened." : "Undeafened.");
  showDeafened();
  showPeople();
}

// From listening to talking, or to another device.
async function useMicrophone() {
  ui["listen-only"].checked = false;
  const opened = await openMicrophone();
  if (!session) return microphone.close();
  showAdvice("settings", micProblem);
  if (!opened) return openSettings();
  await takeMicrophone();
}

async function takeMicrophone() {
  if (!microphone.track) return; // Another is asked for, or none any more.
  showHallNotice(session.isServerMuted ? SILENCED : "", { tone: session.isServerMuted ? "" : "calm" });
  hearBlocked(); // Who speaks has clicked.
  if (!session.microphone) {
    microphone.track.enabled = !wasMuted;
    session.tell({ isMuted: wasMuted });
    announceMuted();
  }
  wasMuted = false;
  await session.setMicrophone(microphone.track);
  if (session) afterMicrophoneChange();
}

function afterMicrophoneChange() {
  if (microphone.track && document.activeElement === ui["settings-try"]) ui["settings-mic"].focus();
  ui["settings-try"].hidden = Boolean(microphone.track);
  showMicrophone();
  showPeople();
  showState(session.state, !microphone.track);
}

microphone.onlost = async () => {
  if (!session) return showTry();
  wasMuted = session.info.isMuted;
  session.tell({ isMuted: true });
  await session.setMicrophone(null);
  if (!session || session.microphone) return; // Over, or the next one is there.
  afterMicrophoneChange();
  showHallNotice("The microphone is gone: you are listening only.", { tone: "", button: "Use a microphone", act: useMicrophone });
};

ears.onblocked = () => {
  isBlocked = true;
  showHallNotice(BLOCKED, { button: "Hear the room", act: hearRoom });
};

// By whatever is clicked: the notice that asks for it may have made way for another.
function hearBlocked() {
  if (isBlocked) hearRoom();
}

function hearRoom() {
  isBlocked = false;
  if (ui["hall-notice-text"].textContent === BLOCKED) showHallNotice("");
  ears.play();
}

// Some speak to their machine, or hit a key unmeant (WCAG 2.1.4): they can do without.
function showShortcuts() {
  ui.keys.hidden = !ui.shortcuts.checked;
  for (const [id, key] of [["mute", "m"], ["deafen", "d"]]) {
    if (ui.shortcuts.checked) ui[id].setAttribute("aria-keyshortcuts", key);
    else ui[id].removeAttribute("aria-keyshortcuts");
  }
}

function openSettings() {
  showAdvice("settings", micProblem);
  const canSpeak = Microphone.isPossible && session.grants.publish;
  ui["settings-mic-field"].hidden = ui["settings-meter"].hidden = !canSpeak;
  ui["settings-try"].hidden = !canSpeak || Boolean(microphone.track);
  if (!ui.settings.open) ui.settings.showModal();
  showDevices();
}

async function invite() {
  const link = new URL(`/?${new URLSearchParams({ room: session.roomId })}`, location.href).href;
  try {
    await navigator.clipboard.writeText(link);
  } catch {
    copyTheOldWay(link); // The clipboard is for secure pages only.
  }
  setText(ui["invite-text"], "Copied");
  announce("The invitation was copied.");
  setTimeout(() => setText(ui["invite-text"], "Copy invitation"), 2000);
}

function copyTheOldWay(text) {
  const field = document.createElement("textarea");
  field.value = text;
  field.className = "unseen";
  document.body.append(field);
  field.select();
  document.execCommand("copy");
  field.remove();
  ui.invite.focus();
}

// Levels and line quality

function draw(now) {
  requestAnimationFrame(draw);
  const own = microphone.level();
  if (session) {
    people.draw(now, (id) => (id === userId ? own : ears.level(id)));
    if (ui.settings.open) setMeter(ui["settings-meter"], own);
  } else {
    setMeter(ui["door-meter"], own);
  }
}

async function showLine() {
  const peer = session?.peer;
  if (!peer || peer.connectionState !== "connected") {
    for (const id of ["stat-rtt", "stat-loss", "stat-jitter", "stat-rate"]) showFigure(id, "–", false);
    return;
  }
  const { rttMs, lossIn, lossOut, jitterMs, kbpsIn, kbpsOut } = await line.read(peer).catch(() => ({}));
  const loss = lossIn == null && lossOut == null ? null : Math.max(lossIn ?? 0, lossOut ?? 0);
  const whole = (value, unit) => (value == null ? "–" : `${Math.round(value)} ${unit}`);
  showFigure("stat-rtt", whole(rttMs, "ms"), rttMs > 300);
  showFigure("stat-loss", loss == null ? "–" : `${(loss * 100).toFixed(1)} %`, loss > 0.03);
  showFigure("stat-jitter", whole(jitterMs, "ms"), jitterMs > 50);
  showFigure("stat-rate", kbpsIn == null ? "–" : `${Math.round(kbpsIn)} / ${whole(kbpsOut, "kbit/s")}`, false);
}

function showFigure(id, text, isPoor) {
  setText(ui[id], text);
  ui[id].classList.toggle("poor", isPoor);
}

// Wires

ui["join-form"].onsubmit = join;
ui["mic-try"].onclick = tryMicrophone;
ui["listen-only"].onchange = () => {
  if (ui["listen-only"].checked) {
    microphone.close();
    showTry();
    ui["join-button"].disabled = false; // There is nothing to wait for.
  }
  showJoinButton();
};
ui.mute.onclick = toggleMute;
ui.deafen.onclick = toggleDeafen;
ui.leave.onclick = () => session.leave();
ui.invite.onclick = invite;
ui["open-settings"].onclick = openSettings;
ui["settings-try"].onclick = useMicrophone;
ui["mic-select"].onchange = ui["settings-mic"].onchange = async ({ target }) => {
  remembered.set("mic", target.value);
  if (session) return useMicrophone();
  if (microphone.track && !(await openMicrophone())) showAdvice("mic", micProblem);
  await fitSession();
};
ui["speaker-select"].onchange = ui["settings-speaker"].onchange = ({ target }) => {
  remembered.set("speaker", target.value);
  ears.setSpeaker(target.value);
};
ui.shortcuts.onchange = () => {
  remembered.set("shortcuts", ui.shortcuts.checked ? "" : "no");
  showShortcuts();
};
// By a press that begins beside it, and not by one that only ends there.
ui.settings.onpointerdown = ({ clientX: x, clientY: y }) => {
  const { left, right, top, bottom } = ui.settings.getBoundingClientRect();
  isBeside = x < left || x > right || y < top || y > bottom;
};
ui.settings.onclick = ({ target }) => { if (isBeside && target === ui.settings) ui.settings.close(); };
navigator.mediaDevices?.addEventListener?.("devicechange", showDevices);
for (const gesture of ["click", "keydown"]) addEventListener(gesture, hearBlocked, { capture: true });
addEventListener("hashchange", () => { if (location.hash.startsWith("#token=")) location.reload(); }); // Another invitation.
addEventListener("keydown", (event) => {
  const isPlain = !event.ctrlKey && !event.metaKey && !event.altKey && !event.repeat;
  if (!session || !isPlain || !ui.shortcuts.checked || ui.settings.open || event.target.closest("input:not([type=range]), select, textarea")) return;
  if (event.key === "m" || event.key === "M") toggleMute();
  if (event.key === "d" || event.key === "D") toggleDeafen();
});

ui.invite.hidden = Boolean(token); // A personal one is nobody else's.
if (token) setText(ui.alone, "Nobody else is here yet.");
prepareDoor();
showDevices();
ui.shortcuts.checked = remembered.get("shortcuts") !== "no";
showShortcuts();
Ears.canSetVolume().then((canSet) => { document.body.dataset.volume = canSet ? "" : "fixed"; });
requestAnimationFrame(draw);
setInterval(showLine, STATS_MS);

// For the console and the tests: what this page knows and hears.
window.gryt = {
  userId,
  get state() { return session?.state ?? "idle"; },
  get session() { return session; },
  get peer() { return session?.peer ?? null; },
  get members() { return session ? Object.fromEntries(session.members) : {}; },
  voices: () => session?.voices() ?? [],
  peak: (id) => ears.peak(id),
  level: (id) => (id === userId ? microphone.level() : ears.level(id)),
};
