// A chat program on @xmpp/client: what it reads from standard input as "TO<tab>TEXT" it sends, what it receives it
// prints as "FROM<tab>TEXT". Arguments: service, domain, user name, password.

import { createInterface } from "node:readline";

import { client, xml } from "@xmpp/client";

const [service, domain, username, password] = process.argv.slice(2);
const entity = client({ service, domain, username, password });
entity.reconnect.stop();

entity.on("error", (error) => {
  console.error(error);
  process.exit(1);
});

entity.on("online", async (address) => {
  await entity.send(xml("presence"));
  console.log(`online\t${address}`);
});

entity.on("stanza", (stanza) => {
  const body = stanza.is("message") && stanza.getChildText("body");
  if (body) console.log(`${stanza.attrs.from}\t${body}`);
});

const input = createInterface({ input: process.stdin });
input.on("line", async (line) => {
  const [to, text] = line.split("\t");
  await entity.send(xml("message", { type: "chat", to }, xml("body", {}, text)));
});
input.on("close", () => entity.stop());

await entity.start();
