// A member of a mesh on werift, as a stock Godot game would be one. README.md beside this says what it does.
//
//     node werift_member.mjs --url ws://127.0.0.1:9080 --lobby NAME --generation 4 --expect 2

import { createHash } from "node:crypto";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";

// `require` finds what is in NODE_PATH, too; `import` does not.
const require = createRequire(import.meta.url);
const { RTCPeerConnection } = require("werift");
const inWerift = createRequire(require.resolve("werift"));
const { Flight3 } = inWerift("../../dtls/src/flight/client/flight3.js");
const { InboundStream, SCTP } = inWerift("../../sctp/src/sctp.js");
const WebSocket = require("ws");

// A HelloVerifyRequest that comes twice, which `webrtc-mesh` sends again if there is no answer within 60 ms, ends
// werift's handshake with an error. The second one is ignored instead.
const sendCookie = Flight3.prototype.exec;
Flight3.prototype.exec = async function (request) {
  if (this.dtls.flight !== 3) await sendCookie.call(this, request);
};

// After a lost packet, werift hands over what has come in order only up to the next chunk of another stream, and keeps
// the rest until more comes. So it is asked until nothing is left.
const someMessages = InboundStream.prototype.popMessages;
InboundStream.prototype.popMessages = function* () {
  for (let left = Infinity; this.reassembly.length < left; ) {
    left = this.reassembly.length;
    yield* someMessages.call(this);
  }
};

// When messages were given up (FORWARD TSN), werift throws away what it has of others with the parts of those, reliable
// ones, too, and may count a channel's messages backwards. So the parts alone are thrown away, and what is complete is
// asked for.
const [FIRST, LAST] = [2, 1];
const isUpTo = (one, other) => (other - one) >>> 0 < 2 ** 31;

InboundStream.prototype.pruneChunks = function (tsn) {
  let size = 0;
  let message = [];
  const kept = [];
  for (const [place, chunk] of this.reassembly.entries()) {
    message.push(chunk);
    const following = this.reassembly[place + 1];
    const goesOn = following?.tsn === (chunk.tsn + 1) >>> 0 && !(following.flags & FIRST);
    if (goesOn && !(chunk.flags & LAST)) continue;
    const noBegin = !(message[0].flags & FIRST) && isUpTo((message[0].tsn - 1) >>> 0, tsn);
    const noEnd = !(chunk.flags & LAST) && isUpTo((chunk.tsn + 1) >>> 0, tsn);
    if (noBegin || noEnd) for (const part of message) size += part.userData.length;
    else kept.push(...message);
    message = [];
  }
  this.reassembly = kept;
  return size;
};

const takeForwardTsn = SCTP.prototype.receiveForwardTsnChunk;
SCTP.prototype.receiveForwardTsnChunk = function (chunk) {
  const ahead = (seq, other) => seq !== other && ((seq - other) & 0xffff) < 0x8000;
  chunk.streams = chunk.streams.filter(
    ([id, seq]) => !ahead(this.getInboundStream(id).streamSequenceNumber, (seq + 1) & 0xffff),
  );
  takeForwardTsn.call(this, chunk);
  for (const stream of Object.values(this.inboundStreams)) {
    for (const message of stream.popMessages()) {
      this.advertisedRwnd += message[2].length;
      this.receive(...message);
    }
  }
};

// Godot's three channels: SCTP stream, mode, ordered. The engine misspells the lifetime that it gives to the last two,
// so all of them are fully reliable.
const CHANNELS = [
  [1, "reliable", true],
  [2, "ordered", true],
  [3, "unreliable", false],
];
const PACKETS = 50;
const SIZE_STEP = { reliable: 333, ordered: 19, unreliable: 19 };
const QUESTION = "digest?";

// Loopback alone: of the machine's interfaces none, bound to this address, and no server is asked.
const CONFIGURATION = {
  iceServers: [],
  iceUseIpv4: false,
  iceUseIpv6: false,
  iceInterfaceAddresses: { udp4: "127.0.0.1" },
  iceAdditionalHostAddresses: ["127.0.0.1"],
};

// Both sides may start the SCTP association (RFC 8841). werift does only as the controlling side of ICE, `webrtc` only
// as the DTLS client; when `webrtc` offers, each waits for the other. So werift starts it, if nobody has by then.
const SCTP_CLOSED = 1;
const SCTP_WAIT_MS = 200;

// How long a peer has to agree to the closing of its channels.
const CLOSE_LIMIT_MS = 500;

