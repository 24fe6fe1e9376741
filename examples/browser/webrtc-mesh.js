// @ts-check
/**
 * A browser's member of a mesh of WebRTC peers. No dependencies, no build step.
 *
 * ```js
 * import { Mesh } from './webrtc-mesh.js';
 *
 * const mesh = new Mesh({ url: 'wss://example.org/signaling', lobby: 'LOBBY' });
 * mesh.addEventListener('peerconnected', ({ detail }) => mesh.send(detail.peer, 'reliable', 'hello'));
 * mesh.addEventListener('packet', ({ detail }) => console.log(detail.from, detail.mode, detail.data));
 * ```
 *
 * The other members are pages with this module, Rust programs with the crate `webrtc-mesh`, and stock Godot 4 games: it
 * speaks the signalling of Godot 4's official demo, through that demo's servers or the crate's own, and on the wire a
 * packet is its bare payload, on Godot's three channels.
 *
 * Events, each a `CustomEvent`. For every peer one `peerconnected`, then its packets, then one `peerdisconnected`; or
 * one `peerfailed` alone, unless it left, or the mesh was closed, while it was connecting.
 *
 * | event | `detail` | |
 * |---|---|---|
 * | `open` | `{id, lobby}` | we are in the lobby; once. Peers come after it |
 * | `peerconnected` | `{peer}` | its three channels are open |
 * | `peerdisconnected` | `{peer, reason}` | it has left, or was lost, or the mesh was closed |
 * | `peerfailed` | `{peer, reason}` | it was not connected within 30 s; `reason` says in which stage it was stuck |
 * | `peerstate` | `{peer, state}` | a {@link PeerState} has changed; comes before the three above |
 * | `packet` | `{from, mode, data}` | a packet: a `Uint8Array` |
 * | `signalinglost` | `{reason}` | the server is not reached; connected peers stay, and it is tried again, without end |
 * | `signalingrestored` | `{}` | it is there again, and we have the same id |
 * | `sealed` | `{}` | the host has sealed the lobby: nobody else comes, and the server may go |
 * | `error` | `{reason}` | the signalling is over, and not tried again: the server's refusal, or the lobby's end. Connected peers stay; a new `Mesh` may join anew |
 *
 * When a connection is not up within 8 s, the side that offers (the one with the higher id) makes a fresh one, for 30 s
 * in all. When one that was up is not heard (`unstable`), it has 8 s to come back; then the peer is disconnected, and if
 * it is still in the lobby, the side that offers connects it anew. What comes from the server or from peers and cannot
 * be understood is ignored, with a `console.debug`.
 *
 * @module
 */

/**
 * How a packet travels. `reliable`: it arrives, in order. `ordered`: sent once; it arrives in order or not at all.
 * `unreliable`: sent once; it arrives in any order or not at all. Keep the last two below some 1,100 bytes: a larger one
 * is cut up, and lost with any of its parts.
 * @typedef {'reliable' | 'ordered' | 'unreliable'} Mode
 */

/**
 * How it stands with a peer. `unstable`: connected, but not heard now.
 * @typedef {'connecting' | 'connected' | 'unstable' | 'disconnected' | 'failed'} PeerState
 */

/**
 * @typedef {object} MeshOptions
 * @property {string} url The signalling server, `ws:` or `wss:`; or relative to the page. A query is kept.
 * @property {string} [lobby] The lobby to join. Default none: a new one, whose name `open` tells.
 * @property {boolean} [create] Whether the lobby is made under its name if it is not there, as the crate's own server
 *   can. Default false: then the mesh ends with an `error`.
 * @property {RTCIceServer[]} [iceServers] STUN and TURN servers. Default none: peers of one network find each other.
 */

/**
 * @typedef {object} PeerInfo
 * @property {number} id
 * @property {PeerState} state
 * @property {number | null} roundTripTime In milliseconds, of the selected pair of addresses, looked at every 2 s.
 * @property {number} bytesSent Payloads.
 * @property {number} bytesReceived Payloads.
 * @property {number} packetsDropped Unreliable and ordered packets that were not sent, as too much was waiting.
 * @property {number} bufferedAmount Bytes that wait to be sent, of all three channels.
 */

/**
 * Why something was not sent. `code`: `closed` (the mesh is), `unknown-peer`, `not-connected` (wait for its
 * `peerconnected`), `too-large` (it can never be sent), `full` (wait for {@link Mesh.ready}), `not-host`, `not-open`.
 */
export class MeshError extends Error {
  /**
   * @param {'closed' | 'unknown-peer' | 'not-connected' | 'too-large' | 'full' | 'not-host' | 'not-open'} code
   * @param {string} message
   */
  constructor(code, message) {
    super(message);
    this.name = 'MeshError';
    this.code = code;
  }
}

/** A member of a mesh. It joins at once, and lives until `close` or until the page goes. */
export class Mesh extends EventTarget {
  /** @type {Map<number, Link>} */
  #links = new Map();
  #iceServers;
  #signaling;
  #id = 0;
  #lobby = '';
  #closed = false;
  /** @type {ReturnType<typeof setInterval>} */
  #stats;
  #onPageHide = () => this.close();

