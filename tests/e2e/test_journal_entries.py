"""A service's log lies in systemd's journal, to be asked for by execution."""

from headrace.daemon.client import Client
from tests.support.daemons import until
from tests.support.journal import Listener

PROGRAM = """
import sys
from headrace.daemon import journald
journald.SOCKET = {socket!r}
from headrace.daemon.cli import main
sys.exit(main.main(sys.argv[1:]))
"""


def test_what_became_of_an_execution_is_found_by_its_id(make_daemon, tmp_path):
    folder = tmp_path / "flows"
    folder.mkdir()
    (folder / "größe.py").write_text("def handler(system, this):\n    raise ValueError('as asked')\n")
    journal = Listener(tmp_path / "journal")
    daemon = make_daemon(folder)
    daemon.log.touch()
    found = daemon.log.stat()
    daemon.environment = {"HEADRACE_LOG__FORMAT": "auto", "JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
    daemon.program = ("-c", PROGRAM.format(socket=str(tmp_path / "journal")))
    daemon.start(wait=False)
    entries = [journal.next()]
    while entries[-1]["HEADRACE_EVENT"] != "sync.finished":
        entries.append(journal.next())
    assert {one["SYSLOG_IDENTIFIER"] for one in entries} == {"headrace"}
    client: Client = daemon.client
    id_ = client.run("größe")["id"]
    until(lambda: client.execution(id_)["status"] == "ENDED_ERROR", "it fails")
    while entries[-1].get("HEADRACE_EXECUTION") != id_:
        entries.append(journal.next())
    ended = entries[-1]
    assert (ended["HEADRACE_EVENT"], ended["HEADRACE_FLOW"], ended["PRIORITY"]) == ("execution.ended", "größe", "6")
    assert ended["CODE_FILE"].endswith("ends.py") and ended["MESSAGE"].startswith("execution.ended ")
    assert daemon.stop() == 0
    journal.close()
    assert '"event"' not in daemon.log.read_text(), "nothing of it is on stderr"
