// The reviewers' page: the next items are here before they are needed, and a decision never waits for the service.
"use strict";

const AHEAD = 10;
const REFILL_BELOW = 5;
const CHECK_MS = 3000;
const WITH_ITEMS_MS = 15_000; // each claim goes into the access log with the items that it brings
const AWAKE_MS = 5 * 60_000; // who touched nothing for so long has gone, and their items go to others
const PACE_MS = 5 * 60_000;
const MOST_UNDONE = 50;
const MOST_NOTES = 5;
const EXPLAIN_MS = 120_000;
const HIDDEN = "rollout.review.hidden";

const $ = (id) => document.getElementById(id);
const root = $("review");
const leaseMs = Number(root.dataset.lease) * 1000;
const filters = Object.fromEntries(new URLSearchParams(location.search));
const post = new Post(root.dataset.page, root.dataset.csrf);
const outbox = new Outbox(post, { taken, refused, stalled, resumed });
const [accept, empty] = [$("accept"), $("empty")];
const panel = new PANELS[$("panel").dataset.panel]($("panel"), { take: (truth) => decide("resolve", { truth }), accept: answer, leave: home, turn });

let queue = []; // the first is the one that is shown
let shown = null;
let inDoubt = false;
let isClaiming = false;
let claimedAt = 0;
let touched = Date.now();
let decided = []; // when, in this sitting
const done = []; // what can be undone, the last one last
const meanwhile = new Set(); // decided since the claim that is on its way, which may still bring them
const figures = { open: null, leased_by_others: 0, escalated: 0 };
const isHidden = () => root.classList.contains("hidden");

// ---- what is shown

function show() {
  const [item] = queue;
  if (item !== shown) {
    shown = item;
    $("item").replaceChildren(...(item ? [item.view] : [empty]));
    $("model-answer").replaceChildren(...(item ? [item.modelAnswer] : []));
    sayAnswer();
    if (item) scrollTo(0, 0);
  }
  if (!item) sayEmpty();
  for (const button of $("answers").querySelectorAll("#panel button, #skip, #escalate, #explain")) button.disabled = !item;
  $("undo").disabled = !done.length && !panel.canGoBack;
  accept.disabled = !item || !(panel.isWritten || offer());
  count();
}

// Says what the model answers, where that is not hidden.
function sayAnswer() {
  const said = !shown || isHidden() ? null : shown.said;
  panel.show(!shown || isHidden() ? null : shown.accepted, shown, isHidden());
  sayOffer();
  if (shown) $("announced").textContent = `Next: ${shown.name}.${said === null ? "" : ` The model says ${said}.`}`;
}

// What accepting says now, or null where nothing can be accepted.
function offer() {
  if (panel.offer !== undefined) return panel.offer;
  return shown?.accepted && !isHidden() ? shown : null;
}

function sayOffer() {
  accept.firstElementChild.textContent = !offer() || panel.isWritten ? "Accept" : `Accept ${offer().said}`;
}

// Something else is asked of the same item.
function turn(text) {
  sayOffer();
  show();
  home();
  $("announced").textContent = text;
}

function sayEmpty() {
  const { leased_by_others: others, open, escalated } = figures;
  const none = filters.escalated ? "Nothing waits for an adjudicator." : "Nothing to review.";
  let text = open === null ? "Fetching items …" : none;
  if (others) text = `${others} leased by others, nothing else ${filters.escalated ? "for an adjudicator" : "to review"}.`;
  if (filters.escalated ? escalated : open) text = "Nothing that you may review: filters leave it out, or you answered it before.";
  if (isClaiming || outbox.size) text = "Fetching items …";
  if (outbox.isStalled) text = "Items are fetched again as soon as the service answers.";
  if (empty.textContent !== text) empty.textContent = $("announced").textContent = text;
}

function count() {
  const since = Date.now() - PACE_MS;
  const recent = decided.filter((at) => at > since);
  const minutes = recent.length > 1 ? (Date.now() - recent[0]) / 60_000 : 0;
  $("decided").textContent = decided.length;
  $("rate").textContent = recent.length > 4 ? Math.round(recent.length / minutes) : "–";
  const escalated = figures.escalated.toLocaleString("en");
  if (figures.open === null) return;
  const open = (figures.open + (filters.escalated ? 0 : queue.length)).toLocaleString("en");
  $("open").textContent = filters.escalated ? (figures.escalated + queue.length).toLocaleString("en") : open;
  const above = document.querySelector(".to-review b");
  if (above) above.textContent = open;
  if ($("escalated")) $("escalated").textContent = escalated;
}

function note(kind, text, id) {
  if (id) $(id)?.remove();
  if (!text) return;
  const paragraph = document.createElement("p");
  paragraph.className = `note ${kind}`;
  paragraph.append(text);
  if (id) paragraph.id = id;
  else {
    const close = document.createElement("button");
    close.className = "quiet";
    close.append("Got it");
    close.addEventListener("click", () => {
      paragraph.remove();
      home();
    });
    paragraph.append(" ", close);
  }
  $("said").prepend(paragraph);
  const notes = $("said").querySelectorAll("p:not([id])");
  [...notes].slice(MOST_NOTES).forEach((old) => old.remove());
}

