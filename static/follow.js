// Whether everything was seen: the rules of headway/follow.py, for the browser. Pure.

const TERMINAL = new Set(["SUCCESS", "FAILURE", "REVOKED"]);

export const isTerminal = (state) => TERMINAL.has(state);

const place = (cursor) => {
  const [epoch, seq] = cursor.split("-").map(Number);
  return { epoch, seq };
};

// Turns what arrives, over any number of connections, into one sequence without gap or repetition. `cursor` is where
// to resume (null: nothing has been heard yet).
export class Follower {
  #latest = null;
  #recovering = null;

  constructor(cursor = null) {
    this.cursor = cursor;
  }

  // Whether the task has ended and everything up to its end is here.
  get finished() {
    return this.#latest !== null && isTerminal(this.#latest.state) && this.#recovering === null;
  }

  // "deliver", "duplicate" (seen before: drop it) or "gap" (a kept event is missing: reconnect with the cursor).
  feed(event) {
    return event.type === "snapshot" ? this.#snapshot(event) : this.#event(event);
  }

  #snapshot(event) {
    const here = this.cursor && place(this.cursor);
    if (event.recovered !== true || here === null || here.epoch !== place(event.cursor).epoch) {
      this.cursor = event.cursor;
      this.#latest = event;
      this.#recovering = null;
      return "deliver";
    }
    if (event.seq < here.seq) return "duplicate";
    this.#latest = event;
    this.#recovering = event.prev > here.seq ? event : null;
    if (this.#recovering === null) this.cursor = event.cursor;
    return "deliver";
  }

  #event(event) {
    const here = this.cursor && place(this.cursor);
    if (here === null || here.epoch !== place(event.cursor).epoch) return "gap";
    if (event.seq <= here.seq) return "duplicate";
    if (event.prev > here.seq) return "gap";
    this.cursor = event.cursor;
    if (this.#latest === null || event.seq >= this.#latest.seq) this.#latest = event;
    if (this.#recovering !== null && event.seq >= this.#recovering.prev) {
      if (this.#recovering.seq > event.seq) this.cursor = this.#recovering.cursor;
      this.#recovering = null;
    }
    return "deliver";
  }
}
