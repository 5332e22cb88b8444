// The form: the file goes to POST /uploads, the job that reads it to POST /tasks, and the browser to the job's bar.

import { setBar } from "./bar.js";
import { amount, percent } from "./wording.js";

export function setUpImport(form) {
  const file = form.querySelector("#file");
  const chosen = form.querySelector("#chosen");
  const problem = form.querySelector("#problem");
  const invitation = chosen.textContent;

  form.hidden = false;
  file.addEventListener("change", () => {
    const [picked] = file.files;
    chosen.textContent = picked ? `${picked.name} (${amount(picked.size, "bytes")})` : invitation;
    problem.hidden = true;
  });
  file.dispatchEvent(new Event("change")); // a reload keeps the choice in some browsers

  const drop = form.querySelector(".drop");
  const over = (isOver) => () => drop.classList.toggle("over", isOver);
  file.addEventListener("dragenter", over(true));
  for (const name of ["dragleave", "drop"]) file.addEventListener(name, over(false));

  form.addEventListener("submit", async (submit) => {
    submit.preventDefault();
    problem.hidden = true;
    busy(form, true);
    try {
      const { ref } = await upload(file.files[0], form);
      const job = await start(ref);
      location.assign(`/?job=${encodeURIComponent(job.task_id)}`);
    } catch (error) {
      if (error.message) problem.textContent = error.message;
      problem.hidden = !error.message;
      busy(form, false);
    }
  });
}

function busy(form, isBusy) {
  form.querySelector("[type=submit]").disabled = isBusy;
  form.querySelector("#file").disabled = isBusy;
  form.querySelector("#upload").hidden = !isBusy;
}

// XMLHttpRequest and not fetch: only it tells how much of an upload has gone out.
function upload(file, form) {
  const request = new XMLHttpRequest();
  const ask = (leaving) => leaving.preventDefault(); // leaving the page would cut the upload off
  addEventListener("beforeunload", ask);
  request.onloadend = () => removeEventListener("beforeunload", ask);
  const abort = form.querySelector("#abort");
  abort.onclick = () => request.abort();
  const show = (loaded, total) => {
    const filled = total ? (100 * loaded) / total : 100;
    const counts = `${amount(loaded, "bytes")} of ${amount(total, "bytes")} uploaded`;
    setBar(form.querySelector("#upload .bar"), filled, `${percent(filled)}, ${counts}`);
    form.querySelector("#upload [data-part=percent]").textContent = percent(filled);
    form.querySelector("#upload [data-part=counts]").textContent = counts;
  };
  return new Promise((resolve, reject) => {
    show(0, file.size);
    request.upload.onprogress = ({ loaded, total }) => show(loaded, total);
    request.onload = () => {
      if (request.status === 201) resolve(JSON.parse(request.responseText));
      else reject(problemOf(request.status, request.responseText));
    };
    request.onerror = () => reject(new Error("The upload broke off: the hub cannot be reached, or the file has changed."));
    request.onabort = () => reject(new Error(""));
    const body = new FormData();
    body.append("file", file);
    request.open("POST", "/uploads");
    request.setRequestHeader("Accept", "application/json");
    request.send(body);
  });
}

// The key lets the hub recognise a request that something on the way has sent twice.
async function start(ref) {
  const key = [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  const request = {
    method: "POST",
    headers: { "Content-Type": "application/json", "Idempotency-Key": key },
    body: JSON.stringify({ task: "import_csv", args: { file: ref } }),
  };
  const unreachable = () => {
    throw new Error("The file is uploaded, but the hub cannot be reached to start the import. Please try again.");
  };
  const response = await fetch("/tasks", request).catch(unreachable);
  const text = await response.text();
  if (!response.ok) throw problemOf(response.status, text);
  return JSON.parse(text);
}

// application/problem+json (RFC 9457) says in `detail` what is wrong with this request; `title` only what kind it is.
function problemOf(status, text) {
  try {
    const { detail, title } = JSON.parse(text);
    return new Error(detail || title || `The hub answered ${status}.`);
  } catch {
    return new Error(`The hub answered ${status}.`); // a proxy's page, perhaps
  }
}
