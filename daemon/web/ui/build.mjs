// Builds the scripts of the pages into the folder given: hashed names, a table of them, their licences, and each
// compressed beside. With --test also axe, for the accessibility tests; nobody ships that.
import { build } from "esbuild";
import fs from "node:fs";
import path from "node:path";
import zlib from "node:zlib";

const [out, ...flags] = process.argv.slice(2);
const common = { bundle: true, minify: true, format: "esm", target: "es2022", legalComments: "none" };

fs.rmSync(out, { recursive: true, force: true });
const { metafile } = await build({
  ...common,
  entryPoints: { app: "src/app.js" },
  outdir: out,
  splitting: true,
  metafile: true,
  entryNames: "[name]-[hash]",
  chunkNames: "[name]-[hash]",
});

const names = Object.keys(metafile.outputs).map((file) => path.basename(file));
const entry = names.find((name) => name.startsWith("app-"));
fs.writeFileSync(path.join(out, "manifest.json"), JSON.stringify({ app: entry, files: names.sort() }));
for (const name of names) {
  const file = path.join(out, name);
  fs.writeFileSync(`${file}.gz`, zlib.gzipSync(fs.readFileSync(file), { level: 9 }));
}

const packages = [...new Set(Object.keys(metafile.inputs).flatMap((file) => file.match(/node_modules\/((?:@[^/]+\/)?[^/]+)/)?.[1] ?? []))].sort();
const licences = packages.map((name) => {
  const folder = path.join("node_modules", name);
  const { version, license } = JSON.parse(fs.readFileSync(path.join(folder, "package.json")));
  const text = fs.readdirSync(folder).find((file) => /^licen[cs]e/i.test(file));
  return `${name} ${version} (${license})\n\n${text ? fs.readFileSync(path.join(folder, text), "utf8").trim() : ""}\n`;
});
fs.writeFileSync(path.join(out, "THIRD-PARTY-LICENSES.txt"), licences.join(`\n${"-".repeat(80)}\n\n`));

if (flags.includes("--test")) {
  fs.copyFileSync("node_modules/axe-core/axe.min.js", path.join(out, "axe.test.js"));
}
