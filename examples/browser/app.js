// @ts-check
/**
 * The page: a space in which everyone's pointer moves, a chat, and the mesh drawn as it is.
 *
 * What goes over the wire, besides what the mesh needs itself. Of what is longer or otherwise, nothing is taken:
 *
 * | mode | payload | |
 * |---|---|---|
 * | reliable | `{"t":"hello","name":"anna","color":"#3a86ff"}` | to a newcomer, and to all when it changes; 24 characters |
 * | reliable | `{"t":"chat","text":"hi"}` | 500 characters |
 * | reliable | `{"t":"links","links":[[7,"connected",1.2],…]}` | the sender's links, every 3 s and when one changes: to whom, how it is, its round trip in milliseconds or null |
 * | ordered | 2, begins (0 or 1), x, y | ink: a point of a line that fades; x and y are u16, big-endian, 0 to 65535 across the space |
 * | unreliable | 1, x, y | the pointer, at most 60 times a second; at rest, once a second |
 * | unreliable | 0 | the pointer has left the space |
 */

import { Mesh } from './webrtc-mesh.js';

const [POINTER_GONE, POINTER, INK] = [0, 1, 2];
const ACROSS = 65535;

const MAX_NAME = 24;
const MAX_TEXT = 500;
const MAX_JSON = 16 * 1024;
const MAX_LINKS = 128;
const MAX_ID = 2 ** 31 - 1;

/** Who answers commands. */
const HOST = 1;

/** In milliseconds. */
const FRAME = 16;
const REST = 1_000;
const LINKS_EVERY = 3_000;
/** What somebody said of its links counts for so long; a failed link of ours is shown for so long. */
const REPORT_LIFE = 10_000;
const FAILED_SHOWN = 30_000;
const INK_LIFE = 6_000;
const IDLE = 5_000;

/** Points of ink that are kept of each; lines of the chat. */
const MAX_INK = 600;
const MAX_LOG = 200;

/**
 * @typedef {object} Person
 * @property {number} id
 * @property {string} name Empty until it has said hello.
 * @property {string} color
 * @property {{x: number, y: number} | null} shown Where its pointer is drawn, from 0 to 1.
 * @property {{x: number, y: number} | null} wanted Where it is.
 * @property {number} heard When it moved.
 * @property {HTMLElement} cursor
 * @property {{x: number, y: number, at: number, begins: boolean}[]} ink
 */

/** @typedef {{state: string, time: number | null}} Tie How a link is, and its round trip. */

/** @param {string} id @returns {any} */
const element = (id) => document.getElementById(id);
const calm = matchMedia('(prefers-reduced-motion: reduce)');

/** @type {Mesh | undefined} */
let mesh;
/** The same, while the server is there. @type {Mesh | undefined} */
let joined;
/** The others that we are connected with. @type {Map<number, Person>} */
const people = new Map();
/** What each said of its links. @type {Map<number, {at: number, ties: Map<number, Tie>}>} */
const reports = new Map();
/** Our links that did not come to be, and when. @type {Map<number, number>} */
const failed = new Map();

const me = {
  name: clean(sessionStorage.getItem('name'), MAX_NAME) || randomName(),
  color: colorOf(sessionStorage.getItem('color')) ?? randomColor(),
  /** @type {Person['ink']} */
  ink: [],
};

/* The mesh */

let restarts = 0;

/** Asks the server until it answers, and joins. Whom we are connected with until then stays. */
async function start() {
  try {
    const answer = await fetch('config.json');
    if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
    join(await answer.json());
  } catch (error) {
    if (!mesh) status('over', 'The server does not answer', String(error));
    startLater();
  }
}

/** Not everyone at once, and not without a pause. */
function startLater() {
  restarts += 1;
  setTimeout(start, Math.min(500 * 2 ** restarts, 15_000) * (0.5 + Math.random() / 2));
}

