const $ = (id) => document.getElementById(id);
const percent = (v) => Math.round(100 * v) + " %";
const number = (v) => (v == null ? "–" : Math.abs(v) >= 100 ? v.toFixed(0) : Math.abs(v) >= 10 ? v.toFixed(1) : v.toFixed(3));
const signed = (v) => (v < 0 ? "−" : "+") + Math.abs(v).toFixed(3);
const moment = (t) => new Date(t).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
const duration = (s) => (s >= 90 ? Math.round(s / 60) + " min" : Math.round(s) + " s");
const stages = { plates: "clearing the backgrounds", tune: "tuning the backbone", refit: "fitting the head", figures: "measuring against the parent" };
const order = ["plates", "tune", "refit", "figures"];

let mayWrite = false;
let last; // what GET /api/adapt said
let listed = ""; // what of it the lists were drawn for

function element(tag, className, ...content) {
  const e = document.createElement(tag);
  if (className) e.className = className;
  e.append(...content.filter((c) => c != null && c !== ""));
  return e;
}

const pairs = (list, all) => list.replaceChildren(...all.flatMap(([term, value]) => [element("dt", "", term), element("dd", "", value)]));

// now says how the cycle stands.
function now(a) {
  last = a;
  const running = a.state === "running" || a.state === "paused";
  const word = a.state === "idle" && a.probation ? "on probation" : a.state === "waiting" ? "waits for approval" : a.state;
  $("state").textContent = word;
  $("state").dataset.word = { running: "ok", paused: "degraded", waiting: "degraded" }[a.state] ?? "";
  $("run").hidden = !running;
  if (running) {
    const { stage, done, of } = a.stage;
    const step = order.indexOf(stage) + 1;
    $("stage").textContent = a.state === "paused" ? `paused by ${a.paused_by}` : step ? `${step} of ${order.length}: ${stages[stage]}` : "drawing a pack of the samples";
    if (of > 0) $("progress").value = done / of;
    else $("progress").removeAttribute("value");
    $("portion").textContent = of > 0 ? percent(done / of) : "";
  }
  $("said").replaceChildren(...(a.last_reason ? [element("b", a.last_verdict ?? "", a.last_verdict ? a.last_verdict.replace("_", " ") : "no verdict"), " ", a.last_reason] : []));
  $("said").hidden = !a.last_reason || running;
  pairs($("facts"), [
    ["live version", a.version === 0 ? "0 (base)" : String(a.version)],
    ["samples to learn from", `${a.samples_ready}, ${a.fresh} of them new; ${a.auto.on ? `a run begins at ${a.new_samples}` : `no run begins by itself`}`],
    ["automatic", `${a.auto.on ? "on" : "off"}, by ${{ config: "the configuration", local: "this device", remote: "a command" }[a.auto.source.source] ?? a.auto.source.source}`],
    ["approval", a.approval === "manual" ? "by a person: a better candidate waits" : "by the gate alone"],
    ...(a.next_due ? [["next due", moment(a.next_due)]] : []),
    ...(a.last_duration_seconds != null ? [["last run", duration(a.last_duration_seconds)]] : []),
  ]);
  $("adapt").hidden = running;
  $("cancel").hidden = !running;
  $("promote").hidden = a.candidate == null;
  $("promote").textContent = `promote version ${a.candidate}`;
  $("rollback").disabled = !mayWrite || a.version === 0;
  $("auto").textContent = `automatic: ${a.auto.on ? "on" : "off"}`;
  $("auto").setAttribute("aria-pressed", a.auto.on);
  for (const id of ["adapt", "cancel", "promote", "auto"]) $(id).disabled = !mayWrite;
  $("orders").title = mayWrite ? "" : "unlock changes below with the token";
}

// lists draws versions, maps and the record.
function lists({ versions, record }) {
  $("versions").replaceChildren(...versions.toReversed().map((v) => {
    const row = element("tr", v.state === "live" ? "served" : "");
    const swap = v.before != null && v.after != null ? `${number(v.before)} → ${number(v.after)}` : "–";
    row.append(
      element("td", "", String(v.number)), element("td", "", v.state ? element("span", `tag ${v.state === "live" ? "served" : v.state}`, v.state) : "–"), element("td", "", swap), element("td", "", v.probation ? v.probation.replace("_", " ") : "–"),
      element("td", "", v.parent == null ? "–" : String(v.parent)), element("td", "", moment(v.created)), element("td", "", element("code", "", v.sha256.slice(0, 12))),
    );
    if (v.reason) row.title = v.reason;
    return row;
  }));
  const mapped = versions.findLast((v) => v.maps?.length);
  $("before").hidden = !mapped;
  if (mapped) {
    $("mapped").textContent = mapped.number;
    $("maps").replaceChildren(...mapped.maps.map((m, i) => map(mapped, m, i)));
  }
  $("record").replaceChildren(...record.map(event));
  $("none").hidden = record.length > 0;
}

