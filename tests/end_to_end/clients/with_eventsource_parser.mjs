// npm eventsource-parser over fetch, in a loop. Arguments: address, user, and "once" for no loop.
import { EventSourceParserStream } from "eventsource-parser/stream";

const [url, user, once] = process.argv.slice(2);
const sleep = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));
const headers = { Accept: "text/event-stream", "X-User-ID": user };
let delay = 1;

do {
  try {
    const response = await fetch(url, { headers, cache: "no-store" });
    if (response.ok) {
      const onRetry = (ms) => (delay = ms / 1000);
      const events = response.body
        .pipeThrough(new TextDecoderStream())
        .pipeThrough(new EventSourceParserStream({ onRetry }));
      for await (const { event, id, data } of events) {
        headers["Last-Event-ID"] = id;
        console.log(JSON.stringify({ event, id, data: JSON.parse(data) }));
      }
    } else {
      delay = Number(response.headers.get("Retry-After") ?? delay);
    }
  } catch (error) {
    if (!(error instanceof TypeError)) throw error; // fetch's word for a connection that failed
  }
  if (!once) await sleep(delay);
} while (!once);
