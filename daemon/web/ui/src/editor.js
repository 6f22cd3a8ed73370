// The editor of flows and settings, around a textarea that stays the truth for the form.
import "./sheets.js";
import { basicSetup } from "codemirror";
import { autocompletion } from "@codemirror/autocomplete";
import { indentWithTab } from "@codemirror/commands";
import { json } from "@codemirror/lang-json";
import { python, pythonLanguage } from "@codemirror/lang-python";
import { yaml } from "@codemirror/lang-yaml";
import { HighlightStyle, indentUnit, syntaxHighlighting } from "@codemirror/language";
import { linter, lintGutter } from "@codemirror/lint";
import { Compartment } from "@codemirror/state";
import { EditorView, keymap } from "@codemirror/view";
import { tags } from "@lezer/highlight";

const colours = HighlightStyle.define([
  { tag: [tags.keyword, tags.operatorKeyword, tags.controlKeyword], class: "tok-keyword" },
  { tag: [tags.string, tags.special(tags.string)], class: "tok-string" },
  { tag: [tags.comment], class: "tok-comment" },
  { tag: [tags.number, tags.bool, tags.null, tags.atom], class: "tok-number" },
  { tag: [tags.function(tags.variableName), tags.definition(tags.variableName), tags.propertyName], class: "tok-name" },
]);

const languages = {
  python: (area) => [python(), indentUnit.of("    "), ...completion(area)],
  json: () => [json()],
  yaml: () => [yaml()],
};

export function edit(area) {
  const compared = new Compartment();
  const form = area.form;
  const view = new EditorView({
    doc: area.value,
    extensions: [
      basicSetup,
      syntaxHighlighting(colours),
      // A form is walked through with Tab; where it indents, Escape and then Tab leaves (CodeMirror's own way out).
      keymap.of([...(area.dataset.editor === "python" ? [indentWithTab] : []), { key: "Mod-s", run: () => (form.elements.message ?? form.querySelector("button")).focus() ?? true }]),
      ...(languages[area.dataset.editor]?.(area) ?? []),
      ...(area.dataset.lint ? [lintGutter(), linter((at) => lint(area, at), { delay: 400 })] : []),
      EditorView.contentAttributes.of({ "aria-label": area.getAttribute("aria-label") ?? "Editor", tabindex: "0" }),
      EditorView.updateListener.of((update) => {
        if (update.docChanged) area.value = update.state.doc.toString();
      }),
      EditorView.domEventHandlers({ beforeinput: replaceSelection }),
      compared.of([]),
    ],
  });
  area.hidden = true;
  area.after(view.dom);
  const fault = view.state.doc.lines >= area.dataset.line && view.state.doc.line(Number(area.dataset.line));
  if (fault) {
    view.dispatch({ selection: { anchor: fault.from }, effects: EditorView.scrollIntoView(fault.from, { y: "center" }) });
    view.focus();
  }
  let saved = area.value;
  form.addEventListener("submit", (event) => {
    if (!event.submitter?.formTarget) saved = area.value;
  });
  addEventListener("beforeunload", (event) => area.value !== saved && event.preventDefault());

  const button = form.querySelector("[data-diff]");
  const original = document.getElementById(area.dataset.original ?? "");
  if (!button || !original) return;
  button.hidden = false;
  let shown = false;
  async function toggle() {
    shown = !shown;
    button.setAttribute("aria-pressed", String(shown));
    const { unifiedMergeView } = await import("@codemirror/merge");
    const extension = shown ? unifiedMergeView({ original: original.value, mergeControls: false }) : [];
    view.dispatch({ effects: compared.reconfigure(extension) });
  }
  button.addEventListener("click", toggle);
  if ("shown" in button.dataset) toggle();
}

// Text typed over a selection: Chromium would keep the look of what it replaces in a style attribute, which the policy
// refuses with a complaint. So it is not left to the browser.
function replaceSelection(event, view) {
  const { from, to, empty } = view.state.selection.main;
  if (event.inputType !== "insertText" || !event.data || empty || view.composing) return false;
  const insert = () => view.state.update(view.state.replaceSelection(event.data), { userEvent: "input.type" });
  const taken = view.state.facet(EditorView.inputHandler).some((handle) => handle(view, from, to, event.data, insert));
  if (!taken) view.dispatch(insert());
  event.preventDefault();
  return true;
}

async function lint(area, view) {
  const answer = await fetch(area.dataset.lint, {
    method: "POST",
    headers: { "X-Form-Token": area.form.elements.form_token.value, "Content-Type": "text/plain" },
    body: view.state.doc.toString(),
  });
  if (!answer.ok) return [];
  const { problems } = await answer.json();
  return problems.map(({ line, message, severity }) => {
    const { from, to } = view.state.doc.line(Math.min(Math.max(line, 1), view.state.doc.lines));
    return { from, to, severity, message };
  });
}

function completion(area) {
  let known;
  const words = () => (known ??= fetch(area.dataset.words).then((answer) => (answer.ok ? answer.json() : {})));
  async function complete(context) {
    const before = context.matchBefore(/\b(this|system)\.\w*/);
    if (!before) return null;
    const owner = before.text.split(".")[0];
    const options = (await words())[owner] ?? [];
    return { from: before.from + owner.length + 1, options, validFor: /^\w*$/ };
  }
  return area.dataset.words ? [pythonLanguage.data.of({ autocomplete: complete }), autocompletion()] : [];
}
