// A stand-in for the SFU inside the page, for what needs no server: how the page looks and behaves.
// Replaces WebSocket by one that answers `join`, and puts a second peer connection behind it whose
// tracks are tones, one for each member. Injected by the test; no part of the product.
(() => {
  const members = [
    { userId: "ada", nickname: "Ada Lovelace", hz: 440 },
    { userId: "björk", nickname: "Björk", hz: 620 },
    { userId: "x<b>", nickname: "<b>Bobby</b> Tables & sons, of Nottingham", hz: 830 },
    { userId: "edda", nickname: "edda", isMuted: true },
    { userId: "tomas", nickname: "Tomás", isMuted: true, isDeafened: true },
    { userId: "mei", nickname: "美 雨", hz: 1100, gain: 0 },
  ];
  const context = new AudioContext();
  const mix = {};

  class StandIn extends EventTarget {
    constructor() {
      super();
      this.readyState = 0;
      StandIn.last = this;
      setTimeout(() => { this.readyState = 1; this.onopen?.({}); }, 20);
    }

    send(text) {
      const { event, data } = JSON.parse(text);
      StandIn.sent.push({ event, data });
      if (event === "join" && StandIn.turnsAway) this.#turnAway(StandIn.turnsAway);
      else if (event === "join") {
        this.asked = data;
        if (!StandIn.isSilent) this.letIn();
      }
      if (event === "offer") this.#answer(data);
      if (event === "answer") this.peer.setRemoteDescription(data);
      if (event === "ice-candidate" && data.candidate) this.peer?.addIceCandidate(data).catch(() => {});
    }

    say(event, data) {
      this.onmessage?.({ data: JSON.stringify({ event, data }) });
    }

    letIn() {
      this.#joined(this.asked);
    }

    close() {
      this.readyState = 3;
      this.peer?.close();
    }

    drop() {
      this.readyState = 3;
      this.onclose?.({ code: 1006, reason: "" });
    }

    #turnAway(code) {
      this.say("joined", { success: false, message: "not now", peers: [] });
      if (code === 1008) this.say("error", { code: "rate-limited", message: "not now" });
      StandIn.turnedAway += 1;
      this.readyState = 3;
      this.onclose?.({ code, reason: "not now" });
    }

    #joined({ roomId, userId, resume }) {
      const peers = members.map((member) => member.userId);
      const resumed = Boolean(resume);
      this.me = userId;
      if (!resumed) StandIn.peer = null;
      this.peer = StandIn.peer;
      const peerInfo = {};
      for (const member of members) {
        const { nickname, isMuted = false, isDeafened = false, isServerMuted = false } = member;
        if (member.hz && !member.stream) {
          const [tone, gain, destination] = [context.createOscillator(), context.createGain(), context.createMediaStreamDestination()];
          tone.frequency.value = member.hz;
          gain.gain.value = member.gain ?? 0.2;
          tone.connect(gain).connect(destination);
          tone.start();
          member.stream = destination.stream;
          mix[member.userId] = gain;
        }
        peerInfo[member.userId] = { nickname, isMuted, isDeafened, isServerMuted, streamId: member.stream?.id ?? member.userId };
      }
      const { grants } = StandIn;
      this.say("joined", { roomId, userId, peers, peerInfo, success: true, resume: "r", resumed, iceServers: [], grants });
    }

    async #answer(offer) {
      if (this.peer && this.peer.signalingState !== "stable") return StandIn.held++; // Ours stays.
      const first = !this.peer;
      if (first) {
        this.peer = StandIn.peer = new RTCPeerConnection();
        this.peer.onicecandidate = ({ candidate }) => this.say("ice-candidate", candidate ?? { candidate: "" });
      }
      await this.peer.setRemoteDescription(offer);
      await this.peer.setLocalDescription();
      this.say("answer", this.peer.localDescription);
      if (!first) return;
      for (const member of members) if (member.stream) this.peer.addTrack(member.stream.getTracks()[0], member.stream);
      await this.peer.setLocalDescription();
      this.say("offer", this.peer.localDescription);
    }
  }
  StandIn.OPEN = 1;
  StandIn.grants = { publish: true, subscribe: true, moderate: false };
  StandIn.members = members;
  StandIn.isSilent = false; // Answers no join by itself.
  StandIn.turnsAway = 0; // Or refuses each, with this code.
  StandIn.turnedAway = 0;
  StandIn.sent = [];
  StandIn.held = 0;
  StandIn.offers = () => StandIn.sent.filter((message) => message.event === "offer").length;
  StandIn.mix = mix;
  window.StandIn = StandIn;
  window.WebSocket = StandIn;
})();
