"""What a node of a cluster is told for the fast way; that it works is shown in tests/test_cluster.py."""

import shlex
import subprocess
from pathlib import Path

import pytest

from serve import fast_node
from serve.fast_node import environment, main


@pytest.fixture
def binary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "haproxy"
    monkeypatch.setattr(fast_node, "find_binary", lambda: path)
    return path


def test_serve_starts_the_closed_haproxy_of_this_node(binary: Path, tmp_path: Path) -> None:
    folder = tmp_path / "fast"
    found = environment(folder, "10.0.0.7", 8000)
    assert found["RAY_SERVE_ENABLE_HA_PROXY"] == "1"
    assert (folder / "address").read_text() == "ipv4@10.0.0.7:8000"
    assert str(binary) in Path(found["RAY_SERVE_HAPROXY_BINARY_PATH"]).read_text()
    assert folder.stat().st_mode & 0o077 == 0


def test_all_nodes_use_one_port_for_serves_own_proxy(binary: Path, tmp_path: Path) -> None:
    assert "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT" not in environment(tmp_path / "fast", "127.0.0.1", 8000)


def test_a_shell_takes_what_is_printed(
    binary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "a home"))
    assert main([]) == 0
    said = capsys.readouterr()
    assert "fast mode" in said.err
    script = f'eval {shlex.quote(said.out)}; test -x "$RAY_SERVE_HAPROXY_BINARY_PATH"'
    assert subprocess.run(["bash", "-c", script]).returncode == 0


def test_a_node_without_haproxy_is_told_where_it_comes_from(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fast_node, "find_binary", lambda: None)
    assert main([]) == 1
    said = capsys.readouterr()
    assert not said.out  # eval of nothing: the node goes the plain way
    assert "plain mode" in said.err
    assert "ray[serve]" in said.err
