// Reads a stream with quartsse.js in Node and writes a line of JSON for each event and state: node reader.mjs '{…}'
import { connect } from "../../quartsse/web/static/quartsse.js";

const { url, tickets, user, ...options } = JSON.parse(process.argv[2]);
if (tickets) options.ticket = () => give(tickets.shift());
let asked = 0;
if (user) options.headers = async () => ({ "X-User-ID": user, "X-Asked": String((asked += 1)) });

/** A ticket as it is, or one that never comes, or a failure that is no Error. */
function give(ticket) {
  if (ticket === "never") return new Promise(() => {});
  if (ticket === "broken") throw "No ticket today";
  return ticket;
}

const stream = connect(url, { mode: "fetch", ...options });
const say = (line) => process.stdout.write(JSON.stringify(line) + "\n");
stream.on("event", (data, { type, id, polled = false }) => say({ event: type, id, data, polled }));
stream.on("repeat", (data, { id }) => say({ repeat: id }));
stream.on("state", ({ name, reason, polling, retryAt }) => {
  say({ state: name, reason, polling, wait: retryAt && retryAt - Date.now() });
});
