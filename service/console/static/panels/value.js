// A number in a field.
"use strict";

const SHOWN_DIGITS = 6;

PANELS.value = class {
  isWritten = true;

  constructor(root, { accept }) {
    this.field = root.querySelector("input");
    root.querySelector("form").addEventListener("submit", (event) => {
      event.preventDefault();
      accept();
    });
  }

  show(said) {
    this.field.value = said ? Number(said.value.toPrecision(SHOWN_DIGITS)) : "";
  }

  read() {
    return this.field.reportValidity() ? { value: this.field.valueAsNumber } : null;
  }
};
