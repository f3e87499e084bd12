// Sends decisions one after the other, in their order. While nobody answers they wait; nothing is dropped unsaid.
"use strict";

const AGAIN_MS = [1000, 2000, 4000, 8000];

// No answer is to be had now: the same request may do later.
class AwayError extends Error {}

// Sends forms of this page and returns what they are answered with.
class Post {
  constructor(page, csrf) {
    this.page = page;
    this.csrf = csrf;
  }

  async send(path, fields, patience = 15_000) {
    const body = new URLSearchParams({ ...fields, csrf: this.csrf });
    const headers = { Accept: "application/json" };
    const signal = AbortSignal.timeout(patience);
    const keepalive = path === "decide"; // it arrives even where the page is left meanwhile
    let answer;
    try {
      answer = await fetch(`${this.page}/${path}`, { method: "POST", body, headers, redirect: "manual", keepalive, signal });
    } catch {
      throw new AwayError("The service does not answer");
    }
    if (answer.type === "opaqueredirect" || answer.status === 403) {
      await this.#renew();
      throw new AwayError("Your session was renewed");
    }
    if ([429, 502, 503, 504].includes(answer.status)) throw new AwayError("The service cannot take it now");
    try {
      return { isTaken: answer.ok, ...(await answer.json()) };
    } catch {
      throw new AwayError("The service does not answer");
    }
  }

  // Whoever logs in again in another tab has a new session; its forms carry another token.
  async #renew() {
    const over = new AwayError("Your session is over: log in again in another tab");
    const answer = await fetch(location.href, { redirect: "manual" }).catch(() => null);
    if (!answer?.ok) throw over;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const csrf = page.getElementById("review")?.dataset.csrf;
    if (!csrf) throw over;
    this.csrf = csrf;
  }
}

class Outbox {
  #waiting = [];
  #tries = 0;
  #wake = null;

  // `told` has what to call: taken(entry, answer), refused(entry, problem), stalled(why, number), resumed().
  constructor(post, told) {
    this.post = post;
    this.told = told;
    addEventListener("online", () => this.#wake?.());
  }

  get size() {
    return this.#waiting.length;
  }

  get isStalled() {
    return this.#tries > 0;
  }

  get ids() {
    return this.#waiting.map((entry) => entry.item.id);
  }

  add(entry) {
    this.#waiting.push(entry);
    if (this.#waiting.length === 1) this.#run();
    else if (this.isStalled) this.told.stalled(null, this.size);
  }

  // Takes back what was not sent yet; says whether it could.
  takeBack(entry) {
    const place = this.#waiting.indexOf(entry);
    if (place < 0 || entry.isSent) return false;
    this.#waiting.splice(place, 1);
    return true;
  }

  async #run() {
    while (this.#waiting.length) {
      const [entry] = this.#waiting;
      entry.isSent = true;
      let answer;
      try {
        answer = await this.post.send("decide", entry.fields);
      } catch (error) {
        if (!(error instanceof AwayError)) throw error;
        this.told.stalled(error.message, this.size);
        const pause = AGAIN_MS[Math.min(this.#tries++, AGAIN_MS.length - 1)];
        await new Promise((done) => {
          this.#wake = done;
          setTimeout(done, pause);
        });
        continue;
      }
      this.#waiting.shift();
      if (this.isStalled) this.told.resumed();
      this.#tries = 0;
      if (answer.isTaken) this.told.taken(entry, answer);
      else this.told.refused(entry, answer);
    }
  }
}