/** Something that a member of a mesh must not meet. */
class Surprise extends Error {}

/** One other member, and what has come from it. */
class Peer {
  connection = new RTCPeerConnection(CONFIGURATION);
  channels = {};
  open = new Set();
  echoes = {};
  received = {};
  described = false;

  constructor() {
    for (const [id, mode, ordered] of CHANNELS) {
      this.channels[mode] = this.connection.createDataChannel(mode, { ordered, negotiated: true, id });
      this.echoes[mode] = [];
      this.received[mode] = { packets: 0, bytes: 0, sha256: createHash("sha256") };
    }
  }

  connected() {
    return this.open.size === CHANNELS.length;
  }

  /** Closes the channels, then the rest, as Godot does. Closing the connection alone tells the other side nothing. */
  async close() {
    const channels = Object.values(this.channels).filter((channel) => channel.readyState !== "closed");
    const closed = channels.map((channel) => new Promise((resolve) => (channel.onclose = resolve)));
    for (const channel of channels) channel.close();
    await Promise.race([Promise.all(closed), new Promise((resolve) => setTimeout(resolve, CLOSE_LIMIT_MS))]);
    await this.connection.close();
  }

  met() {
    return this.echoes.reliable.length === PACKETS;
  }
}

/** Everything that happens comes through one inbox and is dealt with in turn. */
class Member {
  inbox = Promise.resolve();
  id = null;
  lobby = null;
  sealed = false;
  peers = new Map();
  met = new Set();
  leaving = false;

  constructor(options) {
    this.options = options;
    this.socket = new WebSocket(options.url, { handshakeTimeout: 10_000, closeTimeout: 5_000 });
    this.socket.on("open", () => this.say("J", 0, options.lobby));
    this.socket.on("message", (frame) => this.put(() => this.hear(read(options.generation, String(frame)))));
    this.socket.on("close", (code, reason) => this.put(() => this.hungUp(code, String(reason))));
    this.socket.on("error", (error) => this.put(() => Promise.reject(error)));
    const commands = createInterface({ input: process.stdin });
    commands.on("line", (line) => this.put(() => line.trim() === "seal" && this.say("S", 0, "")));
    commands.on("close", () => this.put(() => this.leave()));
    for (const name of ["SIGTERM", "SIGINT"]) {
      process.on(name, () => this.put(() => this.leave()));
    }
  }

  put(deed) {
    this.inbox = this.inbox.then(() => this.leaving || deed()).catch(fail);
  }

  // Signalling

  say(letter, to, data) {
    this.socket.send(write(this.options.generation, letter, to, data));
  }

  /** Deals with what the signalling server says. */
  async hear([letter, number, data]) {
    if (letter === "I" && this.id === null) {
      this.id = number;
    } else if (letter === "J" && this.id !== null && this.lobby === null) {
      this.lobby = data;
      tell("joined", { id: this.id, lobby: data });
    } else if (letter === "N" && this.id !== null && number !== this.id && !this.peers.has(number)) {
      await this.greet(number);
    } else if (letter === "D") {
      await this.forget(number, this.peers.get(number), "left the lobby");
    } else if (letter === "S" && !this.sealed) {
      this.sealed = true;
      tell("sealed", {});
    } else if ("OAC".includes(letter)) {
      // Unless it is of one who has just gone.
      if (this.peers.has(number)) await this.negotiate(letter, number, data);
    } else {
      throw new Surprise(`${letter} ${number} out of place`);
    }
  }

  /** Prepares the connection to a peer, and offers if that is up to us. */
  async greet(number) {
    const peer = new Peer();
    this.peers.set(number, peer);
    const put = (deed) => this.put(() => this.peers.get(number) === peer && deed());
    for (const [mode, channel] of Object.entries(peer.channels)) {
      channel.onopen = () => put(() => this.opened(number, peer, mode));
      channel.onmessage = ({ data }) => put(() => this.take(number, peer, mode, data));
      channel.onclose = () => put(() => this.forget(number, peer, "a channel was closed"));
    }
    peer.connection.ondatachannel = ({ channel }) =>
      put(() => {
        throw new Surprise(`${number} opened a channel '${channel.label}' of its own`);
      });
    peer.connection.onconnectionstatechange = () => {
      const state = peer.connection.connectionState;
      if (["failed", "closed", "disconnected"].includes(state)) {
        put(() => this.forget(number, peer, `the connection is ${state}`));
      }
    };
    // Candidates go out after the description, which would otherwise come too late for a Godot.
    peer.candidates = [];
    peer.connection.onicecandidate = ({ candidate }) => {
      if (!candidate?.candidate) return;
      const data = `\n${candidate.sdpMid}\n${candidate.sdpMLineIndex}\n${candidate.candidate}`;
      if (peer.candidates) peer.candidates.push(data);
      else this.say("C", number, data);
    };
    if (this.offersTo(number)) {
      await this.describe(number, peer, "O", await peer.connection.createOffer());
    }
  }

