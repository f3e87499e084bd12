// Keeps the page of a model current. Without it, the page shows what was known when it was loaded.
"use strict";

const EVERY_MS = 2000;
const live = document.getElementById("live");
const status = document.getElementById("status");
const state = { paused: false, at: live?.dataset.at, known: live?.dataset.revision, timer: 0, said: "" };

// Makes `old` equal to `fresh` and leaves alone what is equal: focus, scrolling and what is unfolded stay.
function morph(old, fresh) {
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName) return old.replaceWith(fresh);
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  for (const { name } of [...old.attributes ?? []])
    if (name !== "open" && !fresh.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of fresh.attributes ?? [])
    if (name !== "open" && old.getAttribute(name) !== value) old.setAttribute(name, value);
  const now = [...old.childNodes].filter((node) => !node.dataset?.script);
  const then = [...fresh.childNodes];
  then.forEach((node, index) => (now[index] ? morph(now[index], node) : old.append(node)));
  now.slice(then.length).forEach((node) => node.remove());
}

function say(kind, text, link) {
  if (text === state.said) return;
  state.said = text;
  status.replaceChildren();
  if (!text) return;
  const note = document.createElement("p");
  note.className = `note ${kind}`;
  note.append(text);
  if (link) {
    const anchor = document.createElement("a");
    anchor.href = live.dataset.page;
    anchor.append(link);
    note.append(" ", anchor);
  }
  status.append(note);
}

async function poll() {
  const missing = (who) => say("bad", `${who} does not answer, showing what was known at ${state.at} UTC.`);
  let answer;
  try {
    answer = await fetch(`${live.dataset.page}/live`, { redirect: "manual", signal: AbortSignal.timeout(10_000) });
  } catch {
    return missing("The service");
  }
  if (answer.type === "opaqueredirect") {
    state.paused = true;
    return say("bad", "Your session is over.", "Log in again");
  }
  if (!answer.ok) return missing(answer.status === 503 ? "Redis" : "The service");
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const fresh = page.getElementById("live");
  if (live.hasAttribute("data-offline")) return location.assign(live.dataset.page); // the forms are disabled
  state.at = fresh.dataset.at;
  morph(document.getElementById("more"), page.getElementById("more"));
  morph(live, fresh);
  if (fresh.dataset.revision !== state.known)
    say("warn", `The split is at revision ${fresh.dataset.revision} now.`, "Reload the forms");
  else if (state.said) say("", "");
}

function next() {
  clearTimeout(state.timer);
  if (!state.paused && !document.hidden) state.timer = setTimeout(() => poll().finally(next), EVERY_MS);
}

function addPause() {
  const button = document.createElement("button");
  button.className = "quiet";
  button.dataset.script = "true";
  button.append("Pause");
  button.addEventListener("click", () => {
    state.paused = !state.paused;
    button.textContent = state.paused ? "Go on" : "Pause";
    if (state.paused) clearTimeout(state.timer);
    else poll().finally(next);
  });
  live.querySelector(".facts").append(button);
}

if (live) {
  addPause();
  next();
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) clearTimeout(state.timer);
    else if (!state.paused) poll().finally(next);
  });
  const asked = new URLSearchParams(location.search);
  if (asked.has("revision")) history.replaceState(null, "", location.pathname);
}

// The experiment key follows the challenger until somebody writes their own.
const challenger = document.getElementById("challenger");
const experiment = document.getElementById("experiment");
challenger?.addEventListener("change", () => {
  const names = [...challenger.options].map((option) => experiment.dataset.prefix + option.value);
  if (names.includes(experiment.value)) experiment.value = experiment.dataset.prefix + challenger.value;
});
