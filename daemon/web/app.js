import { drawFrame, drawScale } from "./draw.js";
import { Charts } from "./charts.js";

const $ = (id) => document.getElementById(id);
const percent = (v) => (100 * v).toFixed(v > 0.0995 ? 0 : 1) + " %";
const explanations = {
  "": "The newest frame of each camera.",
  relevance: "Relevance: what made the likeliest class likely, patch by patch (Chefer et al. 2021), for the frames that carry it.",
  attention: "Attention of the class token in the last block, mean of its heads. It says where the model looks, not why it answers.",
};

let overlay = localStorage.getItem("fovea-overlay") ?? "relevance";
const strength = () => $("strength").value / 100;
const cameras = new Map(); // id -> Camera
const charts = new Charts($("rates"), $("latency"));

// Camera is one card. It asks for the next view as long as it can be seen.
class Camera {
  constructor(id) {
    this.id = id;
    this.card = $("camera").content.firstElementChild.cloneNode(true);
    this.part = (name) => this.card.querySelector(name);
    this.part(".name").textContent = id;
    this.part("canvas").setAttribute("role", "img");
    this.visible = false;
    this.watcher = new IntersectionObserver(([e]) => { this.visible = e.isIntersecting; this.wake(); });
    this.watcher.observe(this.card);
    this.run();
  }

  wake() { this.woken?.(); }
  sleep(ms) { return new Promise((done) => { this.woken = done; setTimeout(done, ms); }); }

  async run() {
    while (!this.gone) {
      if (!this.visible || document.hidden) { await this.sleep(1000); continue; }
      try {
        const kind = overlay && this.hasOverlay !== false ? 1 : 0;
        const after = this.frame && this.kind === kind ? `&after=${this.frame.seq}` : "";
        this.abort = new AbortController();
        const answer = await fetch(`/api/cameras/${this.id}/view?overlay=${kind}${after}`, { signal: this.abort.signal });
        if (answer.status === 200) await this.show(await answer.json(), kind);
        else if (answer.status !== 204) await this.sleep(2000);
        await this.sleep(60);
      } catch { await this.sleep(this.abort?.signal.aborted ? 0 : 1500); }
    }
  }

  async show(frame, kind) {
    frame.bitmap = await createImageBitmap(new Blob([decode(frame.jpeg)], { type: "image/jpeg" }));
    frame.jpeg = null;
    for (const k of ["relevance", "attention"]) {
      if (frame.overlay?.[k]) frame.overlay[k] = decode(frame.overlay[k]);
    }
    this.frame?.bitmap.close();
    Object.assign(this, { frame, kind });
    this.part(".wait").hidden = true;
    this.card.classList.add("seen");
    this.paint();
    this.say(frame.guesses ?? []);
    this.remember(frame);
  }

  paint() {
    if (!this.frame) return;
    drawFrame(this.part("canvas"), this.frame, overlay, strength());
    this.part("canvas").setAttribute("aria-label", `${this.id}: ${this.frame.guesses?.[0]?.label ?? "picture"}`);
  }

  say(guesses) {
    const top = guesses[0];
    this.part(".top").hidden = !top;
    this.part(".label").textContent = top ? top.label : "";
    this.part(".score").textContent = top ? percent(top.score) : "";
    const bars = this.part(".bars");
    while (bars.children.length > guesses.length) bars.lastChild.remove();
    guesses.forEach((g, i) => {
      let row = bars.children[i];
      if (!row) {
        row = document.createElement("li");
        row.innerHTML = '<span class="word"></span><span class="track"><span class="fill"></span></span><span class="value"></span>';
        bars.append(row);
      }
      row.children[0].textContent = row.children[0].title = g.label;
      row.children[1].firstChild.style.width = 100 * g.score + "%";
      row.children[2].textContent = percent(g.score);
    });
  }

  remember(frame) { // the newest changes of the label, newest first
    const top = frame.guesses?.[0];
    if (!top || top.label === this.lastLabel) return;
    this.lastLabel = top.label;
    const row = document.createElement("li");
    for (const [tag, text] of [["span", new Date(frame.ts).toLocaleTimeString("en-GB")], ["b", top.label], ["span", percent(top.score)]]) {
      row.append(Object.assign(document.createElement(tag), { textContent: text }));
    }
    const list = this.part(".recent");
    list.hidden = false;
    list.prepend(row);
    while (list.children.length > 6) list.lastChild.remove();
  }

