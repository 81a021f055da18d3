"use strict";
// Lists are fetched once and then updated from the event stream. Data from the network is inserted as text only.

const PAGE = 50;
const POLL_MS = 5000;
const KEPT_EVENTS = 200;
const KINDS = ["name_up", "name_down", "service_up", "service_down", "node_up", "node_suspect", "node_down", "node_left"];

const $ = (id) => document.getElementById(id);
const state = { status: null, nodes: [], peers: new Map(), names: new Map(), services: new Map(), events: [] };
let query = "";

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function age(at) {
  const seconds = Math.max(0, Math.round((Date.now() - Date.parse(at)) / 1000));
  if (!Number.isFinite(seconds)) return "";
  if (seconds < 120) return seconds + " s";
  if (seconds < 7200) return Math.round(seconds / 60) + " min";
  if (seconds < 172800) return Math.round(seconds / 3600) + " h";
  return Math.round(seconds / 86400) + " d";
}

const rtt = (peer) => (peer && peer.rtt_us !== undefined ? (peer.rtt_us / 1000).toFixed(2) + " ms" : "");
const phi = (peer) => (peer ? peer.phi.toFixed(2) : "");

// One view per table: its rows, and its columns as [heading, text, class].
const views = [
  view("members", "Members", () => state.nodes, [
    ["Host", (n) => n.host + (n.oneself ? " (this host)" : "")],
    ["State", (n) => n.state, (n) => (n.state === "alive" ? "good" : "warn")],
    ["RTT", (n) => rtt(state.peers.get(n.id))],
    ["Phi", (n) => phi(state.peers.get(n.id))],
    ["Path", (n) => (n.oneself ? "" : state.peers.get(n.id)?.path ?? "no link")],
    ["Address", (n) => n.addresses[0] ?? ""],
    ["Names", (n) => String(n.names)],
    ["Version", (n) => n.version],
    ["Up", (n) => age(n.started_at)],
  ]),
  view("names", "Erlang names", () => [...state.names.values()], [
    ["Name", (n) => n.name + "@" + n.host],
    ["Port", (n) => String(n.port)],
    ["Age", (n) => age(n.registered_at)],
  ]),
  view("services", "Services", () => [...state.services.values()], [
    ["Service", (s) => s.name],
    ["Host", (s) => s.host],
    ["Port", (s) => String(s.port)],
    ["Age", (s) => age(s.registered_at)],
  ]),
  view("links", "Links", () => [...state.peers.values()], [
    ["Peer", (p) => p.host],
    ["Address", (p) => p.address],
    ["Path", (p) => p.path],
    ["RTT", rtt],
    ["Phi", phi],
    ["Received", (p) => p.received_bytes + " B"],
    ["Sent", (p) => p.sent_bytes + " B"],
    ["Agrees", (p) => (p.agrees ? "yes" : "no"), (p) => (p.agrees ? "good" : "warn")],
  ]),
  view("events", "Events", () => state.events, [
    ["At", (e) => new Date(e.at).toLocaleTimeString()],
    ["Event", (e) => e.kind, (e) => (e.kind.endsWith("_up") ? "good" : "warn")],
    ["Of", (e) => (e.kind.startsWith("node_") ? e.host : e.name + "@" + e.host)],
    ["Reason", (e) => e.reason ?? ""],
  ]),
];

function view(id, title, rows, columns) {
  const section = $(id);
  const bar = element("div", undefined, "bar");
  const count = element("span");
  const back = element("button", "Previous");
  const on = element("button", "Next");
  const body = element("tbody");
  const head = element("tr");
  for (const [label] of columns) {
    const cell = element("th", label);
    cell.scope = "col";
    head.append(cell);
  }
  const table = element("table");
  const top = element("thead");
  top.append(head);
  table.append(top, body);
  back.type = on.type = "button";
  back.setAttribute("aria-label", "Previous page of " + title);
  on.setAttribute("aria-label", "Next page of " + title);
  bar.append(element("h2", title), count, back, on);
  section.append(bar, table);
  const made = { page: 0, draw };
  back.addEventListener("click", () => { made.page -= 1; draw(); });
  on.addEventListener("click", () => { made.page += 1; draw(); });

  function draw() {
    const all = rows();
    const found = query === "" ? all : all.filter((row) => columns.some(([, text]) => text(row).toLowerCase().includes(query)));
    const pages = Math.max(1, Math.ceil(found.length / PAGE));
    made.page = Math.min(Math.max(made.page, 0), pages - 1);
    const shown = found.slice(made.page * PAGE, (made.page + 1) * PAGE);
    count.textContent = (found.length === all.length ? "" : found.length + " of ") + all.length +
      (pages > 1 ? ", page " + (made.page + 1) + " of " + pages : "");
    back.hidden = on.hidden = pages === 1;
    back.disabled = made.page === 0;
    on.disabled = made.page === pages - 1;
    body.replaceChildren(...shown.map((row) => {
      const line = element("tr");
      for (const [label, text, kind] of columns) {
        const cell = element("td", text(row), kind ? kind(row) : "");
        cell.dataset.label = label;
        line.append(cell);
      }
      return line;
    }));
  }
  return made;
}

