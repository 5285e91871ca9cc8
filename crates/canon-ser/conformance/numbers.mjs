// What ECMAScript prints for COUNT doubles: the SHA-256 of all of them, each followed by a newline.
//
// usage: node numbers.mjs COUNT
//
// The doubles are those of tests/it/golden_numbers.rs: xorshift64 (13, 7, 17), which is done here in two halves, and of
// four draws two taken as bit patterns (numbers only), one as 44 bits over 4096, one as a neighbour of digit * 10^power.

import { createHash } from "node:crypto";

const view = new DataView(new ArrayBuffer(8));
let high = 0x9e3779b9;
let low = 0x7f4a7c15;

function step() {
  high ^= (high << 13) | (low >>> 19);
  low ^= low << 13;
  low ^= (low >>> 7) | (high << 25);
  high ^= high >>> 7;
  high ^= (high << 17) | (low >>> 15);
  low ^= low << 17;
}

function draw(nth) {
  step();
  if (nth % 4 < 2) {
    view.setUint32(0, high);
    view.setUint32(4, low);
    return view.getFloat64(0);
  }
  if (nth % 4 === 2) {
    return ((high >>> 0) * 4096 + (low >>> 20)) / 4096;
  }
  const digit = 1 + ((low >>> 0) % 9);
  const power = ((high >>> 0) % 633) - 324;
  view.setFloat64(0, Number(`${digit}e${power}`));
  const bits = view.getBigUint64(0) + BigInt((low >>> 8) % 3) - 1n;
  view.setBigUint64(0, bits);
  return view.getFloat64(0);
}

const count = Number(process.argv[2]);
const digest = createHash("sha256");
let lines = [];
for (let nth = 0; nth < count; nth++) {
  const value = draw(nth);
  if (Number.isFinite(value)) {
    lines.push(String(value));
  }
  if (lines.length === 4096) {
    digest.update(lines.join("\n") + "\n");
    lines = [];
  }
}
if (lines.length > 0) {
  digest.update(lines.join("\n") + "\n");
}
console.log(digest.digest("hex"));
