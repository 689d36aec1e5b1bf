// What is on the screen. Names come from strangers: they are set as text, never as markup.

const byId = (id) => document.getElementById(id);

export const ui = new Proxy({}, { get: (_, id) => byId(id) });

const SPEAKING_LEVEL = 0.34; // Where the server tells us nothing.
const SPEAKING_HOLD_MS = 450;
const ASK_MS = 4000;

export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function announce(text) {
  setText(ui.announce, text);
}

export function showView(view) {
  document.body.dataset.view = view;
  ui.door.hidden = view !== "door";
  ui.hall.hidden = ui.dock.hidden = view !== "hall";
}

const STATE_TEXT = {
  idle: "Not connected",
  connecting: "Connecting…",
  connected: "Connected",
  trouble: "Connection lost. Reconnecting…",
};

export function showState(state, isListening) {
  ui.state.dataset.state = state;
  setText(ui["state-text"], state === "connected" && isListening ? "Connected, listening only" : STATE_TEXT[state] ?? "");
}

// `prefix` is "mic" at the door and "settings" in the sheet.
export function showAdvice(prefix, advice) {
  ui[`${prefix}-advice`].hidden = !advice;
  if (!advice) return;
  setText(ui[`${prefix}-advice-title`], advice.title);
  setText(ui[`${prefix}-advice-text`], advice.text);
  setText(ui[`${prefix}-advice-code`], advice.code ?? "");
  ui[`${prefix}-advice-code`].hidden = !advice.code;
}

// The same call again, so that what was there can be shown again.
export let hallNotice = () => showHallNotice("");

export function showHallNotice(text, { tone = "calm", button = "", act = null } = {}) {
  hallNotice = () => showHallNotice(text, { tone, button, act });
  ui["hall-notice"].hidden = !text;
  ui["hall-notice"].dataset.tone = tone;
  setText(ui["hall-notice-text"], text);
  // The focus is not lost with it.
  if (!button && document.activeElement === ui["hall-notice-button"]) (ui.mute.disabled ? ui["hall-title"] : ui.mute).focus();
  ui["hall-notice-button"].hidden = !button;
  setText(ui["hall-notice-button"], button);
  ui["hall-notice-button"].onclick = act;
}

export function showDoorNotice(text, tone = "") {
  ui["door-notice"].hidden = !text;
  ui["door-notice"].dataset.tone = tone;
  setText(ui["door-notice"], text);
}

export function fillDevices(select, devices, chosen, fallback, kind) {
  const options = [{ deviceId: "", label: fallback }, ...devices].map(({ deviceId, label }, i) => {
    const option = document.createElement("option");
    option.value = deviceId;
    option.textContent = label || `${kind} ${i}`;
    return option;
  });
  select.replaceChildren(...options);
  select.value = devices.some((device) => device.deviceId === chosen) ? chosen : "";
}

export function setMeter(meter, level) {
  meter.style.setProperty("--level", level.toFixed(3));
}

// The people of the room, one tile each; ours is the first.
export class People {
  #tiles = new Map();
  #speakers = new Set();
  #acts;

  // What one can do to others: {setVolume(userId, volume), mute(userId, muted), kick(userId)}.
  constructor(acts) {
    this.#acts = acts;
  }

