// How far the job is, in the title of the tab: people start a long import and go elsewhere.

import { percent } from "./wording.js";

export const titled = (card) => (event, newest) => {
  if (!newest || event.type === "log") return;
  const how = event.state === "PROGRESS" ? percent(event.percent) || event.state : event.state;
  document.title = `${how} · ${card.title} · Headway`;
};
