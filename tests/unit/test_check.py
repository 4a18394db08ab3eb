"""What checks say together, and in the formats of monitoring."""

from __future__ import annotations

from pathlib import Path

import pytest

from bulletproof.domain.check import Finding, State, nagios, prometheus, worst
from bulletproof.effects.records import damaged_packages


def finding(state: State, name: str = "disk", words: str = "words") -> Finding:
    """What one check says."""
    return Finding(name=name, state=state, words=words, seconds=0.01)


@pytest.mark.parametrize(
    ("states", "said"),
    [
        ((), State.OK),
        ((State.OK, State.OK), State.OK),
        ((State.OK, State.UNKNOWN), State.UNKNOWN),
        ((State.UNKNOWN, State.WARNING), State.WARNING),
        ((State.WARNING, State.CRITICAL, State.UNKNOWN), State.CRITICAL),
    ],
)
def test_the_worst_that_is_certain_counts(states: tuple[State, ...], said: State) -> None:
    """Unknown is never ok, and hides nothing that is worse."""
    assert worst([finding(state) for state in states]) is said


def test_formats() -> None:
    """A line for Nagios without a bar in its words, and gauges for Prometheus."""
    some = [finding(State.OK, "disk"), finding(State.CRITICAL, "service", "a | b")]
    assert nagios("shop", some) == "CRITICAL - shop: service: a / b | disk=0.010s service=0.010s"
    assert nagios("shop", some[:1]) == "OK - shop: 1 checks are well | disk=0.010s"
    lines = prometheus("shop", some).splitlines()
    assert 'bulletproof_check_state{app="shop",check="service"} 2' in lines
    assert 'bulletproof_check_seconds{app="shop",check="disk"} 0.010000' in lines
    measured = Finding(name="disk", state=State.OK, words="", measures={"free_bytes": 5e12})
    told = prometheus("shop", [measured]).splitlines()[-1]
    assert told == 'bulletproof_check_measure{app="shop",check="disk",name="free_bytes"} 5000000000000.0'


def test_a_record_is_held_against_what_lies_there(tmp_path: Path) -> None:
    """A file that is missing or of another size is named; bytecode, and files without a size, are not."""
    folder = tmp_path / "lib" / "python3.11" / "site-packages"
    (folder / "pkg-1.dist-info").mkdir(parents=True)
    (folder / "pkg").mkdir()
    (folder / "pkg" / "good.py").write_text("1234")
    (folder / "pkg" / "bad.py").write_text("12345")
    (folder / "pkg-1.dist-info" / "RECORD").write_text(
        "pkg/good.py,sha256=x,4\npkg/bad.py,sha256=x,4\npkg/gone.py,sha256=x,4\n"
        '"pkg/with,comma.py",sha256=x,1\npkg/gone.pyc,,\npkg-1.dist-info/RECORD,,\n'
    )
    assert damaged_packages(tmp_path) == ("pkg/bad.py", "pkg/gone.py", "pkg/with,comma.py")
    assert damaged_packages(tmp_path / "none") == ()
