// Reads many streams with quartsse.js, each up to so many events: node cut_reader.mjs URL STREAMS EVENTS. Writes one
// JSON object: for each stream, by its number, the data of its events.
import { connect } from "../quartsse/web/static/quartsse.js";

const [url, streams, wanted] = [process.argv[2], +process.argv[3], +process.argv[4]];

function read(number) {
  return new Promise((resolve) => {
    const found = [];
    const stream = connect(`${url}/${number}`, { mode: "fetch", minDelay: 1 });
    stream.on("event", (data) => {
      found.push(data);
      if (found.length < wanted) return;
      stream.close();
      resolve(found);
    });
  });
}

const found = {};
const numbers = Array.from({ length: streams }, (_, number) => number);
async function work() {
  for (let number = numbers.pop(); number !== undefined; number = numbers.pop()) found[number] = await read(number);
}
await Promise.all(Array.from({ length: 50 }, work));
process.stdout.write(JSON.stringify(found));
