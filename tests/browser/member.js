// @ts-check
/**
 * A page as a member of a mesh: it does what `tests/interop/README.md` says, by the module that pages are to use. Unlike
 * the members there it sends as the module does, once in the modes that are not reliable, and looks at what others number.
 *
 * @module
 */

import { Mesh } from './webrtc-mesh.js';

const MODES = ['reliable', 'ordered', 'unreliable'];
const PACKETS = 50;
const SIZE_STEP = { reliable: 333, ordered: 19, unreliable: 19 };
/** So many of what is sent once arrive at least. */
const ENOUGH = 40;
const QUESTION = 'digest?';
/** How long a message that is sent once is waited for before it is sent again, in milliseconds, and how often. */
const AGAIN_AFTER = 500;
const TRIES = 20;
/** How long one of the numbered packets that are sent once is waited for, before the next is sent. */
const LOST_AFTER = 100;

/** Lines that nobody has asked for yet. */
let told = [];
let wake = () => {};
let member;

function tell(event, details) {
  told.push({ event, ...details });
  wake();
}

/** Something that a member of a mesh must not meet. */
function surprise(why) {
  tell('surprise', { why: String(why?.stack ?? why) });
}

addEventListener('error', ({ error, message }) => surprise(error ?? message));
addEventListener('unhandledrejection', ({ reason }) => surprise(reason));

/** What is told from now on, or was and has not been asked for: at least one line. */
async function lines() {
  while (told.length === 0) await new Promise((resolve) => (wake = () => resolve(undefined)));
  return told.splice(0);
}

class Member {
  peers = new Map();
  met = new Set();

  constructor({ lobby, expect }) {
    this.expect = expect;
    this.mesh = new Mesh({ url: 'signaling', lobby });
    const on = (name, deed) => this.mesh.addEventListener(name, ({ detail }) => deed(detail));
    on('open', ({ id, lobby }) => tell('joined', { id, lobby }));
    on('peerconnected', ({ peer }) => this.connected(peer));
    on('packet', ({ from, mode, data }) => this.take(from, mode, data));
    on('peerdisconnected', ({ peer, reason }) => {
      this.peers.delete(peer);
      this.met.delete(peer);
      tell('disconnected', { peer, why: reason });
    });
    on('peerfailed', ({ peer, reason }) => surprise(`no connection to ${peer}: ${reason}`));
    on('error', ({ reason }) => tell('hung up', { reason }));
  }

  connected(peer) {
    if (this.peers.has(peer)) throw new Error(`${peer} is connected twice`);
    const none = () => ({ reliable: [], ordered: [], unreliable: [] });
    this.peers.set(peer, { echoes: none(), theirs: none(), received: none(), echoed: () => {}, ladder: null });
    tell('connected', { peer });
    for (let n = 0; n < PACKETS; n++) this.mesh.send(peer, 'reliable', packet(this.mesh.id, 'reliable', n));
  }

  /** After the burst of the above, and no faster than they come back: loopback loses next to nothing then. */
  async sendOnce(peer) {
    const known = this.peers.get(peer);
    for (let n = 0; n < PACKETS; n++) {
      if (this.peers.get(peer) !== known) return;
      const echoed = new Promise((resolve) => (known.echoed = () => resolve(undefined)));
      for (const mode of ['ordered', 'unreliable']) this.mesh.send(peer, mode, packet(this.mesh.id, mode, n));
      await Promise.race([echoed, new Promise((resolve) => setTimeout(resolve, LOST_AFTER))]);
    }
  }

  /** Takes an echo of ours, or echoes what is not ours. */
  take(from, mode, data) {
    const peer = this.peers.get(from);
    if (!peer) throw new Error(`${from} sends, and is not connected`);
    const text = new TextDecoder('latin1').decode(data.subarray(0, 64));
    if (text.startsWith(`${this.mesh.id} `)) return this.note(from, peer, this.mesh.id, peer.echoes, mode, data, text);
    if (peer.ladder) return peer.ladder(mode, data);
    if (mode === 'reliable' && text === QUESTION) return this.digest(from, peer);
    peer.received[mode].push(data);
    if (text.startsWith(`${from} `)) this.note(from, peer, from, peer.theirs, mode, data, text);
    this.mesh.send(from, mode, data);
  }

