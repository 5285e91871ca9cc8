// RFC 8785 over a file of documents, one JSON text a line, with the package `canonicalize`.
//
// usage: node canon.mjs PACKAGE_DIR DOCUMENTS [OUTPUT]
//
// Prints the SHA-256 of all canonical forms, each followed by a newline; with OUTPUT, writes them there too.

import { createHash } from "node:crypto";
import { openSync, readFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [dir, documents, output] = process.argv.slice(2);
const main = join(dir, "node_modules/canonicalize/lib/canonicalize.js");
const { default: canonicalize } = await import(pathToFileURL(main).href);

const digest = createHash("sha256");
const file = output === undefined ? null : openSync(output, "w");
const bytes = readFileSync(documents);
for (let start = 0, end; (end = bytes.indexOf(10, start)) >= 0; start = end + 1) {
  const canonical = canonicalize(JSON.parse(bytes.toString("utf8", start, end))) + "\n";
  digest.update(canonical, "utf8");
  if (file !== null) {
    writeSync(file, canonical);
  }
}
console.log(digest.digest("hex"));
