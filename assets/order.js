// Once a page: all that the server says reaches the page, in the order in which it was said. On a busy machine Gradio's
// client fails in both. Of an event whose request is not answered yet it puts everything aside, and takes it up with the
// answer: after what was said later, so that older pictures come over newer ones. So nothing is read while an answer is
// awaited. And the server closes the stream when nothing is under way: what begins before the client has read that is
// never heard of. So the stream is opened again at once, and the client's own never closes.
{
  const ask = window.fetch.bind(window);
  let awaited = 0;
  let readers = [];

  const answered = () => {
    awaited -= 1;
    if (awaited) return;
    readers.forEach((go) => go());
    readers = [];
  };

  const join = async (request) => {
    awaited += 1;
    try {
      const answer = await ask(...request);
      const read = answer.json.bind(answer);
      answer.json = () => read().finally(() => setTimeout(answered)); // the client listens by then
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
    let closing = ""; // the last message, where the client has not heard it
    const pass = async (page) => {
      for (let answer = first; ; answer = await ask(...request)) {
        for await (const message of messages(answer.body)) {
          while (awaited) await new Promise((go) => readers.push(go));
          const [, kind] = /^data: {"msg":"(\w+)"/.exec(message) ?? [];
          if (kind === "close_stream") closing = message;
          else page.enqueue(message);
          if (kind?.startsWith("process")) closing = "";
        }
        if (!closing) return;
      }
    };
    const stream = new ReadableStream({
      start: (page) =>
        pass(page)
          .catch((problem) => {
            if (!closing) throw problem;
            page.enqueue(closing); // the client opens another one when it needs it
          })
          .then(() => page.close()),
    });
    return new Response(stream.pipeThrough(new TextEncoderStream()), first);
  };

  window.fetch = async (...request) => {
    const path = new URL(request[0].url ?? request[0], location).pathname;
    if (path.endsWith("/queue/join")) return join(request);
    const answer = await ask(...request);
    return path.endsWith("/queue/data") && answer.ok ? listen(request, answer) : answer;
  };
}
