// Loss, round trip, jitter and bitrate of a peer connection, from getStats, between two looks at it.

export class LineQuality {
  #last = null;

  // {rttMs, lossIn, lossOut, jitterMs, kbpsIn, kbpsOut}; null where nothing is known (yet).
  async read(peer) {
    const now = { at: performance.now(), peer, bytesIn: 0, bytesOut: 0, received: 0, lost: 0 };
    const quality = { rttMs: null, lossIn: null, lossOut: null, jitterMs: null, kbpsIn: null, kbpsOut: null };
    for (const report of (await peer.getStats()).values()) {
      if (report.type === "inbound-rtp") {
        now.bytesIn += report.bytesReceived ?? 0;
        now.received += report.packetsReceived ?? 0;
        now.lost += report.packetsLost ?? 0;
        if (report.packetsReceived) quality.jitterMs = Math.max(quality.jitterMs ?? 0, (report.jitter ?? 0) * 1000);
      } else if (report.type === "outbound-rtp") {
        now.bytesOut += report.bytesSent ?? 0;
      } else if (report.type === "remote-inbound-rtp") {
        if (report.fractionLost !== undefined) quality.lossOut = report.fractionLost;
        if (report.roundTripTime !== undefined) quality.rttMs ??= report.roundTripTime * 1000;
      } else if (report.type === "candidate-pair" && report.nominated && report.currentRoundTripTime !== undefined) {
        quality.rttMs = report.currentRoundTripTime * 1000;
      }
    }
    const last = this.#last;
    this.#last = now;
    if (last?.peer === peer && now.at > last.at) {
      const kbps = (bytes) => Math.max(0, (bytes * 8) / (now.at - last.at));
      quality.kbpsIn = kbps(now.bytesIn - last.bytesIn);
      quality.kbpsOut = kbps(now.bytesOut - last.bytesOut);
      const [received, lost] = [now.received - last.received, now.lost - last.lost];
      if (received + lost > 0) quality.lossIn = Math.max(0, lost / (received + lost));
    }
    return quality;
  }
}