  offersTo(number) {
    return this.options.generation === 3 ? this.id < number : this.id > number;
  }

  /** Takes a description as ours, and sends it without candidates, as Godot does; those follow. */
  async describe(number, peer, letter, description) {
    await peer.connection.setLocalDescription(description);
    const lines = peer.connection.localDescription.sdp.split("\r\n");
    this.say(letter, number, lines.filter((line) => !/^a=(candidate|end-of-candidates)/.test(line)).join("\r\n"));
    for (const candidate of peer.candidates) this.say("C", number, candidate);
    peer.candidates = null;
  }

  /** Deals with a description or a candidate of a peer. */
  async negotiate(letter, number, data) {
    const peer = this.peers.get(number);
    if (letter === "C") {
      const parts = data.split("\n").filter((part) => part);
      if (parts.length !== 3 || !/^\d+$/.test(parts[1])) {
        throw new Surprise(`a candidate of ${number} is not one: ${JSON.stringify(data)}`);
      }
      if (!peer.described) throw new Surprise(`a candidate of ${number} comes before its description`);
      const [sdpMid, index, candidate] = parts;
      await peer.connection.addIceCandidate({ candidate, sdpMid, sdpMLineIndex: Number(index) });
      return;
    }
    if ((letter === "A") !== this.offersTo(number)) throw new Surprise(`${number} and we both offer, or both answer`);
    if (peer.described) throw new Surprise(`${number} describes itself twice`);
    peer.described = true;
    await peer.connection.setRemoteDescription({ type: letter === "O" ? "offer" : "answer", sdp: data });
    if (letter === "O") {
      await this.describe(number, peer, "A", await peer.connection.createAnswer());
      const { sctp, dtlsTransport } = peer.connection.sctpTransport;
      const startSctp = () => this.peers.get(number) === peer && sctp.associationState === SCTP_CLOSED && sctp.init();
      dtlsTransport.onStateChange.subscribe((state) => {
        if (state === "connected") setTimeout(() => this.put(startSctp), SCTP_WAIT_MS);
      });
    }
  }

  /** The server has closed our connection to it; as in Godot's demo, that is the end unless the lobby is sealed. */
  async hungUp(code, reason) {
    tell("hung up", { code, reason });
    if (this.sealed) return;
    for (const [number, peer] of [...this.peers]) await this.forget(number, peer, "the lobby is gone");
    if (code !== 4000 || reason !== "Room host has disconnected") {
      throw new Surprise(`the server hung up with ${code} '${reason}'`);
    }
    await this.leave();
  }

  async leave() {
    this.leaving = true;
    for (const peer of this.peers.values()) await peer.close();
    if (this.socket.readyState === WebSocket.OPEN) {
      const closed = new Promise((resolve) => this.socket.once("close", resolve));
      this.socket.close(1000);
      await closed;
    }
    if (this.met.size < this.options.expect) {
      throw new Surprise(`told to leave, having met ${this.met.size} of ${this.options.expect} peers`);
    }
    process.exit(0);
  }

  // Peers

  opened(number, peer, mode) {
    peer.open.add(mode);
    if (!peer.connected()) return;
    tell("connected", { peer: number });
    for (const [mode, channel] of Object.entries(peer.channels)) {
      for (let n = 0; n < PACKETS; n++) channel.send(packet(this.id, mode, n));
    }
  }

  /** Takes an echo of ours, or echoes what is not ours. */
  take(number, peer, mode, data) {
    if (!peer.connected()) throw new Surprise(`${number} sends before the channels are open`);
    const content = Buffer.from(data);
    if (content.toString("latin1").startsWith(`${this.id} `)) {
      this.takeEcho(number, peer, mode, content);
      return;
    }
    if (mode === "reliable" && content.toString("latin1") === QUESTION) {
      const digest = {};
      for (const [mode, sums] of Object.entries(peer.received)) {
        digest[mode] = { ...sums, sha256: sums.sha256.copy().digest("hex") };
      }
      tell("digest", { peer: number, ...digest });
      return;
    }
    const received = peer.received[mode];
    received.packets += 1;
    received.bytes += content.length;
    received.sha256.update(content);
    if (peer.channels[mode].readyState === "open") peer.channels[mode].send(data);
  }

