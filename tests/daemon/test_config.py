"""Settings: layers, origins, and that everything wrong is said at once."""

import dataclasses
from pathlib import Path

import pytest

from headrace.daemon import config, written
from headrace.engine import errors

SOURCE = {"source.url": "https://forge.example/flows.git"}


def problems(flags=None, environ=None, files=None):
    with pytest.raises(errors.ConfigurationInvalid) as caught:
        config.load(flags or {}, environ or {}, files or {})
    return caught.value.message


def test_a_source_is_all_that_must_be_given():
    configuration = config.load(SOURCE, {}, {})

    assert configuration.source_url == "https://forge.example/flows.git"
    assert configuration.source_ref == "HEAD"
    assert configuration.source_poll_s == 30
    assert configuration.listen_address == written.Address("127.0.0.1", 8420)
    assert configuration.run_max_running == 32
    assert configuration.state_directory == Path.cwd() / ".headrace"
    assert "source.url is missing" in problems()


def test_the_command_line_wins_over_the_environment_over_the_file_over_the_default():
    file = '[run]\nmax_running = 1\n[log]\nlevel = "debug"\nformat = "json"\n[source]\nref = "a"'
    environ = {"HEADRACE_LOG__LEVEL": "error", "HEADRACE_SOURCE__REF": "b"}

    configuration = config.load(SOURCE | {"source.ref": "c"}, environ, {"f.toml": file})

    assert (configuration.run_max_running, configuration.log_level, configuration.source_ref) == (1, "error", "c")
    assert configuration.origins["run.max_running"] == "f.toml"
    assert configuration.origins["log.level"] == "HEADRACE_LOG__LEVEL"
    assert configuration.origins["source.ref"] == "command line"
    assert configuration.origins["run.stop_grace"] == "default"


def test_systemd_names_the_state_directory_unless_somebody_else_does():
    environ = {"STATE_DIRECTORY": "/var/lib/headrace:/var/lib/other"}

    assert config.load(SOURCE, environ, {}).state_directory == Path("/var/lib/headrace")
    assert config.load(SOURCE, environ, {}).origins["state.directory"] == "$STATE_DIRECTORY"
    assert config.load(SOURCE, environ | {"HEADRACE_STATE__DIRECTORY": "/srv"}, {}).state_directory == Path("/srv")


def test_every_problem_is_reported_at_once_with_its_place():
    said = problems(
        {"listen.address": "nowhere"},
        {"HEADRACE_RUN__MAX_RUNNING": "many", "HEADRACE_SOURCE__REFF": "x"},
        {"f.toml": '[source]\nurl = "x"\nbrnch = "main"\n[run]\ncancel_grace = "soon"\n[odd]\nkey = 1'},
    )

    assert said.startswith("6 settings cannot be used")
    assert "source.brnch in f.toml is not a setting" in said
    assert "odd.key in f.toml is not a setting" in said
    assert "HEADRACE_SOURCE__REFF in the environment is not a setting; did you mean HEADRACE_SOURCE__REF?" in said
    assert 'run.max_running = "many" must be a whole number from 1 to 10000 (HEADRACE_RUN__MAX_RUNNING)' in said
    assert 'run.cancel_grace = "soon" is not a duration' in said
    assert 'listen.address = "nowhere" is not HOST:PORT' in said


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("[source\n", "f.toml is not valid TOML"),
        ("[[listen]]\naddress = 'x'", "several of them are not supported"),
        ("url = 'x'", "url in f.toml is not a setting"),
        ("[listen]\nadress = 'x'", "listen.adress in f.toml is not a setting; did you mean listen.address?"),
        ("[source]\nurl = 7", "source.url = 7 must be text"),
        ("[source]\nurl = ''", "source.url is empty"),
        ("[source]\npath = '../x'", "must stay inside the source"),
        ("[source]\npolicy = 'lax'", "must be one of per-flow, strict"),
        ("[source]\npoll = '1ms'", "must be from 1s to 86400s, or 0"),
        ("[run]\nmax_running = true", "must be a whole number"),
        ("[run]\ncancel_grace = true", "is not a duration"),
        ("[listen]\nbehind_proxy = 'perhaps'", "must be true or false"),
        ("[state]\ndirectory = ''", "must name a directory"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_the_reason(file, said):
    assert said in problems(files={"f.toml": file})


def test_a_variable_with_one_underscore_too_few_is_not_ignored():
    assert "did you mean HEADRACE_SOURCE__URL?" in problems(SOURCE, {"HEADRACE_SOURCE_URL": "x"})
    assert config.load(SOURCE, {"HEADRACE_URL": "x", "HEADRACE_TOKEN": "y"}, {})


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("127.0.0.1:0", "127.0.0.1", 0), ("[::1]:8420", "::1", 8420), ("localhost:80", "localhost", 80)],
)
def test_an_address_is_read_and_shown_the_same_way(text, host, port):
    address = config.load(SOURCE | {"listen.address": text}, {}, {}).listen_address

    assert address == written.Address(host, port)
    assert str(address) == text


