// Watching: a Connection, a Follower for each task, and a card to show it in.

import { Connection } from "./connection.js";
import { Follower } from "./follow.js";

// The function that ends it.
export function everySecond(what) {
  const timer = setInterval(what, 1000);
  return () => clearInterval(timer);
}

// One task over its own socket, to its end. `cursor` asks for the kept events since then; `deliver` gets every event,
// and whether it is the newest: those missed in a break are not, as the snapshot comes before them.
export function watchTask(card, deliver = () => {}, cursor = null) {
  const follower = new Follower(cursor);
  const path = `/ws/task/${encodeURIComponent(card.taskId)}`;
  const stopTicking = everySecond(() => card.tick());
  const connection = new Connection(
    () => (follower.cursor ? `${path}?cursor=${follower.cursor}` : path),
    {
      down: () => card.disconnected(),
      refused: (code, reason) => card.refused(reason),
      message(event) {
        if (!("seq" in event)) return; // an answer to a ping
        const verdict = follower.feed(event);
        if (verdict === "gap") return connection.renew();
        card.connected();
        if (verdict === "duplicate") return;
        deliver(event, card.show(event));
        if (!follower.finished) return;
        connection.close();
        stopTicking();
      },
    },
  );
}

// Many tasks over one socket (`WS /ws`), each to its end.
export function watchMany(cards) {
  const watched = new Map(cards.map((card) => [card.taskId, { card, follower: new Follower() }]));
  if (watched.size === 0) return;

  const subscription = ([id, { follower }]) => (follower.cursor ? { id, cursor: follower.cursor } : { id });
  const end = (id) => {
    watched.delete(id);
    if (watched.size === 0) {
      stopTicking();
      return connection.close();
    }
    connection.send({ type: "unsubscribe", tasks: [{ id }] });
  };
  const each = (what) => watched.forEach(({ card }) => what(card));
  const stopTicking = everySecond(() => each((card) => card.tick()));

  const connection = new Connection(() => "/ws", {
    open: () => connection.send({ type: "subscribe", tasks: [...watched].map(subscription) }),
    down: () => each((card) => card.disconnected()),
    refused: (code, reason) => each((card) => card.refused(reason)),
    message(event) {
      const { card, follower } = watched.get(event.task_id) ?? {};
      if (!card) return; // an answer to a ping, or late news of a task that is not watched any more
      if (event.type === "error") {
        card.refused(event.detail);
        return end(card.taskId);
      }
      const verdict = follower.feed(event);
      if (verdict === "gap") return connection.renew();
      card.connected();
      if (verdict === "duplicate") return;
      card.show(event);
      if (follower.finished) end(card.taskId);
    },
  });
}