function map(version, m, i) {
  const picture = element("img");
  Object.assign(picture, { src: `/api/models/${version.sha256}/maps/${i}.jpg`, alt: `relevance for ${m.explained}, before and after`, loading: "lazy" });
  const said = (s) => element("span", s.guess === m.explained ? "" : "other", `${s.guess} ${percent(s.score)}`, s.on_object == null ? null : element("small", "", ` · ${percent(s.on_object)} on the object`));
  return element("figure", "", picture, element("figcaption", "", said(m.parent), said(m.candidate)), element("p", "explain", `what speaks for ${m.explained}; sample ${m.sequence} of ${m.camera}`));
}

function event(e) {
  const about = [];
  if (e.version != null) about.push(`version ${e.version}`);
  if (e.to != null) about.push(`${e.to} is live again`);
  const item = element("li", e.word.replace(" ", "-"),
    element("time", "", moment(e.time)),
    element("div", "entry",
      element("p", "", element("b", "", e.word), about.length ? ` ${about.join(", ")}` : "", e.why ? element("span", "why", ` · ${e.why}`) : null, e.seconds ? element("span", "why", ` · ${duration(e.seconds)}`) : null),
      e.said ? element("p", "gate", e.said) : null,
      e.gate?.length ? gate(e.gate) : null,
    ));
  return item;
}

// gate is the table of a run's checks, folded away.
function gate(rows) {
  const kept = rows.filter((r) => r.ok === true).length, broken = rows.filter((r) => r.ok === false).length, few = rows.length - kept - broken;
  const table = element("table", "checks");
  const head = element("tr", "", ...["check", "parent", "candidate", "difference, 95 %", ""].map((t, i) => element("th", i > 0 && i < 4 ? "n" : "", t)));
  table.append(element("thead", "", head), element("tbody", "", ...rows.map((r) => {
    const row = element("tr", r.ok === false ? "broken" : "");
    const word = r.ok == null ? "too few" : r.ok ? "kept" : "broken";
    row.append(element("td", "", r.name.replaceAll("_", " ")), element("td", "n", number(r.parent)), element("td", "n", number(r.candidate)),
      element("td", "n", r.low == null ? "–" : `${signed(r.low)} to ${signed(r.high)}`), element("td", "", element("span", `tag ${word.replace(" ", "-")}`, word)));
    row.title = r.text;
    return row;
  })));
  const counts = [[kept, "kept"], [broken, "broken"], [few, "too few"]].filter(([n]) => n).map(([n, t]) => `${n} ${t}`).join(", ");
  return element("details", "", element("summary", "", `the gate's figures: ${counts}`), element("div", "wide", table));
}

function glance(a, versions) {
  const live = versions?.find((v) => v.state === "live");
  const all = [["version", a.version === 0 ? "0, base" : String(a.version)], ["automatic", a.auto.on ? "on" : "off"], ["new samples", `${a.fresh} of ${a.new_samples}`]];
  if (live?.after != null) all.push(["labelled-swap", number(live.after)]);
  $("glance").replaceChildren(...all.map(([term, value]) => element("div", "", element("dt", "", term), element("dd", "", value))));
}

const get = async (path) => {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(answer.status === 404 ? "The daemon could not open its store, so it keeps no versions: see its status." : await answer.text());
  return answer.json();
};

let shown;
async function look() {
  try {
    const a = await get("/api/adapt");
    now(a);
    const key = [a.record, a.version, a.candidate, a.probation].join();
    if (key !== listed) {
      const open = [...document.querySelectorAll("#record details")].map((d) => d.open);
      const before = shown?.record[0]?.seq ?? 0;
      shown = await get("/api/models");
      lists(shown);
      listed = key;
      if (before === (shown.record[0]?.seq ?? 0)) document.querySelectorAll("#record details").forEach((d, i) => { d.open = open[i] ?? false; });
      else if (!before) document.querySelector("#record details")?.setAttribute("open", "");
    }
    glance(a, shown?.versions);
    $("offline").hidden = true;
  } catch (e) {
    $("offline").hidden = false;
    $("offline").textContent = e instanceof TypeError ? "The daemon does not answer; trying again." : e.message;
  }
}

// tell gives an order; a refusal is shown until the next.
async function tell(path, body, button) {
  button.disabled = true;
  const answer = await fetch(path, { method: "POST", body: JSON.stringify(body ?? {}) }).catch(() => null);
  const text = !answer ? "the daemon does not answer" : answer.ok ? "" : await answer.text();
  $("problem").hidden = !text;
  $("problem").textContent = text;
  await look();
}

$("adapt").addEventListener("click", (e) => tell("/api/adapt", {}, e.target));
$("cancel").addEventListener("click", (e) => tell("/api/cancel", {}, e.target));
$("promote").addEventListener("click", (e) => tell("/api/promote", { version: last.candidate }, e.target));
$("rollback").addEventListener("click", (e) => { if (confirm(`Make the version before ${last.version} live again?`)) tell("/api/rollback", {}, e.target); });
$("auto").addEventListener("click", (e) => tell("/api/auto", { on: !last.auto.on }, e.target));

const session = await fetch("/api/session").then((r) => r.json()).catch(() => ({}));
mayWrite = Boolean(session.may_write);
$("unlock").hidden = mayWrite;
async function turn() {
  if (!document.hidden) await look();
  setTimeout(turn, 1000);
}
turn();
