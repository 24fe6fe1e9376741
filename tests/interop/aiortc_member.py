"""A member of a mesh on aiortc, as a stock Godot game would be one. README.md beside this says what it does.

    python3 aiortc_member.py --url ws://127.0.0.1:9080 --lobby NAME --generation 4 --expect 2
"""

import argparse
import asyncio
import hashlib
import json
import os
import signal
import sys
import threading

import aioice.ice
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.rtcsctptransport import InboundStream, RTCSctpTransport
from aiortc.sdp import candidate_from_sdp
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

# aioice leaves loopback out; this takes nothing else.
aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: ["127.0.0.1"]

# When messages were given up, aiortc hands over nothing that waits behind a part of one of them, throws complete messages
# away with the parts, and waits for those for ever. So the parts alone are thrown away, and what is complete is asked for.
FIRST, LAST = 2, 1


def throw_away_parts(self, tsn):
    """The parts of messages that lack another up to this TSN. Returns how many bytes they were."""
    size, kept, message = 0, [], []
    chunks = self.reassembly
    for place, chunk in enumerate(chunks):
        message.append(chunk)
        following = chunks[place + 1] if place + 1 < len(chunks) else None
        if following and following.tsn == (chunk.tsn + 1) % 2**32 and not chunk.flags & LAST and not following.flags & FIRST:
            continue
        no_begin = not message[0].flags & FIRST and is_up_to((message[0].tsn - 1) % 2**32, tsn)
        no_end = not chunk.flags & LAST and is_up_to((chunk.tsn + 1) % 2**32, tsn)
        if no_begin or no_end:
            size += sum(len(part.user_data) for part in message)
        else:
            kept += message
        message = []
    self.reassembly = kept
    return size


def is_up_to(one, other):
    return (other - one) % 2**32 < 2**31


take_forward_tsn = RTCSctpTransport._receive_forward_tsn_chunk


async def take_forward_tsn_and_hand_over(self, chunk):
    await take_forward_tsn(self, chunk)
    for stream in self._inbound_streams.values():
        for message in stream.pop_messages():
            self._advertised_rwnd += len(message[2])
            await self._receive(*message)


InboundStream.prune_chunks = throw_away_parts
RTCSctpTransport._receive_forward_tsn_chunk = take_forward_tsn_and_hand_over

# Godot's three channels: SCTP stream, mode, ordered. The engine misspells the lifetime that it gives to the last two,
# so all of them are fully reliable.
CHANNELS = [(1, "reliable", True), (2, "ordered", True), (3, "unreliable", False)]
PACKETS = 50
SIZE_STEP = {"reliable": 333, "ordered": 19, "unreliable": 19}
QUESTION = b"digest?"


class Surprise(Exception):
    """Something that a member of a mesh must not meet."""


class Peer:
    """One other member, and what has come from it."""

    def __init__(self):
        self.connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.channels = {
            mode: self.connection.createDataChannel(mode, ordered=ordered, negotiated=True, id=stream)
            for stream, mode, ordered in CHANNELS
        }
        self.open = set()
        self.echoes = {mode: [] for mode in self.channels}
        self.received = {mode: {"packets": 0, "bytes": 0, "sha256": hashlib.sha256()} for mode in self.channels}

    def connected(self):
        return len(self.open) == len(CHANNELS)

    def met(self):
        return len(self.echoes["reliable"]) == PACKETS