function put(node, text) {
  // Screen readers announce a node whenever it is set, even to the same text.
  if (node.textContent !== text) node.textContent = text;
}

function drawStatus() {
  const status = state.status;
  if (!status) return;
  put($("host"), status.host);
  document.title = "pmd " + status.host;
  const cluster = status.cluster;
  if (cluster) {
    $("agreement").className = cluster.converged ? "good" : "warn";
    put($("agreement"), cluster.converged
      ? "All " + cluster.links + " linked members agree."
      : cluster.agreeing + " of " + cluster.links + " linked members agree.");
    const facts = [["Cluster", cluster.name], ["Members", cluster.members], ["Suspects", cluster.suspects],
      ["Names", cluster.names], ["Services", cluster.services], ["Fingerprint", cluster.fingerprint.slice(0, 16)],
      ["Version", status.version]];
    $("summary").replaceChildren(...facts.map(([key, value]) => {
      const pair = element("div");
      pair.append(element("dt", key), element("dd", String(value)));
      return pair;
    }));
  }
  $("warnings").replaceChildren(...status.warnings.map((warning) => element("li", warning)));
}

let drawing = false;
function draw() {
  if (drawing) return;
  drawing = true;
  setTimeout(() => {
    drawing = false;
    drawStatus();
    for (const one of views) one.draw();
  }, 100);
}

async function get(path) {
  const answer = await fetch("/v1/" + path);
  if (!answer.ok) throw new Error(path + ": " + answer.status);
  return answer.json();
}

const key = (entry) => JSON.stringify([entry.name, entry.host, entry.node_id]);
const keyed = (list) => new Map(list.map((entry) => [key(entry), entry]));

async function fetchNumbers() {
  const [status, peers] = await Promise.all([get("status"), get("peers")]);
  state.status = status;
  state.peers = new Map(peers.peers.map((peer) => [peer.id, peer]));
}

// Events that arrive while the lists are being fetched may already be in them; applying an event twice is harmless.
let waiting = null;
let again = false;
async function fetchAll() {
  if (waiting) { again = true; return; }
  waiting = [];
  try {
    const [nodes, names, services] =
      await Promise.all([get("nodes"), get("names?scope=cluster"), get("services?scope=cluster"), fetchNumbers()]);
    state.nodes = nodes.nodes;
    state.names = keyed(names.names);
    state.services = keyed(services.services);
    for (const event of waiting) apply(event);
  } catch {
    again = true;
  }
  waiting = null;
  draw();
  // If the connection is lost, reconnecting fetches everything.
  if (again && lost === null) later();
  again = false;
}

let planned = false;
function later() {
  if (planned) return;
  planned = true;
  setTimeout(() => { planned = false; fetchAll(); }, 1000);
}

function apply(event) {
  // Events of this daemon may lack an id.
  event.node_id ??= state.status?.cluster?.id;
  const list = event.kind.startsWith("name_") ? state.names : state.services;
  if (event.kind.startsWith("node_")) later();
  else if (event.kind.endsWith("_up")) {
    const entry = { name: event.name, host: event.host, node_id: event.node_id, port: event.port, registered_at: event.at };
    list.set(key(entry), entry);
  } else list.delete(key(event));
}

let lost = null;
function connect() {
  const source = new EventSource("/v1/events");
  source.addEventListener("hello", () => {
    lost = null;
    $("connection").className = "live";
    put($("connection"), "live");
    fetchAll();
  });
  source.addEventListener("gap", fetchAll);
  for (const kind of KINDS) {
    source.addEventListener(kind, (message) => {
      const event = JSON.parse(message.data);
      state.events.unshift(event);
      state.events.length = Math.min(state.events.length, KEPT_EVENTS);
      if (waiting) waiting.push(event);
      else apply(event);
      draw();
    });
  }
  source.addEventListener("error", () => {
    lost ??= new Date();
    $("connection").className = "lost";
    put($("connection"), "disconnected since " + lost.toLocaleTimeString());
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, 2000);
  });
}

$("filter").addEventListener("input", (event) => {
  query = event.target.value.trim().toLowerCase();
  for (const one of views) one.page = 0;
  draw();
});
document.addEventListener("keydown", (event) => {
  const field = event.target === $("filter");
  if (event.key === "/" && !field && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    $("filter").focus();
  } else if (event.key === "Escape" && field) {
    $("filter").value = query = "";
    draw();
  }
});
setInterval(() => {
  if (document.visibilityState === "visible" && lost === null) fetchNumbers().then(draw, () => {});
}, POLL_MS);
draw();
connect();
