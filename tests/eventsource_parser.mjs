// Parses streams with the npm package eventsource-parser: a JSON string on each line in, a JSON list of events out.
import { createInterface } from "node:readline";
import { createParser } from "eventsource-parser";

for await (const line of createInterface({ input: process.stdin })) {
  const events = [];
  let id = "";
  const parser = createParser({
    onEvent: (event) => {
      id = event.id ?? id;
      events.push([event.event ?? "message", id, event.data]);
    },
  });
  parser.feed(JSON.parse(line));
  process.stdout.write(`${JSON.stringify(events)}\n`);
}