class Member:
    """Everything that happens comes through one inbox and is dealt with in turn."""

    def __init__(self, options):
        self.options = options
        self.inbox = asyncio.Queue()
        self.id = None
        self.lobby = None
        self.sealed = False
        self.peers = {}
        self.met = set()

    async def run(self):
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.inbox.put_nowait, ("told", "leave"))
        threading.Thread(target=read_commands, args=(loop, self.inbox), daemon=True).start()
        async with connect(self.options.url, proxy=None, open_timeout=10, close_timeout=5) as self.socket:
            listening = asyncio.create_task(self.listen())
            try:
                await self.say("J", 0, self.options.lobby)
                while await self.handle(*await self.inbox.get()):
                    pass
                if len(self.met) < self.options.expect:
                    raise Surprise(f"told to leave, having met {len(self.met)} of {self.options.expect} peers")
            finally:
                for peer in list(self.peers.values()):
                    await peer.connection.close()
                listening.cancel()

    async def listen(self):
        try:
            async for frame in self.socket:
                self.inbox.put_nowait(("frame", frame))
        except ConnectionClosed:
            pass
        self.inbox.put_nowait(("hung up", self.socket.close_code, self.socket.close_reason))

    async def handle(self, what, *details):
        """Deals with one thing; false means that it is time to go."""
        if what == "frame":
            await self.hear(*read(self.options.generation, details[0]))
        elif what in ("open", "message", "gone") and self.peers.get(details[0]) is not details[1]:
            pass  # an echo of a connection that is closed already
        elif what == "open":
            self.opened(*details)
        elif what == "message":
            self.take(*details)
        elif what == "gone":
            await self.forget(*details)
        elif what == "hung up":
            return await self.hung_up(*details)
        elif details[0] == "seal":
            await self.say("S", 0, "")
        else:
            return False
        return True

    # Signalling

    async def say(self, letter, to, data):
        await self.socket.send(write(self.options.generation, letter, to, data))

    async def hear(self, letter, number, data):
        """Deals with what the signalling server says."""
        if letter == "I" and self.id is None:
            self.id = number
        elif letter == "J" and self.id is not None and self.lobby is None:
            self.lobby = data
            tell("joined", id=self.id, lobby=data)
        elif letter == "N" and self.id is not None and number != self.id and number not in self.peers:
            await self.greet(number)
        elif letter == "D":
            await self.forget(number, self.peers.get(number), "left the lobby")
        elif letter == "S" and not self.sealed:
            self.sealed = True
            tell("sealed")
        elif letter in "OAC" and number in self.peers:
            await self.negotiate(letter, number, data)
        elif letter not in "OAC":
            raise Surprise(f"{letter} {number} out of place")
        # What is left is a signal of one who has just gone.

    async def greet(self, number):
        """Prepares the connection to a peer, and offers if that is up to us."""
        peer = self.peers[number] = Peer()

        def put(*item):
            self.inbox.put_nowait(item)

        for mode, channel in peer.channels.items():
            channel.on("open", lambda mode=mode: put("open", number, peer, mode))
            channel.on("message", lambda data, mode=mode: put("message", number, peer, mode, data))
            channel.on("close", lambda: put("gone", number, peer, "a channel was closed"))
        peer.connection.on("datachannel", lambda channel: put("open", number, peer, channel.label))
        peer.connection.on("connectionstatechange", lambda: self.state_changed(number, peer))
        if self.offers_to(number):
            await peer.connection.setLocalDescription(await peer.connection.createOffer())
            await self.say("O", number, peer.connection.localDescription.sdp)

    def offers_to(self, number):
        return self.id < number if self.options.generation == 3 else self.id > number

    def state_changed(self, number, peer):
        state = peer.connection.connectionState
        if state in ("failed", "closed", "disconnected"):
            self.inbox.put_nowait(("gone", number, peer, f"the connection is {state}"))

    async def negotiate(self, letter, number, data):
        """Deals with a description or a candidate of a peer."""
        connection = self.peers[number].connection
        if letter == "C":
            parts = [part for part in data.split("\n") if part]
            if len(parts) != 3 or not parts[1].isdigit():
                raise Surprise(f"a candidate of {number} is not one: {data!r}")
            if connection.remoteDescription is None:
                raise Surprise(f"a candidate of {number} comes before its description")
            mid, index, line = parts
            candidate = candidate_from_sdp(line[len("candidate:") :] if line.startswith("candidate:") else line)
            candidate.sdpMid, candidate.sdpMLineIndex = mid, int(index)
            await connection.addIceCandidate(candidate)
            return
        if (letter == "A") != self.offers_to(number):
            raise Surprise(f"{number} and we both offer, or both answer")
        if connection.remoteDescription is not None:
            raise Surprise(f"{number} describes itself twice")
        kind = "offer" if letter == "O" else "answer"
        await connection.setRemoteDescription(RTCSessionDescription(sdp=data, type=kind))
        if letter == "O":
            await connection.setLocalDescription(await connection.createAnswer())
            await self.say("A", number, connection.localDescription.sdp)

    async def hung_up(self, code, reason):
        """The server has closed our connection to it; as in Godot's demo, that is the end unless the lobby is sealed."""
        tell("hung up", code=code, reason=reason)
        if self.sealed:
            return True
        for number, peer in list(self.peers.items()):
            await self.forget(number, peer, "the lobby is gone")
        if (code, reason) != (4000, "Room host has disconnected"):
            raise Surprise(f"the server hung up with {code} {reason!r}")
        return False

    # Peers

    def opened(self, number, peer, mode):
        if mode not in peer.channels:
            raise Surprise(f"{number} opened a channel {mode!r} of its own")
        peer.open.add(mode)
        if not peer.connected():
            return
        tell("connected", peer=number)
        for mode, channel in peer.channels.items():
            for n in range(PACKETS):
                channel.send(packet(self.id, mode, n))

    def take(self, number, peer, mode, data):
        """Takes an echo of ours, or echoes what is not ours."""
        if not peer.connected():
            raise Surprise(f"{number} sends before the channels are open")
        content = data.encode() if isinstance(data, str) else data
        if content.startswith(f"{self.id} ".encode()):
            self.take_echo(number, peer, mode, content)
            return
        received = peer.received[mode]
        if mode == "reliable" and content == QUESTION:
            digest = {mode: {**sums, "sha256": sums["sha256"].hexdigest()} for mode, sums in peer.received.items()}
            tell("digest", peer=number, **digest)
            return
        received["packets"] += 1
        received["bytes"] += len(content)
        received["sha256"].update(content)
        if peer.channels[mode].readyState == "open":
            peer.channels[mode].send(data)

    def take_echo(self, number, peer, mode, content):
        n = int(content.split(b" ", 3)[2])
        echoes = peer.echoes[mode]
        if not 0 <= n < PACKETS or content != packet(self.id, mode, n):
            raise Surprise(f"{number} echoes {mode} {n} changed")
        if n in echoes:
            raise Surprise(f"{number} echoes {mode} {n} twice")
        if mode != "unreliable" and echoes and n < echoes[-1]:
            raise Surprise(f"{number} echoes {mode} {n} after {echoes[-1]}")
        if mode == "reliable" and n != len(echoes):
            raise Surprise(f"{number} leaves {mode} {len(echoes)} out")
        echoes.append(n)
        if len(echoes) == PACKETS:
            tell("echoed", peer=number, mode=mode)
        if mode == "reliable" and peer.met():
            self.met.add(number)
            if len(self.met) == self.options.expect:
                tell("met", peers=sorted(self.met))

    async def forget(self, number, peer, why):
        """Godot drops a peer with the first of its channels, or as soon as its connection is not connected."""
        if peer is None or self.peers.get(number) is not peer:
            return
        del self.peers[number]
        await peer.connection.close()
        if peer.connected():
            tell("disconnected", peer=number, why=why)
        elif why != "left the lobby" and why != "the lobby is gone":
            raise Surprise(f"no connection to {number}: {why}")


