// Keeps a page up to date: when the daemon says that something changed, the page is fetched again and the parts of it
// that differ are exchanged. Nothing moves under a pointer or a caret, and nothing happens in a hidden tab.
import { enhanceLogs } from "./log.js";
import { follow } from "./stream.js";

const PAUSE_MS = 700;

export function keepLive() {
  const logs = [...document.querySelectorAll("[data-log]")].map(enhanceLogs);
  const source = document.body.dataset.live;
  if (!source) return;
  let wanted = false;
  let fetching = false;

  async function refresh() {
    if (document.hidden || fetching) {
      wanted = true;
      return;
    }
    wanted = false;
    fetching = true;
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" }, credentials: "same-origin" });
      if (answer.redirected || !answer.ok) return end();
      exchange(new DOMParser().parseFromString(await answer.text(), "text/html"));
    } catch {
      wanted = true; // the daemon is away; its stream comes back, and with it another change
    } finally {
      setTimeout(() => {
        fetching = false;
        if (wanted) refresh();
      }, PAUSE_MS);
    }
  }

  function exchange(fresh) {
    for (const old of document.querySelectorAll("[data-part]")) {
      const part = fresh.querySelector(`[data-part="${CSS.escape(old.dataset.part)}"]`);
      if (!part || part.isEqualNode(old) || old.contains(document.activeElement?.closest("input, textarea, select, dialog, form"))) continue;
      const open = new Set([...old.querySelectorAll("details[open][id]")].map((details) => details.id));
      const focused = old.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
      old.replaceWith(part);
      for (const id of open) part.querySelector(`#${CSS.escape(id)}`)?.setAttribute("open", "");
      if (focused) part.querySelector(`[href="${CSS.escape(focused)}"]`)?.focus();
    }
    document.title = fresh.title;
  }

  const end = follow(source, {
    changed: refresh,
    end: refresh,
    line: (event) => logs.forEach((append) => append(JSON.parse(event.data))),
  });
  document.addEventListener("visibilitychange", () => wanted && refresh());
}
