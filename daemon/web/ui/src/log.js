// A log: searched, filtered by level, followed while it grows. Lines come from the daemon as finished rows.
const LEVELS = ["debug", "info", "warning", "error", "critical"];
const ROWS_MAX = 2000; // in the page; the whole log is a link away
const PAUSE_MS = 100; // rows that come faster are put in together: each time, the whole table is laid out anew

export function enhanceLogs(log) {
  const rows = log.querySelector("tbody");
  const tools = log.querySelector("[data-tools]");
  const box = log.querySelector(".log");
  const [search, level, follow] = ["search", "level", "follow"].map((name) => tools.querySelector(`[data-${name}]`));
  const grows = document.body.dataset.live !== undefined;
  tools.hidden = !grows && rows.childElementCount < 8;
  follow.closest("p").hidden = !grows;

  function sift(row) {
    const text = search.value.toLowerCase();
    const weight = LEVELS.findIndex((name) => row.classList.contains(name));
    row.hidden = weight < Number(level.value) || (text !== "" && !row.textContent.toLowerCase().includes(text));
  }
  const siftAll = () => [...rows.children].forEach(sift);
  search.addEventListener("input", siftAll);
  level.addEventListener("change", siftAll);

  const toEnd = () => follow.checked && (box.scrollTop = box.scrollHeight);
  follow.addEventListener("change", toEnd);
  box.addEventListener("scroll", () => {
    const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 8;
    if (!atEnd && follow.checked && box.matches(":hover")) follow.checked = false;
  });
  toEnd();

  let fresh = [];
  return function append(row) {
    fresh.push(row);
    if (fresh.length === 1) setTimeout(put, PAUSE_MS);
  };

  function put() {
    const holder = document.createElement("tbody");
    holder.innerHTML = fresh.slice(-ROWS_MAX).join("");
    fresh = [];
    [...holder.children].forEach(sift);
    rows.append(...holder.children);
    while (rows.childElementCount > ROWS_MAX) rows.firstElementChild.remove();
    log.classList.remove("nothing");
    toEnd();
  }
}