  // [{userId, nickname, isMuted, isServerMuted, isDeafened, isSelf, isListening, volume, canModerate}]
  update(people) {
    const present = new Set(people.map((person) => person.userId));
    for (const [userId, tile] of this.#tiles) {
      if (present.has(userId)) continue;
      if (tile.element.contains(document.activeElement)) ui["hall-title"].focus({ preventScroll: true });
      tile.element.remove();
      this.#tiles.delete(userId);
    }
    for (const person of people) {
      let tile = this.#tiles.get(person.userId);
      if (!tile) {
        tile = new Tile(person, this.#acts);
        this.#tiles.set(person.userId, tile);
        ui.people.append(tile.element);
      }
      tile.update(person);
    }
    ui.people.dataset.crowd = people.length <= 4 ? "few" : "many";
    const others = people.length - 1;
    setText(ui.count, others === 0 ? "Only you" : `You and ${others} ${others === 1 ? "other" : "others"}`);
    ui.alone.hidden = others > 0;
  }

  setSpeakers(userIds) {
    this.#speakers = new Set(userIds);
  }

  // `levelOf` gives each user's level now.
  draw(now, levelOf) {
    for (const [userId, tile] of this.#tiles) tile.draw(now, levelOf(userId), this.#speakers.has(userId));
  }

  clear() {
    for (const tile of this.#tiles.values()) tile.element.remove();
    this.#tiles.clear();
    this.#speakers.clear();
  }
}

class Tile {
  #person = {};
  #heardAt = -Infinity;
  #isSpeaking = false;
  #askTimer = 0;

  constructor({ userId, volume }, acts) {
    this.element = ui.person.content.firstElementChild.cloneNode(true);
    this.element.dataset.user = userId;
    const hash = hashOf(userId);
    const find = (selector) => this.element.querySelector(selector);
    find(".pebble").classList.add(`tone-${hash % 8}`, `shape-${(hash >>> 8) % 5}`);
    this.initials = find(".initials");
    this.name = find(".name");
    this.mark = find(".mark");
    this.range = find("input");
    this.range.value = String(Math.round(volume * 100));
    this.range.oninput = () => acts.setVolume(userId, this.range.valueAsNumber / 100);
    this.moderate = find(".moderate");
    this.silence = find(".silence");
    this.silence.onclick = () => acts.mute(userId, !this.#person.isServerMuted);
    this.remove = find(".remove");
    this.remove.onclick = () => this.#askBefore(() => acts.kick(userId));
  }

  update(person) {
    this.#person = person;
    const name = person.nickname || person.userId;
    setText(this.initials, initialsOf(name));
    setText(this.name, person.isSelf ? `${name} (you)` : name);
    this.name.title = name;
    this.range.setAttribute("aria-label", `Volume of ${name}`);
    this.range.disabled = person.isSelf;
    this.element.classList.toggle("self", person.isSelf);
    this.element.classList.toggle("muted", this.#isSilent);
    this.moderate.hidden = !person.canModerate;
    setText(this.silence, person.isServerMuted ? "Let speak" : "Mute");
    this.silence.setAttribute("aria-label", person.isServerMuted ? `Let speak: ${name}` : `Mute ${name} for everybody`);
    this.#showRemove();
    this.#say();
  }

  get #isSilent() {
    return Boolean(this.#person.isMuted || this.#person.isServerMuted);
  }

  // The first press asks, the second acts: nobody is removed by a slip.
  #askBefore(act) {
    const isAsked = this.remove.classList.toggle("asks");
    this.#showRemove();
    clearTimeout(this.#askTimer);
    if (!isAsked) return act();
    this.#askTimer = setTimeout(() => {
      this.remove.classList.remove("asks");
      this.#showRemove();
    }, ASK_MS);
  }

  #showRemove() {
    const isAsked = this.remove.classList.contains("asks");
    setText(this.remove, isAsked ? "Really?" : "Remove");
    this.remove.setAttribute("aria-label", `${isAsked ? "Really? " : ""}Remove ${this.name.title} from the room`);
  }

  draw(now, level, isSpeaker) {
    const audible = this.#isSilent ? 0 : level;
    if (isSpeaker || audible > SPEAKING_LEVEL) this.#heardAt = now;
    const isSpeaking = !this.#isSilent && now - this.#heardAt < SPEAKING_HOLD_MS;
    this.element.style.setProperty("--level", audible.toFixed(3));
    if (isSpeaking === this.#isSpeaking) return;
    this.#isSpeaking = isSpeaking;
    this.element.classList.toggle("speaking", isSpeaking);
    this.#say();
  }

  #say() {
    const { isMuted, isServerMuted, isDeafened, isListening } = this.#person;
    const words = [];
    if (isServerMuted) words.push("muted for all");
    else if (isListening) words.push("listening only");
    else if (isMuted) words.push("muted");
    if (isDeafened) words.push("deafened");
    if (this.#isSpeaking) words.push("speaking");
    setText(this.mark, words.join(", "));
  }
}

// At most two characters: the first letters of the first and the last word.
function initialsOf(name) {
  const words = name.match(/[\p{L}\p{N}][\p{L}\p{N}\p{M}'’]*/gu) ?? [...name.trim()].slice(0, 1);
  const ends = words.length > 1 ? [words[0], words.at(-1)] : words;
  return ends.map((word) => [...word][0]).join("").toLocaleUpperCase();
}

function hashOf(text) {
  let hash = 2166136261;
  for (const unit of text) hash = Math.imul(hash ^ unit.codePointAt(0), 16777619) >>> 0;
  return hash;
}
