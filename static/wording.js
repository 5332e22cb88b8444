// How figures are worded, as in hub/card.py: the page reads the same before and after the first live event.

const SIZES = ["kB", "MB", "GB", "TB"];
const PLAIN_LIMIT = 500;

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const tenth = new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const local = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });

// The server writes times in UTC; here they become the reader's own.
export function localTimes(root) {
  for (const time of root.querySelectorAll("time.utc")) {
    time.textContent = local.format(new Date(time.dateTime));
    time.classList.remove("utc");
  }
}

export const timeOfDay = (date) => clock.format(date);

export function amount(value, unit = null) {
  if (unit === "bytes") {
    let suffix = "B";
    for (const name of SIZES) {
      if (value < 1000) break;
      value /= 1000;
      suffix = name;
    }
    return `${(suffix === "B" || value >= 100 ? whole : tenth).format(value)} ${suffix}`;
  }
  return (Number.isInteger(value) || Math.abs(value) >= 100 ? whole : tenth).format(value);
}

export function duration(seconds) {
  if (seconds < 10) return `${tenth.format(seconds)} s`;
  const s = Math.round(seconds);
  const two = (n) => String(n).padStart(2, "0");
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${two(s % 60)} s`;
  return `${Math.floor(s / 3600)} h ${two(Math.floor((s % 3600) / 60))} min`;
}

// A time that is counted while it goes on: whole seconds.
export const elapsed = (seconds) => (seconds < 10 ? `${Math.floor(seconds)} s` : duration(Math.floor(seconds)));

export const percent = (value) => (value === null ? "" : value === 100 ? "100%" : `${tenth.format(value)}%`);

const bare = (unit) => unit === null || unit === undefined || unit === "bytes";

export function counted({ current, total, unit }) {
  if (!current && (total === null || total === undefined)) return "";
  const of = total === null || total === undefined ? "" : ` of ${amount(total, unit)}`;
  return `${amount(current || 0, unit)}${of}${bare(unit) ? "" : ` ${unit}`}`;
}

export function pace({ rate, eta, unit }) {
  const speed = rate ? `${amount(rate, unit)}${bare(unit) ? "" : ` ${unit}`}/s` : "";
  const left = eta === null || eta === undefined ? "" : `${duration(eta)} left`;
  return [speed, left].filter(Boolean).join(", ");
}

const listed = (item) =>
  item !== null && typeof item === "object" && !Array.isArray(item) ? Object.values(item).map(plain).join(" ") : plain(item);

export function plain(value) {
  let text;
  if (value === null || value === undefined) text = "none";
  else if (typeof value === "boolean") text = value ? "yes" : "no";
  else if (typeof value === "number") text = amount(value);
  else if (Array.isArray(value)) text = value.map(listed).join(", ");
  else if (typeof value === "object") text = Object.entries(value).map(([k, v]) => `${k}: ${plain(v)}`).join(", ");
  else text = String(value);
  return text.length <= PLAIN_LIMIT ? text : `${text.slice(0, PLAIN_LIMIT - 1)}…`;
}

export const label = (name) => name.replaceAll("_", " ");
