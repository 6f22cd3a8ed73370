// CodeMirror writes its styles into <style> elements, which the policy of the pages forbids. A sheet made by script is
// allowed: this mounts them so.
import { StyleModule } from "style-mod";

const mounted = new Set();

StyleModule.mount = (root, modules) => {
  for (const module of [modules].flat()) {
    if (mounted.has(module)) continue;
    mounted.add(module);
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(module.getRules());
    root.adoptedStyleSheets.push(sheet);
  }
};