  /**
   * @param {MeshOptions} options
   * @throws {SyntaxError} If the URL is none.
   */
  constructor({ url, lobby = '', create = false, iceServers = [] }) {
    super();
    this.#iceServers = iceServers;
    this.#signaling = new Signaling(serverUrl(url), lobby, create, {
      opened: (id, name) => {
        [this.#id, this.#lobby] = [id, name];
        this.#emit('open', { id, lobby: name });
      },
      came: (peer, offers) => this.#came(peer, offers),
      went: (peer) => this.#links.get(peer)?.dismiss(),
      signal: (peer, kind, data, offers) => this.#signaled(peer, kind, data, offers),
      lost: (reason) => this.#emit('signalinglost', { reason }),
      restored: () => this.#emit('signalingrestored', {}),
      sealed: () => this.#emit('sealed', {}),
      over: (reason) => this.#emit('error', { reason }),
    });
    this.#stats = setInterval(() => this.#links.forEach((link) => link.measure()), STATS_EVERY);
    // At once, so that a page that is loaded anew is a new member, and the old one is not waited for.
    addEventListener('pagehide', this.#onPageHide);
  }

  /** Our id; 1 if we are the host, 0 before `open`. */
  get id() {
    return this.#id;
  }

  /** The lobby's name; empty before `open`. */
  get lobby() {
    return this.#lobby;
  }

  /**
   * Sends a packet. Does not wait.
   *
   * Reliable: it is taken for all of its targets or, with an error, for none. At the most 1 MiB waits for a peer; over
   * it the error is `full`, and {@link Mesh.ready} waits for room. Ordered and unreliable: where more than 64 KiB wait
   * already it is dropped, and counted in {@link PeerInfo}.
   *
   * @param {number} target As Godot has it: 0 for all, n for that peer, -n for all but that peer. All are those that are
   *   connected; there may be none.
   * @param {Mode} mode
   * @param {Uint8Array | ArrayBuffer | string} payload Text is sent in UTF-8. At the most 256 KiB, or what the peer takes.
   * @returns {boolean} Whether it was taken for all targets: false if it was dropped for one.
   * @throws {MeshError}
   */
  send(target, mode, payload) {
    const place = MODES.indexOf(mode);
    if (place < 0) throw new TypeError(`there is no mode ${mode}`);
    const bytes = bytesOf(payload);
    const links = this.#targets(target);
    const limit = Math.min(...links.map((link) => link.maxMessageSize));
    if (bytes.byteLength > limit) {
      throw new MeshError('too-large', `a payload of ${bytes.byteLength} bytes is over the limit of ${limit} bytes`);
    }
    const full = mode === 'reliable' && links.find((link) => !link.hasRoom(bytes.byteLength));
    if (full) throw new MeshError('full', `too much waits for peer ${full.peer}`);
    return links.map((link) => link.send(place, bytes)).every(Boolean);
  }

