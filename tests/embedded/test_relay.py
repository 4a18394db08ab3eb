"""The parking relay alone: its process between clients and an instance, all on unix sockets."""

from __future__ import annotations

import contextlib
import hashlib
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from bulletproof.adapters import relay
from bulletproof.effects.route import connections
from embedded.places import new_place, until

PASS_LISTENER = "import os, sys; os.dup2(int(sys.argv[1]), 3); os.execv(sys.argv[2], sys.argv[2:])"
"""What a supervisor does in its child: the listener becomes descriptor 3."""
FEW_DESCRIPTORS = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (48, 48)); "
SHORT_FINISH = "import bulletproof.adapters.relay as relay; relay.FINISH_SECONDS = 0.3; relay.main({app!r}, {hold!r})"

Talk = Callable[[socket.socket], None]


def echo(peer: socket.socket) -> None:
    """Send back what comes, until the other has ended."""
    while data := peer.recv(1 << 16):
        peer.sendall(data)
    peer.shutdown(socket.SHUT_WR)


class Instance:
    """An app's server: every connection gets a thread that talks; those that sent nothing are not counted as served."""

    def __init__(self, path: Path, talk: Talk = echo, backlog: int = 1000) -> None:
        self.served = 0
        self.pause_seconds = 0.0
        """Before it takes the next connection."""
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(backlog)
        self._talk = talk
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed at the end of a test
            while True:
                time.sleep(self.pause_seconds)
                peer, _ = self.listener.accept()
                threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        with peer, contextlib.suppress(ConnectionError):
            if peer.recv(1, socket.MSG_PEEK):
                self.served += 1
                self._talk(peer)


class Bench:
    """A folder with the app's path, a listener that is kept here, and a relay that may be killed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.app = folder / "app.sock"
        self.hold = folder / "hold.sock"
        self.log = folder / "relay.log"
        self.instances: list[Instance] = []
        self.relays: list[subprocess.Popen[bytes]] = []
        self.clients: list[socket.socket] = []
        self.listener = socket.socket(socket.AF_UNIX)

    def keep_listener(self) -> None:
        """What the supervisor does."""
        self.listener.bind(str(self.hold))
        self.listener.listen(4096)

    def start(self, launcher: str = PASS_LISTENER, program: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
        """Start a relay on the listener that is kept here."""
        program = program or (sys.executable, "-I", "-m", "bulletproof.adapters.relay", str(self.app), str(self.hold))
        argv = (sys.executable, "-c", launcher, str(self.listener.fileno()), *program)
        return self.run(argv, {"LISTEN_FDS": "1"})

    def run(self, argv: tuple[str, ...], environment: dict[str, str]) -> subprocess.Popen[bytes]:
        """Start a process whose output goes to the log."""
        kept = () if self.listener.fileno() < 0 else (self.listener.fileno(),)
        with self.log.open("ab") as log:
            relay = subprocess.Popen(argv, env=environment, stdout=log, stderr=log, pass_fds=kept, cwd=self.folder)
        self.relays.append(relay)
        return relay

    def instance(self, name: str = "1", talk: Talk = echo, backlog: int = 1000) -> Instance:
        """An instance, to which nothing leads yet."""
        (self.folder / name).mkdir(exist_ok=True)
        self.instances.append(Instance(self.path(name), talk, backlog))
        return self.instances[-1]

    def path(self, name: str = "1") -> Path:
        """Where an instance listens."""
        return self.folder / name / "web.sock"

    def lead_to(self, target: str) -> None:
        """Move the app's path, as a cutover does."""
        new = self.folder / "new"
        new.symlink_to(target)
        new.rename(self.app)

    def client(self, words: bytes = b"") -> socket.socket:
        """A connection to the relay, with some bytes sent; it would not wait for ever."""
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(20)
        self.clients.append(client)
        client.connect(str(self.hold))
        client.sendall(words)
        return client

    def lines(self) -> list[str]:
        """What the relay has printed."""
        return self.log.read_text().splitlines() if self.log.exists() else []

    def close(self) -> None:
        """End all that was started."""
        for process in self.relays:
            process.kill()
            process.wait()
        for instance in self.instances:
            with contextlib.suppress(OSError):
                instance.listener.shutdown(socket.SHUT_RDWR)  # wakes the thread in accept
            instance.listener.close()
        for client in (self.listener, *self.clients):
            client.close()


@pytest.fixture
def empty_bench() -> Iterator[Bench]:
    """A bench without listener and relay."""
    with new_place() as place:
        bench = Bench(place.root)
        try:
            yield bench
        finally:
            bench.close()


@pytest.fixture
def bench(empty_bench: Bench) -> Bench:
    """A bench in a hold, with a relay that is ready."""
    empty_bench.keep_listener()
    empty_bench.lead_to("hold.sock")
    relay = empty_bench.start()
    until(lambda: is_asleep(relay))
    return empty_bench


