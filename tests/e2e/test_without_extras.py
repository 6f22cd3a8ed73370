"""What an extra brings is more, not other: without any the daemon runs flows, and people can read what it says."""

from tests.daemon.cli import test_terminal

#: Extras of the daemon itself, in the way they are missing where nobody installed them.
WITHOUT = """import importlib.util, runpy, sys
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "rich" else found(name, *more)
sys.modules |= dict.fromkeys(("rich", "uvloop"))
"""


def test_the_daemon_and_its_verbs_work_without_extras(tmp_path, make_daemon, monkeypatch):
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "tells.py").write_text(
        "import subprocess, sys\ndef handler(system, this):\n"
        "    subprocess.run([sys.executable, '-c', ''], check=True)\n"
        "    this.flow('leaf', wait=False)\n    this.log('\\x1b[31mred \\x07')\n    return this.success('a\\x1b[2Jb')\n"
    )
    (tmp_path / "flows" / "leaf.py").write_text("def handler(system, this):\n    this.sleep(0.01)\n")
    daemon = make_daemon(tmp_path / "flows")
    daemon.program = ("-c", WITHOUT + "runpy.run_module('headrace', run_name='__main__', alter_sys=True)")
    daemon.start()
    assert daemon.run("tells")["status"] == "ENDED_SUCCESS"
    monkeypatch.setattr(test_terminal, "SCRIPT", WITHOUT + test_terminal.SCRIPT)
    for words in (["executions"], ["flows"], ["show", "latest"], ["logs", "latest"], ["sync"], ["run", "tells"]):
        seen = test_terminal.on_terminal(*words, "--state", daemon.state)
        assert "Traceback" not in seen
        assert "\x1b" not in seen and "\x07" not in seen, "nothing a flow wrote steers the terminal"
    assert "b" in seen
    assert daemon.stop() == 0
