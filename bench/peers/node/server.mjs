// ws + ioredis, as their READMEs show it: one subscriber connection, a set of sockets for each channel.
import Redis from "ioredis";
import { WebSocketServer, WebSocket } from "ws";

const subscriber = new Redis(process.env.REDIS_URL);
const rooms = new Map();

subscriber.on("message", (channel, data) => {
  for (const socket of rooms.get(channel) ?? []) {
    if (socket.readyState === WebSocket.OPEN) socket.send(data);
  }
});

const server = new WebSocketServer({ host: "127.0.0.1", port: Number(process.env.PORT), perMessageDeflate: false, backlog: 2048 });

server.on("connection", (socket, request) => {
  const channel = `task:${request.url.slice("/ws/".length)}`;
  let room = rooms.get(channel);
  if (!room) {
    rooms.set(channel, (room = new Set()));
    subscriber.subscribe(channel);
  }
  room.add(socket);
  socket.on("error", console.error);
  socket.on("close", () => {
    room.delete(socket);
    if (room.size === 0 && rooms.get(channel) === room) {
      rooms.delete(channel);
      subscriber.unsubscribe(channel);
    }
  });
});