  /**
   * Waits until no target has more than 512 KiB of reliable packets waiting. A peer that leaves is not waited for.
   *
   * @param {number} [target] As for {@link Mesh.send}.
   * @returns {Promise<void>}
   * @throws {MeshError}
   */
  async ready(target = 0) {
    await Promise.all(this.#targets(target).map((link) => link.drained()));
  }

  /**
   * The peers that are connected or connecting, by id.
   * @returns {PeerInfo[]}
   */
  peers() {
    return [...this.#links.values()].map((link) => link.info()).sort((one, other) => one.id - other.id);
  }

  /**
   * Seals the lobby: nobody else joins it. The server says `sealed` then.
   * @throws {MeshError} `not-host`; `not-open` if the server is not reached now.
   */
  seal() {
    if (this.#id !== HOST) throw new MeshError('not-host', 'only the host seals the lobby');
    if (!this.#signaling.say(SEAL, 0, '')) throw new MeshError('not-open', 'the server is not reached now');
  }

  /** Leaves, at once: what waits to be sent is lost. Connected peers are reported as disconnected. Final. */
  close() {
    if (this.#closed) return;
    this.#closed = true;
    removeEventListener('pagehide', this.#onPageHide);
    clearInterval(this.#stats);
    this.#signaling.close();
    for (const link of [...this.#links.values()]) link.end('the mesh was closed here');
  }

  /**
   * @param {number} target
   * @returns {Link[]}
   */
  #targets(target) {
    if (this.#closed) throw new MeshError('closed', 'the mesh is closed');
    if (!Number.isInteger(target)) throw new TypeError('the target is no whole number');
    if (target > 0) {
      const link = this.#links.get(target);
      if (!link) throw new MeshError('unknown-peer', `there is no peer ${target}`);
      if (!link.isConnected) throw new MeshError('not-connected', `peer ${target} is not connected`);
      return [link];
    }
    return [...this.#links.values()].filter((link) => link.isConnected && link.peer !== -target);
  }

  /**
   * @param {number} peer
   * @param {boolean} offers
   * @returns {Link | undefined}
   */
  #came(peer, offers) {
    const known = this.#links.get(peer);
    // One that was away from the server comes back under its id; what we have with it goes on.
    known?.recall();
    if (known || this.#closed) return known;
    if (this.#links.size >= MAX_LINKS) {
      this.#emit('peerfailed', { peer, reason: `the mesh has its ${MAX_LINKS} peers already` });
      return undefined;
    }
    const link = new Link(peer, offers, this.#iceServers, {
      say: (kind, data) => this.#signaling.say(kind, peer, data),
      state: (state) => this.#emit('peerstate', { peer, state }),
      packet: (mode, data) => this.#emit('packet', { from: peer, mode, data }),
      connected: () => this.#emit('peerconnected', { peer }),
      ended: (event, reason, lost) => {
        if (this.#links.get(peer) === link) this.#links.delete(peer);
        if (event) this.#emit(event, { peer, reason });
        if (lost && offers && this.#signaling.knows(peer)) this.#came(peer, offers);
      },
    });
    this.#links.set(peer, link);
    link.begin();
    return link;
  }

  /**
   * @param {number} peer
   * @param {number} kind
   * @param {string} data
   * @param {boolean} offers
   */
  #signaled(peer, kind, data, offers) {
    let link = this.#links.get(peer);
    if (kind === OFFER) {
      if (offers) return debug('the offer of a peer that we offer to is ignored', peer);
      if (link?.isConnected && link.isOther(data)) {
        link.end('the peer has restarted, and connects afresh');
        link = undefined;
      }
      (link ?? this.#came(peer, false))?.offered(data);
    } else if (!link) {
      debug('a signal of a peer that is not being connected is ignored', peer);
    } else if (kind === ANSWER) {
      link.answered(data);
    } else {
      link.candidate(data);
    }
  }

  /**
   * @param {string} name
   * @param {object} detail
   */
  #emit(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

/** @type {Mode[]} */
const MODES = ['reliable', 'ordered', 'unreliable'];

/** Godot's channels, agreed on beforehand: the ids are on the wire, the labels are not. @type {RTCDataChannelInit[]} */
const CHANNELS = [
  { negotiated: true, id: 1, ordered: true },
  { negotiated: true, id: 2, ordered: true, maxRetransmits: 0 },
  { negotiated: true, id: 3, ordered: false, maxRetransmits: 0 },
];

/** How long an attempt to connect a peer may take, and all of them together, in milliseconds. */
const ATTEMPT_LIMIT = 8_000;
const HANDSHAKE_LIMIT = 30_000;

/** A dead attempt is followed by a fresh one after this long, twice as long each time, and up to half of it more. */
const BACK_OFF = 250;
const MAX_BACK_OFF = 4_000;

/** How long a peer that was connected may be silent. */
const GRACE = 8_000;

/** How long what arrived before a close is waited for. */
const LAST_MESSAGES = 30;

const STATS_EVERY = 2_000;

/** As many as the crate's mesh takes by default. */
const MAX_LINKS = 128;

/** Waiting bytes for a peer: over the first, a reliable packet is refused; over the second, another is dropped. */
const MAX_RELIABLE_BYTES = 1024 * 1024;
const MAX_UNRELIABLE_BYTES = 64 * 1024;

/** The largest packet that the crate takes; browsers may take less. */
const MAX_MESSAGE_BYTES = 256 * 1024;

/** What may arrive before all three channels are open here: a round trip's worth. */
const MAX_HELD_BYTES = 4 * 1024 * 1024;

/** What of one peer waits for its description, and how long its parts may be. */
const MAX_EARLY = 256;
const MAX_SDP = 64 * 1024;
const MAX_CANDIDATE = 1024;

/**
 * A connection to a peer that is being made.
 * @typedef {object} Attempt
 * @property {RTCPeerConnection} pc
 * @property {RTCDataChannel[]} channels
 * @property {boolean} ready The remote description is set, so candidates can be.
 * @property {string} session The remote's ICE session and certificate, by which its descriptions are told apart.
 * @property {boolean} described Our description is sent, so candidates can be.
 * @property {boolean} unheard The server was not there to take it.
 * @property {boolean} dead It has failed; it stays until the next one begins.
 * @property {string[]} found Our candidates, until then.
 */

/**
 * @typedef {object} LinkEvents
 * @property {(kind: number, data: string) => boolean} say Whether the server is there to take it.
 * @property {(state: PeerState) => void} state
 * @property {(mode: Mode, data: Uint8Array) => void} packet
 * @property {() => void} connected
 * @property {(event: 'peerdisconnected' | 'peerfailed' | null, reason: string, lost: boolean) => void} ended `lost`: it
 *   was connected, and may be there still.
 */

/** A peer: the attempts to connect it, one at a time, then the connection. */
class Link {
  /** @type {PeerState} */
  state = 'connecting';
  /** @type {Attempt | null} */
  #attempt = null;
  #tries = 0;
  #began = 0;
  /** An offer that comes right after another waits a little. @type {string | null} */
  #nextOffer = null;
  /** Candidates that came before the description they belong to. @type {RTCIceCandidateInit[]} */
  #early = [];
  /** Packets that came before all channels were open. @type {{mode: Mode, data: Uint8Array}[]} */
  #held = [];
  #heldBytes = 0;
  /** The peer has left the signalling: what we have must do. */
  #orphaned = false;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #limit;
  /** @type {(() => void)[]} */
  #waiters = [];
  #bytesSent = 0;
  #bytesReceived = 0;
  #dropped = 0;
  /** @type {number | null} */
  #roundTripTime = null;

  /**
   * @param {number} peer
   * @param {boolean} offers
   * @param {RTCIceServer[]} iceServers
   * @param {LinkEvents} events
   */
  constructor(peer, offers, iceServers, events) {
    this.peer = peer;
    this.offers = offers;
    this.iceServers = iceServers;
    this.events = events;
  }

  get isConnected() {
    return this.state === 'connected' || this.state === 'unstable';
  }

  get #isOver() {
    return this.state === 'disconnected' || this.state === 'failed';
  }

  get maxMessageSize() {
    return Math.min(this.#attempt?.pc.sctp?.maxMessageSize || MAX_MESSAGE_BYTES, MAX_MESSAGE_BYTES);
  }

  begin() {
    this.events.state(this.state);
    this.#limit = setTimeout(() => this.#fail(), HANDSHAKE_LIMIT);
    if (this.offers) this.#connect(null);
  }

  /** Whether a description is of another connection than ours. @param {string} sdp */
  isOther(sdp) {
    return this.#attempt?.session !== sessionOf(sdp);
  }

  /** @param {string} sdp */
  offered(sdp) {
    if (!this.isOther(sdp) && this.#nextOffer === null) return debug('an offer that was answered comes again', this.peer);
    this.#early = [];
    if (this.#nextOffer !== null) {
      this.#nextOffer = sdp;
      return;
    }
    const pause = this.#attempt ? this.#began + BACK_OFF - performance.now() : 0;
    if (pause <= 0) {
      this.#connect(sdp);
      return;
    }
    this.#nextOffer = sdp;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#connect(this.#nextOffer), pause);
  }

  /** @param {string} sdp */
  async answered(sdp) {
    const attempt = this.#attempt;
    if (!this.offers || !attempt || attempt.session !== '' || !attempt.described) {
      return debug('an answer that nobody waits for is ignored', this.peer);
    }
    attempt.session = sessionOf(sdp);
    try {
      await attempt.pc.setRemoteDescription({ type: 'answer', sdp });
    } catch (error) {
      attempt.session = '';
      return debug('an answer is ignored', error);
    }
    this.#described(attempt);
  }

  /** @param {string} data The empty line, and the three that say what. */
  candidate(data) {
    const lines = data.split(/\r?\n/).filter((line) => line !== '');
    const [sdpMid, index, candidate] = lines;
    if (lines.length !== 3 || !/^\d{1,5}$/.test(index) || candidate.length > MAX_CANDIDATE) {
      return debug('what is no candidate is ignored', this.peer);
    }
    const found = { candidate, sdpMid, sdpMLineIndex: Number(index) };
    if (this.#nextOffer === null && this.#attempt?.ready) {
      this.#add(this.#attempt, found);
    } else if (this.#early.length < MAX_EARLY) {
      this.#early.push(found);
    } else {
      debug('too many candidates come before their description', this.peer);
    }
  }

  /** The peer has left the signalling. What is connected stays, and so does what may still become it. */
  dismiss() {
    this.#orphaned = true;
    if (this.state === 'connecting' && !this.#attempt?.ready) this.#end('disconnected', null, '');
  }

  /** The peer is in the signalling again, or we are: an offer that did not get out is made anew. */
  recall() {
    this.#orphaned = false;
    if (this.state === 'connecting' && this.#attempt?.unheard) this.#retry(0);
  }

  /**
   * @param {number} place
   * @param {Uint8Array<ArrayBuffer>} bytes
   */
  send(place, bytes) {
    const channel = this.#attempt?.channels[place];
    if (!channel || channel.readyState !== 'open' || (place > 0 && channel.bufferedAmount > MAX_UNRELIABLE_BYTES)) {
      this.#dropped += 1;
      return false;
    }
    try {
      channel.send(bytes);
    } catch (error) {
      // Its connection is about to end, which is told then.
      debug('a packet is not sent', error);
      this.#dropped += 1;
      return false;
    }
    this.#bytesSent += bytes.byteLength;
    return true;
  }

  /** Whether one more reliable packet can wait; one always can. @param {number} bytes */
  hasRoom(bytes) {
    const waiting = this.#attempt?.channels[0].bufferedAmount ?? 0;
    return waiting === 0 || waiting + bytes <= MAX_RELIABLE_BYTES;
  }

  /** @returns {Promise<void>} */
  drained() {
    const waiting = this.#attempt?.channels[0].bufferedAmount ?? 0;
    if (this.#isOver || waiting <= MAX_RELIABLE_BYTES / 2) return Promise.resolve();
    return new Promise((resolve) => this.#waiters.push(resolve));
  }

  /** @returns {PeerInfo} */
  info() {
    return {
      id: this.peer,
      state: this.state,
      roundTripTime: this.#roundTripTime,
      bytesSent: this.#bytesSent,
      bytesReceived: this.#bytesReceived,
      packetsDropped: this.#dropped,
      bufferedAmount: this.#attempt?.channels.reduce((sum, channel) => sum + channel.bufferedAmount, 0) ?? 0,
    };
  }

  async measure() {
    const attempt = this.#attempt;
    if (!attempt || !this.isConnected) return;
    try {
      const stats = await attempt.pc.getStats();
      const all = [.../** @type {Iterable<[string, any]>} */ (/** @type {unknown} */ (stats))].map(([, report]) => report);
      const selected = all.find((report) => report.type === 'transport')?.selectedCandidatePairId;
      const pair = all.find((report) =>
        report.type === 'candidate-pair' && (selected ? report.id === selected : report.nominated && report.state === 'succeeded'));
      if (pair?.currentRoundTripTime !== undefined) this.#roundTripTime = pair.currentRoundTripTime * 1000;
    } catch (error) {
      debug('no statistics', error);
    }
  }

  /**
   * It is over, and was connected; or it was not, and nobody needs to know.
   * @param {string} reason
   * @param {boolean} [lost]
   */
  end(reason, lost = false) {
    this.#end('disconnected', this.isConnected ? 'peerdisconnected' : null, reason, lost);
  }

  /**
   * A fresh connection: that of an offer, or one that offers.
   * @param {string | null} offer
   */
  async #connect(offer) {
    this.#discard();
    this.#nextOffer = null;
    this.#began = performance.now();
    /** @type {Attempt | undefined} */
    let attempt;
    try {
      attempt = this.#attempt = this.#prepare();
      const { pc } = attempt;
      if (this.offers) this.#timer = setTimeout(() => this.#retry(0), ATTEMPT_LIMIT);
      if (offer !== null) {
        attempt.session = sessionOf(offer);
        await pc.setRemoteDescription({ type: 'offer', sdp: offer });
        this.#described(attempt);
      }
      const description = await (offer === null ? pc.createOffer() : pc.createAnswer());
      await pc.setLocalDescription(description);
      // The answer to an offer that another one has followed would be taken for the answer to that one.
      if (this.#attempt !== attempt || this.#nextOffer !== null) return;
      attempt.unheard = !this.events.say(offer === null ? OFFER : ANSWER, description.sdp ?? '');
      attempt.described = true;
      attempt.found.splice(0).forEach((candidate) => this.events.say(CANDIDATE, candidate));
    } catch (error) {
      debug('an attempt has failed', error);
      if (this.#attempt === attempt) this.#failed();
    }
  }

  /** @returns {Attempt} */
  #prepare() {
    const pc = new RTCPeerConnection({ iceServers: this.iceServers });
    const channels = CHANNELS.map((init, place) => pc.createDataChannel(MODES[place], init));
    /** @type {Attempt} */
    const attempt = { pc, channels, ready: false, session: '', described: false, unheard: false, dead: false, found: [] };
    channels.forEach((channel, place) => {
      channel.binaryType = 'arraybuffer';
      channel.onopen = () => this.#opened();
      channel.onmessage = ({ data }) => this.#received(MODES[place], data);
      channel.onclose = () => this.#channelClosed();
    });
    channels[0].bufferedAmountLowThreshold = MAX_RELIABLE_BYTES / 2;
    channels[0].onbufferedamountlow = () => this.#waiters.splice(0).forEach((resolve) => resolve());
    // Channels are agreed on beforehand; others are nobody's.
    pc.ondatachannel = ({ channel }) => channel.close();
    pc.onicecandidate = ({ candidate }) => {
      if (!candidate?.candidate || candidate.sdpMid === null) return;
      const data = `\n${candidate.sdpMid}\n${candidate.sdpMLineIndex ?? 0}\n${candidate.candidate}`;
      if (attempt.described) this.events.say(CANDIDATE, data);
      else attempt.found.push(data);
    };
    pc.oniceconnectionstatechange = () => this.#conditionChanged();
    pc.onconnectionstatechange = () => this.#conditionChanged();
    return attempt;
  }

  /** The remote description is set. @param {Attempt} attempt */
  #described(attempt) {
    if (this.#attempt !== attempt) return;
    attempt.ready = true;
    this.#early.splice(0).forEach((candidate) => this.#add(attempt, candidate));
  }

  /**
   * @param {Attempt} attempt
   * @param {RTCIceCandidateInit} candidate
   */
  #add(attempt, candidate) {
    const ufrag = / ufrag (\S+)/.exec(candidate.candidate ?? '')?.[1];
    if (ufrag && !attempt.session.startsWith(`${ufrag} `)) return debug('a candidate of a former attempt is ignored', this.peer);
    attempt.pc.addIceCandidate(candidate).catch((error) => debug('a candidate is ignored', error));
  }

  #opened() {
    if (this.state !== 'connecting' || this.#attempt?.channels.some((channel) => channel.readyState !== 'open')) return;
    clearTimeout(this.#timer);
    clearTimeout(this.#limit);
    this.#become('connected');
    this.events.connected();
    for (const { mode, data } of this.#held.splice(0)) {
      if (this.isConnected) this.events.packet(mode, data);
    }
    this.measure();
    // That it is silent may be known before that it is open.
    this.#conditionChanged();
  }

  /**
   * @param {Mode} mode
   * @param {ArrayBuffer | string} received
   */
  #received(mode, received) {
    const data = bytesOf(received);
    this.#bytesReceived += data.byteLength;
    if (this.isConnected) {
      this.events.packet(mode, data);
    } else if (this.#heldBytes + data.byteLength <= MAX_HELD_BYTES) {
      // With something for the packet itself, as there may be many empty ones.
      this.#heldBytes += data.byteLength + 64;
      this.#held.push({ mode, data });
    } else {
      debug('a peer sends too much before it is connected', this.peer);
      this.#failed();
    }
  }

  #channelClosed() {
    if (!this.isConnected) return this.#failed();
    // The others may hold what arrived before.
    setTimeout(() => this.end('the peer has left'), LAST_MESSAGES);
  }

  #conditionChanged() {
    const pc = this.#attempt?.pc;
    if (!pc) return;
    const failed = pc.iceConnectionState === 'failed' || pc.connectionState === 'failed';
    const heard = pc.iceConnectionState === 'connected' || pc.iceConnectionState === 'completed';
    if (this.state === 'connecting') {
      if (failed) this.#failed();
    } else if (failed) {
      this.end('the connection is lost: ICE has given it up', true);
    } else if (this.state === 'connected' && pc.iceConnectionState === 'disconnected') {
      this.#become('unstable');
      this.#timer = setTimeout(() => this.end(`the peer was not heard for ${GRACE / 1000} s`, true), GRACE);
    } else if (this.state === 'unstable' && heard) {
      clearTimeout(this.#timer);
      this.#become('connected');
    }
  }

  /** The attempt is dead. */
  #failed() {
    if (this.state !== 'connecting' || this.#attempt?.dead) return;
    if (this.#attempt) this.#attempt.dead = true;
    const pause = Math.min(BACK_OFF * 2 ** this.#tries, MAX_BACK_OFF);
    this.#retry(pause + (Math.random() * pause) / 2);
  }

  /** The side that offers tries again; the other one is asked to. @param {number} pause */
  #retry(pause) {
    if (!this.offers || this.#orphaned) return;
    this.#tries += 1;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#connect(null), pause);
  }

  #fail() {
    const reason = `not connected after ${HANDSHAKE_LIMIT / 1000} s: ${this.#stage()}`;
    this.#end('failed', 'peerfailed', reason);
  }

  /** What it is stuck in. */
  #stage() {
    const attempt = this.#attempt;
    if (!attempt?.ready) return `signalling: no ${this.offers ? 'answer' : 'offer'} has come`;
    const { iceConnectionState, connectionState } = attempt.pc;
    if (iceConnectionState !== 'connected' && iceConnectionState !== 'completed') {
      return `ICE is ${iceConnectionState}: no pair of addresses reached each other`;
    }
    if (connectionState !== 'connected') return `DTLS: the connection is ${connectionState}`;
    return `the channels are ${attempt.channels.map((channel) => channel.readyState).join(', ')}`;
  }

  /** @param {PeerState} state */
  #become(state) {
    this.state = state;
    this.events.state(state);
  }

  /**
   * @param {PeerState} state
   * @param {'peerdisconnected' | 'peerfailed' | null} event
   * @param {string} reason
   * @param {boolean} [lost]
   */
  #end(state, event, reason, lost = false) {
    if (this.#isOver) return;
    clearTimeout(this.#limit);
    this.#discard();
    this.#waiters.splice(0).forEach((resolve) => resolve());
    this.#become(state);
    this.events.ended(event, reason, lost);
  }

  /** Closes the connection, and hears nothing more of it. */
  #discard() {
    clearTimeout(this.#timer);
    const attempt = this.#attempt;
    this.#attempt = null;
    [this.#held, this.#heldBytes] = [[], 0];
    if (!attempt) return;
    const { pc, channels } = attempt;
    for (const channel of channels) channel.onopen = channel.onmessage = channel.onclose = channel.onbufferedamountlow = null;
    pc.onicecandidate = pc.oniceconnectionstatechange = pc.onconnectionstatechange = pc.ondatachannel = null;
    pc.close();
  }
}

/** The messages of Godot 4's demo: JSON, `{type, id, data}`. */
const [JOIN, ID, PEER_CONNECT, PEER_DISCONNECT, OFFER, ANSWER, CANDIDATE, SEAL] = [0, 1, 2, 3, 4, 5, 6, 7];

/** Whoever made the lobby. */
const HOST = 1;
const MAX_ID = 2 ** 31 - 1;

/** How long it may take to get into the lobby. */
const ENTER_LIMIT = 10_000;

/** The bound of the first pause before it is tried to reach the server again, and of the longest. */
const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 30_000;

/** Peers that a server may name, and signals of those that it has not named yet. */
const MAX_KNOWN = 4096;
const MAX_UNKNOWN = 64;

/** Close codes after which it may be otherwise in a while (RFC 6455 section 7.4, and its registry). */
const PASSING = [1001, 1005, 1006, 1011, 1012, 1013, 1014];

/**
 * @typedef {object} SignalingEvents
 * @property {(id: number, lobby: string) => void} opened
 * @property {(peer: number, offers: boolean) => void} came
 * @property {(peer: number) => void} went
 * @property {(peer: number, kind: number, data: string, offers: boolean) => void} signal
 * @property {(reason: string) => void} lost
 * @property {() => void} restored
 * @property {() => void} sealed
 * @property {(reason: string) => void} over
 */

/** The way to the server: in, and back in under the same id when it was lost. */
class Signaling {
  /** @type {WebSocket | null} */
  #socket = null;
  /** What is heard until we are in. */
  #entering = { id: 0, mesh: true, there: /** @type {Set<number>} */ (new Set()), rest: /** @type {any[]} */ ([]) };
  /** By which the server knows us when we come back; nobody else's business. */
  #session = [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, '0')).join('');
  #id = 0;
  #mesh = true;
  /** @type {Set<number>} */
  #known = new Set();
  /** @type {{id: number, type: number, data: string}[]} */
  #unknown = [];
  #isIn = false;
  #isLost = false;
  #sealed = false;
  #over = false;
  #tries = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  #onOnline = () => this.#hurry();

  /**
   * @param {URL} url
   * @param {string} lobby
   * @param {boolean} create
   * @param {SignalingEvents} events
   */
  constructor(url, lobby, create, events) {
    this.url = url;
    this.lobby = lobby;
    this.create = create;
    this.events = events;
    addEventListener('online', this.#onOnline);
    // Not before whoever makes the mesh can listen.
    this.#timer = setTimeout(() => this.#connect(), 0);
  }

  /**
   * Whether the server is there to take it.
   * @param {number} type
   * @param {number} id
   * @param {string} data
   */
  say(type, id, data) {
    const open = this.#isIn && this.#socket?.readyState === WebSocket.OPEN;
    // Godot's own server closes whoever sends to somebody who has just left.
    if (!open || (id !== 0 && !this.#known.has(id))) {
      debug('a signal is not sent', id);
      return false;
    }
    this.#socket?.send(JSON.stringify({ type, id, data }));
    return true;
  }

  /** Whether the peer is in the lobby, as far as we have heard. @param {number} peer */
  knows(peer) {
    return !this.#over && this.#known.has(peer);
  }

  close() {
    this.#over = true;
    removeEventListener('online', this.#onOnline);
    this.#hangUp();
  }

  #connect() {
    const url = new URL(this.url);
    url.searchParams.set('session', this.#session);
    if (this.create) url.searchParams.set('create', 'true');
    if (this.#id) url.searchParams.set('id', String(this.#id));
    this.#entering = { id: 0, mesh: true, there: new Set(), rest: [] };
    let socket;
    try {
      socket = this.#socket = new WebSocket(url);
    } catch (error) {
      // As on a page with https, which must not.
      return this.#finish(String(error));
    }
    socket.binaryType = 'arraybuffer';
    socket.onopen = () => socket.send(JSON.stringify({ type: JOIN, id: 0, data: this.lobby }));
    socket.onmessage = ({ data }) => this.#hear(data);
    socket.onclose = ({ code, reason }) => this.#closed(code, reason);
    this.#timer = setTimeout(() => {
      this.#hangUp();
      this.#closed(1006, 'the server does not answer');
    }, ENTER_LIMIT);
  }

  /** There is a network again: not so long a pause. */
  #hurry() {
    if (!this.#isLost || this.#socket) return;
    clearTimeout(this.#timer);
    this.#tries = 0;
    this.#pause();
  }

  #pause() {
    const bound = Math.min(FIRST_PAUSE * 2 ** Math.min(this.#tries, 16), LONGEST_PAUSE);
    this.#tries += 1;
    this.#timer = setTimeout(() => this.#connect(), Math.random() * bound);
  }

  /** @param {unknown} frame */
  #hear(frame) {
    const message = decode(frame);
    if (!message) return debug('what is no message is ignored');
    if (!this.#isIn) return this.#enter(message);
    const { type, id, data } = message;
    if (type === SEAL) {
      if (!this.#sealed) this.events.sealed();
      this.#sealed = true;
    } else if (type === PEER_CONNECT) {
      this.#comes(id);
    } else if (type === PEER_DISCONNECT) {
      this.#goes(id);
    } else if (type === OFFER || type === ANSWER || type === CANDIDATE) {
      if (this.#known.has(id)) {
        this.events.signal(id, type, data, this.#offers(id));
      } else if (this.#unknown.length < MAX_UNKNOWN && this.#isPeer(id)) {
        this.#unknown.push(message);
      } else {
        debug('a signal of nobody is ignored', id);
      }
    }
  }

  /** @param {{type: number, id: number, data: string}} message */
  #enter(message) {
    const { type, id, data } = message;
    const entering = this.#entering;
    if (type === ID) {
      [entering.id, entering.mesh] = [id, data === 'true'];
    } else if (type === PEER_CONNECT && entering.there.size < MAX_KNOWN) {
      entering.there.add(id);
    } else if (type === PEER_DISCONNECT) {
      entering.there.delete(id);
    } else if (type === JOIN) {
      this.#entered(data);
    } else if (entering.rest.length < MAX_KNOWN) {
      entering.rest.push(message);
    }
  }

  /** @param {string} lobby */
  #entered(lobby) {
    const { id, mesh, there, rest } = this.#entering;
    if (id < 1 || id > MAX_ID) return this.#finish('Lobby is sealed');
    if (this.#id && id !== this.#id) return this.#finish('the server has given our id away');
    clearTimeout(this.#timer);
    const again = this.#isLost && this.#id !== 0;
    [this.#id, this.#mesh, this.lobby] = [id, mesh, lobby];
    [this.#isIn, this.#isLost, this.#tries] = [true, false, 0];
    if (again) this.events.restored();
    else this.events.opened(id, lobby);
    [...this.#known].filter((peer) => !there.has(peer)).forEach((peer) => this.#goes(peer));
    // Those that we knew already may have been lost meanwhile.
    [...there].filter((peer) => this.#known.has(peer) && this.#offers(peer)).forEach((peer) => this.events.came(peer, true));
    there.forEach((peer) => this.#comes(peer));
    rest.forEach((message) => this.#hear(JSON.stringify(message)));
  }

  /** @param {number} peer */
  #comes(peer) {
    if (!this.#isPeer(peer) || this.#known.has(peer) || this.#known.size >= MAX_KNOWN || this.#over) return;
    this.#known.add(peer);
    this.events.came(peer, this.#offers(peer));
    const early = this.#unknown.filter(({ id }) => id === peer);
    this.#unknown = this.#unknown.filter(({ id }) => id !== peer);
    early.forEach(({ type, data }) => this.events.signal(peer, type, data, this.#offers(peer)));
  }

  /** @param {number} peer */
  #goes(peer) {
    this.#unknown = this.#unknown.filter(({ id }) => id !== peer);
    if (this.#known.delete(peer)) this.events.went(peer);
  }

  /** In Godot 4 the higher id offers. @param {number} peer */
  #offers(peer) {
    return this.#id > peer;
  }

  /** In a lobby that is no mesh, clients connect to the host alone. @param {number} peer */
  #isPeer(peer) {
    return peer >= 1 && peer <= MAX_ID && peer !== this.#id && (this.#mesh || this.#id === HOST || peer === HOST);
  }

  /**
   * @param {number} code
   * @param {string} text
   */
  #closed(code, text) {
    this.#hangUp();
    const wasIn = this.#isIn;
    this.#isIn = false;
    if (this.#over) return;
    if (this.#sealed || text === 'Seal complete') {
      // It has done its work.
      this.#over = true;
      return;
    }
    const reason = text || `the connection to the server has ended (${code})`;
    // The last is what a page hears that was busy itself, right after the connection was there.
    const busy = !wasIn && (/^Too many/.test(text) || text === 'Have not joined lobby yet');
    // A server of Godot's own refuses without a code, at first.
    const refused = code === 1005 && this.#id === 0;
    if (!(PASSING.includes(code) || text === 'Does not answer' || busy) || refused) return this.#finish(reason);
    if (!this.#isLost) {
      this.#isLost = true;
      this.events.lost(reason);
    }
    if (!this.#over) this.#pause();
  }

  /** @param {string} reason */
  #finish(reason) {
    this.close();
    this.#isIn = false;
    this.events.over(reason);
  }

  #hangUp() {
    clearTimeout(this.#timer);
    const socket = this.#socket;
    this.#socket = null;
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close(1000);
  }
}

/**
 * @param {unknown} frame
 * @returns {{type: number, id: number, data: string} | null}
 */
function decode(frame) {
  try {
    const text = typeof frame === 'string' ? frame : new TextDecoder().decode(/** @type {ArrayBuffer} */ (frame));
    const { type, id, data = '' } = JSON.parse(text);
    if (typeof type !== 'number' || typeof id !== 'number' || typeof data !== 'string' || data.length > MAX_SDP) return null;
    return { type: Math.trunc(type), id: Math.trunc(id), data };
  } catch {
    return null;
  }
}

/** What tells one description of a peer from another; first its `ufrag`. @param {string} sdp */
function sessionOf(sdp) {
  const [, ufrag] = /^a=ice-ufrag:(\S+)/m.exec(sdp) ?? [];
  const [, fingerprint] = /^a=fingerprint:(.+)$/m.exec(sdp) ?? [];
  return `${ufrag} ${fingerprint?.trim()}`;
}

/**
 * @param {Uint8Array | ArrayBuffer | string} payload
 * @returns {Uint8Array<ArrayBuffer>}
 */
function bytesOf(payload) {
  if (typeof payload === 'string') return /** @type {Uint8Array<ArrayBuffer>} */ (new TextEncoder().encode(payload));
  if (payload instanceof ArrayBuffer) return new Uint8Array(payload);
  if (payload instanceof Uint8Array) return /** @type {Uint8Array<ArrayBuffer>} */ (payload);
  throw new TypeError('a payload is a Uint8Array, an ArrayBuffer or text');
}

/** @param {string} url */
function serverUrl(url) {
  const server = new URL(url, location.href);
  if (server.protocol === 'http:') server.protocol = 'ws:';
  if (server.protocol === 'https:') server.protocol = 'wss:';
  if (server.protocol !== 'ws:' && server.protocol !== 'wss:') throw new SyntaxError(`${server} is no WebSocket's URL`);
  return server;
}

/** @param {unknown[]} what */
function debug(...what) {
  console.debug('webrtc-mesh:', ...what);
}
