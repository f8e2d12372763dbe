// A chat of the AI SDK as `useChat` makes one, without a page around it.
import { AbstractChat, DefaultChatTransport } from "ai";

class PlainState {
  status = "ready";
  error = undefined;
  messages;

  constructor(messages) {
    this.messages = messages;
  }

  pushMessage = (message) => {
    this.messages = [...this.messages, message];
  };

  popMessage = () => {
    this.messages = this.messages.slice(0, -1);
  };

  replaceMessage = (index, message) => {
    // Copied, as a page does: what changes later is no part of it.
    this.messages = this.messages.with(index, this.snapshot(message));
  };

  snapshot = (thing) => structuredClone(thing);
}

class PlainChat extends AbstractChat {
  constructor({ messages = [], ...rest }) {
    super({ ...rest, state: new PlainState(messages) });
  }
}

export function chatOf(id, { agent = "support", key = process.env.API_KEY, ...rest } = {}) {
  const transport = new DefaultChatTransport({
    api: `${process.env.BASE_URL}/api/chat`,
    headers: { authorization: `Bearer ${key}` },
    body: { agent },
  });
  return new PlainChat({ id, transport, ...rest });
}

export const textOf = (message) =>
  message.parts
    .filter((part) => part.type === "text")
    .map((part) => part.text)
    .join("");

// Resolves when the chat is as asked: looked at whenever a timer comes round, as a page is drawn.
export async function until(holds) {
  while (!holds()) await new Promise((resolve) => setTimeout(resolve, 10));
}