def is_asleep(relay: subprocess.Popen[bytes]) -> bool:
    """Whether the relay has started and waits in the kernel."""
    line = Path(f"/proc/{relay.pid}/cmdline").read_bytes()
    return b"os.dup2" not in line and Path(f"/proc/{relay.pid}/wchan").read_text() in {"ep_poll", "do_epoll_wait"}


def answer(client: socket.socket) -> bytes:
    """What comes back; only then the client ends, since one that ends while it waits counts as one that left."""
    with client:
        first = client.recv(1 << 16)
        client.shutdown(socket.SHUT_WR)
        return first + b"".join(iter(lambda: client.recv(1 << 16), b""))


def waiting(bench: Bench) -> int:
    """How many connections the relay has not accepted or not given back."""
    return connections(bench.hold)


def test_held_clients_wait_unaccepted_and_are_served_at_the_release(bench: Bench) -> None:
    """In a hold no byte reaches an instance; at the release every client that waits is served, by the new one."""
    old, new = bench.instance("1"), bench.instance("2")
    clients = [bench.client(b"%d" % number) for number in range(200)]
    time.sleep(0.1)
    assert (old.served, new.served, waiting(bench)) == (0, 0, 200)
    bench.lead_to("2/web.sock")
    assert [answer(client) for client in clients] == [b"%d" % number for number in range(200)]
    assert (old.served, new.served) == (0, 200)


def test_a_relay_killed_in_a_hold_loses_nothing(bench: Bench) -> None:
    """Clients wait in the kernel, so the next relay finds those that came before, during and after its predecessor."""
    bench.instance()
    clients = [bench.client(b"before") for _ in range(20)]
    time.sleep(0.1)
    bench.relays[0].kill()
    bench.relays[0].wait()
    clients += [bench.client(b"between") for _ in range(20)]
    bench.start()
    clients += [bench.client(b"after") for _ in range(20)]
    bench.lead_to("1/web.sock")
    assert [answer(client) for client in clients] == [b"before"] * 20 + [b"between"] * 20 + [b"after"] * 20


def test_a_client_that_left_is_dropped(bench: Bench) -> None:
    """Of a client that gave up in the hold no byte reaches the instance, however much it had sent."""
    instance = bench.instance()
    gone = [bench.client(b"x" * size) for size in (0, 1, 100_000) for _ in range(10)]
    stayed = [bench.client(b"stays") for _ in range(10)]
    for client in gone:
        client.close()
    bench.lead_to("1/web.sock")
    assert [answer(client) for client in stayed] == [b"stays"] * 10
    until(bench.lines)
    assert instance.served == 10
    assert bench.lines()[0].startswith("released: 10 relayed, 30 had left, longest wait ")


def test_one_line_tells_of_each_release(bench: Bench) -> None:
    """The log says once per release how many went on and how long they waited, and nothing in between."""
    bench.instance()
    for releases in range(2):
        clients = [bench.client(b"x") for _ in range(3)]
        time.sleep(0.25)
        assert len(bench.lines()) == releases
        bench.lead_to("1/web.sock")
        for client in clients:
            answer(client)
        bench.lead_to("hold.sock")
    until(lambda: len(bench.lines()) == 2)
    words = bench.lines()[1].split()
    assert words[:6] == ["released:", "3", "relayed,", "0", "had", "left,"]
    assert 0.2 <= float(words[8]) <= 5


def test_clients_wait_while_the_path_leads_nowhere(bench: Bench) -> None:
    """A missing path holds as well, and so does an instance that does not listen yet."""
    bench.app.unlink()
    client = bench.client(b"hello")
    time.sleep(0.1)
    bench.lead_to("1/web.sock")
    time.sleep(0.1)
    bench.instance()
    assert answer(client) == b"hello"


def test_clients_wait_for_a_full_instance(bench: Bench) -> None:
    """An instance that takes one connection at a time gets them as it can, and nobody is turned away."""
    instance = bench.instance("1", backlog=0)
    instance.pause_seconds = 0.01
    clients = [bench.client(b"x") for _ in range(60)]
    bench.lead_to("1/web.sock")
    assert [answer(client) for client in clients] == [b"x"] * 60
    assert instance.served == 60


def test_few_descriptors_are_no_reason_to_fail(empty_bench: Bench) -> None:
    """With 48 descriptors at most, 100 clients at once are all served: the rest waits a little longer."""
    empty_bench.keep_listener()
    empty_bench.start(FEW_DESCRIPTORS + PASS_LISTENER)
    empty_bench.lead_to("1/web.sock")
    empty_bench.instance()
    clients = [empty_bench.client(b"x") for _ in range(100)]
    assert [answer(client) for client in clients] == [b"x"] * 100


