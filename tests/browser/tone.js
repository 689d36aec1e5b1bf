// Gives the page a microphone that hums one tone, HZ hertz high.
navigator.mediaDevices.getUserMedia = async () => {
  const context = new AudioContext();
  const [tone, gain, destination] = [context.createOscillator(), context.createGain(), context.createMediaStreamDestination()];
  tone.frequency.value = HZ;
  gain.gain.value = 0.3;
  tone.connect(gain).connect(destination);
  tone.start();
  return destination.stream;
};
