// Microphone, loudspeakers and levels.

const LEVEL_DB_MIN = -58;
const LEVEL_DB_MAX = -12;

let context = null;

// Browsers let sound begin only after the visitor's first click: called from there.
export function wakeSound() {
  context ??= new AudioContext({ latencyHint: "interactive" });
  if (context.state !== "running") context.resume().catch(() => {});
  return context;
}

// What a stream sounds like just now.
class Probe {
  #source;
  #samples;

  constructor(stream) {
    this.analyser = wakeSound().createAnalyser();
    this.analyser.fftSize = 2048;
    this.analyser.smoothingTimeConstant = 0.5;
    this.#samples = new Float32Array(this.analyser.fftSize);
    this.#source = context.createMediaStreamSource(stream);
    this.#source.connect(this.analyser);
  }

  // 0 to 1, linear in decibels.
  level() {
    this.analyser.getFloatTimeDomainData(this.#samples);
    let power = 0;
    for (const sample of this.#samples) power += sample * sample;
    const db = 10 * Math.log10(power / this.#samples.length + 1e-12);
    return Math.min(1, Math.max(0, (db - LEVEL_DB_MIN) / (LEVEL_DB_MAX - LEVEL_DB_MIN)));
  }

  // The strongest frequency in Hz, and its strength in dB.
  peak() {
    const bins = new Float32Array(this.analyser.frequencyBinCount);
    this.analyser.getFloatFrequencyData(bins);
    const bin = bins.reduce((best, db, i) => (db > bins[best] ? i : best), 1);
    return { hz: (bin * context.sampleRate) / this.analyser.fftSize, db: bins[bin] };
  }

  close() {
    this.#source.disconnect();
  }
}

// Our own voice.
export class Microphone {
  #probe = null;
  #stream = null;
  #asked = 0; // The latest `open` or `close`: what an earlier one brings is wanted no more.

  // Called when the device goes away.
  onlost = () => {};

  static get isPossible() {
    return Boolean(navigator.mediaDevices?.getUserMedia);
  }

  get track() { return this.#stream?.getAudioTracks()[0] ?? null; }

  level() { return this.#probe && this.track?.enabled ? this.#probe.level() : 0; }

  // Throws what getUserMedia throws. Where another device was asked for meanwhile, or none any more, nothing changes.
  async open(deviceId) {
    const mine = ++this.#asked;
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({
        audio: {
          ...(deviceId && { deviceId: { exact: deviceId } }),
          echoCancellation: true,
          noiseSuppression: true,
          autoGainControl: true,
        },
      });
    } catch (error) {
      if (mine !== this.#asked) return;
      throw error;
    }
    if (mine !== this.#asked) return stop(stream);
    const enabled = this.track?.enabled ?? true;
    this.#release();
    this.#stream = stream;
    this.#probe = new Probe(stream);
    const track = this.track;
    track.enabled = enabled;
    track.onended = () => {
      if (this.track !== track) return;
      this.#release();
      this.onlost();
    };
  }

  close() {
    this.#asked += 1;
    this.#release();
  }

  #release() {
    this.#probe?.close();
    if (this.#stream) stop(this.#stream);
    this.#probe = this.#stream = null;
  }
}

function stop(stream) {
  for (const track of stream.getTracks()) track.stop();
}

// Everybody else's voices. Each m-line has an outlet of its own; who is heard there may change.
export class Ears {
  #outlets = new Map(); // mid -> Outlet
  #volumes = new Map(); // user id -> 0 to 1
  #sinkId = "";
  #isDeaf = false;

  // Called when the browser refuses to play before a click.
  onblocked = () => {};

  // iOS leaves the volume to its buttons: what is set does not last.
  static async canSetVolume() {
    const audio = new Audio();
    audio.volume = 0.5;
    await new Promise((resolve) => { setTimeout(resolve); });
    return audio.volume === 0.5;
  }

  static get canChooseSpeaker() {
    return "setSinkId" in HTMLMediaElement.prototype && Boolean(navigator.mediaDevices?.enumerateDevices);
  }

  // Makes the outlets fit what there is to hear. A line that falls silent loses its outlet: in Chromium an
  // old one hears nothing more when the line is taken up again, although its track is the same.
  update(lines) {
    const voices = lines.filter((line) => line.userId !== null);
    const mids = new Set(voices.map((voice) => voice.mid));
    for (const [mid, outlet] of this.#outlets) {
      if (mids.has(mid)) continue;
      outlet.close();
      this.#outlets.delete(mid);
    }
    for (const { mid, track, userId } of voices) {
      let outlet = this.#outlets.get(mid);
      if (outlet?.track !== track) {
        outlet?.close();
        outlet = new Outlet(track, this.#sinkId, () => this.onblocked());
        this.#outlets.set(mid, outlet);
      }
      outlet.userId = userId;
    }
    this.#apply();
  }

  volume(userId) { return this.#volumes.get(userId) ?? 1; }

  setVolume(userId, volume) {
    this.#volumes.set(userId, volume);
    this.#apply();
  }

  setDeaf(isDeaf) {
    this.#isDeaf = isDeaf;
    this.#apply();
  }

  setSpeaker(sinkId) {
    this.#sinkId = sinkId;
    for (const outlet of this.#outlets.values()) outlet.setSpeaker(sinkId);
  }

  // From a click.
  play() {
    wakeSound();
    for (const outlet of this.#outlets.values()) outlet.play();
  }

  level(userId) { return this.#isDeaf ? 0 : this.#probe(userId)?.level() ?? 0; }

  // {hz, db}, or null while nothing carries this voice.
  peak(userId) { return this.#probe(userId)?.peak() ?? null; }

  close() { this.update([]); }

  #probe(userId) {
    for (const outlet of this.#outlets.values()) if (outlet.userId === userId) return outlet.probe;
    return null;
  }

  #apply() {
    for (const outlet of this.#outlets.values()) {
      outlet.audio.muted = this.#isDeaf;
      outlet.audio.volume = this.volume(outlet.userId);
    }
  }
}

// Chromium lets a remote stream flow only while a media element plays it, so both an element and a probe
// hang on it.
class Outlet {
  #onblocked;

  constructor(track, sinkId, onblocked) {
    const stream = new MediaStream([track]);
    this.track = track;
    this.userId = null;
    this.#onblocked = onblocked;
    this.probe = new Probe(stream);
    this.audio = new Audio();
    this.audio.srcObject = stream;
    if (sinkId) this.setSpeaker(sinkId);
    this.play();
  }

  play() {
    this.audio.play().catch((error) => { if (error.name === "NotAllowedError") this.#onblocked(); });
  }

  setSpeaker(sinkId) {
    this.audio.setSinkId?.(sinkId).catch((error) => console.warn("Speaker:", error));
  }

  close() {
    this.probe.close();
    this.audio.pause();
    this.audio.srcObject = null;
  }
}

// [{deviceId, label}] of one kind, "audioinput" or "audiooutput". Browsers give names only after leave to
// use the microphone.
export async function devices(kind) {
  const all = (await navigator.mediaDevices?.enumerateDevices?.().catch(() => [])) ?? [];
  return all.filter((device) => device.kind === kind && device.deviceId && device.deviceId !== "default");
}

// Why there is no microphone, and what to do: {title, text, code?}.
export function adviceFor(error) {
  if (!Microphone.isPossible) {
    return {
      title: "Here you can listen, not talk",
      text:
        "Browsers give a page the microphone only over https, or when it comes from the machine itself. " +
        "To talk, open this page through https, or forward the port and open the address on the right side of the arrow:",
      code: `ssh -L ${port()}:localhost:${port()} ${location.hostname} → http://localhost:${port()}/`,
    };
  }
  switch (error?.name) {
    case "NotAllowedError":
    case "SecurityError":
      return {
        title: "The microphone is blocked",
        text: "Allow it for this page in the browser's address bar (or in the system's privacy settings), then try again.",
      };
    case "NotFoundError":
    case "OverconstrainedError":
      return { title: "No microphone was found", text: "Plug one in or choose another, then try again." };
    case "NotReadableError":
    case "AbortError":
      return { title: "The microphone does not answer", text: "Another program may be using it. Close that, then try again." };
    default:
      return { title: "The microphone cannot be used", text: String(error?.message ?? error ?? "") };
  }
}

const port = () => location.port || "80";