  /** One of the numbered packets, there or back: it must be one that was sent, unchanged, not twice, and in its turn. */
  note(from, peer, sender, noted, mode, data, text) {
    const n = Number(text.split(' ', 3)[2]);
    const numbers = noted[mode];
    const what = `${from} sends the ${mode} ${n} of ${sender}`;
    if (!(n >= 0 && n < PACKETS) || !equal(data, packet(sender, mode, n))) throw new Error(`${what} changed`);
    if (numbers.includes(n)) throw new Error(`${what} twice`);
    if (mode === 'reliable' && n !== numbers.length) throw new Error(`${what} after ${numbers.length}`);
    if (mode === 'ordered' && n < numbers.at(-1)) throw new Error(`${what} after ${numbers.at(-1)}`);
    numbers.push(n);
    if (noted === peer.echoes && mode === 'reliable' && n === PACKETS - 1) this.sendOnce(from);
    // The one that was sent last of the two, so that no more than these are under way.
    if (noted === peer.echoes && mode === 'unreliable') peer.echoed();
    const all = (kind) => kind.reliable.length === PACKETS && kind.ordered.length >= ENOUGH && kind.unreliable.length >= ENOUGH;
    if (this.met.has(from) || !all(peer.echoes) || !all(peer.theirs)) return;
    this.met.add(from);
    if (this.met.size >= this.expect) tell('met', { peers: [...this.met].sort((one, two) => one - two) });
  }

  async digest(from, peer) {
    const digest = {};
    for (const [mode, received] of Object.entries(peer.received)) {
      const bytes = new Uint8Array(await new Blob(received).arrayBuffer());
      const sum = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes));
      const sha256 = [...sum].map((byte) => byte.toString(16).padStart(2, '0')).join('');
      digest[mode] = { packets: received.length, bytes: bytes.length, sha256 };
    }
    tell('digest', { peer: from, ...digest });
  }

  /** Sends messages of these sizes in every mode, each until it comes back as it was. */
  async climb({ peer, sizes }) {
    const known = this.peers.get(peer);
    for (const mode of MODES) {
      for (const size of sizes) {
        for (let tries = 0; ; tries++) {
          if (tries === TRIES) throw new Error(`${size} bytes do not come back from ${peer} in the mode ${mode}`);
          const message = Uint8Array.from({ length: size }, (_, place) => 0x80 | (place + tries) % 113);
          const back = new Promise((resolve) => {
            known.ladder = (its, data) => its === mode && equal(data, message) && resolve(true);
          });
          this.mesh.send(peer, mode, message);
          const late = new Promise((resolve) => mode !== 'reliable' && setTimeout(resolve, AGAIN_AFTER, false));
          if (await Promise.race([back, late])) break;
        }
      }
    }
    // What is sent once and was late is not to be echoed: it goes to where nobody looks.
    known.ladder = (mode) => mode === 'reliable' && surprise(`${peer} sends what was not waited for`);
  }
}

/** The n-th packet of a member in a mode: a line that says so, and bytes to fill it. */
function packet(sender, mode, n) {
  const head = new TextEncoder().encode(`${sender} ${mode} ${n} `);
  const whole = Uint8Array.from({ length: 67 + n * SIZE_STEP[mode] }, (_, place) => n + place);
  whole.set(head);
  return whole;
}

function equal(one, two) {
  return one.length === two.length && one.every((byte, place) => byte === two[place]);
}

/** How many numbered packets have come back and come, of each peer. */
function state() {
  const counts = (noted) => Object.values(noted).map((numbers) => numbers.length);
  const peers = [...member.peers].map(([id, { echoes, theirs }]) => [id, counts(echoes), counts(theirs)]);
  return { id: member.mesh.id, peers, links: member.mesh.peers(), told };
}

Object.assign(window, {
  state,
  join: (options) => void (member = new Member(options)),
  lines,
  climb: (options) => member.climb(options),
  leave: () => member.mesh.close(),
});
