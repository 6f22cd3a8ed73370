// What every page loads. Pages work without it: it makes them quicker, and keeps them up to date.
import { offerCopies } from "./copy.js";
import { unfoldOnDemand } from "./folding.js";
import { listenForKeys } from "./keyboard.js";
import { keepLive } from "./live.js";

listenForKeys();
keepLive();
offerCopies();
document.querySelector("nav [aria-current]")?.scrollIntoView({ inline: "center", block: "nearest" }); // a narrow row scrolls
unfoldOnDemand();
for (const form of document.querySelectorAll("form[data-drop]")) import("./upload.js").then(({ takeDrops }) => takeDrops(form));
const editors = document.querySelectorAll("textarea[data-editor]");
if (editors.length) import("./editor.js").then(({ edit }) => editors.forEach(edit));
