// @ts-check
/**
 * A page that is in the lobby and does what a member must not do: the parts that `hostile.rs` puts together.
 *
 * @module
 */

const [JOIN, ID, PEER_CONNECT, OFFER, ANSWER, CANDIDATE] = [0, 1, 2, 4, 5, 6];

let socket;
let id = 0;
/** What each peer has said. */
const heard = new Map();
/** Who waits for something to happen. */
let waiting = [];
const links = new Map();
/** Why the server has closed the connection. */
let hungUp;

/** Joins the lobby; resolves to our id and those of the others, once there are so many. */
async function enter({ lobby, others }) {
  socket = new WebSocket(new URL('signaling', location.href.replace('http', 'ws')));
  socket.onopen = () => say(JOIN, 0, lobby);
  socket.onclose = ({ code, reason }) => wake((hungUp = { code, reason }));
  socket.onmessage = ({ data }) => {
    const message = JSON.parse(data);
    if (message.type === ID) id = message.id;
    else if (message.type === PEER_CONNECT) heard.set(message.id, []);
    else heard.get(message.id)?.push(message);
    wake();
  };
  await until(() => id !== 0 && heard.size >= others);
  return { id, others: [...heard.keys()] };
}

const say = (type, to, data) => socket.send(JSON.stringify({ type, id: to, data }));

const wake = (..._news) => waiting.splice(0).forEach((resolve) => resolve());

async function until(isSo) {
  while (!isSo()) await new Promise((resolve) => waiting.push(resolve));
}

const offersTo = (peer) => id > peer;
const kindOf = (peer) => (offersTo(peer) ? OFFER : ANSWER);

/** Descriptions, candidates and kinds that nobody can understand, to everyone. */
function babble() {
  const fingerprint = `a=fingerprint:sha-256 ${Array(32).fill('00').join(':')}`;
  const head = 'v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n';
  const media = 'm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\n';
  const descriptions = ['', 'v=0', '\0\0\0', '{"type":"offer"}', head, head + media, `${head}${media}a=sctp-port:5000\r\n`,
    `${head}m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n`, `${head}${media}${fingerprint}\r\n`, 'ä'.repeat(30_000), '\r\n'.repeat(10_000)];
  const candidates = ['', 'candidate:', '\n0\n0\ncandidate:1 1 udp 1 not.an.address 1 typ host', '\n\n\n', `\n0\n0\n${'x'.repeat(60_000)}`,
    '\n0\n-1\ncandidate:1 1 udp 1 127.0.0.1 99999 typ host', '\naudio\n7\ncandidate:1 1 udp 1 127.0.0.1 9 typ host', '\n0\n0\ncandidate:1 1 udp 1 127.0.0.1 9 typ prflx'];
  for (const peer of heard.keys()) {
    for (const data of descriptions) say(kindOf(peer), peer, data);
    for (const data of candidates) say(CANDIDATE, peer, data);
    // Out of turn: it is up to the other side.
    say(offersTo(peer) ? ANSWER : OFFER, peer, head + media);
    for (let n = 0; n < 100; n++) say(CANDIDATE, peer, `\n0\n0\ncandidate:${n} 1 udp 1 127.0.0.1 ${1000 + n} typ host`);
  }
}

/** What the server says to something that is no message; it may be any number of bytes. */
async function rave({ frame, times }) {
  socket.send(frame.repeat(times));
  await until(() => hungUp);
  return hungUp;
}

/**
 * A connection to a peer as Godot makes it, with a description of ours that is the browser's; and the other's, edited.
 * With `vanishes`, it is closed as soon as both have the other's description.
 */
async function connect({ peer, maxMessageBytes, vanishes }) {
  const pc = new RTCPeerConnection();
  const agreed = (streamId, more) => pc.createDataChannel(`${streamId}`, { negotiated: true, id: streamId, ...more });
  const once = { maxRetransmits: 0 };
  const link = { pc, heard: [], channels: [agreed(1, {}), agreed(2, once), agreed(3, { ...once, ordered: false })] };
  for (const channel of link.channels) {
    channel.binaryType = 'arraybuffer';
    channel.onmessage = ({ data }) => wake(link.heard.push(data));
    channel.onopen = channel.onclose = () => wake();
  }
  links.set(peer, link);
  const found = [];
  const candidate = (it) => say(CANDIDATE, peer, `\n${it.sdpMid}\n${it.sdpMLineIndex}\n${it.candidate}`);
  let described = false;
  pc.onicecandidate = ({ candidate: it }) => it?.candidate && (described ? candidate(it) : found.push(it));
  const describe = async (description) => {
    await pc.setLocalDescription(description);
    say(kindOf(peer), peer, description.sdp);
    described = true;
    found.forEach(candidate);
  };
  const theirs = async (kind) => {
    const is = (message) => message.type === kind;
    await until(() => heard.get(peer).some(is));
    const { data } = heard.get(peer).find(is);
    const sdp = maxMessageBytes ? data.replace(/a=max-message-size:\d+/, `a=max-message-size:${maxMessageBytes}`) : data;
    await pc.setRemoteDescription({ type: kind === OFFER ? 'offer' : 'answer', sdp });
  };
  if (offersTo(peer)) {
    await describe(await pc.createOffer());
    if (!vanishes) await theirs(ANSWER);
  } else {
    await theirs(OFFER);
    await describe(await pc.createAnswer());
  }
  if (vanishes) return pc.close();
  const seen = new Set();
  const take = () => {
    for (const message of heard.get(peer)) {
      if (message.type !== CANDIDATE || seen.has(message)) continue;
      seen.add(message);
      const [sdpMid, index, text] = message.data.split('\n').filter((line) => line !== '');
      pc.addIceCandidate({ candidate: text, sdpMid, sdpMLineIndex: Number(index) });
    }
    return link.channels.every((channel) => channel.readyState === 'open');
  };
  await until(take);
}

/** Channels that nobody has agreed on, which the other side closes; and some that are agreed on by nobody else. */
async function openMore(peer) {
  const { pc } = links.get(peer);
  const inBand = ['', 'chat', 'x'.repeat(1000)].map((label) => pc.createDataChannel(label, { protocol: 'mine' }));
  const agreed = [7, 100].map((streamId) => pc.createDataChannel('agreed', { negotiated: true, id: streamId }));
  for (const channel of [...inBand, ...agreed]) channel.onopen = channel.onclosing = channel.onclose = () => wake();
  await until(() => agreed.every(({ readyState }) => readyState === 'open'));
  for (let n = 0; n < 300; n++) agreed.forEach((channel) => channel.send('nobody hears this'));
  await until(() => inBand.every(({ readyState }) => readyState === 'closing' || readyState === 'closed'));
}

/** Says this text, and these bytes, on each of the three channels. */
function speak({ peer, text }) {
  for (const channel of links.get(peer).channels) channel.send(text);
  for (const channel of links.get(peer).channels) channel.send(new TextEncoder().encode(text));
}

/** Sends so many bytes in one message; says how the browser takes it. */
function sendLarge({ peer, size }) {
  try {
    links.get(peer).channels[0].send(new Uint8Array(size));
    return 'sent';
  } catch (error) {
    return String(error);
  }
}

const hangUp = (peer) => links.get(peer).pc.close();

Object.assign(window, { enter, babble, rave, connect, openMore, speak, sendLarge, hangUp });
