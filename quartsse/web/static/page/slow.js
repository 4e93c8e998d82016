/** A bad connection, simulated: event streams are read at a crawl, and whoever sends has to wait. */

const BYTES_PER_SECOND = 512;
const PIECE = 128;

/** `fetch`, but the body of an event stream arrives in small pieces. */
export async function fetchSlowly(url, init) {
  const answer = await fetch(url, init);
  if (!answer.headers.get("Content-Type")?.startsWith("text/event-stream")) return answer;
  const { status, statusText, headers } = answer;
  return new Response(answer.body.pipeThrough(new TransformStream({ transform: crawl })), { status, statusText, headers });
}

async function crawl(bytes, controller) {
  for (let start = 0; start < bytes.length; start += PIECE) {
    await new Promise((resolve) => setTimeout(resolve, (1000 * PIECE) / BYTES_PER_SECOND));
    controller.enqueue(bytes.subarray(start, start + PIECE));
  }
}
