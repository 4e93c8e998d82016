// Parses streams with our own JavaScript client's parser: a JSON list of pieces on each line in, a JSON list of events out.
import { createInterface } from "node:readline";
import { Parser } from "../quartsse/web/static/quartsse.js";

for await (const line of createInterface({ input: process.stdin })) {
  const events = [];
  const parser = new Parser(({ type, id, data }) => events.push([type, id, data]));
  for (const piece of JSON.parse(line)) parser.feed(piece);
  process.stdout.write(`${JSON.stringify(events)}\n`);
}
