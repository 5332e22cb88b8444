// One job's card: shows events in the markup of templates/card.html. Data goes in as text, never as markup.

import { setBar } from "./bar.js";
import { now, setClock } from "./clock.js";
import { isTerminal } from "./follow.js";
import { amount, counted, elapsed, label, pace, percent, plain } from "./wording.js";

const RUNNING = new Set(["STARTED", "PROGRESS"]);
const ANNOUNCE_STEP = 25; // percent between two announcements to a screen reader

const QUIET = 5_000; // ms without an event, after which rate and time left are no longer what they were

const announcer = document.getElementById("announcer");

export class Card {
  #element;
  #parts = {};
  #shownSeq = -1;
  #heard = -Infinity; // when the task last spoke, on the clock of performance.now()
  #announced = "";

  constructor(element) {
    this.#element = element;
    for (const part of element.querySelectorAll("[data-part]")) this.#parts[part.dataset.part] = part;
    this.bar = element.querySelector(".bar");
  }

  get taskId() { return this.#element.dataset.taskId; }
  get title() { return this.#element.dataset.title; }
  get state() { return this.#element.dataset.state; }
  // Where the job stood when the page was made.
  get cursor() { return this.#element.dataset.cursor ?? null; }
  get finished() { return isTerminal(this.state) || this.state === "EXPIRED"; }

  // Nobody has said anything else: no break in the connection, no silent worker.
  get running() {
    const { connection, stalled } = this.#element.dataset;
    return RUNNING.has(this.state) && connection === undefined && stalled === undefined;
  }

  // Whether `event` is the newest so far, and stands here now. Those missed in a break come after the snapshot and are
  // older than it.
  show(event) {
    this.connected();
    const snapshot = event.type === "snapshot";
    if (!snapshot && event.seq < this.#shownSeq) return false;
    if (!snapshot && event.seq > this.#shownSeq) setClock(event.ts);
    this.#heard = Math.max(this.#heard, performance.now() - 1000 * Math.max(0, now() - event.ts));
    this.#shownSeq = event.seq;
    const running = RUNNING.has(event.state);
    const filled = event.state === "SUCCESS" ? 100 : event.percent;
    const figures = { percent: percent(filled), counts: counted(event) };
    const spoken = [event.state, figures.percent, figures.counts].filter(Boolean).join(", ");
    this.#element.dataset.state = event.state;
    this.#element.toggleAttribute("data-stalled", event.stalled);
    setBar(this.bar, filled, spoken);
    this.#write({
      ...figures,
      state: event.state,
      pace: running ? pace(event) : "",
      stage: running ? event.stage : "",
      // A log line's message is the line, not what the task is about.
      ...(event.type === "log" ? {} : { message: event.state === "SUCCESS" ? "" : event.message }),
      attempt: event.attempt > 1 ? `attempt ${event.attempt}` : "",
    });
    this.#note(noteOf(event));
    this.#parts.ending.replaceChildren(...ending(event));
    this.#announce(event, filled, spoken);
    this.tick();
    return true;
  }

  // Every second. A job may well say nothing for a while: that is told, and not what it would mean.
  tick() {
    const silence = performance.now() - this.#heard;
    if (this.running && silence >= QUIET && silence < Infinity) {
      this.#write({ pace: `last heard ${elapsed(silence / 1000)} ago` });
    }
  }

  // While the connection is down nobody knows how far the job is, so the card must not look live.
  disconnected() {
    this.#element.dataset.connection = "down";
    this.#write({ state: "reconnecting…", pace: "" });
  }

  connected() {
    if (!("connection" in this.#element.dataset)) return;
    delete this.#element.dataset.connection;
    this.#write({ state: this.state });
  }

  refused(reason) {
    this.#element.dataset.connection = "refused";
    this.#write({ state: this.state, pace: "" });
    this.#note(reason || "The hub does not let this job be watched.");
  }

  #write(texts) {
    for (const [name, text] of Object.entries(texts)) {
      const part = this.#parts[name];
      if (part.textContent !== (text ?? "")) part.textContent = text ?? "";
    }
  }

  #note(text) {
    this.#write({ note: text });
    this.#parts.note.hidden = text === "";
  }

  // Ten updates a second would drown a screen reader: a change of state and each quarter are enough.
  #announce(event, filled, spoken) {
    const step = `${event.state} ${event.attempt} ${Math.floor((filled ?? 0) / ANNOUNCE_STEP)} ${event.stalled}`;
    if (step === this.#announced) return;
    this.#announced = step;
    announcer.textContent = `${this.title}: ${event.stalled ? "stalled, " : ""}${spoken}`;
  }
}

function noteOf(event) {
  if (event.stalled) return "The worker has gone silent. The job is given to another one if it does not come back.";
  if (event.state !== "RETRY") return "";
  return `Waiting to try again: ${event.reason || "the last attempt failed"}`;
}

function node(tag, content, attributes = {}) {
  const made = document.createElement(tag);
  made.append(...[content].flat());
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function ending({ state, result, error }) {
  if (!isTerminal(state)) return [];
  if (error) return [node("p", [`${error.type}: `, ...linked(error.message)], { class: "error" })];
  if (result === null || result === undefined) return [];
  if (typeof result !== "object" || Array.isArray(result)) return [node("p", plain(result))];
  const rows = Object.entries(result).filter(([, value]) => value !== null).map(([name, value]) =>
    node("div", [node("dt", label(name)), node("dd", shown(value))], Array.isArray(value) ? { class: "long" } : {}));
  return [node("dl", rows)];
}

// The downloads that an error names, such as the rows an import has rejected.
const linked = (text) => text.split(/(\/files\/f_[0-9a-f]{32})/).map((piece, index) =>
  index % 2 ? node("a", piece, { href: piece, download: "" }) : piece);

function shown(value) {
  const href = value?.href;
  // Only paths of this hub: a task's result must not be able to send people elsewhere.
  if (typeof href !== "string" || !href.startsWith("/") || href.startsWith("//")) return plain(value);
  const link = node("a", value.name || href, { href, download: value.name || "" });
  return typeof value.size === "number" ? [link, ` (${amount(value.size, "bytes")})`] : [link];
}
