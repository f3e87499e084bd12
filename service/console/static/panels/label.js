// One of several classes: a button or a key for each, or a field to find one in.
"use strict";

PANELS.label = class {
  isWritten = false;
  #said = null;

  constructor(root, { take, leave }) {
    const choose = (label) => take({ label });
    for (const button of root.querySelectorAll("[data-label]")) button.addEventListener("click", () => choose(button.dataset.label));
    const field = root.querySelector("[role=combobox]");
    if (field) new Choice(field, root.querySelector("[role=listbox]"), choose, leave);
  }

  show(said) {
    this.#said = said;
  }

  read() {
    return this.#said;
  }
};
