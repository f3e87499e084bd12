// Labels of which several hold: each is switched on or off with a button or a key, or found by typing.
"use strict";

PANELS.labels = class {
  isWritten = true;
  #isSaid = false; // whether what is on it is somebody's answer, and not just nothing yet

  constructor(root, { leave }) {
    this.toggles = [...root.querySelectorAll("[data-label]")];
    this.fault = root.querySelector("[role=alert]");
    this.field = root.querySelector("[role=combobox]");
    for (const toggle of this.toggles) {
      toggle.addEventListener("click", () => {
        this.#press(toggle, toggle.ariaPressed !== "true");
        leave();
      });
    }
    root.querySelector("#no-label").addEventListener("click", () => {
      this.toggles.forEach((toggle) => this.#press(toggle, false));
      leave();
    });
    const flip = (label) => this.toggles.find((toggle) => toggle.dataset.label === label)?.click();
    if (this.field) new Choice(this.field, root.querySelector("[role=listbox]"), flip, leave);
  }

  show(said) {
    for (const toggle of this.toggles) this.#press(toggle, Boolean(said?.labels.includes(toggle.dataset.label)));
    this.#isSaid = said !== null;
  }

  read() {
    if (this.#isSaid) return { labels: this.toggles.filter((toggle) => toggle.ariaPressed === "true").map((toggle) => toggle.dataset.label) };
    this.#say("Switch on the labels that hold first, or say that none does.");
    return null;
  }

  #press(toggle, isOn) {
    toggle.ariaPressed = String(isOn);
    if (this.field) toggle.hidden = !isOn;
    this.#isSaid = true;
    this.#say("");
  }

  #say(text) {
    this.fault.textContent = text;
    this.fault.hidden = !text;
  }
};