  takeEcho(number, peer, mode, content) {
    const n = Number(content.toString("latin1").split(" ", 3)[2]);
    const echoes = peer.echoes[mode];
    if (!(n >= 0 && n < PACKETS) || !content.equals(packet(this.id, mode, n))) {
      throw new Surprise(`${number} echoes ${mode} ${n} changed`);
    }
    if (echoes.includes(n)) throw new Surprise(`${number} echoes ${mode} ${n} twice`);
    if (mode !== "unreliable" && echoes.length > 0 && n < echoes.at(-1)) {
      throw new Surprise(`${number} echoes ${mode} ${n} after ${echoes.at(-1)}`);
    }
    if (mode === "reliable" && n !== echoes.length) {
      throw new Surprise(`${number} leaves ${mode} ${echoes.length} out`);
    }
    echoes.push(n);
    if (echoes.length === PACKETS) tell("echoed", { peer: number, mode });
    if (mode === "reliable" && peer.met()) {
      this.met.add(number);
      if (this.met.size === this.options.expect) {
        tell("met", { peers: [...this.met].sort((one, two) => one - two) });
      }
    }
  }

  /** Godot drops a peer with the first of its channels, or as soon as its connection is not connected. */
  async forget(number, peer, why) {
    if (!peer || this.peers.get(number) !== peer) return;
    this.peers.delete(number);
    await peer.close();
    if (peer.connected()) {
      tell("disconnected", { peer: number, why });
    } else if (why !== "left the lobby" && why !== "the lobby is gone") {
      throw new Surprise(`no connection to ${number}: ${why}`);
    }
  }
}

// The words of the two protocols, in the order of their numbers in Godot 4's.
const LETTERS = "JINDOACS";

/** What a frame says: its letter, the id in it, and the rest. */
function read(generation, text) {
  const strange = () => new Surprise(`the server says ${JSON.stringify(text.slice(0, 100))}, which is not the protocol`);
  if (generation === 4) {
    const { type, id, data } = JSON.parse(text);
    if (LETTERS[type] === undefined || !Number.isInteger(id) || typeof data !== "string") throw strange();
    return [LETTERS[type], id, data];
  }
  const end = text.indexOf("\n");
  const [letter, argument] = [text[0], text.slice(3, end)];
  if (end < 3 || text.slice(1, 3) !== ": " || !LETTERS.includes(letter)) throw strange();
  if ("JS".includes(letter)) return [letter, 0, argument];
  if (!/^\d+$/.test(argument)) throw strange();
  return [letter, Number(argument), text.slice(end + 1)];
}

function write(generation, letter, to, data) {
  if (generation === 4) return JSON.stringify({ type: LETTERS.indexOf(letter), id: to, data });
  if ("JS".includes(letter)) return `${letter}: ${data}\n`;
  // A candidate's data begins with a newline: after the line with the id, Godot sends an empty one.
  return `${letter}: ${to}\n${data}`;
}

/** The n-th packet of ours in a mode: a line that says so, and bytes to fill it. */
function packet(sender, mode, n) {
  const head = Buffer.from(`${sender} ${mode} ${n} `);
  const whole = Buffer.alloc(67 + n * SIZE_STEP[mode]);
  for (let place = 0; place < whole.length; place++) whole[place] = (n + place) % 256;
  head.copy(whole);
  return whole;
}

function tell(event, details) {
  process.stdout.write(`${JSON.stringify({ event, ...details })}\n`);
}

function fail(error) {
  process.stderr.write(`werift_member: ${error?.constructor?.name}: ${error?.message ?? error}\n`);
  process.exit(1);
}

process.on("uncaughtException", fail);
process.on("unhandledRejection", fail);

const { values } = parseArgs({
  options: {
    url: { type: "string" }, // the signalling server's
    lobby: { type: "string", default: "" }, // which to join; makes one if left out
    generation: { type: "string", default: "4" }, // of Godot, 3 or 4: which protocol is spoken
    expect: { type: "string", default: "0" }, // how many peers must have been met before leaving
  },
});
if (!values.url || !["3", "4"].includes(values.generation)) {
  fail(new Error("--url is needed, and --generation is 3 or 4"));
}
new Member({ ...values, generation: Number(values.generation), expect: Number(values.expect) });
