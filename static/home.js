// The front page: the form, the job in the address (`?job=`), and a live bar for every unfinished recent job.

import { Card } from "./card.js";
import { setUpImport } from "./import.js";
import { titled } from "./title.js";
import { watchMany, watchTask } from "./watch.js";
import { localTimes } from "./wording.js";

const cards = (selector) => [...document.querySelectorAll(selector)].map((element) => new Card(element));

localTimes(document);
const [focus] = cards("[data-focus] .job");
if (focus && !focus.finished) watchTask(focus, titled(focus));
watchMany(cards(".jobs .job").filter((card) => !card.finished));
setUpImport(document.getElementById("import"));
