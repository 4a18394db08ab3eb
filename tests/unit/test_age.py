"""Encryption with age: what one bit changes is refused in words, and nothing is left of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import workshop
from bulletproof.effects.age import decrypt, encrypt, new_identity
from bulletproof.errors import BulletproofError, Refused, StepFailed, UsageError

IDENTITY, RECIPIENT = new_identity()
CHUNK = 65536
"""What age seals at once."""
SIZES = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """An empty folder, in which nothing unfinished may be left."""
    yield tmp_path
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


def sealed(folder: Path, content: bytes, *recipients: str) -> Path:
    """The content, encrypted."""
    (folder / "plain").write_bytes(content)
    encrypt(folder / "plain", folder / "sealed", recipients or (RECIPIENT,))
    return folder / "sealed"


def refusal(file: Path, identity: str = IDENTITY) -> StepFailed:
    """The error of a file that must not be decrypted; what was at the target stays, and no secret is told."""
    target = file.with_name("target")
    target.write_text("older")
    with pytest.raises(StepFailed) as raised:
        decrypt(file, target, identity)
    assert raised.value.reference == "not-decrypted"
    assert raised.value.hint == f"ls -l {file.parent}"
    assert identity not in f"{raised.value} {raised.value.context}"
    assert target.read_text() == "older"
    target.unlink()
    with pytest.raises(StepFailed):
        decrypt(file, target, identity)
    assert not target.exists()
    return raised.value


@pytest.mark.parametrize("size", SIZES)
def test_what_was_encrypted_is_decrypted(folder: Path, size: int) -> None:
    """Of any size, private on both ways, and not to be read in between."""
    content = os.urandom(size)
    file = sealed(folder, content)
    decrypt(file, folder / "back", IDENTITY)

    assert (folder / "back").read_bytes() == content
    assert {path.stat().st_mode & 0o777 for path in (file, folder / "back")} == {0o600}
    assert file.read_bytes().startswith(b"age-encryption.org/v1\n")
    assert size < 16 or content not in file.read_bytes()


def test_each_recipient_can_decrypt_it(folder: Path) -> None:
    """Two keys, one in a safe."""
    other_identity, other = new_identity()
    file = sealed(folder, b"hello", RECIPIENT, other)
    for identity in (IDENTITY, other_identity):
        decrypt(file, folder / "back", identity)
        assert (folder / "back").read_bytes() == b"hello"


def test_an_identity_can_be_a_file_of_age_keygen(folder: Path) -> None:
    """Its comments and its last newline do no harm."""
    text = f"# created: 2026-01-01T00:00:00Z\n# public key: {RECIPIENT}\n{IDENTITY}\n"
    decrypt(sealed(folder, b"hello"), folder / "back", text)

    assert (folder / "back").read_bytes() == b"hello"


def test_keys_are_new_each_time() -> None:
    """No two are alike, and each says what it is."""
    keys = [new_identity() for _ in range(5)]

    assert len({text for key in keys for text in key}) == 10
    assert all(identity.startswith("AGE-SECRET-KEY-1") and recipient.startswith("age1") for identity, recipient in keys)


def test_the_wrong_key(folder: Path) -> None:
    """It is said that another key is needed."""
    error = refusal(sealed(folder, b"hello"), new_identity()[0])

    assert error.message == (
        f"{folder}/sealed could not be decrypted: it was encrypted for another key than this one, "
        "or its beginning is damaged"
    )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("cut", [1, 15, 16, 17, CHUNK, CHUNK + 16, 2 * (CHUNK + 16)])
def test_a_file_that_is_cut_off(folder: Path, size: int, cut: int) -> None:
    """Wherever it ends, on a border between two chunks as well."""
    file = sealed(folder, os.urandom(size))
    content = file.read_bytes()
    file.write_bytes(content[: max(0, len(content) - cut)])

    assert "cut off" in refusal(file).message


@pytest.mark.parametrize("added", [b"\0", b"x" * 16, b"y" * (CHUNK + 16)])
def test_a_file_with_something_behind_it(folder: Path, added: bytes) -> None:
    """Its end is part of what is proven."""
    for size in (5, CHUNK):
        file = sealed(folder, os.urandom(size))
        with file.open("ab") as adding:
            adding.write(added)
        assert "it is damaged or cut off; nothing of it was kept" in refusal(file).message


def test_two_chunks_that_change_places(folder: Path) -> None:
    """Each whole, and yet not the file."""
    file = sealed(folder, os.urandom(3 * CHUNK))
    content = file.read_bytes()
    start = len(content) - 3 * (CHUNK + 16)
    first, second, third = (content[start + n * (CHUNK + 16) :][: CHUNK + 16] for n in range(3))
    file.write_bytes(content[:start] + second + first + third)

    assert "it is damaged or cut off; nothing of it was kept" in refusal(file).message


@pytest.mark.parametrize("content", [b"", b"hello", b"\0" * 1000, b"age-encryption.org/v1\n", b"SQLite format 3\0"])
def test_what_is_no_file_of_age(folder: Path, content: bytes) -> None:
    """A database that was never encrypted, for one."""
    (folder / "sealed").write_bytes(content)

    assert "it is damaged, cut off or no file of age (" in refusal(folder / "sealed").message


def test_each_bit_of_a_header(folder: Path) -> None:
    """The list of recipients, its seal, and the first bytes of what follows: none may change."""
    file = sealed(folder, b"hello")
    content = file.read_bytes()
    target = folder / "target"
    for place in range(len(content)):
        for bit in range(8):
            file.write_bytes(flipped(content, place, bit))
            with pytest.raises(StepFailed, match="not-decrypted"):
                decrypt(file, target, IDENTITY)
            assert not target.exists()


def flipped(content: bytes, place: int, bit: int) -> bytes:
    """The content with one bit changed."""
    return content[:place] + bytes([content[place] ^ (1 << bit)]) + content[place + 1 :]


with tempfile.TemporaryDirectory() as _made:
    LARGE = sealed(Path(_made), os.urandom(4 * CHUNK + 100)).read_bytes()


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_changes_anywhere(data: st.DataObject) -> None:
    """A bit flipped, bytes written over, lost, doubled or put in anywhere: never taken for the file."""
    places = st.integers(0, len(LARGE) - 1)
    start, length = data.draw(places), data.draw(st.integers(1, 3000))
    kind = data.draw(st.sampled_from(["flip", "over", "lose", "double", "insert"]))
    part = LARGE[start : start + length]
    changed = {
        "flip": lambda: flipped(LARGE, start, data.draw(st.integers(0, 7))),
        "over": lambda: LARGE[:start] + bytes(byte ^ 0x55 for byte in part) + LARGE[start + length :],
        "lose": lambda: LARGE[:start] + LARGE[start + length :],
        "double": lambda: LARGE[:start] + part + LARGE[start:],
        "insert": lambda: LARGE[:start] + data.draw(st.binary(min_size=1, max_size=100)) + LARGE[start:],
    }[kind]()
    with tempfile.TemporaryDirectory() as name:
        file = Path(name, "sealed")
        file.write_bytes(changed)
        with pytest.raises(StepFailed) as raised:
            decrypt(file, Path(name, "target"), IDENTITY)
        assert raised.value.reference == "not-decrypted"
        assert [path.name for path in Path(name).iterdir()] == ["sealed"]


def test_a_few_mebibytes_of_memory_are_enough(folder: Path) -> None:
    """A file of 300 MiB goes both ways through a process that may not have 300 MiB more than it began with."""
    with (folder / "plain").open("wb") as file:
        file.truncate(300 << 20)
    program = (
        "import pathlib, resource, sys\n"
        "from bulletproof.effects.age import decrypt, encrypt\n"
        "a, b, c = map(pathlib.Path, sys.argv[1:4])\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "encrypt(a, b, [sys.argv[5]]); decrypt(b, c, sys.argv[4])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    names = [str(folder / name) for name in ("plain", "sealed", "back")]
    done = subprocess.run(
        [sys.executable, "-c", program, *names, IDENTITY, RECIPIENT], capture_output=True, text=True, check=True
    )

    assert int(done.stdout) < 20 << 10
    assert (folder / "back").stat().st_size == 300 << 20


@pytest.mark.root
def test_a_full_disk(folder: Path) -> None:
    """It is told as that, in both directions, and nothing half is left."""
    plain = folder / "plain"
    plain.write_bytes(os.urandom(4 << 20))
    encrypt(plain, folder / "sealed", [RECIPIENT])
    with workshop.small_disk(mebibytes=2) as disk:
        actions: tuple[Callable[[], None], ...] = (
            lambda: encrypt(plain, disk / "sealed", [RECIPIENT]),
            lambda: decrypt(folder / "sealed", disk / "back", IDENTITY),
        )
        for action in actions:
            with pytest.raises(StepFailed, match="No space left on device"):
                action()
            assert not list(disk.iterdir())


def test_a_person_who_interrupts(folder: Path) -> None:
    """It ends at once, as interrupted and not as failed."""
    os.mkfifo(folder / "pipe")
    program = (
        "import pathlib, sys\nfrom bulletproof.effects.age import encrypt\nprint('go', flush=True)\n"
        "encrypt(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), [sys.argv[3]])"
    )
    argv = [sys.executable, "-c", program, str(folder / "pipe"), str(folder / "sealed"), RECIPIENT]
    reader = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert reader.stdout is not None
    reader.stdout.readline()
    with (folder / "pipe").open("wb") as giving:
        giving.write(b"x" * 100)
        giving.flush()
        time.sleep(0.5)  # until pyrage waits for more, since before that the interruption is Python's alone
        reader.send_signal(signal.SIGINT)
        _, said = reader.communicate(timeout=20)

    assert said.splitlines()[-1] == "KeyboardInterrupt"
    assert not (folder / "sealed").exists()


@pytest.mark.parametrize(
    "recipient",
    ["", "age1", "joe@example.org", RECIPIENT[:-1], RECIPIENT + "q"],
    ids=["empty", "short", "an address", "cut", "longer"],
)
def test_odd_recipients(folder: Path, recipient: str) -> None:
    """One that is no recipient is refused before anything is written."""
    (folder / "plain").write_text("hello")
    with pytest.raises(UsageError, match="is no recipient of age") as raised:
        encrypt(folder / "plain", folder / "sealed", [RECIPIENT, recipient])
    assert raised.value.reference == "recipient-odd"
    assert not (folder / "sealed").exists()


def test_no_recipient(folder: Path) -> None:
    """What nobody could decrypt is not made."""
    (folder / "plain").write_text("hello")
    with pytest.raises(UsageError, match="nobody is named"):
        encrypt(folder / "plain", folder / "sealed", [])
    assert not (folder / "sealed").exists()


def test_a_secret_key_in_place_of_a_recipient_is_not_repeated(folder: Path) -> None:
    """A mistake that is easily made must not write the key into a log."""
    (folder / "plain").write_text("hello")
    with pytest.raises(UsageError) as raised:
        encrypt(folder / "plain", folder / "sealed", [IDENTITY])
    assert IDENTITY not in f"{raised.value} {raised.value.hint}"


@pytest.mark.parametrize(
    "identity",
    ["", "AGE-SECRET-KEY-1XYZ", IDENTITY[:-1], f"{IDENTITY}\n{IDENTITY}", RECIPIENT],
    ids=["empty", "short", "cut", "two", "a recipient"],  # the key is another one in each process
)
def test_odd_identities(folder: Path, identity: str) -> None:
    """One that is no identity is refused, and none of it is repeated."""
    with pytest.raises(UsageError, match="is not one secret key of age") as raised:
        decrypt(sealed(folder, b"hello"), folder / "back", identity)
    assert raised.value.reference == "identity-odd"
    assert raised.value.__cause__ is None
    assert not identity or identity not in str(raised.value)
    assert not (folder / "back").exists()


@pytest.mark.parametrize("verb", ["encrypt", "decrypt", "new_identity"])
def test_without_the_package(folder: Path, monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    """Who has not installed it is told how to."""
    monkeypatch.setitem(sys.modules, "pyrage", None)
    actions: dict[str, Callable[[], object]] = {
        "encrypt": lambda: encrypt(folder / "a", folder / "b", [RECIPIENT]),
        "decrypt": lambda: decrypt(folder / "a", folder / "b", IDENTITY),
        "new_identity": new_identity,
    }
    with pytest.raises(Refused) as raised:
        actions[verb]()
    assert raised.value.reference == "offsite-not-installed"
    assert raised.value.hint == "pip install 'bulletproof[offsite]'"


def test_a_missing_file(folder: Path) -> None:
    """It is said which."""
    actions: tuple[Callable[[], None], ...] = (
        lambda: encrypt(folder / "missing", folder / "b", [RECIPIENT]),
        lambda: decrypt(folder / "missing", folder / "b", IDENTITY),
    )
    for action in actions:
        with pytest.raises(BulletproofError, match=f"{folder}/missing could not be .*: .*No such file or directory"):
            action()
