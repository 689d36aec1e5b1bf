// Small plots, by hand: a line over what it stands on, newest at the right.

const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT] = [120, 32];
const SAMPLES = 60;

// A number's last minute.
export class History {
  values = [];

  add(value) {
    this.values.push(value);
    if (this.values.length > SAMPLES) this.values.shift();
  }
}

// `samples` is how far back it goes, one a second.
export function plot(svg, past, least = 1, samples = SAMPLES) {
  const values = past.values.slice(-samples);
  let [area, line] = svg.children;
  if (!line) {
    svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    svg.setAttribute("preserveAspectRatio", "none");
    area = document.createElementNS(SVG, "polygon");
    line = document.createElementNS(SVG, "polyline");
    line.setAttribute("vector-effect", "non-scaling-stroke");
    svg.append(area, line);
  }
  const most = Math.max(least, ...values.map((value) => value ?? 0));
  const from = samples - values.length;
  const points = values.map((value, at) => {
    const x = ((from + at) / (samples - 1)) * WIDTH;
    const y = HEIGHT - 2 - ((value ?? 0) / most) * (HEIGHT - 4);
    return `${x.toFixed(1)},${y.toFixed(1)}`;
  });
  line.setAttribute("points", points.join(" "));
  const [first, last] = [points[0]?.split(",")[0], points.at(-1)?.split(",")[0]];
  area.setAttribute("points", points.length ? `${first},${HEIGHT} ${points.join(" ")} ${last},${HEIGHT}` : "");
}
