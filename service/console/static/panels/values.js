// A number for each target, in fields.
"use strict";

PANELS.values = class {
  isWritten = true;

  constructor(root, { accept }) {
    this.fields = [...root.querySelectorAll("input")];
    root.querySelector("form").addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.isComposing || event.repeat) return;
      event.preventDefault();
      event.stopPropagation();
      accept();
    });
  }

  show(said) {
    for (const field of this.fields) field.value = said ? Number(said.values[field.dataset.name].toPrecision(SHOWN_DIGITS)) : "";
  }

  read() {
    if (!this.fields.every((field) => field.reportValidity())) return null;
    return { values: Object.fromEntries(this.fields.map((field) => [field.dataset.name, field.valueAsNumber])) };
  }
};
