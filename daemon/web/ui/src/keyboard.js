// Keys: "/" goes to the search, "g" and a letter to a page, "?" tells them all. Never while somebody types.
const PAGES = { d: "/", f: "/flows", e: "/executions", m: "/messages", s: "/sync", t: "/tasks", n: "/edit" };

export function listenForKeys() {
  const help = document.getElementById("keys");
  let prefix = false;
  document.addEventListener("keydown", (event) => {
    const at = event.target;
    if (event.ctrlKey || event.metaKey || event.altKey || at.isContentEditable || at.matches?.("input, textarea, select")) return;
    if (prefix) {
      prefix = false;
      if (PAGES[event.key]) location.assign(PAGES[event.key]);
      return;
    }
    if (event.key === "g") {
      prefix = true;
      setTimeout(() => (prefix = false), 1500);
    } else if (event.key === "/") {
      const search = document.querySelector("input[type=search]");
      if (!search) return;
      event.preventDefault();
      search.focus();
      search.select();
    } else if (event.key === "?" && help) {
      help.showModal();
    }
  });
  for (const button of document.querySelectorAll("[data-keys]")) {
    button.hidden = false;
    button.addEventListener("click", () => help.showModal());
  }
}