// ---- decisions

function decide(did, { truth, ...said } = {}) {
  const start = performance.now();
  const [item] = queue;
  if (!item) return;
  if (item.ends < Date.now()) {
    note("warn", `Your time with ${item.name} was over, and nothing was recorded: looking whether you still can have it.`);
    claim();
    return;
  }
  queue.shift();
  if (truth) said.truth = JSON.stringify(truth);
  const entry = { item, did, truth, fields: { did, item: item.id, token: item.token, ...said } };
  done.push(entry);
  if (done.length > MOST_UNDONE) done.shift();
  decided.push(Date.now());
  meanwhile.add(item.id);
  outbox.add(entry);
  show();
  home();
  performance.clearMeasures("next item");
  performance.measure("next item", { start });
  refill();
}

function answer() {
  const truth = queue.length ? panel.read() : null;
  if (truth) decide("resolve", { truth });
}

function undo() {
  if (panel.canGoBack) return panel.back();
  const entry = done.pop();
  if (!entry) return;
  const { item } = entry;
  decided.pop();
  item.ends = Date.now() + leaseMs;
  if (!outbox.takeBack(entry)) outbox.add({ item, did: "undo", fields: { did: "undo", item: item.id, token: item.token } });
  queue.unshift(item);
  show();
  home();
}

function taken({ item }, { until, wanted }) {
  item.until = until;
  $("wanted").textContent = wanted;
  show();
}

function refused(entry, problem) {
  const { item, did, truth } = entry;
  if (did === "undo") {
    note("bad", `${item.name} could not be brought back. ${sentence(problem.detail)}`);
    queue = queue.filter((one) => one !== item);
    return show();
  }
  const what = { resolve: `as ${words(truth)}`, skip: "as skipped", escalate: "as escalated" }[did];
  note("bad", `${item.name} was not recorded ${what}. ${sentence(problem.detail)}`);
  const place = done.indexOf(entry);
  if (place >= 0) done.splice(place, 1);
  decided.pop();
  const isLost = [404, 409].includes(problem.status);
  if (!isLost && !queue.includes(item)) queue.splice(1, 0, item);
  show();
  if (!isLost) return;
  inDoubt = true; // where one lease is gone, others may be
  claim();
}

function stalled(why, waiting) {
  stalled.why = why ?? stalled.why;
  note("warn", `${stalled.why}. ${waiting} decision${waiting === 1 ? " waits" : "s wait"} here and ${waiting === 1 ? "goes" : "go"} out as soon as possible: keep this page open.`, "stalled");
  show();
}

function resumed() {
  note("", "", "stalled");
  claim();
}

// A problem's words without what they tell a program to do next.
const sentence = (text) => `${text[0].toUpperCase()}${text.slice(1)}`.replace(/: claim again.*$/, "") + ".";

// ---- why

// Asks why the model says what it says; nobody sees that before they ask. Again, it is hidden or shown.
async function explain() {
  const item = shown;
  if (!item) return;
  if (item.why && !item.why.hasFailed) {
    item.why.hidden = !item.why.hidden;
    return;
  }
  item.why?.remove();
  const place = document.createElement("section");
  place.className = "card why";
  place.setAttribute("aria-label", "Why the model says this");
  place.setAttribute("aria-live", "polite");
  place.textContent = "Asking the model …";
  item.why = place;
  item.view.append(place);
  place.scrollIntoView({ block: "nearest" });
  try {
    const answer = await post.send("explain", { item: item.id, token: item.token }, EXPLAIN_MS);
    place.hasFailed = !answer.isTaken;
    if (answer.isTaken) place.innerHTML = answer.html;
    else place.textContent = sentence(answer.detail);
  } catch (error) {
    if (!(error instanceof AwayError)) throw error;
    place.hasFailed = true;
    place.textContent = `${error.message}: ask again later.`;
  }
}

// ---- items

async function claim() {
  if (isClaiming) return;
  isClaiming = true;
  meanwhile.clear();
  outbox.ids.forEach((id) => meanwhile.add(id));
  claimedAt = Date.now();
  const mine = queue.length + outbox.size;
  try {
    const answer = await post.send("claim", { ...filters, count: Math.min(50, Math.max(AHEAD + outbox.size, mine)) });
    if (!answer.isTaken) throw new AwayError(answer.detail);
    note("", "", "missing");
    isClaiming = false;
    take(answer, claimedAt + leaseMs);
  } catch (error) {
    if (!(error instanceof AwayError)) throw error;
    if (!outbox.isStalled) note("warn", `${error.message}. Trying again.`, "missing");
  } finally {
    isClaiming = false;
  }
}

