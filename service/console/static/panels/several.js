// Several heads, one after the other, each on the panel of its kind; those that are unsure come first.
//
// A head's panel is in the document only while it is the turn of that head: neither IDs nor keys of two meet.
"use strict";

PANELS.several = class {
  #progress = new WeakMap(); // by item: the order of its heads, which of them it is the turn of, what is said so far
  #heads = new Map();
  #item;
  #isHidden = false;
  #shown = null;

  constructor(root, { take, accept, leave, turn }) {
    Object.assign(this, { take, turn, slot: root.querySelector("#head"), list: root.querySelector(".heads"), out: root.querySelector("#leave-out") });
    for (const template of root.querySelectorAll("template")) {
      const { head: name, panel } = template.dataset;
      const own = document.createElement("div");
      own.append(template.content);
      const desk = { take: (truth) => this.#decide(truth), accept, leave, turn };
      const entry = this.list.querySelector(`[data-head="${name}"]`);
      this.#heads.set(name, { name, own, panel: new PANELS[panel](own, desk), entry, isRequired: "required" in template.dataset });
      entry.querySelector("button").addEventListener("click", () => this.#go(this.#at.order.indexOf(name)));
    }
    this.out.addEventListener("click", () => this.#decide(null));
  }

  get #at() {
    return this.#progress.get(this.#item);
  }

  get #head() {
    return this.#item && this.#heads.get(this.#at.order[this.#at.turn]);
  }

  get isWritten() {
    return Boolean(this.#head?.panel.isWritten);
  }

  // What accepting says: what was said before, or what the model says of this head.
  get offer() {
    if (!this.#head) return null;
    const { name } = this.#head;
    const truth = this.#at.said.get(name);
    if (truth) return { accepted: truth, said: words(truth) };
    const model = this.#item.heads[name];
    return this.#isHidden || !model.accepted ? null : model;
  }

  get canGoBack() {
    return Boolean(this.#item && this.#at.turn);
  }

  back() {
    this.#go(this.#at.turn - 1);
  }

  show(said, item, isHidden) {
    this.#item = item;
    this.#isHidden = isHidden;
    if (item && !this.#progress.has(item)) {
      const names = [...this.#heads.keys()];
      const unsure = names.filter((name) => item.unsure.includes(name));
      const order = [...unsure, ...names.filter((name) => !unsure.includes(name))];
      this.#progress.set(item, { order, turn: 0, said: new Map() });
    }
    this.#lay();
  }

  read() {
    const truth = this.#head?.panel.read();
    if (!truth) return null;
    return this.#say(truth);
  }

  // Notes what is said of the head whose turn it is, null where nothing is; after the last, returns all of it.
  #say(truth) {
    const at = this.#at;
    at.said.set(this.#head.name, truth);
    if (at.turn + 1 < at.order.length) {
      this.#go(at.turn + 1);
      return null;
    }
    this.#list();
    return { heads: Object.fromEntries(at.order.filter((name) => at.said.get(name)).map((name) => [name, at.said.get(name)])) };
  }

  #decide(truth) {
    const all = this.#head && this.#say(truth);
    if (all) this.take(all);
  }

  #go(turn) {
    this.#at.turn = turn;
    this.#lay();
    const { name } = this.#head;
    const truth = this.offer?.accepted;
    const who = this.#at.said.get(name) ? "You said" : "The model says";
    this.turn(`${name}, ${turn + 1} of ${this.#at.order.length}.${truth ? ` ${who} ${inShort(truth)}.` : ""}`);
  }

  // Puts the panel of the head whose turn it is in its place.
  #lay() {
    const head = this.#head;
    if (this.#shown !== head) this.#shown?.panel.show(null, undefined, this.#isHidden);
    this.#shown = head;
    this.slot.replaceChildren(...(head ? [head.own] : []));
    head?.panel.show(this.offer?.accepted ?? null, this.#item, this.#isHidden);
    this.out.hidden = !head || head.isRequired;
    this.#list();
  }

  #list() {
    const { order, turn, said } = this.#item ? this.#at : { order: [...this.#heads.keys()], turn: -1, said: new Map() };
    order.forEach((name, place) => {
      const { entry } = this.#heads.get(name);
      if (this.list.children[place] !== entry) this.list.insertBefore(entry, this.list.children[place]);
      if (place === turn) entry.setAttribute("aria-current", "step");
      else entry.removeAttribute("aria-current");
      entry.querySelector("[data-unsure]").hidden = !this.#item?.unsure.includes(name);
      entry.querySelector("button").hidden = place === turn || !said.has(name);
      entry.querySelector("[data-said]").textContent = said.has(name) ? (said.get(name) ? inShort(said.get(name)) : "left out") : "";
    });
  }
};

// Says in a line what is said of one head: labels by their names, spans and boxes by their labels.
function inShort(truth) {
  const said = Object.values(truth)[0];
  let text = words(truth);
  if (Array.isArray(said)) text = said.map((one) => one.label ?? one).join(", ") || "none";
  else if (typeof said === "object") text = Object.entries(said).map(([name, one]) => `${name} ${JSON.stringify(one)}`).join(", ");
  return text.length > 80 ? `${text.slice(0, 80)} …` : text;
}