  status(c) {
    this.card.dataset.phase = c.phase;
    this.card.classList.toggle("stale", c.phase !== "running" && Boolean(this.frame));
    this.part(".live b").textContent = c.phase === "running" && c.quality && !["ok", "repeated"].includes(c.quality) ? c.quality : c.phase;
    this.part(".source").textContent = this.part(".source").title = c.source;
    this.part(".problem").hidden = !c.problem;
    this.part(".problem").textContent = c.problem ?? "";
    if (!this.frame) {
      this.part(".wait").textContent = c.phase === "running" ? "frames arrive; waiting for the model" : c.phase === "lost" ? "no picture" : "waiting for the first frame";
    }
    facts(this.part(".numbers"), [
      ["classified", c.fps.toFixed(1) + " /s"],
      ["arriving", c.source_fps.toFixed(1) + " /s"],
      ["answer", this.frame ? Math.round(1000 * this.frame.seconds) + " ms" : "–"],
      ["margin", this.frame?.guesses ? percent(this.frame.margin) : "–"],
      ["frames", whole(c.classified_total)],
      ...(c.second_looks_total || c.second_looks_skipped_total
        ? [["looked twice", whole(c.second_looks_total)], ["no time to", whole(c.second_looks_skipped_total)]] : []),
      ["size", c.width ? `${c.width} × ${c.height}` : "–"],
    ]);
  }

  remove() { this.gone = true; this.watcher.disconnect(); this.abort?.abort(); this.wake(); this.card.remove(); }
}

const decode = (base64) => Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
const whole = (n) => n.toLocaleString("en").replaceAll(",", "\u202f");
const bytes = (n) => (n >= 1e9 ? (n / 1e9).toFixed(1) + " GB" : Math.round(n / 1e6) + " MB");
function duration(s) {
  const d = Math.floor(s / 86400), h = Math.floor(s / 3600) % 24, m = Math.floor(s / 60) % 60;
  return d ? `${d} d ${h} h` : h ? `${h} h ${m} min` : m ? `${m} min` : `${s} s`;
}

// facts fills a list of terms; a value may be an element.
function facts(list, pairs) {
  const key = JSON.stringify(pairs.map(([t, v]) => [t, v.textContent ?? v]));
  if (list.dataset.key === key) return;
  list.dataset.key = key;
  list.replaceChildren(...pairs.flatMap(([term, value]) => {
    const dt = document.createElement("dt"), dd = document.createElement("dd");
    dt.textContent = term;
    dd.append(value);
    if (!list.matches(".facts")) { const box = document.createElement("div"); box.append(dt, dd); return [box]; }
    return [dt, dd];
  }));
}

function code(text) { const c = document.createElement("code"); c.textContent = text; return c; }

function sentences(list, box, texts) {
  box.hidden = texts.length === 0;
  if (list.dataset.key === texts.join("\n")) return;
  list.dataset.key = texts.join("\n");
  list.replaceChildren(...texts.map((t) => {
    const li = document.createElement("li");
    li.append(...t.split(/"([^"]*)"/).map((part, i) => (i % 2 ? code(part) : part))); // what is quoted is to be typed
    return li;
  }));
}