// Puts items that came behind those that are here; those that are here have more time now.
function take(answer, ends) {
  for (const name of Object.keys(figures)) figures[name] = answer[name];
  $("wanted").textContent = answer.wanted;
  for (const fresh of answer.items) {
    const known = queue.find((item) => item.id === fresh.id);
    if (known) Object.assign(known, { token: fresh.token, until: fresh.until, ends });
    else if (!meanwhile.has(fresh.id)) queue.push(prepare(fresh, ends));
  }
  const held = new Set([...answer.items.map((item) => item.id), ...meanwhile]);
  const lost = queue.filter((item) => item.ends < Date.now() || (inDoubt && !held.has(item.id)));
  inDoubt = false;
  queue = queue.filter((item) => !lost.includes(item));
  if (lost.includes(shown)) note("warn", `Your time with ${shown.name} is over: another reviewer may have it now.`);
  show();
}

// Lays an item out where nobody sees it: its images are decoded by the time that it is shown.
function prepare({ html, model_answer: modelAnswer, ...item }, ends) {
  const [view, scores] = [html, modelAnswer].map((text) => Object.assign(document.createElement("div"), { innerHTML: text }));
  return { ...item, ends, view, modelAnswer: scores };
}

function refill() {
  if (queue.length < REFILL_BELOW && !outbox.isStalled) claim();
}

function check() {
  count();
  const isAwake = Date.now() - touched < AWAKE_MS;
  if (document.hidden || outbox.isStalled || (queue.length && !isAwake)) return;
  const isLate = queue.some((item) => item.ends - Date.now() < leaseMs / 2);
  const isDue = Date.now() - claimedAt > (queue.length ? WITH_ITEMS_MS : 0);
  if (isLate || (isDue && queue.length < REFILL_BELOW)) claim();
}

// ---- keys and buttons

// Away from a button that was used: Enter means the next item, not the same button again.
function home() {
  if (document.activeElement !== document.body) $("item").focus({ preventScroll: true });
}

function hide(hidden) {
  root.classList.toggle("hidden", hidden);
  $("model-answer").hidden = hidden;
  $("model-answer-hidden").hidden = !hidden;
  $("hide").setAttribute("aria-pressed", String(hidden));
  $("hide").firstChild.data = hidden ? "Show scores" : "Hide scores";
  sayAnswer();
  show();
}

document.addEventListener("keydown", (event) => {
  touched = Date.now();
  const { target } = event;
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || event.repeat) return;
  if (target.matches("input, select, textarea")) {
    if (event.key === "Escape" && !target.closest("dialog")) home();
    return;
  }
  // That is theirs; a button of a dialog that was closed just now may still have the focus.
  if (event.key === "Enter" && target.closest("button, a, summary, audio")?.checkVisibility()) return;
  const place = document.querySelector("dialog[open]") ?? document;
  const key = CSS.escape(event.key.length === 1 ? event.key.toLowerCase() : event.key);
  const field = place.querySelector(`[data-focus~="${key}"]`);
  const button = [...place.querySelectorAll(`[data-key="${key}"]`)].find((one) => one.checkVisibility());
  if (!field && !button) return;
  event.preventDefault();
  field?.focus();
  field?.select();
  button?.click();
});
document.addEventListener("pointerdown", () => (touched = Date.now()));

accept.addEventListener("click", answer);
$("escalate")?.addEventListener("click", () => decide("escalate"));
$("undo").addEventListener("click", undo);
$("hide").addEventListener("click", () => {
  localStorage.setItem(HIDDEN, isHidden() ? "" : "yes");
  hide(!isHidden());
});
$("explain").addEventListener("click", () => {
  explain();
  home();
});
$("help").addEventListener("click", () => $("keys").showModal());
$("item").addEventListener("click", ({ target }) => {
  const sound = target.closest("[data-play]")?.closest("figure").querySelector("audio");
  if (sound) sound.paused ? sound.play() : sound.pause();
});

let skipped = null;
$("skip").addEventListener("click", () => {
  skipped = shown;
  $("why").value = "";
  $("skipping").showModal();
});
function skip(why) {
  $("skipping").close();
  if (skipped === shown) decide("skip", { why });
}
for (const button of $("skipping").querySelectorAll("[data-why]")) button.addEventListener("click", () => skip(button.dataset.why));
$("otherwise").addEventListener("submit", (event) => {
  event.preventDefault();
  skip($("why").value);
});
for (const button of document.querySelectorAll("[data-close]")) button.addEventListener("click", () => button.closest("dialog").close());

// ---- coming and leaving

addEventListener("beforeunload", (event) => {
  if (outbox.size) event.preventDefault();
});
addEventListener("pagehide", () => {
  const leases = JSON.stringify(queue.map(({ id, token, until }) => [id, token, until ?? ""]));
  if (queue.length) navigator.sendBeacon(`${post.page}/release`, new URLSearchParams({ csrf: post.csrf, leases }));
});
addEventListener("pageshow", ({ persisted }) => {
  if (!persisted) return;
  queue = [];
  show();
  claim();
});
document.addEventListener("visibilitychange", check);
setInterval(check, CHECK_MS);

hide(localStorage.getItem(HIDDEN) === "yes");
claim();
