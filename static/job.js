// A job's own page: its bar, and its log from the start.

import { Card } from "./card.js";
import { showFacts, tickFacts } from "./facts.js";
import { titled } from "./title.js";
import { everySecond, watchTask } from "./watch.js";
import { localTimes, timeOfDay } from "./wording.js";

const LOG_LIMIT = 1000; // lines in the page; older ones make room

const section = document.getElementById("log-section");
const log = document.getElementById("log");
const card = new Card(document.querySelector(".job"));
const title = titled(card);
localTimes(document);

function wordsOf(event) {
  if (event.type === "log") return event.message;
  if (event.type !== "state") return null;
  const attempt = event.attempt > 1 ? `, attempt ${event.attempt}` : "";
  const why = event.reason ?? (event.error ? `${event.error.type}: ${event.error.message}` : "");
  return `${event.stalled ? "stalled" : event.state}${attempt}${why ? `: ${why}` : ""}`;
}

function write(event, newest) {
  title(event, newest);
  if (newest) showFacts(event, card);
  const words = wordsOf(event);
  if (words === null) return;
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  const line = document.createElement("li");
  const time = document.createElement("time");
  const at = new Date(event.ts * 1000);
  time.dateTime = at.toISOString();
  time.textContent = timeOfDay(at);
  line.dataset.level = event.level ?? "state";
  line.append(time, words);
  log.append(line);
  while (log.children.length > LOG_LIMIT) log.firstChild.remove();
  section.hidden = false;
  if (atEnd) log.scrollTop = log.scrollHeight; // whoever reads further up is left in peace
}

// The start of the epoch as a cursor brings every kept event: the log is complete however late the page was opened.
if (card.state !== "EXPIRED") watchTask(card, write, card.cursor && `${card.cursor.split("-")[0]}-0`);
if (!card.finished) everySecond(() => tickFacts(card));
