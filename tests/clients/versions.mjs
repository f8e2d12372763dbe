// The clients load under this Node, and the API answers to the key.
import { HttpAgent } from "@ag-ui/client";
import { createOpenAI } from "@ai-sdk/openai";
import { AbstractChat } from "ai";
import OpenAI from "openai";

const answer = await fetch(`${process.env.BASE_URL}/v1/agents`, {
  headers: { authorization: `Bearer ${process.env.API_KEY}` },
});
const clients = [HttpAgent, createOpenAI, AbstractChat, OpenAI].map((client) => client.name);
console.log(JSON.stringify({ node: process.versions.node, clients, status: answer.status }));
