// The bar itself: an element with role=progressbar around an svg rect, whose width is an attribute and not a style, so
// that the server can set it too under a strict Content-Security-Policy.

export function setBar(bar, filled, spoken) {
  const known = typeof filled === "number";
  if (known) bar.setAttribute("aria-valuenow", filled.toFixed(1));
  else bar.removeAttribute("aria-valuenow");
  bar.setAttribute("aria-valuetext", spoken);
  bar.querySelector("rect").setAttribute("width", `${known ? filled : 0}%`);
}