def test_large_bodies_pass_both_ways_at_once(bench: Bench) -> None:
    """Ten clients send 5 MB each and get the same back, each direction ending by itself."""
    bench.instance()
    bench.lead_to("1/web.sock")
    digests: dict[int, str] = {}
    body = [bytes([number]) * 5_000_000 for number in range(10)]

    def send(client: socket.socket, words: bytes) -> None:
        client.sendall(words)
        client.shutdown(socket.SHUT_WR)

    def send_and_read(number: int) -> None:
        client = bench.client()
        sender = threading.Thread(target=send, args=(client, body[number]))
        sender.start()
        digests[number] = hashlib.sha256(b"".join(iter(lambda: client.recv(1 << 16), b""))).hexdigest()
        sender.join()

    threads = [threading.Thread(target=send_and_read, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert digests == {number: hashlib.sha256(body[number]).hexdigest() for number in range(10)}


def test_a_slow_reader_slows_its_writer(bench: Bench) -> None:
    """An instance that does not read stops the client after what fits the kernel's queues; the relay stays small."""
    release = threading.Event()

    def late(peer: socket.socket) -> None:
        release.wait(20)
        echo(peer)

    bench.instance("1", late)
    bench.lead_to("1/web.sock")
    client = bench.client(b"x")
    client.settimeout(0.3)
    sent = 0
    with contextlib.suppress(TimeoutError):
        while sent < 50_000_000:
            sent += client.send(b"x" * 65536)
    assert sent < 5_000_000
    process = psutil.Process(bench.relays[0].pid)
    assert process.memory_info().rss < 40_000_000
    until(lambda: rests(process))
    release.set()
    client.close()


def test_an_early_answer_arrives(bench: Bench) -> None:
    """An instance that answers and closes without reading the body is heard, as it would be without a relay."""
    bench.instance("1", lambda peer: peer.sendall(b"413 " * 10_000))
    bench.lead_to("1/web.sock")
    with bench.client(b"x") as client:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while True:
                client.sendall(b"x" * 65536)
        received = b""
        with contextlib.suppress(ConnectionResetError):  # it may say at the end that not all was read
            while data := client.recv(1 << 16):
                received += data
    assert received == b"413 " * 10_000


def test_an_instance_hears_that_its_client_left(bench: Bench) -> None:
    """A client that leaves in the middle of an answer ends the instance's writing, and nothing of it stays open."""
    outcome: list[str] = []

    def endless(peer: socket.socket) -> None:
        try:
            while True:
                peer.sendall(b"x" * 65536)
        except ConnectionError as error:
            outcome.append(type(error).__name__)

    bench.instance("1", endless)
    bench.lead_to("1/web.sock")
    client = bench.client(b"x")
    client.recv(1000)
    client.close()
    until(lambda: outcome)
    until(lambda: connections(bench.path()) == waiting(bench) == 0)


def test_what_is_relayed_goes_on_in_the_next_hold(bench: Bench) -> None:
    """A conversation, such as a websocket, is not disturbed when the path leads to the relay again."""
    bench.instance()
    bench.lead_to("1/web.sock")
    with bench.client(b"one") as client:
        assert client.recv(10) == b"one"
        bench.lead_to("hold.sock")
        held = bench.client(b"held")
        time.sleep(0.1)
        client.sendall(b"two")
        assert client.recv(10) == b"two"
    bench.lead_to("1/web.sock")
    assert answer(held) == b"held"


def test_sigterm_finishes_what_is_relayed_and_leaves_the_rest_waiting(bench: Bench) -> None:
    """On SIGTERM the relay takes no more, ends what it has begun and exits 0; its successor serves who waits."""
    bench.instance()
    bench.lead_to("1/web.sock")
    with bench.client(b"one") as client:
        assert client.recv(10) == b"one"
        bench.relays[0].send_signal(signal.SIGTERM)
        time.sleep(0.2)
        late = bench.client(b"late")
        until(lambda: rests(psutil.Process(bench.relays[0].pid)))
        assert (waiting(bench), bench.relays[0].poll()) == (2, None)
        client.sendall(b"two")
        assert client.recv(10) == b"two"
    assert bench.relays[0].wait(10) == 0
    bench.start()
    assert answer(late) == b"late"


@pytest.mark.parametrize("is_held", [True, False])
def test_sigterm_ends_a_relay_without_work_at_once(bench: Bench, *, is_held: bool) -> None:
    """With nothing relayed it exits 0 without delay, whether or not somebody waits."""
    client = bench.client(b"x") if is_held else None
    time.sleep(0.1)
    bench.relays[0].terminate()
    assert bench.relays[0].wait(5) == 0
    assert bench.lines() == []
    if client is not None:
        client.close()


def test_sigterm_does_not_wait_for_ever(empty_bench: Bench) -> None:
    """A conversation without end is cut when the time to finish is over, and the relay exits 0."""
    empty_bench.keep_listener()
    empty_bench.instance()
    empty_bench.lead_to("1/web.sock")
    text = SHORT_FINISH.format(app=str(empty_bench.app), hold=str(empty_bench.hold))
    relay = empty_bench.start(program=(sys.executable, "-c", text))
    with empty_bench.client(b"one") as client:
        assert client.recv(10) == b"one"
        relay.terminate()
        assert relay.wait(5) == 0
        assert client.recv(10) == b""


def test_a_relay_that_waits_costs_nothing(bench: Bench) -> None:
    """Without work it uses no CPU at all and little memory; with 100 waiting clients hardly any."""
    process = psutil.Process(bench.relays[0].pid)
    until(lambda: rests(process))
    assert process.memory_info().rss < 20_000_000
    clients = [bench.client(b"x") for _ in range(100)]
    assert spent(process) <= 0.1
    bench.instance()
    bench.lead_to("1/web.sock")
    for client in clients:
        answer(client)
    until(lambda: rests(process))


def test_an_instance_that_thinks_costs_nothing(bench: Bench) -> None:
    """Nothing turns in circles while a client has said all and its answer is not there yet."""
    answers = threading.Event()

    def think(peer: socket.socket) -> None:
        while peer.recv(10):
            pass
        answers.wait(20)
        peer.sendall(b"42")

    instance = bench.instance("1", think)
    bench.lead_to("1/web.sock")
    client = bench.client(b"why?")
    until(lambda: instance.served == 1)
    client.shutdown(socket.SHUT_WR)
    until(lambda: rests(psutil.Process(bench.relays[0].pid)))
    answers.set()
    assert client.recv(10) == b"42"


def test_a_hold_that_begins_in_the_middle_of_a_release_is_sharp(
    empty_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client is only accepted when the path still leads to the instance after the connection to it stands."""
    bench = empty_bench
    bench.keep_listener()
    instance = bench.instance()
    bench.lead_to("1/web.sock")
    bench.client(b"x")
    connect = relay._connect

    def connect_and_hold(target: str) -> socket.socket | None:
        connection = connect(target)
        bench.lead_to("hold.sock")
        return connection

    monkeypatch.setattr(relay, "_connect", connect_and_hold)
    held = relay.Relay(bench.listener, str(bench.app), str(bench.hold))
    held._let_through()
    assert (waiting(bench), instance.served, len(held._relayed)) == (1, 0, 0)
    monkeypatch.undo()
    bench.instance("2")
    bench.lead_to("2/web.sock")
    held._let_through()
    assert (connections(bench.path("2")), len(held._relayed)) == (1, 1)
    until(lambda: connections(bench.path("1")) == 0)
    for relayed in held._relayed:
        relayed.close()
    held._selector.close()


def rests(process: psutil.Process) -> bool:
    """Whether it slept for 0.3 s: one that turns in circles has used the processor, or was taken off it."""
    before = process.num_ctx_switches(), process.cpu_times()
    time.sleep(0.3)
    return (process.num_ctx_switches(), process.cpu_times()) == before


def spent(process: psutil.Process) -> float:
    """Seconds of CPU in half a second."""
    time.sleep(0.05)
    before = sum(process.cpu_times()[:2])
    time.sleep(0.5)
    return float(sum(process.cpu_times()[:2]) - before)


def test_without_a_supervisor_it_binds_its_own_path_but_never_takes_one_away(empty_bench: Bench) -> None:
    """Started by hand it listens by itself; a second one on the same path fails and the first goes on."""
    empty_bench.listener.close()
    empty_bench.instance()
    empty_bench.lead_to("1/web.sock")
    argv = (sys.executable, "-m", "bulletproof.adapters.relay", str(empty_bench.app), str(empty_bench.hold))
    empty_bench.run(argv, {})
    until(empty_bench.hold.exists)
    time.sleep(0.1)
    assert empty_bench.run(argv, {}).wait(10) == 1
    assert "Address already in use" in empty_bench.log.read_text()
    assert answer(empty_bench.client(b"hello")) == b"hello"


def test_it_imports_nothing_of_the_house() -> None:
    """The relay starts fast because it needs the standard library alone."""
    text = (
        "import sys, bulletproof.adapters.relay; print(*sorted(name for name in sys.modules if 'bulletproof' in name))"
    )
    loaded = subprocess.run((sys.executable, "-c", text), capture_output=True, text=True, check=True).stdout.split()
    assert loaded == ["bulletproof", "bulletproof.adapters", "bulletproof.adapters.relay"]
