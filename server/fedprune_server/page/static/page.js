// Keeps what the coordinator tells, and draws it. Everything here comes from one stream of events; nothing is computed
// that the report does not say in the same words.

import { Chart, bytes, heat, learning } from "./charts.js";
import { NONE, clock, count, percent, seconds, size, times } from "./format.js";

const MOST_CLIENTS = 200;
const get = (id) => document.getElementById(id);
const state = { runs: [], notes: [], now: { clients: {} }, shown: null, follow: true };
const mask = { layer: null, version: null };
const charts = { learning: new Chart(get("c-learning"), learning), bytes: new Chart(get("c-bytes"), bytes) };
window.fedprune = state;

const run = () => state.runs.find((r) => r.run_id === state.shown) ?? state.runs.at(-1);
const moved = (row) => row.socket ?? row.payload;
const sum = (rows, value) => rows.reduce((total, row) => total + value(row), 0);

const heard = {
  story(story) { Object.assign(state, { runs: story.runs, notes: story.notes, now: { clients: {}, ...story.now } }); latest(); },
  run(told) { state.runs = [...state.runs.filter((r) => r.run_id !== told.run_id), told]; latest(); },
  round(row) { const rows = state.runs.at(-1).rounds; const at = rows.findIndex((r) => r.round === row.round); rows.splice(at < 0 ? rows.length : at, 1, row); },
  end(outcome) { Object.assign(state.runs.at(-1), outcome); },
  note(note) { state.notes.push(note); state.notes.splice(0, state.notes.length - MOST_CLIENTS); },
  now(now) {
    const clients = { ...state.now.clients };
    for (const [index, client] of Object.entries(now.clients)) clients[index] = { ...clients[index], ...client };
    state.now = { ...now, clients };
  },
};
// A round's figures are there at once; what takes longer to draw waits for the next frame, and rounds that come together
// are drawn together.
const redraw = { story: drawAll, run: drawAll, round() { drawTiles(); soon(); }, end: drawAll, note: soon, now: drawNow };
let due = false;

function latest() { if (state.follow) state.shown = state.runs.at(-1)?.run_id ?? null; }

function listen() {
  const stream = new EventSource("events");
  stream.onopen = () => connected("live", "live");
  stream.onerror = () => {
    const over = state.runs.at(-1)?.outcome ?? "running";
    connected(over === "running" ? "wait" : "over", over === "running" ? "connection lost, trying again" : "coordinator ended");
    // A server that refuses ends the stream for good; the page goes on asking.
    if (stream.readyState === EventSource.CLOSED) setTimeout(listen, 2000);
  };
  for (const [name, hear] of Object.entries(heard)) {
    stream.addEventListener(name, (event) => { hear(JSON.parse(event.data)); redraw[name](); });
  }
}

function connected(kind, text) { get("link").className = `pill ${kind}`; get("link").textContent = text; }

function soon() {
  if (!due) requestAnimationFrame(() => { due = false; drawAll(); });
  due = true;
}

function drawAll() { drawRuns(); drawTiles(); drawCharts(); drawMask(); drawDecisions(); drawNotes(); drawNow(); }

function drawRuns() {
  const buttons = state.runs.length < 2 ? [] : state.runs.map((told) => {
    const button = document.createElement("button");
    button.textContent = told.name;
    button.setAttribute("aria-pressed", told === run());
    button.onclick = () => { state.shown = told.run_id; state.follow = told === state.runs.at(-1); drawAll(); };
    return button;
  });
  get("runs").replaceChildren(...buttons);
  get("name").textContent = run()?.name ?? "fedprune";
  document.title = run() ? `${run().name} · fedprune` : "fedprune";
}

function drawTiles() {
  const told = run();
  if (!told) return;
  const rows = told.rounds, last = rows.at(-1);
  const scored = rows.filter((row) => row.accuracy !== null), best = scored.length ? Math.max(...scored.map((row) => row.accuracy)) : null;
  put("t-accuracy", percent(scored.at(-1)?.accuracy));
  put("t-accuracy-more", best === null ? "not measured yet" : `best ${percent(best)}`);
  put("t-density", percent(last?.density ?? 1));
  put("t-density-more", `of ${count(told.prunable)}, ${aim(told.config.pruning)}`);
  const actual = sum(rows, (row) => moved(row).up + moved(row).down), dense = sum(rows, (row) => row.dense_equivalent.up + row.dense_equivalent.down);
  put("t-bytes", rows.length ? size(actual) : NONE);
  put("t-bytes-more", rows.length ? `↑ ${size(sum(rows, (r) => moved(r).up))}  ↓ ${size(sum(rows, (r) => moved(r).down))}` : "");
  const ratio = (row) => (row.dense_equivalent.up + row.dense_equivalent.down) / (moved(row).up + moved(row).down);
  put("t-saving", last ? times(ratio(last)) : NONE);
  put("t-saving-more", last ? `this round; ${times(dense / actual)} over the run` : "");
  const recent = rows.slice(-5), pace = recent.length ? sum(recent, (row) => row.seconds) / recent.length : null;
  const over = told.outcome !== "running";
  put("t-eta-what", over ? "outcome" : "time left");
  put("t-eta", over ? told.outcome : pace === null ? NONE : `${seconds(pace * (told.planned - last.round))}`);
  put("t-eta-more", rows.length ? `${seconds(pace)} a round, ${seconds(sum(rows, (row) => row.seconds))} so far` : "");
  get("progress").style.width = `${(100 * (last?.round ?? 0)) / told.planned}%`;
}

