// Buttons that copy a text they hold, or one that the daemon has. Without script there are none: the style sheet sees to it.
export function offerCopies() {
  document.documentElement.classList.add("scripted");
  document.addEventListener("click", async (event) => {
    const button = event.target.closest?.("[data-copy], [data-copy-from]");
    if (!button) return;
    const { copy, copyFrom } = button.dataset;
    try {
      await navigator.clipboard.writeText(copy ?? (await (await fetch(copyFrom)).text()));
      button.textContent = "Copied";
    } catch {
      button.textContent = "Not copied"; // a browser lets pages without TLS do so on its own machine only
    }
  });
}
