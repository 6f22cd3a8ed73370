// A log: followed while it grows, searched, filtered by level. Lines come from the daemon as finished rows.
const LEVELS = ["debug", "info", "warning", "error", "critical"];
const ROWS_MAX = 5000; // in the page; the whole log is a link away

export function enhanceLogs(log) {
  const rows = log.querySelector("tbody");
  const tools = log.querySelector("[data-tools]");
  const box = log.querySelector(".log");
  const [search, level, follow] = ["search", "level", "follow"].map((name) => tools.querySelector(`[data-${name}]`));
  tools.hidden = !log.dataset.log && rows.childElementCount < 8;

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

  if (!log.dataset.log) return;
  let fresh = [];
  const stream = new EventSource(log.dataset.log);
  stream.addEventListener("line", (event) => {
    fresh.push(JSON.parse(event.data));
    if (fresh.length === 1) requestAnimationFrame(append);
  });
  stream.addEventListener("end", () => stream.close());
  addEventListener("pagehide", () => stream.close());

  function append() {
    const count = rows.childElementCount;
    rows.insertAdjacentHTML("beforeend", fresh.join(""));
    fresh = [];
    [...rows.children].slice(count).forEach(sift);
    while (rows.childElementCount > ROWS_MAX) rows.firstElementChild.remove();
    log.classList.remove("nothing");
    toEnd();
  }
}
