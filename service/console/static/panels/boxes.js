// Boxes on an image, each of which can have the focus: Tab goes from one to the next, the arrows move it.
"use strict";

const BOX_STEP = 0.01; // of the image
const LEAST_SIDE = 0.01;
const NEW_BOX = [0.4, 0.4, 0.6, 0.6];
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

PANELS.boxes = class {
  isWritten = true;
  #boxes = []; // each { label, box: [left, top, right, bottom], element }
  #chosen = null;
  #isSaid = false; // whether what is drawn is somebody's word, even where it is nothing
  #layer = document.createElement("div");
  #held = null; // what the mouse drags: { one, from, box, edges }
  #resized = new ResizeObserver(() => this.#fit());

  constructor(root, { leave }) {
    Object.assign(this, { root, leave, place: root.querySelector("[data-most]") });
    this.buttons = [...root.querySelectorAll("[data-label]")];
    this.label = this.buttons[0].dataset.label;
    for (const button of this.buttons) button.addEventListener("click", () => this.#name(button.dataset.label));
    root.querySelector("[data-does=add]").addEventListener("click", () => this.#add([...NEW_BOX])?.element.focus());
    root.querySelector("[data-does=remove]").addEventListener("click", () => this.#remove());
    root.querySelector("[data-does=none]").addEventListener("click", () => this.#clear());
    const field = root.querySelector("[role=combobox]");
    const back = () => (this.#chosen ? this.#chosen.element.focus() : leave());
    if (field) new Choice(field, root.querySelector("[role=listbox]"), (label) => this.#name(label), back);
    this.#layer.className = "box-layer";
    this.#layer.addEventListener("keydown", (event) => this.#press(event));
    this.#layer.addEventListener("focusin", ({ target }) => this.#choose(this.#boxes.find((one) => one.element === target)));
    this.#layer.addEventListener("pointerdown", (event) => this.#take(event));
    this.#layer.addEventListener("pointermove", (event) => this.#drag(event));
    for (const name of ["pointerup", "pointercancel"]) this.#layer.addEventListener(name, () => this.#drop());
  }

  show(said, item) {
    this.#layer.replaceChildren();
    this.#layer.remove();
    this.#boxes = [];
    this.#held = null;
    this.#isSaid = Boolean(said);
    if (item) this.#lay(item.view);
    for (const { label, box } of said?.boxes ?? []) this.#put(label, [...box]);
    this.#choose(null);
    // From the item on, Tab leads to the first box.
    if (item && document.activeElement === document.body) item.view.parentElement.focus({ preventScroll: true });
  }

  read() {
    if (!this.#isSaid) {
      this.place.textContent = "Draw the boxes first, or press - where there is none.";
      return null;
    }
    return { boxes: this.#boxes.map(({ label, box }) => ({ label, box: box.map((edge) => Number(edge.toFixed(6))) })) };
  }

  // Lays the boxes over the image, or over an empty square where there is none.
  #lay(view) {
    let stage = view.querySelector(".box-stage");
    if (!stage) {
      const image = view.querySelector("figure img");
      stage = document.createElement("div");
      stage.className = image ? "box-stage" : "box-stage blank";
      if (image) image.replaceWith(stage);
      else view.prepend(stage);
      if (image) stage.append(image);
    }
    stage.append(this.#layer);
    this.#resized.disconnect();
    this.#resized.observe(stage.querySelector("img") ?? stage);
    this.#fit();
  }

  // Puts the layer where the picture is in its element, which may be larger than that.
  #fit() {
    const image = this.#layer.parentElement?.querySelector("img");
    if (!image) return;
    const [wide, high] = [Number(image.getAttribute("width")), Number(image.getAttribute("height"))];
    const scale = Math.min(image.clientWidth / wide, image.clientHeight / high);
    const [width, height] = [wide * scale, high * scale];
    const left = image.offsetLeft + image.clientLeft + (image.clientWidth - width) / 2;
    const top = image.offsetTop + image.clientTop + (image.clientHeight - height) / 2;
    const places = { left, top, width, height };
    for (const [name, pixels] of Object.entries(places)) this.#layer.style[name] = `${pixels}px`;
  }

  #put(label, box) {
    const element = document.createElement("div");
    element.className = "box";
    element.tabIndex = 0;
    element.setAttribute("role", "group");
    element.setAttribute("aria-roledescription", "box");
    element.append(document.createElement("span"));
    for (const corner of ["01", "21", "03", "23"]) {
      const handle = document.createElement("i"); // the edges that it moves
      handle.dataset.edges = corner;
      element.append(handle);
    }
    const one = { label, box, element };
    this.#boxes.push(one);
    this.#layer.append(element);
    this.#draw(one);
    return one;
  }

  #add(box) {
    if (this.#boxes.length >= Number(this.place.dataset.most)) {
      this.place.textContent = `There are ${this.#boxes.length} boxes, and there may be no more.`;
      return null;
    }
    for (const one of this.#boxes) if (String(one.box) === String(box)) this.#shift(box, [5, 5]); // beside it
    this.#isSaid = true;
    return this.#put(this.label, box);
  }

  #remove() {
    const at = this.#boxes.indexOf(this.#chosen);
    if (at < 0) return;
    this.#boxes.splice(at, 1);
    this.#chosen.element.remove();
    const next = this.#boxes[Math.min(at, this.#boxes.length - 1)];
    this.#choose(next ?? null);
    if (next) next.element.focus();
    else this.leave();
  }

  #clear() {
    this.#boxes = [];
    this.#layer.replaceChildren();
    this.#isSaid = true;
    this.#choose(null);
    this.leave();
  }

  // Gives a label to the box that is chosen, and to those that are drawn from now on.
  #name(label) {
    this.label = label;
    if (this.#chosen) {
      this.#chosen.label = label;
      this.#draw(this.#chosen);
      this.#chosen.element.focus();
    }
    this.#choose(this.#chosen);
  }

  #choose(one) {
    this.#chosen = one ?? null;
    if (one) this.label = one.label;
    for (const { element } of this.#boxes) element.classList.toggle("chosen", element === one?.element);
    for (const button of this.buttons) button.setAttribute("aria-pressed", String(button.dataset.label === this.label));
    const number = this.#boxes.length;
    const all = `${number || "No"} box${number === 1 ? "" : "es"}.`;
    this.place.textContent = one ? `${this.#boxes.indexOf(one) + 1} of ${number}: ${this.#words(one)}` : all;
  }

  #words({ label, box: [left, top, right, bottom] }) {
    const percent = (part) => `${Math.round(part * 100)} %`;
    return `${label}, ${percent(left)} from the left, ${percent(top)} from the top, ${percent(right - left)} wide, ${percent(bottom - top)} high.`;
  }

  #draw(one) {
    const { label, box, element } = one;
    const [left, top, right, bottom] = box;
    const places = { left, top, width: right - left, height: bottom - top };
    for (const [name, part] of Object.entries(places)) element.style[name] = `${part * 100}%`;
    element.classList.toggle("at-top", top < 0.06);
    element.firstElementChild.textContent = label;
    element.setAttribute("aria-label", this.#words(one));
    if (one === this.#chosen) this.#choose(one);
  }

  // Moves a box by so many steps, as far as the image goes.
  #shift(box, [across, down]) {
    for (const [edge, steps] of [across, down].entries()) {
      const way = Math.min(Math.max(steps * BOX_STEP, -box[edge]), 1 - box[edge + 2]);
      box[edge] += way;
      box[edge + 2] += way;
    }
  }

  // Puts edges somewhere, in the image and no further than the edge across allows.
  #stretch(box, edges, [x, y]) {
    for (const edge of edges) {
      const to = edge % 2 ? y : x;
      if (edge < 2) box[edge] = Math.min(Math.max(to, 0), box[edge + 2] - LEAST_SIDE);
      else box[edge] = Math.max(Math.min(to, 1), box[edge - 2] + LEAST_SIDE);
    }
  }

  #press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.#chosen) return;
    const way = ARROWS[event.key];
    if (event.key === "Escape") {
      this.#choose(null);
      this.leave();
    } else if (event.key === "Backspace") this.#remove();
    else if (way) {
      const { box } = this.#chosen;
      if (event.shiftKey) this.#stretch(box, [2, 3], [box[2] + way[0] * BOX_STEP, box[3] + way[1] * BOX_STEP]);
      else this.#shift(box, way);
      this.#draw(this.#chosen);
    } else return;
    event.preventDefault();
  }

  // ---- the mouse

  #at({ clientX, clientY }) {
    const { left, top, width, height } = this.#layer.getBoundingClientRect();
    return [(clientX - left) / width, (clientY - top) / height];
  }

  #take(event) {
    if (event.button) return;
    event.preventDefault();
    const from = this.#at(event);
    let one = this.#boxes.find(({ element }) => element.contains(event.target));
    let edges = event.target.dataset.edges?.split("").map(Number) ?? null;
    const isNew = !one;
    if (!one) {
      const [x, y] = from.map((part) => Math.min(Math.max(part, 0), 1 - LEAST_SIDE));
      one = this.#add([x, y, x + LEAST_SIDE, y + LEAST_SIDE]);
      edges = [2, 3];
    }
    if (!one) return;
    one.element.focus({ preventScroll: true });
    this.#held = { one, from, edges, isNew, box: [...one.box] };
    this.#layer.setPointerCapture(event.pointerId);
  }

  #drag(event) {
    if (!this.#held) return;
    const { one, from, edges, box } = this.#held;
    const at = this.#at(event);
    one.box.splice(0, 4, ...box);
    if (edges) this.#stretch(one.box, edges, at);
    else this.#shift(one.box, [0, 1].map((side) => (at[side] - from[side]) / BOX_STEP));
    this.#draw(one);
  }

  // A box that a click left behind, and no drag, is none.
  #drop() {
    const { one, isNew } = this.#held ?? {};
    this.#held = null;
    const isSmall = isNew && one.box[2] - one.box[0] <= 2 * LEAST_SIDE && one.box[3] - one.box[1] <= 2 * LEAST_SIDE;
    if (isSmall) this.#remove();
  }
};
