// Parts of values that were too much for the page come when somebody unfolds them, or asks for more of a list.
export function unfoldOnDemand() {
  document.addEventListener("toggle", (event) => {
    const details = event.target;
    const address = details.open && details.dataset.partAt;
    if (!address) return;
    delete details.dataset.partAt;
    fill(address, (part) => details.querySelector(":scope > p").replaceWith(part));
  }, true);
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("a[data-more]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    fill(link.href, (part) => link.closest("li").replaceWith(...part.children));
  });
}

async function fill(address, place) {
  const answer = await fetch(`${address}&part`);
  if (!answer.ok) return location.assign(address);
  const holder = document.createElement("template");
  holder.innerHTML = await answer.text();
  place(holder.content.querySelector("ul"));
}