function show(s) {
  const h = s.health, m = s.model;
  document.title = `${s.device} · Fovea`;
  $("device").textContent = s.device;
  $("health").textContent = $("health").dataset.word = h.health;
  $("health").title = h.reasons.join("\n");
  const first = s.cameras.length === 0 && !m; // boot
  $("setup").classList.toggle("welcome", first);
  $("todo").textContent = first ? "Welcome. Two things are missing" : "To do";
  sentences($("missing"), $("setup"), h.setup.missing);
  sentences($("reasons"), $("trouble"), h.reasons.filter((r) => !h.setup.missing.includes(r) && !r.startsWith("camera ")));

  const ms = (v) => (v == null ? "–" : Math.round(1000 * v) + " ms");
  facts($("glance"), [
    ["frames/s", (h.inference.rate_hz ?? 0).toFixed(1)], ["median", ms(h.inference.p50_seconds)],
    ["95 %", ms(h.inference.p95_seconds)], ["backend", h.inference.device ?? "–"],
  ]);

  const wanted = s.cameras.map((c) => c.id);
  for (const [id, c] of cameras) if (!wanted.includes(id)) { c.remove(); cameras.delete(id); }
  s.cameras.forEach((c, i) => {
    let camera = cameras.get(c.id);
    if (!camera) cameras.set(c.id, (camera = new Camera(c.id)));
    if ($("cameras").children[i] !== camera.card) $("cameras").insertBefore(camera.card, $("cameras").children[i] ?? null);
    camera.status(c);
  });
  $("cameras").classList.toggle("one", wanted.length === 1);
  $("toolbar").hidden = wanted.length === 0;
  for (const chart of document.querySelectorAll(".chart")) chart.hidden = wanted.length === 0;
  const relevance = $("overlay").querySelector("[value=relevance]");
  relevance.disabled = m?.class_count === 0;
  relevance.parentElement.classList.toggle("none", relevance.disabled);

  $("model").hidden = !m;
  if (m) {
    facts($("card"), [
      ["model", m.title], ["version", m.version === 0 ? "0 (base)" : String(m.version)], ["input", `${m.input[1]} × ${m.input[0]} pixels, ${m.grid[1]} × ${m.grid[0]} patches`],
      ["backend", m.backend], ["sha256", code(m.sha256.slice(0, 16))], ["folder", code(m.dir)], ...(m.source ? [["weights", m.source.replace(/([0-9a-f]{12})[0-9a-f]{52}/g, "$1…")]] : []),
    ]);
    const chips = m.classes.slice(0, 24).concat(m.class_count > 24 ? [`and ${m.class_count - 24} more`] : []);
    if ($("classes").dataset.key !== chips.join()) {
      $("classes").dataset.key = chips.join();
      $("classes").replaceChildren(...chips.map((t) => { const li = document.createElement("li"); li.textContent = t; return li; }));
    }
  }

  const b = s.broker;
  facts($("system"), [
    ["MQTT", `${b.connected ? "connected to" : "not connected:"} ${b.address || "no broker"}${b.embedded ? " (embedded)" : ""}`],
    ["topics", code(b.topic + "/#")],
    ...(b.problem ? [["", b.problem]] : []),
    ["memory", bytes(h.memory.rss_bytes) + (h.memory.limit_bytes ? ` of ${bytes(h.memory.limit_bytes)}` : "")],
    ["free disk", bytes(h.storage.free_bytes)],
    ...(h.thermal ? [["temperature", h.thermal.celsius.toFixed(0) + " °C"]] : []),
    ["clock", h.time_synced ? "synchronised" : "not synchronised"],
    ["running for", duration(h.uptime_seconds)],
    ...Object.entries(h.labels ?? {}),
  ]);
  $("version").textContent = "fovea " + h.version;
  charts.show(wanted, s.points ?? []);
}

function chooseOverlay(value) {
  overlay = value;
  localStorage.setItem("fovea-overlay", value);
  $("legend").hidden = value === "";
  $("explain").textContent = explanations[value];
  for (const c of cameras.values()) { c.paint(); c.abort?.abort(); }
}

function listen() {
  const events = new EventSource("/api/events");
  events.onmessage = (e) => { $("offline").hidden = true; show(JSON.parse(e.data)); };
  events.onerror = () => {
    $("offline").hidden = false;
    if (events.readyState === EventSource.CLOSED) setTimeout(listen, 3000);
  };
}

drawScale($("scale"));
$("overlay").querySelector(`[value="${overlay}"]`).checked = true;
$("overlay").addEventListener("change", (e) => chooseOverlay(e.target.value));
$("strength").addEventListener("input", () => { for (const c of cameras.values()) c.paint(); });
chooseOverlay(overlay);
document.addEventListener("visibilitychange", () => { for (const c of cameras.values()) c.wake(); });

$("theme").addEventListener("click", () => {
  const dark = document.documentElement.dataset.theme
    ? document.documentElement.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("fovea-theme", document.documentElement.dataset.theme);
  charts.repaint();
});

fetch("/api/session").then((r) => r.json()).then((s) => { $("unlock").hidden = s.may_write; $("reload").hidden = !s.may_write; });
$("reload").addEventListener("click", async () => {
  const answer = await fetch("/api/reload", { method: "POST" });
  if (!answer.ok) alert(await answer.text());
});

fetch("/api/history").then((r) => r.json()).then((points) => charts.show(charts.cameras.length ? charts.cameras : Object.keys(points.at(-1)?.fps ?? {}), points)).finally(listen);