/** @param {{lobby: string, iceServers: RTCIceServer[]}} config */
function join({ lobby, iceServers }) {
  const former = mesh;
  mesh = undefined;
  former?.close();
  const mine = (mesh = new Mesh({ url: 'signaling', lobby, iceServers }));
  // For whoever tries things out in the console.
  Object.assign(window, { mesh: mine });
  status('joining', 'Joining…');

  /** @param {string} name @param {(detail: any) => void} handler */
  const on = (name, handler) => mine.addEventListener(name, (event) => handler(/** @type {CustomEvent} */ (event).detail));
  on('open', () => {
    restarts = 0;
    joined = mine;
    showStatus();
  });
  on('peerconnected', ({ peer }) => {
    failed.delete(peer);
    people.set(peer, newPerson(peer));
    tell(peer, { t: 'hello', name: me.name, color: me.color });
    showStatus();
  });
  on('peerdisconnected', ({ peer, reason }) => {
    const person = people.get(peer);
    person?.cursor.remove();
    people.delete(peer);
    reports.delete(peer);
    // Of one whose mesh we have left ourselves, as its lobby is over, nothing is said.
    if (mesh !== mine) return;
    if (person?.name) note(`${person.name} is gone: ${reason}`);
    showStatus();
  });
  on('peerfailed', ({ peer, reason }) => {
    failed.set(peer, performance.now());
    note(`Peer ${peer} could not be connected: ${reason}`);
  });
  on('peerstate', linksChanged);
  on('packet', ({ from, mode, data }) => heard(from, mode, data));
  on('signalinglost', ({ reason }) => {
    joined = undefined;
    status('lost', 'No server now; whoever is here stays', reason);
  });
  on('signalingrestored', () => {
    joined = mine;
    showStatus();
  });
  on('sealed', () => note('The lobby is sealed: nobody else comes in.'));
  on('error', ({ reason }) => {
    joined = undefined;
    status('over', 'The lobby is over; whoever is here stays', reason);
    startLater();
  });
}

/** @param {number} target @param {object} what */
function tell(target, what) {
  try {
    mesh?.send(target, 'reliable', JSON.stringify(what));
    return true;
  } catch (error) {
    // It has just left, or does not read.
    console.debug('not told:', error);
    return false;
  }
}

/** @param {'ordered' | 'unreliable'} mode @param {number[]} bytes */
function show(mode, bytes) {
  if (people.size > 0) mesh?.send(0, mode, new Uint8Array(bytes));
}

/** @param {number} from @param {string} mode @param {Uint8Array} data */
function heard(from, mode, data) {
  const person = people.get(from);
  if (!person) return;
  if (mode !== 'reliable') return seen(person, mode, data);
  const said = data.length <= MAX_JSON ? parse(data) : null;
  if (said?.t === 'hello') {
    const [name, color] = [clean(said.name, MAX_NAME), colorOf(said.color)];
    if (!name || !color) return;
    if (!person.name) note(`${name} is here`);
    Object.assign(person, { name, color });
    dress(person);
    meshChanged();
    showStatus();
  } else if (said?.t === 'chat') {
    const text = clean(said.text, MAX_TEXT);
    if (text) line(person.name || `Peer ${from}`, person.color, text, false);
  } else if (said?.t === 'links') {
    const ties = tiesOf(said.links);
    if (ties) reports.set(from, { at: performance.now(), ties });
    meshChanged();
  }
}

/** @param {Person} person @param {string} mode @param {Uint8Array} data */
function seen(person, mode, data) {
  const place = (/** @type {number} */ at) => (data[at] * 256 + data[at + 1]) / ACROSS;
  if (mode === 'unreliable' && data.length === 5 && data[0] === POINTER) {
    const wanted = { x: place(1), y: place(3) };
    if (wanted.x !== person.wanted?.x || wanted.y !== person.wanted?.y) person.heard = performance.now();
    person.wanted = wanted;
  } else if (mode === 'unreliable' && data.length === 1 && data[0] === POINTER_GONE) {
    person.wanted = null;
  } else if (mode === 'ordered' && data.length === 6 && data[0] === INK) {
    addInk(person.ink, { x: place(2), y: place(4) }, data[1] === 1);
  }
}

/** Our links, for everyone to draw. @returns {[number, string, number | null][]} */
function ourLinks() {
  const now = performance.now();
  failed.forEach((at, peer) => now - at > FAILED_SHOWN && failed.delete(peer));
  const links = (mesh?.peers() ?? []).map(({ id, state, roundTripTime }) =>
    /** @type {[number, string, number | null]} */ ([id, state, roundTripTime === null ? null : Math.round(roundTripTime * 10) / 10]));
  const known = new Set(links.map(([id]) => id));
  failed.forEach((_, id) => known.has(id) || links.push([id, 'failed', null]));
  return links.slice(0, MAX_LINKS);
}