function put(id, text) { if (get(id).textContent !== text) get(id).textContent = text; }

function drawCharts() {
  const told = run();
  if (!told) return;
  const rows = told.rounds, rounds = rows.map((row) => row.round), marks = rows.filter((row) => row.mask_changed).map((row) => row.round);
  const before = state.runs[state.runs.indexOf(told) - 1];
  const beside = (value) => before ? [alongside(before, rounds, value)] : [];
  const positive = (value) => (value > 0 ? value : null);
  charts.learning.show([rounds, rows.map((row) => row.accuracy), rows.map((row) => row.metrics.loss ?? null), ...beside((row) => row.accuracy)], marks, before?.name);
  const way = (row) => (row.dense_equivalent.up + row.dense_equivalent.down) / 2;
  charts.bytes.show([rounds, rows.map((row) => positive(moved(row).up)), rows.map((row) => positive(moved(row).down)), rows.map((row) => positive(way(row))), ...beside((row) => positive(moved(row).up))], marks, before?.name);
  heat(get("heat"), told.layers, rows, told.planned);
}

function alongside(before, rounds, value) {
  const found = new Map(before.rounds.map((row) => [row.round, value(row)]));
  return rounds.map((round) => found.get(round) ?? null);
}

function drawMask() {
  const told = run();
  if (!told) return;
  const changes = told.rounds.filter((row) => row.mask_changed || (row.round === 1 && row.layers.length));
  get("picker").hidden = get("mask").hidden = !changes.length;
  get("mask-none").hidden = changes.length > 0;
  if (!changes.length) return put("mask-what", "");
  const select = get("mask-layer"), names = told.layers.map((layer) => layer.name);
  if (select.dataset.names !== names.join()) {
    select.dataset.names = names.join();
    select.replaceChildren(...names.map((name) => new Option(name, name)));
    const largest = told.layers.reduce((a, b) => (b.size > a.size ? b : a));
    mask.layer = largest.name;
    mask.version = null;
    select.value = mask.layer;
  }
  const slider = get("mask-version");
  slider.max = changes.length - 1;
  const at = mask.version === null ? -1 : changes.findIndex((row) => row.mask_version === mask.version);
  const index = at < 0 ? changes.length - 1 : at, row = changes[index];
  slider.value = index;
  put("mask-round", `after round ${row.round}`);
  const layer = told.layers.find((l) => l.name === mask.layer), found = row.layers.find((l) => l.name === mask.layer);
  put("mask-what", `${layer.shape.join(" × ")}${found ? `, ${percent(found.alive / found.size)} alive` : ""}`);
  const query = new URLSearchParams({ run: told.run_id, layer: mask.layer, version: row.mask_version });
  const picture = get("mask");
  picture.alt = `alive weights of ${mask.layer} after round ${row.round}`;
  if (picture.dataset.query !== query.toString()) { picture.dataset.query = query.toString(); picture.src = `mask.png?${query}`; }
}

function aim(pruning) {
  const [budget] = Object.entries(pruning.budget);
  if (budget) return `aim ${budget[0]} ${budget[1]}`;
  return pruning.density === "auto" ? "as few as the accuracy allows" : `aim ${percent(pruning.density, 0)}`;
}

function drawDecisions() {
  const told = run(), items = [];
  let density = 1;
  for (const row of told?.rounds ?? []) {
    if (row.mask_changed) {
      const grown = sum(row.layers, (layer) => layer.grown ?? 0), cut = sum(row.layers, (layer) => Math.max(0, (layer.before ?? layer.size) - layer.alive));
      const score = row.layers.find((layer) => layer.score)?.score;
      items.push([`round ${row.round}`, `density ${percent(density)} to ${percent(row.density)}`, [`${count(cut)} weights cut`, grown ? `${count(grown)} regrown` : "", score ? `by ${score}` : "", row.accuracy === null ? "" : `accuracy ${percent(row.accuracy)}`].filter(Boolean).join(", ")]);
    }
    if (row.trial) items.push([`round ${row.round}`, `${percent(row.trial.density_before)} to ${percent(row.trial.density_tried)}: ${row.trial.decision}`, trialWords(row.trial)]);
    if (row.plan && row.plan !== items.plan) { items.plan = row.plan; items.push([`round ${row.round}`, `sends ${row.plan}`, row.plan_reason]); }
    density = row.density;
  }
  fill("decisions", items.reverse(), "Nothing has been pruned yet.", ([when, what, why]) => {
    const item = document.createElement("li"), time = document.createElement("time"), text = document.createElement("span"), more = document.createElement("small");
    time.textContent = when; text.textContent = what; more.textContent = why;
    text.append(more);
    item.append(time, text);
    return item;
  });
}

