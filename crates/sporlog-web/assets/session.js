// Warns before the session ends for want of activity, and leaves the page when it has ended, so that
// nobody else reads it. Each page that is loaded renews the session.
"use strict";
(() => {
  const warning = document.getElementById("idle");
  if (!warning) return;
  // The server says how long: the clock of this device may be wrong.
  const left = Number(warning.dataset.left) * 1000;
  const WARN = 2 * 60 * 1000;
  setTimeout(() => { warning.hidden = false; }, Math.max(0, left - WARN));
  setTimeout(() => { location.replace("/"); }, left);
  warning.querySelector("a")?.addEventListener("click", (event) => {
    event.preventDefault();
    location.reload();
  });
})();