/** @type {ReturnType<typeof setTimeout> | undefined} */
let linksTimer;

function tellLinks() {
  linksTimer = undefined;
  tell(0, { t: 'links', links: ourLinks() });
  meshChanged();
}

/** Several changes at once are told once. */
function linksChanged() {
  linksTimer ??= setTimeout(tellLinks, 150);
}

/* What comes from others is looked at here */

/** @param {Uint8Array} data @returns {any} */
function parse(data) {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(data));
  } catch {
    return null;
  }
}

/** Text without what is not seen, or turns others around. @param {unknown} text @param {number} limit */
function clean(text, limit) {
  if (typeof text !== 'string') return '';
  const visible = text.replace(/[\p{Cc}\u2028\u2029\u202a-\u202e\u2066-\u2069]/gu, ' ');
  return [...visible.slice(0, 4 * limit)].slice(0, limit).join('').trim();
}

/** @param {unknown} color */
function colorOf(color) {
  return typeof color === 'string' && /^#[0-9a-f]{6}$/i.test(color) ? color.toLowerCase() : null;
}

/** @param {unknown} links @returns {Map<number, Tie> | null} */
function tiesOf(links) {
  if (!Array.isArray(links) || links.length > MAX_LINKS) return null;
  const ties = new Map();
  for (const link of links) {
    if (!Array.isArray(link)) return null;
    const [id, state, time] = link;
    if (!Number.isInteger(id) || id < 1 || id > MAX_ID || !Object.hasOwn(SEVERITY, state)) return null;
    ties.set(id, { state, time: Number.isFinite(time) && time >= 0 && time < 60_000 ? time : null });
  }
  return ties;
}

/* The space: pointers and ink */

const space = element('space');
const canvas = /** @type {HTMLCanvasElement} */ (element('ink'));
const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext('2d'));

/** Where our pointer is, from 0 to 1. @type {{x: number, y: number} | null} */
let pointer = null;
let moved = false;
let drawing = false;
/** Ink that is to be told with the next frame. @type {{x: number, y: number, begins: boolean}[]} */
let freshInk = [];
let told = 0;

/** @param {PointerEvent} event */
function placeOf(event) {
  const { left, top, width, height } = space.getBoundingClientRect();
  const inside = (/** @type {number} */ place) => Math.min(Math.max(place, 0), 1);
  return { x: inside((event.clientX - left) / width), y: inside((event.clientY - top) / height) };
}

space.addEventListener('pointerdown', (/** @type {PointerEvent} */ event) => {
  if (!event.isPrimary || event.button !== 0) return;
  space.setPointerCapture(event.pointerId);
  drawing = true;
  moveTo(event, true);
  element('hint').classList.add('is-known');
});

space.addEventListener('pointermove', (/** @type {PointerEvent} */ event) => event.isPrimary && moveTo(event, false));

for (const name of ['pointerup', 'pointercancel', 'pointerleave', 'lostpointercapture']) {
  space.addEventListener(name, (/** @type {PointerEvent} */ event) => {
    if (!event.isPrimary) return;
    drawing = false;
    // A finger that is lifted is nowhere; a mouse is.
    if (name === 'pointerleave' || event.pointerType !== 'mouse') {
      if (pointer) show('unreliable', [POINTER_GONE]);
      pointer = null;
    }
  });
}

/** @param {PointerEvent} event @param {boolean} begins */
function moveTo(event, begins) {
  pointer = placeOf(event);
  moved = true;
  if (!drawing) return;
  addInk(me.ink, pointer, begins);
  // More than a few points within one frame are no finer line.
  if (freshInk.length < 8) freshInk.push({ ...pointer, begins });
}

/** @param {{x: number, y: number}} place */
function coded({ x, y }) {
  const [a, b] = [Math.round(x * ACROSS), Math.round(y * ACROSS)];
  return [a >> 8, a & 255, b >> 8, b & 255];
}

/** @param {Person['ink']} ink @param {{x: number, y: number}} place @param {boolean} begins */
function addInk(ink, place, begins) {
  ink.push({ ...place, at: performance.now(), begins });
  if (ink.length > MAX_INK) ink.shift();
}

