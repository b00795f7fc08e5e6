// The two charts of the last minutes, by uPlot.

const seconds = 300;
const palette = ["#f08c2e", "#3b8eea", "#2fae74", "#c65ad6", "#d9574a", "#7a86f0", "#8a9a2c", "#23a6b8"];
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

const clock = (ts) => new Date(ts * 1000).toLocaleTimeString("en-GB");

// Chart draws points {ts, ...} of the last five minutes; values(point) gives its series' values, in order.
class Chart {
  constructor(place, names, colours, values, unit) {
    Object.assign(this, { place, names, colours, values, unit, points: [] });
    this.make();
    new ResizeObserver(() => this.plot.setSize(this.size())).observe(place);
  }

  size() { return { width: Math.max(200, this.place.clientWidth), height: 140 }; }

  make() { // again when the theme or the cameras change: uPlot fixes colours and series when it is made
    this.plot?.destroy();
    const axis = { stroke: css("--faint"), grid: { stroke: css("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui" };
    this.plot = new uPlot({
      ...this.size(),
      cursor: { y: false, drag: { x: false, y: false } },
      legend: { live: true },
      scales: { y: { range: (_, __, most) => [0, Math.max(1, most * 1.15)] } },
      axes: [{ ...axis, space: 80, size: 26, values: (_, splits) => splits.map(clock) }, { ...axis, size: 42, space: 28 }],
      series: [
        { label: "at", value: (_, ts) => (ts ? clock(ts) : "") },
        ...this.names.map((label, i) => ({
          label, stroke: this.colours[i], width: 1.8, points: { show: false }, spanGaps: false,
          fill: this.names.length === 1 ? this.colours[i] + "22" : undefined,
          value: (_, v) => (v == null ? "–" : v.toFixed(1) + this.unit),
        })),
      ],
    }, this.data(), this.place);
  }

  data() {
    const rows = this.points.map(this.values);
    return [this.points.map((p) => p.ts), ...this.names.map((_, i) => rows.map((r) => r[i] ?? null))];
  }

  add(points) {
    if (!points.length) return;
    const last = this.points.at(-1)?.ts ?? 0;
    this.points.push(...points.filter((p) => p.ts > last));
    this.points = this.points.slice(-seconds);
    this.plot.setData(this.data());
  }
}

export class Charts {
  constructor(rates, latency) {
    this.cameras = [];
    this.rates = new Chart(rates, [], palette, (p) => this.cameras.map((id) => p.fps[id]), "/s");
    const ms = (s) => (s == null ? null : s * 1000);
    this.latency = new Chart(latency, ["median", "95 %"], [palette[1], palette[3]], (p) => [ms(p.p50), ms(p.p95)], " ms");
  }

  show(cameras, points) {
    if (cameras.join() !== this.cameras.join()) {
      this.cameras = this.rates.names = cameras;
      this.rates.make();
    }
    this.rates.add(points);
    this.latency.add(points);
  }

  repaint() { this.rates.make(); this.latency.make(); }
}
