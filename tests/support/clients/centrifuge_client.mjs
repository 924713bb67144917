// Drives the npm package `centrifuge` for a test: commands come as JSON lines, events and answers go back.
import { createInterface } from "node:readline";
import { createRequire } from "node:module";

const require = createRequire(process.argv[2] + "/");
const { Centrifuge } = require("centrifuge");
const WebSocket = require("ws");

const say = (document) => process.stdout.write(JSON.stringify(document) + "\n");
const subscriptions = new Map();
let client;
let tokens = [];

function open({ url, token, refreshed }) {
  tokens = refreshed ?? [];
  const options = { websocket: WebSocket, minReconnectDelay: 50, maxReconnectDelay: 500, token };
  if (refreshed) options.getToken = async () => { say({ event: "token wanted" }); return tokens.shift() ?? token; };
  client = new Centrifuge(url, options);
  for (const event of ["connecting", "connected", "disconnected"])
    client.on(event, (context) => say({ event, code: context.code, reason: context.reason }));
  client.on("error", (context) => say({ event: "error", code: context.error?.code }));
  client.connect();
}

function subscribe({ channel, data, join_leave: joinLeave }) {
  const subscription = client.newSubscription(channel, { data, recoverable: true, joinLeave });
  subscriptions.set(channel, subscription);
  subscription.on("publication", ({ offset, data, tags, info }) =>
    say({ event: "publication", channel, offset, data, tags, sender: info?.client }));
  subscription.on("subscribed", ({ recovered, wasRecovering }) => say({ event: "subscribed", channel, recovered, was_recovering: wasRecovering }));
  subscription.on("unsubscribed", ({ code }) => say({ event: "unsubscribed", channel, code }));
  for (const event of ["join", "leave"])
    subscription.on(event, ({ info }) => say({ event, channel, client: info.client, user: info.user }));
  subscription.subscribe();
}

const acts = {
  open,
  subscribe,
  subscribe_all: ({ channels }) => {
    client.startBatching();
    for (const channel of channels) subscribe({ channel });
    client.stopBatching();
  },
  unsubscribe: ({ channel }) => subscriptions.get(channel).unsubscribe(),
  publish: ({ channel, data }) => client.publish(channel, data),
  history: ({ channel, limit, since, reverse }) => client.history(channel, { limit, since, reverse }),
  presence: ({ channel }) => client.presence(channel),
  presence_stats: ({ channel }) => client.presenceStats(channel),
  rpc: ({ method, data }) => client.rpc(method, data),
  close: () => client.disconnect(),
};

for await (const line of createInterface({ input: process.stdin })) {
  const { n, act, ...rest } = JSON.parse(line);
  Promise.resolve()
    .then(() => acts[act](rest))
    .then((answer) => say({ n, answer: answer ?? null }))
    .catch((error) => say({ n, error: { code: error.code ?? 0, message: String(error.message ?? error) } }));
}
process.exit(0);