/** @param {number} now */
function frame(now) {
  // A screen of 120 Hz or more is no reason to send as often.
  if (pointer && ((moved && now - told >= FRAME - 2) || now - told >= REST)) {
    show('unreliable', [POINTER, ...coded(pointer)]);
    [moved, told] = [false, now];
  }
  for (const point of freshInk) show('ordered', [INK, Number(point.begins), ...coded(point)]);
  freshInk = [];

  const { clientWidth: width, clientHeight: height } = space;
  drawInk(now, width, height);
  people.forEach((person) => moveCursor(person, now, width, height));
  requestAnimationFrame(frame);
}

/** @param {number} now @param {number} width @param {number} height */
function drawInk(now, width, height) {
  const scale = Math.min(devicePixelRatio || 1, 2);
  const [wide, high] = [Math.round(width * scale), Math.round(height * scale)];
  if (canvas.width !== wide || canvas.height !== high) [canvas.width, canvas.height] = [wide, high];
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.clearRect(0, 0, width, height);
  [pen.lineCap, pen.lineJoin] = ['butt', 'round'];
  for (const { ink, color } of [...people.values(), me]) {
    while (ink.length > 0 && now - ink[0].at > INK_LIFE) ink.shift();
    pen.strokeStyle = color;
    // A curve through the middles between points. Neighbours of about the same age are one stroke, as strokes that meet
    // show a seam.
    let stroke = -1;
    ink.forEach((point, at) => {
      const middle = (/** @type {{x: number, y: number}} */ one) => /** @type {const} */ ([((one.x + point.x) / 2) * width, ((one.y + point.y) / 2) * height]);
      const left = Math.max(1 - (now - point.at) / INK_LIFE, 0);
      const age = Math.round(left * 24);
      if (point.begins || age !== stroke) {
        if (stroke >= 0) pen.stroke();
        stroke = age;
        pen.globalAlpha = Math.min(1, left * 1.8);
        pen.lineWidth = 2.5 + 3 * left;
        pen.beginPath();
        pen.moveTo(...middle(point.begins ? point : (ink[at - 1] ?? point)));
      }
      const after = ink[at + 1]?.begins === false ? ink[at + 1] : point;
      pen.quadraticCurveTo(point.x * width, point.y * height, ...middle(after));
    });
    if (stroke >= 0) pen.stroke();
  }
  pen.globalAlpha = 1;
}

/** @param {Person} person @param {number} now @param {number} width @param {number} height */
function moveCursor(person, now, width, height) {
  const { cursor, wanted } = person;
  cursor.classList.toggle('is-gone', !wanted);
  if (!wanted) {
    person.shown = null;
    return;
  }
  const share = person.shown && !calm.matches ? 0.35 : 1;
  const shown = person.shown ?? wanted;
  person.shown = { x: shown.x + (wanted.x - shown.x) * share, y: shown.y + (wanted.y - shown.y) * share };
  const [x, y] = [person.shown.x * width, person.shown.y * height];
  cursor.style.transform = `translate(${x.toFixed(1)}px, ${y.toFixed(1)}px)`;
  cursor.classList.toggle('is-right', x > width - 130);
  cursor.classList.toggle('is-low', y > height - 48);
  cursor.classList.toggle('is-idle', now - person.heard > IDLE);
}

/** @param {number} id @returns {Person} */
function newPerson(id) {
  const cursor = document.createElement('div');
  cursor.className = 'cursor is-gone';
  const arrow = svg('svg', { viewBox: '0 0 22 22' });
  arrow.append(svg('path', { d: 'M1 1 L6.5 19 L10 11.5 L18 9 Z' }));
  cursor.append(arrow, document.createElement('span'));
  element('cursors').append(cursor);
  const person = { id, name: '', color: '#8a8fa3', shown: null, wanted: null, heard: 0, cursor, ink: [] };
  dress(person);
  return person;
}

/** @param {Person} person */
function dress({ id, name, color, cursor }) {
  const label = /** @type {HTMLElement} */ (cursor.querySelector('span'));
  label.textContent = name || String(id);
  [label.style.background, label.style.color] = [color, readableOn(color)];
  cursor.querySelector('path')?.setAttribute('fill', color);
}

/* The mesh, drawn */

/** Of two reports on a link the worse one is drawn. @type {Record<string, number>} */
const SEVERITY = { connected: 0, unstable: 1, connecting: 2, disconnected: 2, failed: 3 };
const WORDS = /** @type {Record<string, string>} */ ({
  connected: 'connected', unstable: 'not heard now', connecting: 'connecting', disconnected: 'connecting', failed: 'failed',
});

