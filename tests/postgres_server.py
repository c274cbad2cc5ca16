"""A private PostgreSQL server for tests marked `postgres`."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil


class PostgresServer:
    """Listens on a socket in a folder of its own alone; may be stopped and started again."""

    def __init__(self) -> None:
        candidates = (shutil.which("initdb"), *sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")))
        found = [path for path in candidates if path]
        assert found, "PostgreSQL is not installed. On Debian: apt-get install postgresql"
        self._programs = Path(str(found[-1])).resolve().parent
        self._folder = Path(tempfile.mkdtemp(prefix="carpal-postgres-"))
        self._user: dict[str, Any] = (
            {"user": "nobody"} if os.geteuid() == 0 else {}
        )  # the server refuses to run as root
        if self._user:
            shutil.chown(self._folder, "nobody")
        self._run("initdb", "-U", "carpal", "--auth=trust", "-N")
        self.start()
        self.url = f"postgresql+psycopg://carpal@/postgres?host={self._folder}"

    def start(self) -> None:
        options = f"-k {self._folder} -c listen_addresses= -c fsync=off"
        self._run("pg_ctl", "-l", str(self._folder / "log"), "-w", "-o", options, "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-m", "immediate", "stop")

    @contextlib.contextmanager
    def standing_still(self) -> Iterator[None]:
        """It answers nothing and refuses nothing, as a host does that hangs."""
        leader = psutil.Process(int((self._folder / "data" / "postmaster.pid").read_text().split()[0]))
        stopped = [leader, *leader.children(recursive=True)]
        for process in stopped:
            process.suspend()
        try:
            yield
        finally:
            for process in stopped:
                process.resume()

    def new_database(self, name: str) -> str:
        """URL of an empty database."""
        self._run("createdb", "-h", str(self._folder), "-U", "carpal", name, data=False)
        return f"postgresql+psycopg://carpal@/{name}?host={self._folder}"

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self._folder)

    def _run(self, program: str, *arguments: str, data: bool = True) -> None:
        command = [str(self._programs / program), *(["-D", str(self._folder / "data")] if data else []), *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=self._folder, **self._user)
