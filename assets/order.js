// Once a page: what the server says reaches Gradio's client whole and in the order in which it was said. On a busy machine
// the client fails in both. Of an event whose request is not answered yet it puts everything aside, and takes it up with
// the answer: after what was said later, so that older pictures come over newer ones. So such a message waits for the
// answer, and all that follow it. And the server closes its stream when nothing is under way: of an event that begins
// before the client has read that, nothing is heard. So the stream is then opened again.
{
  const ask = window.fetch.bind(window);
  const heard = new Set(); // events that the client listens for
  let awaited = 0; // answers
  let readers = [];

  const answered = (event) => {
    if (event) heard.add(event);
    awaited -= 1;
    readers.forEach((go) => go());
    readers = [];
  };

  const join = async (request) => {
    awaited += 1;
    try {
      const answer = await ask(...request);
      const read = answer.json.bind(answer);
      answer.json = async () => {
        let said;
        try {
          said = await read();
          return said;
        } finally {
          setTimeout(answered, 0, said?.event_id); // the client listens by then
        }
      };
      return answer;
    } catch (problem) {
      answered();
      throw problem;
    }
  };

  async function* messages(body) {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      const whole = (text + part.value).split("\n\n");
      text = whole.pop();
      yield* whole.map((message) => `${message}\n\n`);
    }
  }

  const listen = (request, first) => {
    const pass = async (page) => {
      for (let answer = first; answer; ) {
        let again = false;
        for await (const message of messages(answer.body)) {
          const [, kind, event] = /^data: {"msg":"(\w+)","event_id":(?:"(\w+)")?/.exec(message) ?? [];
          while (awaited && !heard.has(event)) await new Promise((go) => readers.push(go));
          if (kind === "process_completed") heard.delete(event);
          if (kind === "close_stream" && heard.size) again = true;
          else page.enqueue(message);
        }
        answer = again && (await ask(...request));
        if (answer && !answer.ok) throw new Error(`${answer.status} ${answer.statusText}`);
      }
      page.close();
    };
    return new Response(new ReadableStream({ start: pass }).pipeThrough(new TextEncoderStream()), first);
  };

  window.fetch = async (...request) => {
    const path = new URL(request[0].url ?? request[0], location).pathname;
    if (path.endsWith("/queue/join")) return join(request);
    const answer = await ask(...request);
    return path.endsWith("/queue/data") && answer.ok ? listen(request, answer) : answer;
  };
}