@pytest.mark.parametrize("text", ["", ":8420", "8420", "host", "host:65536", "::1:80", "[zz]:80", "a b:80"])
def test_what_is_not_an_address_is_refused(text):
    assert "listen.address" in problems(SOURCE | {"listen.address": text})


@pytest.mark.parametrize("text", ["0.0.0.0:8420", "[::]:8420", "192.0.2.1:80", "forge.example:80"])
def test_an_address_others_can_reach_needs_a_certificate_or_a_proxy_in_front(text, tmp_path):
    assert "set listen.behind_proxy = true" in problems(SOURCE | {"listen.address": text})
    (tmp_path / "tls").write_text("")
    assert config.load(SOURCE | {"listen.address": text}, {"CREDENTIALS_DIRECTORY": str(tmp_path)}, {}).tls
    assert config.load(SOURCE | {"listen.address": text, "listen.behind_proxy": True}, {}, {})


@pytest.mark.parametrize(
    ("text", "seconds"), [("250ms", 0.25), ("30s", 30), ("1.5m", 90), ("2h", 7200), ("1d", 86400), (5, 5), ("7", 7)]
)
def test_durations_have_units(text, seconds):
    assert written.duration_s(text) == seconds


def test_directories_are_made_absolute_and_addresses_left_alone():
    def source(text):
        return config.load({"source.url": text}, {}, {}).source_url

    assert source("flows") == str(Path.cwd() / "flows")
    assert source("~/flows") == str(Path.home() / "flows")
    for url in ("git@forge.example:ops/flows.git", "ssh://git@forge.example/flows.git", "file:///srv/flows.git"):
        assert source(url) == url


def test_what_is_printed_can_be_read_again_and_tells_where_values_came_from():
    first = config.load(
        SOURCE | {"listen.address": "[::1]:0", "run.cancel_grace": "250ms"}, {}, {"f.toml": "[log]\nlevel='error'"}
    )

    second = config.load({}, {}, {"again.toml": first.printed()})

    assert dataclasses.replace(second, origins={}) == dataclasses.replace(first, origins={})
    assert 'level = "error"' in first.printed()
    assert first.printed().count("# f.toml") == 1


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://oauth2:s3cret@forge.example/f.git", "https://***@forge.example/f.git"),
        ("https://s3cret@forge.example/f.git", "https://***@forge.example/f.git"),
        ("ssh://git:s3cret@forge.example/f.git", "ssh://git:***@forge.example/f.git"),
        ("ssh://git@forge.example/f.git", "ssh://git@forge.example/f.git"),
    ],
)
def test_credentials_in_the_source_are_never_shown(url, shown):
    configuration = config.load({"source.url": url}, {}, {})

    assert configuration.source_url == url
    assert f'url = "{shown}"' in configuration.printed()
    assert "s3cret" not in problems({"source.url": url, "listen.address": url})


