// The event stream of a page, and no more than one: over HTTP/1.1 a browser has six connections to a daemon for all its
// tabs, and each stream is one of them. So a tab that nobody sees has none, and goes on where it was when it is seen.
export function follow(address, listeners) {
  let source = null;
  let over = false;
  let last = "";

  function open() {
    if (source || over || document.hidden) return;
    const from = new URL(address, location.href);
    if (last) from.searchParams.set("after", last);
    source = new EventSource(from);
    for (const [name, listen] of Object.entries(listeners)) {
      source.addEventListener(name, (event) => {
        last = event.lastEventId || last;
        listen(event);
      });
    }
    source.addEventListener("end", end);
  }

  function close() {
    source?.close();
    source = null;
  }

  function end() {
    over = true;
    close();
  }

  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  addEventListener("pagehide", close);
  addEventListener("pageshow", open);
  open();
  return end;
}
