// One stay in a room: the WebSocket, the peer connection, and how both are mended.
//
// The client offers first; afterwards either side may. We are the polite peer: when offers collide, the
// browser rolls ours back while it applies the server's, and offers again by itself. Everything that
// touches the peer connection waits in one queue, so that no two steps of a negotiation interleave.
//
// Whose voice an m-line carries: `a=msid` names a stream, `streamId` of a member says whose stream that
// is, and `slots` messages overrule it until the m-line gets another msid.

const RETRY_MS_MIN = 400;
const RETRY_MS_MAX = 8000;
const JOIN_MS_MAX = 10000; // A socket on which we have not joined for so long leads nowhere; TLS on a slow network takes seconds.
const ANSWER_MS_MAX = 6000; // A socket that gave no answer to our offer for so long is dead.
const ANSWER_MS_MAX_MOVED = 1000; // The same after a change of networks: most likely it has not survived that.
const DISCONNECTED_MS_MAX = 2000; // ICE often recovers by itself before.
const STEADY_MS = 10000; // A join that held for so long, an answer included: the next loss is a new one.
const KEEP_ALIVE_MS = 20000; // Makes TCP notice that the path is gone.
const CLOSE_GOING_DOWN = 1001;
const CLOSE_FULL = 1013;

export class Session {
  #settings;
  #on;
  #info;
  #members = new Map();
  #state = "connecting";
  #socket = null;
  #staleSocket = null;
  #joined = false;
  #joinedAt = 0;
  #offerIsDue = false;
  #resume = null;
  #attempt = 0;
  #retryTimer = 0;
  #joinTimer = 0;
  #isTurnedAway = false; // By a server that has no place, until we ask again.
  #lastError = null;
  #peer = null;
  #sender = null;
  #iceServers = [];
  #queue = Promise.resolve();
  #answerTimer = 0;
  #hasMoved = false; // To another network, and no answer has come from there yet.
  #networkType = navigator.connection?.type;
  #iceTimer = 0;
  #keepAliveTimer = 0;
  #streams = new Map(); // mid -> stream id of the remote description
  #slots = new Map(); // mid -> user id or null, where a `slots` message overruled the msid
  #microphone;
  #shown = {}; // What the last join said of us.
  #grants = { publish: true, subscribe: true, moderate: false };
  #isServerMuted = false;
  #refusal = null;