def test_the_first_file_that_exists_is_looked_for_in_etc_then_at_home():
    assert config.candidate_files({"XDG_CONFIG_HOME": "/x"})[0] == Path("/etc/headrace/headrace.toml")
    assert config.candidate_files({"XDG_CONFIG_HOME": "/x"})[1] == Path("/x/headrace/headrace.toml")
    assert config.candidate_files({"HOME": "/h"})[1] == Path("/h/.config/headrace/headrace.toml")


def test_every_setting_is_documented_as_the_table_has_it():
    documented = (Path(config.__file__).parents[1] / "docs" / "configuration.md").read_text()

    assert config.table() in documented, (
        "put the output of `python -m headrace.daemon.config` into docs/configuration.md"
    )
    single = [row for row in config.ROWS.values() if row.kind.name != "table"]  # a feature's own table is one choice

    assert len(single) <= 25, "settings are a cost for everybody: take one away before adding one"


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("folders = 'settings=config, files = data/files'", {"settings": "config", "files": "data/files"}),
        ("folders = {settings = 'config'}", {"settings": "config"}),
        ("folders = ''", {}),
    ],
)
def test_folders_are_a_list_of_pairs_or_a_table(given, meant):
    configuration = config.load(SOURCE, {}, {"f.toml": f"[source]\n{given}"})

    assert configuration.source_folders == meant
    assert "is not a list such as" in problems(SOURCE, {}, {"f.toml": "[source]\nfolders = 'settings'"})


TWO = """
[[source]]
prefix = "team"
url = "ssh://git@forge/team.git"
ref = "production"
[[source]]
url = "ssh://git@forge/ops.git"
poll = "5s"
"""


def test_several_sources_are_read_printed_and_read_again():
    loaded = config.load({}, {}, {"f.toml": TWO})
    first, team = loaded.each_source()
    assert (first.source_url, first.source_prefix, first.source_poll_s) == ("ssh://git@forge/ops.git", "", 5)
    assert (team.source_url, team.source_prefix, team.source_ref) == ("ssh://git@forge/team.git", "team", "production")
    assert team.source_poll_s == 30
    again = config.load({}, {}, {"g.toml": loaded.printed()})
    assert [(one.source_prefix, one.source_url, one.source_poll_s) for one in again.each_source()] == [
        ("", "ssh://git@forge/ops.git", 5),
        ("team", "ssh://git@forge/team.git", 30),
    ]


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("[[source]]\nurl = 'ssh://a/b'\n[[source]]\nurl = 'ssh://a/c'", "2 have no prefix, and exactly one must"),
        ("[[source]]\nprefix = 'a'\nurl = 'ssh://a/b'", "0 have no prefix, and exactly one must"),
        (TWO + "[[source]]\nprefix = 'team'\nurl = 'ssh://a/c'", 'prefix = "team" of a [[source]] in f.toml must be'),
        (TWO + "[[source]]\nprefix = 7\nurl = 'ssh://a/c'", "prefix = 7 of a [[source]] in f.toml must be text"),
        (TWO + "[[source]]\nprefix = 'x'", "source.url of [[source]] with prefix 'x' in f.toml is missing"),
        (
            TWO + "[[source]]\nprefix = 'x'\nurl = 'ssh://a/c'\npoll = 'soon'\nreff = ''",
            'source.poll = "soon" is not a duration',
        ),
        (TWO + "[[source]]\nprefix = 'x'\nurl = 'ssh://a/c'\nreff = ''", "reff of [[source]] with prefix 'x'"),
        ("[source]\nurl = 'ssh://a/b'\npreview = {refs = ['-x']}", "no branch or tag can be called"),
    ],
    ids=["two without", "none without", "twice", "a number", "no url", "a wrong value", "unknown", "preview"],
)
def test_sources_that_do_not_go_together_are_refused_with_the_reason(file, said):
    assert said in problems(files={"f.toml": file})