# The words of the two protocols, in the order of their numbers in Godot 4's.
LETTERS = "JINDOACS"


def read(generation, frame):
    """What a frame says: its letter, the id in it, and the rest."""
    text = frame if isinstance(frame, str) else frame.decode()
    try:
        if generation == 4:
            message = json.loads(text)
            return LETTERS[int(message["type"])], int(message["id"]), message["data"]
        line, newline, rest = text.partition("\n")
        letter, argument = line[0], line[3:]
        if not newline or line[1:3] != ": " or letter not in LETTERS:
            raise ValueError("not a line of it")
        return (letter, 0, argument) if letter in "JS" else (letter, int(argument), rest)
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise Surprise(f"the server says {text[:100]!r}, which is not the protocol: {error}") from error


def write(generation, letter, to, data):
    if generation == 4:
        return json.dumps({"type": LETTERS.index(letter), "id": to, "data": data})
    if letter in "JS":
        return f"{letter}: {data}\n"
    # A candidate's data begins with a newline: after the line with the id, Godot sends an empty one.
    return f"{letter}: {to}\n{data}"


def packet(sender, mode, n):
    """The n-th packet of ours in a mode: a line that says so, and bytes to fill it."""
    head = f"{sender} {mode} {n} ".encode()
    size = 67 + n * SIZE_STEP[mode]
    return head + bytes((n + place) % 256 for place in range(len(head), size))


def tell(event, **details):
    print(json.dumps({"event": event, **details}), flush=True)


def read_commands(loop, inbox):
    """Lines of the standard input; its end means to leave."""
    with open(os.dup(0), "rb", buffering=0) as lines:
        for line in lines:
            loop.call_soon_threadsafe(inbox.put_nowait, ("told", line.decode().strip()))
    loop.call_soon_threadsafe(inbox.put_nowait, ("told", "leave"))


def main():
    parser = argparse.ArgumentParser(description="A member of a mesh, on aiortc.")
    parser.add_argument("--url", required=True, help="the signalling server's")
    parser.add_argument("--lobby", default="", help="which to join; makes one if left out")
    parser.add_argument("--generation", type=int, choices=(3, 4), default=4, help="of Godot: which protocol is spoken")
    parser.add_argument("--expect", type=int, default=0, help="how many peers must have been met before leaving")
    try:
        asyncio.run(Member(parser.parse_args()).run())
    except Exception as error:  # whatever it is, one line says it
        print(f"aiortc_member: {type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
