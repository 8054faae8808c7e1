// Parses AsyncAPI documents, and prints their diagnostics as JSON: node parse.cjs FOLDER DOCUMENT...
// FOLDER has the node_modules of package.json.
const { readFileSync } = require("node:fs");
const { createRequire } = require("node:module");
const { resolve } = require("node:path");

const [folder, ...documents] = process.argv.slice(2);
const { Parser } = createRequire(resolve(folder, "package.json"))("@asyncapi/parser");

async function parse() {
  const found = [];
  for (const path of documents) {
    const { document, diagnostics } = await new Parser().parse(readFileSync(path, "utf8"));
    found.push({
      operations: document ? document.operations().all().map((each) => each.id()) : null,
      diagnostics: diagnostics.map(({ severity, code, message, path }) => ({ severity, code, message, path })),
    });
  }
  console.log(JSON.stringify(found));
}

parse();
