// Any answer, written as JSON: for kinds without a panel of their own.
"use strict";

// Numbers of a list stand in one line. No string in JSON holds the end of a line.
const NUMBERS = /\[\n\s*((?:[-+.\deE,\s]|true|false)+?)\n\s*\]/g;
const inLines = (said) =>
  JSON.stringify(said, null, 2).replace(NUMBERS, (_, numbers) => `[${numbers.replaceAll(/\s+/g, " ")}]`);

PANELS.json = class {
  isWritten = true;

  constructor(root, { accept }) {
    [this.field, this.fault] = [root.querySelector("textarea"), root.querySelector("[role=alert]")];
    this.field.addEventListener("input", () => this.#say(""));
    this.field.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.isComposing || !(event.ctrlKey || event.metaKey)) return;
      event.preventDefault();
      accept();
    });
  }

  show(said) {
    this.field.value = said ? inLines(said) : "";
    this.#say("");
  }

  read() {
    let truth = null;
    try {
      truth = JSON.parse(this.field.value);
    } catch (error) {
      return this.#say(this.field.value.trim() ? `This is no JSON. ${error.message}` : "Write an answer first, as JSON.");
    }
    if (truth === null || typeof truth !== "object" || Array.isArray(truth)) return this.#say("An answer is an object in JSON: {…}");
    return truth;
  }

  #say(text) {
    this.fault.textContent = text;
    this.fault.hidden = !text;
    this.field.toggleAttribute("aria-invalid", Boolean(text));
    if (text) this.field.focus();
    return null;
  }
};
