// What an application does with `@ag-ui/client`; SCENARIO says which. Prints what it holds in the end.
import { HttpAgent, buildResumeArray } from "@ag-ui/client";

const say = (value) => console.log(JSON.stringify(value));
// The client writes what fails to the console as well, which is ours to print to.
console.error = console.warn = () => {};

function agentOf(threadId, { agent = "support", key = process.env.API_KEY, ...rest } = {}) {
  const headers = { authorization: `Bearer ${key}` };
  return new HttpAgent({ url: `${process.env.BASE_URL}/agui/${agent}`, headers, threadId, ...rest });
}

const user = (id, content) => ({ id, role: "user", content });

async function outcomeOf(run) {
  try {
    await run();
    return { status: 200 };
  } catch (error) {
    return { status: error.status, error: error.message };
  }
}

const scenarios = {
  // Two runs in one thread; then the second again, as after a lost connection, with the half of it that had come.
  async plain() {
    const agent = agentOf("a-thread");
    agent.addMessage(user("u1", "hello"));
    await agent.runAgent({ runId: "r1" });
    agent.addMessage(user("u2", "again"));
    await agent.runAgent({ runId: "r2" });
    const messages = structuredClone(agent.messages);
    const half = { ...messages.at(-1), content: messages.at(-1).content.slice(0, 3) };
    const repeated = agentOf("a-thread", { initialMessages: [...messages.slice(0, -1), half] });
    await repeated.runAgent({ runId: "r2" });
    say({ messages, repeated: repeated.messages });
  },

  async torn() {
    const agent = agentOf("a-thread");
    agent.addMessage(user("u1", "count"));
    let isFirst = true;
    await agent.runAgent({}, {
      onTextMessageContentEvent: ({ event }) => {
        if (isFirst) say(event.delta);
        isFirst = false;
      },
    });
    say({ messages: agent.messages });
  },

  // Answers the interrupt with PAYLOAD, or gives it up where there is none.
  async interrupt() {
    const agent = agentOf("a-thread");
    agent.addMessage(user("u1", "pay"));
    await agent.runAgent();
    const interrupts = structuredClone(agent.pendingInterrupts);
    const interrupted = structuredClone(agent.messages);
    const payload = process.env.PAYLOAD && JSON.parse(process.env.PAYLOAD);
    const response = payload ? { status: "resolved", payload } : { status: "cancelled" };
    const resume = buildResumeArray(interrupts, Object.fromEntries(interrupts.map(({ id }) => [id, response])));
    await agent.runAgent({ runId: "r2", resume });
    say({ interrupts, interrupted, messages: agent.messages, pending: agent.pendingInterrupts });
  },

  // Answers what it was not asked, in each of several ways.
  async forged() {
    const outcomes = [];
    for (const { threadId, interruptId, tools = [] } of JSON.parse(process.env.FORGED)) {
      const agent = agentOf(threadId, { initialMessages: [user("u1", "pay")] });
      const resume = interruptId && [{ interruptId, status: "resolved", payload: { approved: true } }];
      outcomes.push(await outcomeOf(() => agent.runAgent({ tools, resume: resume || undefined })));
    }
    say(outcomes);
  },
};

await scenarios[process.env.SCENARIO]();
