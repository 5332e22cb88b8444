// The details of a job on its own page. The server words them; what moves between two of its answers is moved here.

import { now } from "./clock.js";
import { elapsed, localTimes } from "./wording.js";

const OVER = new Set(["RETRY", "SUCCESS", "FAILURE", "REVOKED"]);
const AGAIN = 3000; // ms until a question that got no answer is asked again

const list = () => document.querySelector(".facts");
const part = (selector) => list().querySelector(selector);

let asked = 0;
let shown = null;

// Worker, times and what else a new state brings: the server's page has them. Only the last answer asked for counts.
async function refresh(card) {
  const question = ++asked;
  const response = await fetch(location.href).catch(() => null);
  if (question !== asked) return;
  if (response === null || response.status >= 500) return void setTimeout(() => question === asked && refresh(card), AGAIN);
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  const fresh = page.querySelector(".facts");
  if (fresh === null || question !== asked) return;
  localTimes(fresh);
  list().replaceWith(fresh);
  tickFacts(card);
}

// As hub/card.py words them.
function showAttempt(event) {
  const attempts = part("[data-fact=attempts] dd");
  // None had begun when the page was made; the refresh brings them.
  if (attempts === null || event.state === "PENDING") return;
  let own = attempts.querySelector(`[data-attempt="${event.attempt}"]`);
  if (own === null) {
    own = document.createElement("span");
    own.dataset.attempt = event.attempt;
    attempts.append(", ", own);
  }
  own.textContent = `${event.attempt} ${OVER.has(event.state) ? event.state : "running"}`;
  for (const other of attempts.querySelectorAll("[data-attempt]")) {
    const number = other.dataset.attempt;
    if (other !== own && other.textContent === `${number} running`) other.textContent = `${number} handed over`;
  }
}

// `event` is the newest one of the card's job.
export function showFacts(event, card) {
  showAttempt(event);
  tickFacts(card);
  const state = event.state === "PROGRESS" ? "STARTED" : event.state;
  const next = `${event.attempt} ${state} ${event.stalled}`;
  if (next !== shown && event.cursor !== card.cursor) refresh(card); // else nothing has happened since the page was made
  shown = next;
}

// Every second: how long the job has run, while it is known to run.
export function tickFacts(card) {
  if (!card.running) return;
  const started = part("[data-fact=started_at] time");
  const runtime = part("[data-fact=runtime] dd");
  if (started === null || runtime === null) return;
  runtime.textContent = elapsed(Math.max(0, now() - Date.parse(started.dateTime) / 1000));
}
