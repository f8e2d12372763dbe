// What a program does with OpenAI's own package, and with the AI SDK on top of @ai-sdk/openai; SCENARIO says which.
import { createOpenAI } from "@ai-sdk/openai";
import { generateText, isStepCount, jsonSchema, streamText, tool } from "ai";
import OpenAI from "openai";

const { BASE_URL, API_KEY, SCENARIO, ANSWER } = process.env;
const say = (value) => console.log(JSON.stringify(value));
const client = new OpenAI({ baseURL: `${BASE_URL}/v1`, apiKey: API_KEY, maxRetries: 0 });
const provider = createOpenAI({ baseURL: `${BASE_URL}/v1`, apiKey: API_KEY });
const town = { type: "object", properties: { town: { type: "string" } }, required: ["town"], additionalProperties: false };

const scenarios = {
  // A conversation, and its first answer once more.
  async plain() {
    const first = await client.responses.create({ model: "support", input: "hello" });
    const second = await client.responses.create({ model: "support", input: "again", previous_response_id: first.id });
    const found = await client.responses.retrieve(first.id);
    const chat = await client.chat.completions.create({ model: "support", messages: [{ role: "user", content: "hi" }] });
    const models = [];
    for await (const model of client.models.list()) models.push(model.id);
    say({ texts: [first, second, found].map((each) => each.output_text), chat: chat.choices[0].message.content, models });
  },

  // Asks, decides, and goes on with the same run.
  async approval() {
    const asked = await client.responses.create({ model: "support", input: "pay" });
    const request = asked.output.find((item) => item.type === "mcp_approval_request");
    const decision = { type: "mcp_approval_response", approval_request_id: request.id, approve: ANSWER === "approve" };
    const done = await client.responses.create({ model: "support", input: [decision], previous_response_id: asked.id });
    say({ name: request.name, text: done.output_text, calls: done.output.filter((item) => item.type === "mcp_call") });
  },

  // Leaves a stream after the first words, says so, and reads the rest.
  async resumed() {
    const before = [];
    let id, last;
    for await (const event of await client.responses.create({ model: "support", input: "count", stream: true })) {
      id ??= event.response?.id;
      last = event.sequence_number;
      if (event.type === "response.output_text.delta") {
        before.push(event.delta);
        break;
      }
    }
    say(before.join(""));
    const after = [];
    let whole;
    for await (const event of await client.responses.retrieve(id, { stream: true, starting_after: last })) {
      if (event.type === "response.output_text.delta") after.push(event.delta);
      if (event.type === "response.completed") whole = event.response;
    }
    say({ text: before.concat(after).join(""), stored: whole.output[0].content[0].text });
  },

  // The AI SDK: a stream, then a second turn with the whole history.
  async ai() {
    const messages = [{ role: "user", content: "hello" }];
    const result = streamText({ model: provider.responses("support"), messages });
    let streamed = "";
    for await (const text of result.textStream) streamed += text;
    messages.push(...(await result.response).messages, { role: "user", content: "again" });
    const { text } = await generateText({ model: provider.responses("support"), messages });
    const chat = await generateText({ model: provider.chat("support"), prompt: "hi" });
    say({ streamed, text, chat: chat.text });
  },

  // The AI SDK runs a tool of its own, and goes on by itself.
  async ai_tool() {
    const weather = tool({
      description: "The weather in a town.",
      inputSchema: jsonSchema(town),
      execute: async ({ town }) => `sun in ${town}`,
    });
    const { text, steps } = await generateText({
      model: provider.responses("support"),
      prompt: "Rome?",
      tools: { weather },
      stopWhen: isStepCount(3),
    });
    say({ text, steps: steps.length });
  },

  // The AI SDK asks its user, and sends the decision with the whole history.
  async ai_approval() {
    const messages = [{ role: "user", content: "pay" }];
    const asked = await generateText({ model: provider.responses("support"), messages });
    const requests = asked.content.filter((part) => part.type === "tool-approval-request");
    messages.push(...asked.response.messages, {
      role: "tool",
      content: requests.map(({ approvalId }) => ({
        type: "tool-approval-response",
        approvalId,
        approved: ANSWER === "approve",
        providerExecuted: true,
      })),
    });
    const done = await generateText({ model: provider.responses("support"), messages });
    say({ asked: requests.length, text: done.text });
  },
};

await scenarios[SCENARIO]();
