// The time where the jobs run. The reader's own clock may be wrong by an hour: it is never asked, only how much time
// goes by on it. Unix seconds.

const [navigation] = performance.getEntriesByType("navigation");
let offset;

const elapsed = () => performance.now() / 1000;

export const now = () => offset + elapsed();

// It was `seconds` when this page's clock stood at `at` (milliseconds, as performance.now() counts them).
export function setClock(seconds, at = performance.now()) {
  offset = seconds - at / 1000;
}

// The server wrote the time into the page as it sent it.
setClock(Number(document.documentElement.dataset.now), navigation?.responseStart ?? 0);
