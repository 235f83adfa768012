"""The log: one line an event, JSON on demand, levels that hold."""

from __future__ import annotations

import io
import json

import pytest

from fwd.observe.log import configure_log, get_logger


@pytest.fixture(autouse=True)
def no_journal(monkeypatch: pytest.MonkeyPatch):
    """Outside systemd, whatever runs the tests."""
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    yield
    configure_log()


def test_log_line_is_key_value():
    """A person reads time, level, event and context on one line."""
    out = io.StringIO()
    configure_log(stream=out)
    get_logger(endpoint="default/curl").info("endpoint ready", ifindex=75)
    line = out.getvalue()
    assert line.count("\n") == 1
    assert line.endswith("level='info' event='endpoint ready' endpoint='default/curl' ifindex=75\n")
    assert line.startswith("timestamp=")


def test_log_json_parses():
    """A machine reads the same fields."""
    out = io.StringIO()
    configure_log(as_json=True, stream=out)
    get_logger().warning("peer unreachable", peer="node2")
    record = json.loads(out.getvalue())
    assert (record["event"], record["level"], record["peer"]) == (
        "peer unreachable", "warning", "node2",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("level", "priority"), [("debug", 7), ("info", 6), ("warning", 4), ("error", 3)]
)
def test_log_under_systemd_has_a_priority_and_no_time(level, priority, monkeypatch):
    """The journal stamps lines itself, and reads their level from the front."""
    monkeypatch.setenv("JOURNAL_STREAM", "8:1")
    out = io.StringIO()
    configure_log("debug", stream=out)
    getattr(get_logger(), level)("up")
    assert out.getvalue() == f"<{priority}>level='{level}' event='up'\n"
    configure_log("debug", as_json=True, stream=out)
    getattr(get_logger(), level)("down")
    line = out.getvalue().splitlines()[1]
    assert line.startswith(f'<{priority}>{{"')
    assert json.loads(line[3:])["event"] == "down"


def test_log_level_filters():
    """What is below the level is not written."""
    out = io.StringIO()
    configure_log("error", stream=out)
    get_logger().info("chatter")
    assert out.getvalue() == ""


def test_log_exceptions_keep_their_traceback():
    """A bug's traceback reaches the log."""
    out = io.StringIO()
    configure_log(stream=out)
    try:
        raise ValueError("boom")  # noqa: TRY301
    except ValueError:
        get_logger().exception("task failed")
    assert "ValueError: boom" in out.getvalue()


def test_log_refuses_an_unknown_level():
    """A typo names the levels there are."""
    with pytest.raises(ValueError, match="'loud' is unknown; use one of debug, info"):
        configure_log("loud")
