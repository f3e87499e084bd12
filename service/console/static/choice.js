// A field in which a class is found by typing a part of it: the arrows choose, Enter takes it.
"use strict";

const MOST_FOUND = 50;

class Choice {
  // `take` is called with the label; `leave` when the field is done with.
  constructor(field, list, take, leave) {
    Object.assign(this, { field, list, take, leave, labels: JSON.parse(field.dataset.labels), chosen: -1 });
    field.addEventListener("input", () => this.show());
    field.addEventListener("blur", () => this.close());
    field.addEventListener("keydown", (event) => this.#press(event));
    list.addEventListener("mousedown", (event) => event.preventDefault()); // the field keeps the focus
    list.addEventListener("click", ({ target }) => this.#pick(target.closest("[role=option]")));
  }

  // Shows what fits; what starts with it comes first.
  show() {
    const wanted = this.field.value.trim().toLowerCase();
    const fits = this.labels.filter((label) => label.toLowerCase().includes(wanted));
    const place = (label) => label.toLowerCase().indexOf(wanted);
    if (wanted) fits.sort((one, other) => place(one) - place(other) || one.length - other.length);
    this.list.replaceChildren(
      ...fits.slice(0, MOST_FOUND).map((label, index) => {
        const option = document.createElement("li");
        Object.assign(option, { id: `found-${index}`, role: "option", textContent: label });
        return option;
      }),
    );
    if (!fits.length) this.list.append(Object.assign(document.createElement("li"), { textContent: "No such class" }));
    this.list.hidden = !wanted;
    this.field.setAttribute("aria-expanded", String(!this.list.hidden));
    this.#choose(wanted && fits.length ? 0 : -1);
  }

  close() {
    this.field.value = "";
    this.show();
  }

  #choose(index) {
    const options = [...this.list.querySelectorAll("[role=option]")];
    this.chosen = options.length ? Math.max(-1, Math.min(index, options.length - 1)) : -1;
    options.forEach((option, at) => option.setAttribute("aria-selected", String(at === this.chosen)));
    const option = options[this.chosen];
    option?.scrollIntoView({ block: "nearest" });
    if (option) this.field.setAttribute("aria-activedescendant", option.id);
    else this.field.removeAttribute("aria-activedescendant");
  }

  #press(event) {
    if (event.isComposing) return;
    if (event.key === "Escape") this.leave();
    else if (event.key === "Enter" && !event.repeat) this.#pick(this.list.querySelector("[aria-selected=true]"));
    else if (event.key === "ArrowDown") this.#choose(this.chosen + 1);
    else if (event.key === "ArrowUp") this.#choose(this.chosen - 1);
    else return;
    event.preventDefault();
  }

  #pick(option) {
    if (!option) return;
    const label = option.textContent;
    this.leave();
    this.take(label);
  }
}