function trialWords(trial) {
  if (trial.drop === null) return "";
  const points = (value) => (100 * value).toFixed(2);
  const interval = trial.low === null || trial.high === null ? "" : ` (${points(trial.low)} to ${points(trial.high)})`;
  return `accuracy dropped by ${points(trial.drop)} points${interval}, measured by ${count(trial.pairs)} clients`;
}

function drawNotes() {
  const heardTexts = new Set(state.notes.map((note) => note.text));
  const unlogged = (run()?.rounds ?? []).flatMap((row) => row.warnings.filter((text) => !heardTexts.has(text)).map((text) => ({ when: `round ${row.round}`, level: "warning", text })));
  const notes = state.notes.map((note) => ({ when: clock(note.time), level: note.level, text: note.client ? `${note.client} ${note.text}` : note.text }));
  fill("notes", [...unlogged, ...notes].reverse(), "Nothing to tell yet.", (note) => {
    const item = document.createElement("li"), time = document.createElement("time"), text = document.createElement("span");
    time.textContent = note.when; text.textContent = note.text; text.className = note.level;
    item.append(time, text);
    return item;
  });
}

function fill(id, items, none, make) {
  const empty = document.createElement("li");
  empty.className = "none"; empty.textContent = none;
  get(id).replaceChildren(...(items.length ? items.map(make) : [empty]));
}

function drawNow() {
  const told = run(), now = state.now;
  const over = state.runs.at(-1)?.outcome;
  const where = told ? `round ${Math.max(told.rounds.at(-1)?.round ?? 0, told === state.runs.at(-1) ? now.round ?? 0 : 0)} of ${told.planned}` : "no run yet";
  put("status", over && over !== "running" ? `${where} · ${told.outcome}` : `${where} · ${(now.waiting_for || now.phase || "").replace(/^round \d+: /, "")}`);
  drawClients(now);
}

const COLUMNS = ["client", "state", "progress", "link", "sent", "received", "density", "seen"];

function drawClients(now) {
  const clients = Object.entries(now.clients).sort(([, a], [, b]) => a.name.localeCompare(b.name, "en", { numeric: true })), counts = {}, density = state.runs.at(-1)?.rounds.at(-1)?.density ?? 1;
  for (const [, client] of clients) counts[client.state] = (counts[client.state] ?? 0) + 1;
  const words = Object.entries(counts).map(([name, n]) => `${n} ${name}`);
  put("clients-count", [`${clients.length}`, ...words, clients.length > MOST_CLIENTS ? `the first ${MOST_CLIENTS} are shown` : ""].filter(Boolean).join(" · "));
  const table = get("clients");
  if (!table.firstChild) table.append(row("head", COLUMNS));
  let at = 1;
  for (const [index, client] of clients.slice(0, MOST_CLIENTS)) {
    const id = `client-${index}`, line = get(id) ?? row("", COLUMNS.map(() => ""), id);
    if (table.children[at] !== line) table.insertBefore(line, table.children[at] ?? null);
    at += 1;
    const [name, what, bar, link, up, down, share, seen] = line.children;
    set(name, client.name); set(what, client.state); what.className = `state ${client.state.replace(" ", "-")}`;
    const done = client.state === "done" ? 1 : client.state === "working" && client.steps ? client.step / client.steps : 0;
    bar.className = "bar";
    const filled = bar.firstChild ?? bar.appendChild(document.createElement("i"));
    // The next piece of work begins at once; only what is done grows.
    filled.className = client.state === "working" && 100 * done > parseFloat(filled.style.width || 0) ? "grows" : "";
    filled.style.width = `${100 * done}%`;
    bar.title = client.steps ? `step ${client.step} of ${client.steps}` : "";
    set(link, client.link ? `${size(client.link)}/s` : NONE); set(up, size(client.up)); set(down, size(client.down));
    set(share, percent(client.density ?? density));
    set(seen, now.time && client.seen ? ago(now.time - client.seen) : NONE);
  }
  while (table.children[at]) table.children[at].remove();
}

function ago(silent) { return silent < 1.5 ? "now" : `${seconds(Math.round(silent)).replace(".0 ", " ")} ago`; }

function set(element, text) { if (element.textContent !== text) element.textContent = text; }

function row(kind, texts, id) {
  const line = document.createElement("div");
  line.className = `row ${kind}`;
  if (id) line.id = id;
  texts.forEach((text, n) => {
    const cell = document.createElement("span");
    cell.textContent = text;
    if (n > 2) { cell.className = "r"; cell.dataset.label = COLUMNS[n]; }
    line.append(cell);
  });
  return line;
}

get("mask-layer").onchange = (event) => { mask.layer = event.target.value; drawMask(); };
get("mask-version").oninput = (event) => {
  const changes = run().rounds.filter((r) => r.mask_changed || (r.round === 1 && r.layers.length)), at = Number(event.target.value);
  mask.version = at === changes.length - 1 ? null : changes[at].mask_version;
  drawMask();
};
get("picker").onsubmit = (event) => event.preventDefault();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { Object.values(charts).forEach((chart) => chart.again()); drawAll(); });
listen();