const graph = element('graph');
/** The link that the caption is about. */
let shownLink = '';
let drawn = '';

/** All pairs, as their ends say: who is there, and how each link is. */
function wholeMesh() {
  const now = performance.now();
  const mine = mesh?.id ?? 0;
  const all = new Map([...reports].filter(([, { at }]) => now - at < REPORT_LIFE).map(([id, { ties }]) => [id, ties]));
  all.set(mine, new Map(ourLinks().map(([id, state, time]) => [id, { state, time }])));
  const ids = new Set([...people.keys(), ...all.keys()]);
  all.forEach((ties) => ties.forEach((_, id) => ids.add(id)));
  ids.delete(0);
  const nodes = [...ids].sort((one, other) => one - other).slice(0, MAX_LINKS);
  /** @type {{one: number, other: number, state: string, time: number | null}[]} */
  const links = [];
  nodes.forEach((one, at) => {
    for (const other of nodes.slice(at + 1)) {
      const said = [all.get(one)?.get(other), all.get(other)?.get(one)].filter((tie) => tie !== undefined);
      // One that we have ourselves is as we see it.
      const ours = one === mine ? said.slice(0, 1) : other === mine ? said.slice(-1) : said;
      const worst = ours.sort((a, b) => SEVERITY[b.state] - SEVERITY[a.state])[0];
      if (!worst) continue;
      const times = said.map(({ time }) => time).filter((time) => time !== null);
      const time = times.length ? times.reduce((sum, each) => sum + each, 0) / times.length : null;
      links.push({ one, other, state: worst.state, time: worst.state === 'connected' ? time : null });
    }
  });
  return { mine, nodes, links };
}

/** @param {number} id */
function face(id) {
  if (id === mesh?.id) return { name: `${me.name} (you)`, short: me.name, color: me.color };
  const person = people.get(id);
  const name = person?.name || `Peer ${id}`;
  return { name, short: person?.name || String(id), color: person?.color ?? '#8a8fa3' };
}

let meshTimer = 0;

/** Drawn with the next frame, once. */
function meshChanged() {
  meshTimer ||= requestAnimationFrame(() => {
    meshTimer = 0;
    const whole = wholeMesh();
    const faces = whole.nodes.map((id) => [id, ...Object.values(face(id))]);
    // Only anew if it is another, as somebody may be pointing at it.
    const shape = JSON.stringify([faces, whole.links.map(({ one, other, state }) => [one, other, state])]);
    if (shape !== drawn) drawGraph(whole);
    drawn = shape;
    drawCaption(whole.links);
    drawPeers();
  });
}

/** @param {ReturnType<typeof wholeMesh>} whole */
function drawGraph({ mine, nodes, links }) {
  const focused = document.activeElement?.closest?.('.link')?.getAttribute('data-link');
  const turn = nodes.indexOf(mine);
  const [middle, across, high] = [{ x: 170, y: 101 }, nodes.length > 1 ? 108 : 0, nodes.length > 1 ? 80 : 0];
  const places = new Map(nodes.map((id, at) => {
    const angle = Math.PI / 2 + (2 * Math.PI * (at - turn)) / nodes.length;
    return [id, { x: middle.x + across * Math.cos(angle), y: middle.y + high * Math.sin(angle) }];
  }));
  const radius = nodes.length > 12 ? 9 : 15;
  const parts = links.map(({ one, other, state }) => {
    const [from, to] = [places.get(one), places.get(other)];
    if (!from || !to) return '';
    const ends = { x1: from.x, y1: from.y, x2: to.x, y2: to.y };
    const label = `${face(one).name} and ${face(other).name}: ${WORDS[state]}`;
    const link = svg('g', { class: 'link', 'data-link': `${one}-${other}`, 'data-state': state, tabindex: 0, role: 'img', 'aria-label': label });
    link.append(svg('line', { class: 'seen', ...ends }), svg('line', { class: 'hit', ...ends }));
    return link;
  });
  const discs = nodes.map((id) => {
    const { x, y } = /** @type {{x: number, y: number}} */ (places.get(id));
    const { short, name, color } = face(id);
    const node = svg('g', { class: 'node', role: 'img', 'aria-label': name });
    const initial = svg('text', { class: 'initial', x, y, fill: readableOn(color) });
    initial.textContent = radius > 10 ? [...short][0].toUpperCase() : '';
    // Beside it where there is room, else above or below.
    const side = Math.abs(x - middle.x) > 30 ? Math.sign(x - middle.x) : 0;
    const where = side ? { x: x + side * (radius + 6), y: y + 4, 'text-anchor': side > 0 ? 'start' : 'end' } : { x, y: y + (y < middle.y ? -radius - 7 : radius + 15), 'text-anchor': 'middle' };
    const label = svg('text', { class: 'label', ...where });
    const most = side ? 7 : 16;
    const letters = [...(id === mine ? 'you' : short)];
    label.textContent = letters.length > most ? `${letters.slice(0, most - 1).join('')}…` : letters.join('');
    node.append(svg('circle', { cx: x, cy: y, r: radius, fill: color }), initial, label);
    return node;
  });
  graph.replaceChildren(...parts, ...discs);
  if (focused) graph.querySelector(`[data-link="${focused}"]`)?.focus();
}

