// Spans over a text. The text is the one among the item's inputs: words are selected in it with the arrow keys or the
// mouse, a label's key or button labels what is selected, Delete takes the label off. Places are counted in UTF-16
// here, as everything in JavaScript is, and in code points where they come from and go to.
"use strict";

{
  const TINTS = 6;

  PANELS.spans = class {
    isWritten = true;
    #block = null; // where the text is; none where it is not kept any more
    #text = "";
    #said = null;
    #spans = []; // { from, to, label }, in the order of the text
    #picked = null; // { from, to, isBackward }: an arrow moves its end, or its beginning
    #words = [];
    #places = []; // of each code point, and the end

    constructor(root, { leave }) {
      [this.root, this.leave] = [root, leave];
      [this.list, this.status, this.gone] = ["spans", "picked", "spans-gone"].map((id) => root.querySelector(`#${id}`));
      this.field = root.querySelector("#labels").dataset.field;
      this.labels = JSON.parse(root.querySelector("#labels").dataset.labels);
      for (const button of root.querySelectorAll("[data-label]")) button.addEventListener("click", () => this.#label(button.dataset.label));
      root.querySelector("#unlabel").addEventListener("click", () => this.#label(null));
      const find = root.querySelector("[role=combobox]");
      if (find) new Choice(find, root.querySelector("[role=listbox]"), (label) => this.#label(label), leave);
      document.addEventListener("keydown", (event) => this.#press(event));
      document.addEventListener("pointerup", (event) => this.root.isConnected && this.#block?.contains(event.target) && setTimeout(() => this.#point()));
    }

    show(said, item) {
      this.#block?.replaceChildren(this.#text);
      this.#said = said;
      const blocks = [...(item?.view.querySelectorAll(".text[data-text]") ?? [])];
      this.#block = blocks.find((block) => block.dataset.name === this.field) ?? null;
      this.#text = this.#block ? JSON.parse(this.#block.dataset.text) : "";
      this.#places = [0];
      for (const character of this.#text) this.#places.push(this.#places.at(-1) + character.length);
      this.#words = segments(this.#text, "word").filter(({ from, to }) => this.#text.slice(from, to).trim());
      this.#spans = this.#block ? (said?.spans ?? []).map(({ start, end, label }) => ({ from: this.#places[start], to: this.#places[end], label })) : [];
      this.#picked = null;
      this.gone.hidden = Boolean(this.#block) || !item;
      this.#draw();
    }

    read() {
      if (!this.#block) return this.#said;
      const place = (offset) => this.#places.findLastIndex((one) => one <= offset);
      return { spans: this.#spans.map(({ from, to, label }) => ({ start: place(from), end: place(to), label })) };
    }

    // Labels what is selected, in the place of what is labelled there; without a label, nothing is.
    #label(label) {
      this.leave();
      if (!this.#picked || !this.#block) return;
      const { from, to } = this.#picked;
      this.#spans = this.#spans.filter((span) => span.to <= from || span.from >= to);
      if (label !== null) this.#spans.push({ from, to, label });
      this.#spans.sort((one, other) => one.from - other.from);
      this.#draw();
    }

    #press(event) {
      const isFree = this.root.isConnected && this.#block && !event.altKey && !event.metaKey && !document.querySelector("dialog[open]");
      if (!isFree || event.isComposing || event.target.matches("input, select, textarea, audio")) return;
      const isLetter = event.ctrlKey && event.shiftKey;
      if (event.ctrlKey && !isLetter) return;
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      const span = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (step && isLetter) this.#shift(step, segments(this.#text, "grapheme"));
      else if (step && event.shiftKey) this.#shift(step, this.#words);
      else if (step) this.#pick(next(this.#words, this.#picked, step));
      else if (span && !event.shiftKey) this.#pick(next(this.#spans, this.#picked, span));
      else if (event.key === "Backspace") this.#label(null);
      else return;
      event.preventDefault();
    }

    // Moves the end of what is selected, or the beginning where that was moved last or all would be gone.
    #shift(step, parts) {
      if (!this.#picked) return this.#pick(next(parts, null, step));
      let { from, to, isBackward } = this.#picked;
      const shorter = step > 0 ? parts.find((one) => one.from > from && one.from < to)?.from : parts.findLast((one) => one.to < to && one.to > from)?.to;
      const longer = step > 0 ? parts.find((one) => one.to > to)?.to : parts.findLast((one) => one.from < from)?.from;
      if (shorter !== undefined && isBackward === step > 0) [from, to] = step > 0 ? [shorter, to] : [from, shorter];
      else if (longer !== undefined) [from, to, isBackward] = step > 0 ? [from, longer, false] : [longer, to, true];
      this.#pick({ from, to, isBackward });
    }

    // Takes what the mouse selected; of a click, the span or the word there.
    #point() {
      const selection = getSelection();
      if (!selection.rangeCount || !this.#block?.contains(selection.anchorNode) || !this.#block.contains(selection.focusNode)) return;
      const [one, other] = [
        [selection.anchorNode, selection.anchorOffset],
        [selection.focusNode, selection.focusOffset],
      ].map(([node, offset]) => this.#offset(node, offset));
      let [from, to] = [Math.min(one, other), Math.max(one, other)];
      selection.removeAllRanges();
      if (from === to) return this.#pick([...this.#spans, ...this.#words].find((part) => part.from <= from && part.to > from));
      const chosen = this.#text.slice(from, to);
      from += chosen.length - chosen.trimStart().length;
      to -= chosen.length - chosen.trimEnd().length;
      if (from < to) this.#pick({ from, to });
    }

    #offset(node, offset) {
      const range = document.createRange();
      range.setStart(this.#block, 0);
      range.setEnd(node, offset);
      return range.toString().length;
    }

    #pick(part) {
      if (!part) return;
      this.#picked = { from: part.from, to: part.to, isBackward: part.isBackward ?? false };
      this.#draw();
      this.#block.querySelector(".picked")?.scrollIntoView({ block: "nearest" });
    }

    // Everything is text here, whatever it looks like.
    #draw() {
      const found = this.#spans.find(({ from, to }) => this.#picked && from < this.#picked.to && to > this.#picked.from);
      const words = (part) => `“${this.#text.slice(part.from, part.to)}”`;
      this.status.textContent = this.#picked ? `${words(this.#picked)} is selected${found ? `, in the span ${words(found)}: ${found.label}` : ""}.` : "";
      this.list.replaceChildren(...this.#spans.map((span) => this.#entry(span)));
      if (!this.#block) return;
      const nodes = [];
      let done = 0;
      for (const span of this.#spans) {
        const mark = element("mark", `tint-${this.#tint(span.label)}`, ...this.#pieces(span.from, span.to));
        mark.dataset.label = span.label;
        nodes.push(...this.#pieces(done, span.from), mark);
        done = span.to;
      }
      this.#block.replaceChildren(...nodes, ...this.#pieces(done, this.#text.length));
    }

    #entry(span) {
      const button = element("button", "quiet", element("b", "", span.label), ` ${this.#text.slice(span.from, span.to)}`);
      button.addEventListener("click", () => {
        this.leave();
        this.#pick(span);
      });
      return element("li", `tint-${this.#tint(span.label)}`, button);
    }

    #tint(label) {
      return this.labels.indexOf(label) % TINTS;
    }

    // The text from one place to another; what is selected of it stands out.
    #pieces(from, to) {
      const [low, high] = [this.#picked?.from ?? 0, this.#picked?.to ?? 0].map((place) => Math.min(Math.max(place, from), to));
      const [before, chosen, after] = [[from, low], [low, high], [high, to]].map(([start, end]) => this.#text.slice(start, end));
      return [before, chosen && element("span", "picked", chosen), after].filter(Boolean);
    }
  };

  function element(name, classes, ...inside) {
    const made = document.createElement(name);
    made.className = classes;
    made.append(...inside);
    return made;
  }

  function segments(text, granularity) {
    return [...new Intl.Segmenter(undefined, { granularity }).segment(text)].map(({ segment, index }) => ({ from: index, to: index + segment.length }));
  }

  // The part behind what is selected or before it; without one there, the last or first.
  function next(parts, picked, step) {
    if (step > 0) return parts.find((one) => one.from >= (picked?.to ?? 0)) ?? parts.at(-1);
    return parts.findLast((one) => one.to <= (picked?.from ?? Infinity)) ?? parts[0];
  }
}