  // `on` is called with an object for each thing that happened:
  // {type: "state" | "members" | "voices" | "speakers" | "notice" | "waiting" | "ended" | "arrived" | "departed"
  // | "grants" | "silenced", …}. The text of "waiting" says why we wait for the server; it is empty once we are in.
  constructor({ url, roomId, userId, token, nickname, isMuted, isDeafened, microphone, on }) {
    this.#settings = { url, roomId, userId, token };
    this.#info = { nickname, isMuted, isDeafened };
    this.#microphone = microphone;
    this.#on = on;
    this.#keepAliveTimer = setInterval(() => this.#send("keep_alive", {}), KEEP_ALIVE_MS);
    addEventListener("online", this.#move);
    navigator.connection?.addEventListener("change", this.#compareNetworks);
    this.#open();
  }

  get state() { return this.#state; }
  get roomId() { return this.#settings.roomId; }
  get userId() { return this.#settings.userId; }
  get info() { return this.#info; }
  get peer() { return this.#peer; }
  get members() { return this.#members; }
  get microphone() { return this.#microphone; }
  get grants() { return this.#grants; }
  get isServerMuted() { return this.#isServerMuted; }
  get hasJoined() { return this.#joinedAt > 0; } // At least once.

  // What there is to hear: [{mid, track, userId}], userId null while an m-line carries nobody.
  voices() {
    if (!this.#peer) return [];
    const voices = [];
    for (const transceiver of this.#peer.getTransceivers()) {
      const streamId = this.#streams.get(transceiver.mid);
      if (streamId === undefined) continue;
      const userId = this.#slots.has(transceiver.mid) ? this.#slots.get(transceiver.mid) : this.#ownerOf(streamId);
      voices.push({ mid: transceiver.mid, track: transceiver.receiver.track, userId });
    }
    return voices;
  }

  // Changes what the others see of us.
  tell(change) {
    Object.assign(this.#info, change);
    if (this.#joined) this.#send("user-info", change);
  }

  // For moderators.
  kick(userId) { this.#send("kick", { userId }); }
  mute(userId, muted) { this.#send("mute", { userId, muted }); }

  // Another microphone, or none.
  async setMicrophone(track) {
    this.#microphone = track;
    const peer = this.#peer;
    const transceiver = peer?.getTransceivers().find((t) => t.sender === this.#sender);
    if (!transceiver) return;
    await transceiver.sender.replaceTrack(track);
    if (track && transceiver.direction === "recvonly") transceiver.direction = "sendrecv"; // Makes an offer.
  }

  leave() {
    this.#send("leave", {});
    this.#end("left", "");
  }

  #emit(type, more = {}) {
    this.#on({ type, ...more });
  }

  #setState(state) {
    if (state === this.#state) return;
    this.#state = state;
    this.#emit("state");
  }

  #updateState() {
    if (this.#state === "ended") return;
    const connected = this.#joined && this.#peer?.connectionState === "connected";
    if (connected) this.#setState("connected");
    else if (this.#state === "connected") this.#setState("trouble");
  }

  #end(reason, message) {
    if (this.#state === "ended") return;
    removeEventListener("online", this.#move);
    navigator.connection?.removeEventListener("change", this.#compareNetworks);
    clearInterval(this.#keepAliveTimer);
    clearTimeout(this.#retryTimer);
    this.#closePeer();
    this.#abandonSocket(1000);
    this.#staleSocket?.close(1000);
    this.#members.clear();
    this.#setState("ended");
    this.#emit("ended", { reason, message });
  }

  // The socket

  #open() {
    clearTimeout(this.#retryTimer);
    this.#lastError = this.#refusal = null;
    this.#isTurnedAway = false;
    const socket = new WebSocket(this.#settings.url);
    this.#socket = socket;
    this.#joinTimer = setTimeout(() => {
      this.#abandonSocket(4000);
      this.#updateState();
      this.#retryLater();
    }, JOIN_MS_MAX);
    const current = (act) => (event) => { if (this.#socket === socket) act(event); };
    socket.onopen = current(() => {
      const { roomId, userId, token } = this.#settings;
      const secrets = { ...(token && { token }), ...(this.#resume && { resume: this.#resume }) };
      this.#shown = { ...this.#info };
      this.#send("join", { roomId, userId, userInfo: this.#info, ...secrets });
    });
    socket.onmessage = current((event) => {
      let message;
      try {
        message = JSON.parse(event.data);
      } catch {
        return; // Not of this protocol.
      }
      this.#enqueue(async () => { if (this.#socket === socket) await this.#receive(message.event, message.data ?? {}); });
    });
    // In the queue, as the last messages may still wait there and say why.
    socket.onclose = (event) => this.#enqueue(() => { if (this.#socket === socket) this.#handleLoss(event); });
  }

  #send(event, data) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify({ event, data }));
  }

  // 1000 tells the server that we have left; after any other code it keeps our place for a while.
  #abandonSocket(code) {
    this.#takeSocket()?.close(code);
  }

  // What has happened on it is over; it comes back for whoever is to close it.
  #takeSocket() {
    if (this.#joined && performance.now() - this.#joinedAt > STEADY_MS) this.#attempt = 0;
    clearTimeout(this.#joinTimer);
    const socket = this.#socket;
    this.#socket = null;
    this.#joined = false;
    this.#emit("speakers", { userIds: [] }); // We are told of changes, and hear of none.
    return socket;
  }

  #handleLoss({ code, reason }) {
    const error = this.#lastError ?? reason;
    this.#takeSocket();
    clearTimeout(this.#answerTimer);
    if (error === "already-joined") {
      return this.#end("taken", "You joined from another window, so this one has left.");
    }
    if (error === "unauthorized" && this.#refusal) return this.#end("unauthorized", this.#refusal);
    // Turned away for now: both pass by themselves.
    const isFull = error === "server-full" || code === CLOSE_FULL;
    const isGoingDown = code === CLOSE_GOING_DOWN;
    this.#isTurnedAway = isFull || isGoingDown;
    const isTooFast = error === "rate-limited";
    if (this.#refusal && !this.#isTurnedAway && !isTooFast) return this.#end("refused", this.#refusal);
    if (error === "kicked") return this.#end("kicked", "A moderator has removed you from the room.");
    if (error === "unauthorized" || code === 1000) {
      return this.#end("closed", "The server has ended your stay in this room.");
    }
    if (error === "bad-sdp" || code === 1008 || code === 1011) this.#forget(); // A fresh start is the cure.
    if (isFull) this.#emit("waiting", { text: "The server is full. Waiting for a place." });
    if (isGoingDown) this.#emit("waiting", { text: "The server is restarting. You will be connected once it is back." });
    this.#updateState();
    this.#retryLater();
  }

  #retryLater() {
    if (!this.hasJoined && !this.#isTurnedAway) {
      this.#emit("waiting", { text: "The server does not answer. Trying again." });
    }
    const delay = Math.min(RETRY_MS_MAX, RETRY_MS_MIN * 2 ** this.#attempt) * (0.7 + 0.6 * Math.random());
    this.#attempt += 1;
    clearTimeout(this.#retryTimer);
    this.#retryTimer = setTimeout(() => this.#open(), delay);
  }

  // To another network: whoever waits for the old one to carry something waits long.
  #move = () => {
    if (this.#state === "ended") return;
    this.#hasMoved = true;
    const holds = this.#joined && this.#socket.readyState === WebSocket.OPEN;
    if (!holds && !this.#isTurnedAway) {
      this.#abandonSocket(4000);
      this.#open();
    }
    const peer = this.#peer;
    if (peer?.signalingState === "have-local-offer") this.#awaitAnswer(peer);
    peer?.restartIce(); // Makes an offer.
  };

  // It changes with every estimate of the bandwidth, too.
  #compareNetworks = () => {
    const before = this.#networkType;
    this.#networkType = navigator.connection.type;
    if (this.#networkType !== before && this.#networkType !== "none") this.#move();
  };

  // Media failed for good: joins anew under the same name. The server hands our place over to the new
  // connection, so nobody sees us go.
  #rejoin() {
    this.#forget();
    this.#updateState();
    this.#staleSocket?.close();
    this.#staleSocket = this.#takeSocket();
    this.#retryLater();
  }

  #forget() {
    this.#resume = null;
    this.#closePeer();
  }

  // Messages

  async #receive(event, data) {
    switch (event) {
      case "joined": return this.#handleJoined(data);
      case "user-joined":
        this.#members.set(data.userId, { ...data.userInfo, streamId: data.streamId });
        this.#emit("members");
        this.#emit("voices");
        return this.#emit("arrived", { nickname: nameOf(data) });
      case "user-left": {
        const member = this.#members.get(data.userId);
        this.#members.delete(data.userId);
        this.#emit("voices");
        this.#emit("members");
        if (member) this.#emit("departed", { nickname: member.nickname ?? data.userId });
        return;
      }
      case "user-info":
        if (data.userId === this.userId) return this.#setServerMuted(data.userInfo.isServerMuted);
        if (this.#members.has(data.userId)) Object.assign(this.#members.get(data.userId), data.userInfo);
        return this.#emit("members");
      case "offer":
      case "answer":
        return this.#handleDescription(event, data);
      case "ice-candidate":
        // Those of an offer that lost a collision are of no use, and refused.
        if (data.candidate) await this.#peer?.addIceCandidate(data).catch(() => {});
        return;
      case "active-speakers":
        return this.#emit("speakers", { userIds: data.speakers.map((speaker) => speaker.userId) });
      case "slots":
        for (const [mid, userId] of Object.entries(data)) this.#slots.set(mid, userId);
        return this.#emit("voices");
      case "ice-servers":
        return this.#useIceServers(data.iceServers);
      case "draining":
        return this.#emit("waiting", { text: "The server is about to restart. You will be reconnected." });
      case "error":
        // Not ours to moderate any more.
        if (data.code === "unauthorized" && this.#joined) return this.#emit("notice", { text: "Only a moderator may do that." });
        this.#lastError = data.code;
        // It can only be the join, which would be no better another time; no end follows.
        if (data.code === "bad-message" && !this.#joined) return this.#end("refused", `You were not let in: ${data.message}.`);
        if (data.code === "glare") return this.#offer(this.#peer, { again: true });
        console.warn("The server says:", data.code, data.message);
    }
  }

  #handleJoined(data) {
    if (!data.success) {
      this.#refusal = data.message || "The server refused to let you in.";
      return; // The end that follows says of what kind it is.
    }
    clearTimeout(this.#joinTimer);
    this.#joined = true;
    this.#joinedAt = performance.now();
    this.#resume = data.resume ?? null;
    this.#useIceServers(data.iceServers ?? []);
    Object.assign(this.#grants, data.grants);
    this.#isServerMuted = false; // If not, we are told next.
    this.#emit("waiting", { text: "" });
    this.#emit("grants");
    this.#staleSocket?.close();
    this.#staleSocket = null;
    this.#members.clear();
    for (const userId of data.peers) this.#members.set(userId, { nickname: userId, ...data.peerInfo?.[userId] });
    this.#emit("members");
    const { isMuted, isDeafened } = this.#info;
    if (isMuted !== this.#shown.isMuted || isDeafened !== this.#shown.isDeafened) this.tell({ isMuted, isDeafened });
    if (data.resumed && this.#peer) {
      if (this.#peer.signalingState === "have-local-offer") this.#sendOffer(this.#peer);
      else if (this.#offerIsDue) this.#enqueue(() => this.#offer(this.#peer));
      this.#emit("voices");
    } else {
      this.#openPeer();
    }
    this.#updateState();
  }

  #setServerMuted(isServerMuted) {
    if (Boolean(isServerMuted) === this.#isServerMuted) return;
    this.#isServerMuted = Boolean(isServerMuted);
    this.#emit("silenced");
    this.#emit("members");
  }

  // The peer connection

  #enqueue(step) {
    this.#queue = this.#queue.then(step).catch((error) => console.error("Negotiation:", error));
  }

  #openPeer() {
    this.#closePeer();
    const peer = new RTCPeerConnection({ iceServers: this.#iceServers, bundlePolicy: "max-bundle" });
    this.#peer = peer;
    const current = (act) => (event) => { if (this.#peer === peer) act(event); };
    peer.onnegotiationneeded = current(() => this.#enqueue(() => this.#offer(peer)));
    peer.onicecandidate = current(({ candidate }) => this.#send("ice-candidate", candidate ?? { candidate: "" }));
    peer.onconnectionstatechange = current(() => this.#handleConnectionState(peer));
    const track = this.#microphone;
    this.#sender = peer.addTransceiver(track ?? "audio", {
      direction: track ? "sendrecv" : "recvonly",
      streams: track ? [new MediaStream([track])] : [],
    }).sender;
  }

  // Also for the next ICE restart of a connection that is there.
  #useIceServers(iceServers) {
    this.#iceServers = iceServers;
    this.#peer?.setConfiguration({ ...this.#peer.getConfiguration(), iceServers });
  }

  #closePeer() {
    clearTimeout(this.#answerTimer);
    clearTimeout(this.#iceTimer);
    const peer = this.#peer;
    this.#peer = null;
    this.#offerIsDue = false;
    this.#streams.clear();
    this.#slots.clear();
    if (!peer) return;
    peer.close();
    this.#emit("voices");
  }

  async #offer(peer, { again = false } = {}) {
    if (!peer || peer !== this.#peer) return;
    this.#offerIsDue = !this.#joined; // The browser asks only once.
    if (this.#offerIsDue) return;
    if (peer.signalingState === "have-local-offer" && again) return this.#sendOffer(peer);
    if (peer.signalingState !== "stable") return; // The browser asks again once it is.
    await peer.setLocalDescription();
    this.#sendOffer(peer);
  }

  #sendOffer(peer) {
    this.#send("offer", peer.localDescription);
    this.#awaitAnswer(peer);
  }

  #awaitAnswer(peer) {
    clearTimeout(this.#answerTimer);
    const hasMoved = this.#hasMoved;
    this.#answerTimer = setTimeout(() => {
      // Until we have joined again it is not the answer that is late.
      if (this.#peer !== peer || peer.signalingState !== "have-local-offer" || !this.#joined) return;
      this.#hasMoved = false;
      this.#abandonSocket(4000);
      this.#updateState();
      if (hasMoved) this.#open();
      else this.#retryLater();
    }, hasMoved ? ANSWER_MS_MAX_MOVED : ANSWER_MS_MAX);
  }

  async #handleDescription(type, { sdp }) {
    const peer = this.#peer;
    if (!peer) return;
    if (type === "answer" && peer.signalingState !== "have-local-offer") return; // To an offer that was rolled back.
    try {
      await peer.setRemoteDescription({ type, sdp }); // Rolls back an offer of ours if need be.
      if (type === "offer") {
        await peer.setLocalDescription();
        if (peer === this.#peer) this.#send("answer", peer.localDescription);
      }
    } catch (error) {
      if (peer !== this.#peer) return;
      console.error("Negotiation:", error);
      return this.#rejoin();
    }
    if (peer !== this.#peer) return;
    clearTimeout(this.#answerTimer);
    if (type === "answer") this.#hasMoved = false;
    this.#readStreams(peer.remoteDescription?.sdp ?? "");
    this.#emit("voices");
  }

  #readStreams(sdp) {
    const streams = new Map();
    for (const section of sdp.split(/\r?\n(?=m=)/).slice(1)) {
      const value = (name) => section.match(new RegExp(`^a=${name}:(.*)$`, "m"))?.[1].trim();
      const mid = value("mid");
      if (mid === undefined) continue;
      const sends = !/^a=(recvonly|inactive)\s*$/m.test(section);
      streams.set(mid, sends ? value("msid")?.split(" ")[0] ?? null : null);
    }
    for (const mid of this.#slots.keys()) {
      if (streams.get(mid) !== this.#streams.get(mid)) this.#slots.delete(mid);
    }
    this.#streams = streams;
  }

  #ownerOf(streamId) {
    if (streamId === null) return null;
    for (const [userId, member] of this.#members) if (member.streamId === streamId) return userId;
    return this.#members.has(streamId) ? streamId : null;
  }

  #handleConnectionState(peer) {
    clearTimeout(this.#iceTimer);
    if (peer.connectionState === "disconnected") {
      this.#iceTimer = setTimeout(() => peer.restartIce(), DISCONNECTED_MS_MAX);
    }
    if (peer.connectionState === "failed") this.#enqueue(() => { if (peer === this.#peer) this.#rejoin(); });
    this.#updateState();
  }
}

const nameOf = ({ userId, userInfo }) => userInfo?.nickname ?? userId;
