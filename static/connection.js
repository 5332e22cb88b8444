// One WebSocket to the hub that comes back by itself, as DESIGN.md's table of close codes says.

const SUBPROTOCOL = "headway.v1";
const FIRST_WINDOW = 500; // ms; doubles with every attempt that brings nothing; the wait is random within it
const LONGEST_WINDOW = 8_000; // a hub that restarts is back in seconds, and so must its watchers be
const OVERLOADED_WINDOW = 30_000;
const OVERLOADED_ATTEMPT = 3; // "overloaded" starts as if so many attempts had failed: within 4 s, then 8, …
const SILENCE = 20_000; // ms without a message before we ask whether the hub is still there
const ANSWER = 8_000; // ms for its answer; a half-open connection gives none
const OPENING = 10_000;

const FINAL = new Set([4400, 4401, 4403, 4404]);
const OVERLOADED = new Set([1013, 4429]);

export class Connection {
  #address;
  #on;
  #socket = null;
  #attempt = 0;
  #retry = 0;
  #watchdog = 0;
  #closed = false;

  // `address()` gives path and query of the next attempt (the cursor moves on). `on` has: open(), message(object),
  // down() when a connection ended and another will be tried, refused(code, reason) when none will.
  constructor(address, on) {
    this.#address = address;
    this.#on = on;
    addEventListener("online", this.#hurry);
    document.addEventListener("visibilitychange", this.#hurry);
    this.#open();
  }

  // For good: no more events, no more attempts.
  close() {
    this.#closed = true;
    removeEventListener("online", this.#hurry);
    document.removeEventListener("visibilitychange", this.#hurry);
    this.#drop();
  }

  send(message) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }

  // This connection lost something: replace it.
  renew() {
    this.#down(null);
  }

  #open() {
    const url = new URL(this.#address(), location.href);
    url.protocol = url.protocol.replace("http", "ws");
    const socket = new WebSocket(url, SUBPROTOCOL);
    this.#socket = socket;
    this.#watch(OPENING);
    socket.onopen = () => {
      this.#listen();
      this.#on.open?.();
    };
    socket.onmessage = ({ data }) => {
      this.#listen();
      const message = JSON.parse(data);
      if (message.type !== "snapshot") this.#attempt = 0;
      this.#on.message(message);
    };
    socket.onclose = ({ code, reason }) => {
      if (!FINAL.has(code)) return this.#down(code);
      this.close();
      this.#on.refused(code, reason);
    };
  }

  // Browsers do not show the protocol's pings, so a silent connection is asked in words.
  #listen() {
    clearTimeout(this.#watchdog);
    this.#watchdog = setTimeout(() => {
      this.send({ type: "ping" });
      this.#watch(ANSWER);
    }, SILENCE);
  }

  #watch(patience) {
    clearTimeout(this.#watchdog);
    this.#watchdog = setTimeout(() => this.#down(null), patience);
  }

  #down(code) {
    this.#drop();
    if (this.#closed) return;
    const overloaded = OVERLOADED.has(code);
    if (overloaded) this.#attempt = Math.max(this.#attempt, OVERLOADED_ATTEMPT);
    const longest = overloaded ? OVERLOADED_WINDOW : LONGEST_WINDOW;
    const window = Math.min(longest, FIRST_WINDOW * 2 ** this.#attempt);
    this.#attempt = Math.min(this.#attempt + 1, 16);
    this.#retry = setTimeout(() => this.#open(), Math.random() * window);
    this.#on.down();
  }

  #drop() {
    clearTimeout(this.#watchdog);
    clearTimeout(this.#retry);
    this.#retry = 0;
    const socket = this.#socket;
    this.#socket = null;
    if (socket === null) return;
    // A late event of a dropped socket must not be taken for one of its successor.
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
  }

  // The network or the reader is back: no reason to sit out the rest of a long wait.
  #hurry = () => {
    if (this.#retry === 0 || document.hidden) return;
    clearTimeout(this.#retry);
    this.#retry = 0;
    this.#open();
  };
}
