const $ = (id) => document.getElementById(id);
const percent = (v) => Math.round(100 * v) + " %";
const whole = (n) => n.toLocaleString("en").replaceAll(",", "\u202f");
const megabytes = (n) => (n / 1e6).toFixed(n < 1e7 ? 1 : 0) + " MB";

let mayWrite = false;
let oldest; // number of the last sample that is shown

// Sample is one card.
class Sample {
  constructor(meta) {
    this.card = $("sample").content.firstElementChild.cloneNode(true);
    this.part = (name) => this.card.querySelector(name);
    this.part(".change").addEventListener("submit", (e) => { e.preventDefault(); this.label(); });
    this.part(".drop").addEventListener("click", () => this.drop());
    this.card.sample = this;
    this.say(meta);
    // Pictures are fetched once they come into view.
    new IntersectionObserver(([e], watcher) => { if (e.isIntersecting) { watcher.disconnect(); this.load(); } }).observe(this.card);
  }

  get at() { return `/api/samples/${this.meta.seq}`; }

  say(m) {
    this.meta = m;
    const title = this.part(".class");
    title.classList.toggle("given", Boolean(m.label));
    title.firstElementChild.textContent = title.firstElementChild.title = m.label || m.predicted || "no class";
    title.lastElementChild.textContent = m.label && m.predicted && m.label !== m.predicted ? `model: ${m.predicted}` : m.scores?.length ? percent(m.scores[0].score) : "";
    const tags = [["why", m.why]];
    if (m.protected) tags.push(["held", "held out"]);
    if (!m.mask) tags.push(["unused", "no mask"]);
    else if (!m.mask.accepted) tags.push(["unused", "mask not used"]);
    this.part(".tags").replaceChildren(...tags.map(([name, text]) => Object.assign(document.createElement("span"), { className: name, textContent: text })));
    const details = [
      ["mask quality", m.mask ? meter(m.mask.quality) : "–"],
      ["relevance on it", m.relevance == null ? "–" : meter(m.relevance)],
      ["camera", m.camera], ["time", new Date(m.time).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" })],
      ["number", whole(m.seq)],
    ];
    this.part(".details").replaceChildren(...details.flatMap(([term, value]) => {
      const dt = document.createElement("dt"), dd = document.createElement("dd");
      dt.textContent = term;
      dd.append(value);
      return [dt, dd];
    }));
    this.part(".change").hidden = !mayWrite;
    this.part("[name=label]").value = m.label ?? "";
    this.part("canvas").setAttribute("aria-label", `sample ${m.seq}: ${m.label || m.predicted || "no class"}`);
  }

  async load() {
    try {
      this.picture = await image(`${this.at}/picture.jpg`);
      if (this.meta.mask) this.shade = shadeOf(await image(`${this.at}/mask.png`));
      this.paint();
    } catch { this.complain("its picture is gone: others needed the room"); }
  }

  paint() {
    if (!this.picture) return;
    const canvas = this.part("canvas"), { width, height } = this.picture;
    Object.assign(canvas, { width, height });
    const pen = canvas.getContext("2d");
    pen.drawImage(this.picture, 0, 0);
    if (!this.shade || !$("masks").checked) return;
    const [left, top, right, bottom] = this.meta.mask.view;
    pen.fillStyle = `rgb(8 12 18 / ${shadow})`; // what the network does not see
    pen.beginPath();
    pen.rect(0, 0, width, height);
    pen.rect(left, top, right - left, bottom - top);
    pen.fill("evenodd");
    pen.imageSmoothingQuality = "high";
    pen.drawImage(this.shade, left, top, right - left, bottom - top);
  }

  async label() {
    const label = this.part("[name=label]").value.trim();
    if (await this.send(`${this.at}/label`, { method: "POST", body: JSON.stringify({ label }) })) this.say({ ...this.meta, label });
  }

  async drop() {
    if (await this.send(this.at, { method: "DELETE" })) this.card.remove();
  }

  async send(path, request) {
    const answer = await fetch(path, request).catch(() => null);
    this.complain(!answer ? "the daemon does not answer" : answer.ok ? "" : await answer.text());
    return answer?.ok;
  }

  complain(text) {
    this.part(".problem").hidden = !text;
    this.part(".problem").textContent = text;
  }
}

const image = async (path) => {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(answer.statusText);
  return createImageBitmap(await answer.blob());
};

// shadeOf turns a mask, white on the object, into darkness around it, with a line between the two.
const shadow = 0.62;
function shadeOf(mask) {
  const { width, height } = mask;
  const canvas = new OffscreenCanvas(width, height), pen = canvas.getContext("2d");
  pen.drawImage(mask, 0, 0);
  const source = pen.getImageData(0, 0, width, height).data, shade = new ImageData(width, height);
  const inside = (x, y) => x >= 0 && y >= 0 && x < width && y < height && source[4 * (y * width + x)] > 127;
  for (let y = 0, p = 0; y < height; y++) {
    for (let x = 0; x < width; x++, p += 4) {
      if (inside(x, y)) continue;
      const edge = inside(x - 1, y) || inside(x + 1, y) || inside(x, y - 1) || inside(x, y + 1);
      shade.data.set(edge ? [255, 170, 60, 255] : [8, 12, 18, 255 * shadow], p);
    }
  }
  pen.clearRect(0, 0, width, height);
  pen.putImageData(shade, 0, 0);
  return canvas;
}

function meter(v) {
  const box = document.createDocumentFragment(), track = document.createElement("span"), fill = document.createElement("i");
  track.className = "meter";
  fill.style.width = 100 * v + "%";
  track.append(fill);
  box.append(track, percent(v));
  return box;
}

function query() {
  const q = new URLSearchParams({ camera: $("camera").value, label: $("label").value, why: $("why").value });
  if ($("held").checked) q.set("held", "1");
  return q;
}

function choices(select, values) {
  const chosen = select.value;
  select.replaceChildren(new Option("all", ""), ...values.filter(Boolean).map((v) => new Option(v)));
  select.value = values.includes(chosen) ? chosen : "";
}

// show lists anew, or goes on below what is listed.
async function show(more) {
  const q = query();
  if (more) q.set("before", oldest);
  let list;
  try {
    const answer = await fetch(`/api/samples?${q}`);
    if (answer.status === 404) throw new Error("No samples are kept: samples.megabytes is 0 in the configuration, or the store could not be opened.");
    if (!answer.ok) throw new Error(await answer.text());
    list = await answer.json();
  } catch (e) {
    $("offline").hidden = false;
    $("offline").textContent = e instanceof TypeError ? "The daemon does not answer." : e.message;
    return;
  }
  $("offline").hidden = true;
  choices($("camera"), list.cameras);
  choices($("label"), list.labels);
  $("known").replaceChildren(...list.labels.filter(Boolean).map((v) => new Option(v)));
  const cards = list.page.map((m) => new Sample(m).card);
  if (more) $("samples").append(...cards);
  else $("samples").replaceChildren(...cards);
  oldest = list.page.at(-1)?.seq;
  const shown = $("samples").children.length;
  $("more").hidden = list.page.length === 0 || shown >= list.matching;
  $("more").textContent = `show more of ${whole(list.matching)}`;
  $("none").hidden = shown > 0;
  $("none").textContent = list.samples ? "No sample is like that." : "Nothing is kept yet: the first frames come a few seconds after the model is ready.";
  $("glance").replaceChildren(...[
    ["samples", whole(list.samples)], ["with a mask", whole(list.masks)], ["held out", whole(list.protected)],
    ["labelled", whole(list.labelled)], ["on disk", `${megabytes(list.bytes)} of ${megabytes(list.limit)}`],
  ].map(([term, value]) => {
    const box = document.createElement("div"), dt = document.createElement("dt"), dd = document.createElement("dd");
    dt.textContent = term;
    dd.textContent = value;
    box.append(dt, dd);
    return box;
  }));
}

for (const id of ["camera", "label", "why", "held"]) $(id).addEventListener("change", () => show(false));
$("masks").addEventListener("change", () => { for (const card of $("samples").children) card.sample.paint(); });
$("more").addEventListener("click", () => show(true));

const session = await fetch("/api/session").then((r) => r.json()).catch(() => ({}));
mayWrite = Boolean(session.may_write);
$("unlock").hidden = mayWrite;
show(false);
