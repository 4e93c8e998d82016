// npm eventsource, made anew when it has given up. Arguments: address, user, and "once" for never anew.
import { EventSource } from "eventsource";

const [url, user, once] = process.argv.slice(2);
const NAMES = ["heartbeat", "metrics", "sentiment_update", "configuration", "resume", "stream_end"];
const withUser = (address, init) => fetch(address, { ...init, headers: { ...init.headers, "X-User-ID": user } });
let last = "";

function open() {
  const address = new URL(url);
  if (last) address.searchParams.set("last_event_id", last);
  const source = new EventSource(address, { fetch: withUser });
  for (const name of NAMES) {
    source.addEventListener(name, ({ lastEventId, data }) => {
      last = lastEventId;
      console.log(JSON.stringify({ event: name, id: lastEventId, data: JSON.parse(data) }));
    });
  }
  source.addEventListener("error", () => {
    if (source.readyState === EventSource.CLOSED && !once) setTimeout(open, 1000);
  });
}

open();