/** @param {ReturnType<typeof wholeMesh>['links']} links */
function drawCaption(links) {
  const link = links.find(({ one, other }) => `${one}-${other}` === shownLink);
  for (const each of graph.querySelectorAll('.link')) each.classList.toggle('is-shown', each.dataset.link === shownLink);
  let text = '';
  if (link) {
    text = `${face(link.one).name} and ${face(link.other).name}: ${WORDS[link.state]}${link.time === null ? '' : `, ${spoken(link.time)}`}`;
  } else if (links.length > 0) {
    const up = links.filter(({ state }) => state === 'connected').length;
    text = up === links.length ? `${up} ${up === 1 ? 'link' : 'links'}, all connected` : `${up} of ${links.length} links connected`;
  }
  const caption = element('caption');
  if (caption.textContent !== text) caption.textContent = text;
}

/** @param {Event} event */
function pointAt(event) {
  const link = /** @type {Element} */ (event.target).closest?.('.link');
  shownLink = link?.getAttribute('data-link') ?? '';
  meshChanged();
}

for (const name of ['pointerover', 'pointerdown', 'focusin']) graph.addEventListener(name, pointAt);
graph.addEventListener('pointerleave', (/** @type {PointerEvent} */ event) => event.pointerType === 'mouse' && pointAt(event));

function drawPeers() {
  const ours = ourLinks();
  const rows = [row('in', me.color, me.name, 'you')];
  for (const [id, state, time] of ours) {
    const { name, color } = face(id);
    rows.push(row(state, color, name, state === 'connected' && time !== null ? spoken(time) : WORDS[state]));
  }
  element('peers').replaceChildren(...rows);
}

/** @param {string} state @param {string} color @param {string} name @param {string} how */
function row(state, color, name, how) {
  const item = document.createElement('li');
  item.dataset.state = state;
  const dot = part('span', 'dot', '');
  dot.style.background = color;
  item.append(dot, part('span', 'name', name), part('span', 'how', how));
  return item;
}

/** @param {number} time */
function spoken(time) {
  if (time < 1) return 'below 1 ms';
  return `${Math.round(time)} ms`;
}

/* The chat */

const log = element('log');

/** @param {string} who @param {string} color @param {string} text @param {boolean} mine */
function line(who, color, text, mine) {
  const item = document.createElement('li');
  item.className = mine ? 'mine' : '';
  const last = log.lastElementChild;
  if (!mine && (last?.dataset.who !== who || last?.dataset.color !== color)) {
    const head = part('div', 'who', '');
    const dot = document.createElement('i');
    dot.style.background = color;
    head.append(dot, part('span', '', who));
    item.append(head);
  }
  if (!mine) [item.dataset.who, item.dataset.color] = [who, color];
  item.append(part('div', 'text', text));
  append(item);
}

/** @param {string} text */
function note(text) {
  append(part('li', 'note', text));
}

/** Whoever reads what was said before is left there. */
let atEnd = true;
log.addEventListener('scroll', () => (atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40));
new ResizeObserver(() => atEnd && (log.scrollTop = log.scrollHeight)).observe(log);

/** @param {HTMLElement} item */
function append(item) {
  log.append(item);
  while (log.childElementCount > MAX_LOG) log.firstElementChild.remove();
  if (atEnd || item.className === 'mine') log.scrollTop = log.scrollHeight;
}

element('say').addEventListener('submit', (/** @type {SubmitEvent} */ event) => {
  event.preventDefault();
  const field = element('text');
  const text = clean(field.value, MAX_TEXT);
  if (!text) return;
  // A command is for the host alone.
  const command = text.startsWith('/');
  if (!command && people.size === 0) note('Nobody hears it: nobody else is here.');
  else if (!tell(command ? HOST : 0, { t: 'chat', text })) return note('Not sent. Try again in a moment.');
  line(me.name, me.color, text, true);
  field.value = '';
});

/* Ourselves */

/** @type {ReturnType<typeof setTimeout> | undefined} */
let meTimer;

function changed() {
  me.name = clean(element('name').value, MAX_NAME) || me.name;
  me.color = colorOf(element('color').value) ?? me.color;
  sessionStorage.setItem('name', me.name);
  sessionStorage.setItem('color', me.color);
  meshChanged();
  // A colour that is being dragged changes often.
  clearTimeout(meTimer);
  meTimer = setTimeout(() => tell(0, { t: 'hello', name: me.name, color: me.color }), 200);
}

element('me').addEventListener('input', changed);
element('me').addEventListener('submit', (/** @type {SubmitEvent} */ event) => {
  event.preventDefault();
  element('name').blur();
});
element('name').addEventListener('blur', () => (element('name').value = me.name));

function randomName() {
  const pick = (/** @type {string[]} */ words) => words[Math.floor(Math.random() * words.length)];
  const how = ['Amber', 'Brave', 'Calm', 'Dapper', 'Eager', 'Gentle', 'Jolly', 'Lucky', 'Nimble', 'Quiet', 'Sunny', 'Witty'];
  const what = ['Badger', 'Crane', 'Dolphin', 'Falcon', 'Gecko', 'Heron', 'Ibis', 'Lynx', 'Marten', 'Otter', 'Puffin', 'Wren'];
  return `${pick(how)} ${pick(what)}`;
}

function randomColor() {
  const colors = ['#6d5ef5', '#d6457f', '#158f79', '#2f7de1', '#b8571b', '#8b46c9', '#4c8a2b', '#c23b3b', '#0f8aa8', '#a9760a'];
  return colors[Math.floor(Math.random() * colors.length)];
}

/* Small things */

/** Black or white (WCAG 2, relative luminance). @param {string} color */
function readableOn(color) {
  const [red, green, blue] = [1, 3, 5].map((at) => {
    const share = parseInt(color.slice(at, at + 2), 16) / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.36 ? '#14161f' : '#ffffff';
}

/** @param {string} kind @param {string} name @param {string} text */
function part(kind, name, text) {
  const made = document.createElement(kind);
  made.className = name;
  made.textContent = text;
  return made;
}

/** @param {string} kind @param {Record<string, string | number>} attributes */
function svg(kind, attributes) {
  const made = document.createElementNS('http://www.w3.org/2000/svg', kind);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, String(value));
  return made;
}

/** @param {string} state @param {string} text @param {string} [why] */
function status(state, text, why = '') {
  const place = element('status');
  place.dataset.state = state;
  place.textContent = text;
  place.title = why;
  meshChanged();
}

function showStatus() {
  if (!joined) return;
  const others = [...people.values()].filter(({ name }) => name).length;
  status('in', others === 0 ? 'Nobody else is here' : others === 1 ? 'You and 1 other' : `You and ${others} others`);
  if ([...people.keys()].some((id) => id !== HOST)) element('hint').classList.add('is-known');
}

const tabs = /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll('[data-show]'));
for (const tab of tabs) {
  tab.addEventListener('click', () => {
    document.body.dataset.tab = tab.dataset.show;
    for (const each of tabs) each.setAttribute('aria-pressed', String(each === tab));
    log.scrollTop = log.scrollHeight;
  });
}

element('name').value = me.name;
element('color').value = me.color;
sessionStorage.setItem('name', me.name);
sessionStorage.setItem('color', me.color);
setInterval(tellLinks, LINKS_EVERY);
setInterval(meshChanged, 1000);
requestAnimationFrame(frame);
// The browser has kept the page as it was, and the mesh has left with `pagehide`.
addEventListener('pageshow', ({ persisted }) => persisted && location.reload());

start();
