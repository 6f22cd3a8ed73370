"""A source that is reached as a GitHub App: tokens are made, kept, made anew, and seen by nobody."""

import pytest
import structlog.testing

from headrace.engine import errors
from headrace.sync import forge
from headrace.sync.source import Source
from tests.support import git_http, git_servers
from tests.support.forge import APP, INSTALLATION, Forge
from tests.support.repositories import git


@pytest.fixture(scope="module")
def github():
    made = Forge()
    yield made
    made.close()


@pytest.fixture
def app(github, tmp_path):
    github.valid_s, github.minted, github.asked, github.refusals = 3600.0, [], [], []
    return forge.GithubApp(app_id=APP, key_file=str(github.write_key(tmp_path / "app.pem")), api=github.api)


URL = "https://github.com/ops/flows.git"


def test_a_token_is_asked_for_once_and_made_anew_before_it_ends(github, app):
    tokens = forge.AppTokens(app, URL)
    assert [tokens.token() for _ in range(3)] == ["ghs_canary0"] * 3
    assert github.asked == [
        "GET /repos/ops/flows/installation",
        f"POST /app/installations/{INSTALLATION}/access_tokens",
    ]
    github.valid_s = 599  # less than a fetch may need
    short = forge.AppTokens(app, URL)
    assert [short.token(), short.token()] == ["ghs_canary1", "ghs_canary2"]


def test_the_installation_may_be_given(github, app):
    given = forge.GithubApp(app_id=APP, key_file=app.key_file, api=app.api, installation_id=str(INSTALLATION))
    assert forge.AppTokens(given, URL).token() == "ghs_canary0"
    assert len(github.asked) == 1


@pytest.mark.parametrize("what", ["another app", "another key", "no key", "gone", "refused", "odd answer"])
def test_whatever_goes_wrong_is_told_without_secrets(github, app, tmp_path, what):
    if what == "another app":
        app = forge.GithubApp(app_id="99", key_file=app.key_file, api=app.api)
    elif what == "another key":
        other = Forge()
        other.close()
        other.write_key(tmp_path / "app.pem")
    elif what == "no key":
        (tmp_path / "app.pem").write_text("-----BEGIN canary-----")
    elif what == "gone":
        app = forge.GithubApp(app_id=APP, key_file=app.key_file, api="http://127.0.0.1:1")
    elif what == "refused":
        github.refusals = [404]
    else:
        github.refusals = [200, 200]
    with pytest.raises(errors.SourceUnavailable) as caught:
        forge.AppTokens(app, URL).token()
    assert f"the GitHub App {app.app_id} got no token" in caught.value.message
    assert "canary" not in caught.value.message
    assert {
        "another app": "401: Bad credentials", "another key": "401: Bad credentials", "no key": "cannot be used",
        "gone": "does not answer", "refused": "404: not now", "odd answer": "holds no token",
    }[what] in caught.value.message  # fmt: skip


async def test_git_gets_in_with_the_apps_token(github, app, repository, daemon, certificates, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.folder / "ca.crt"))
    keys = tmp_path / "keys"
    keys.mkdir()
    server = git_servers.Https(repository.upstream.parent, keys, certificates)
    # What ghs_canary0 stands for may go in, and nothing else.
    server.answer = git_http.handler(repository.upstream.parent, user="x-access-token", password="ghs_canary0")
    await server.start()
    given = forge.GithubApp(app_id=APP, key_file=app.key_file, api=app.api, installation_id=str(INSTALLATION))
    try:
        git(repository.upstream, "config", "http.receivepack", "true")
        repository.write("a.py")
        repository.push()
        with structlog.testing.capture_logs() as logs:
            sync = await daemon.started(server.url, github_app=given)
            status = await daemon.synced(sync)
            assert (status.state, status.flows) == ("ok", 1), status.error
            repository.write("b.py")
            repository.push()
            assert (await daemon.synced(sync)).flows == 2
            await sync.authoring.save_flow("c", "def handler(system, this): pass\n", author="ada")
            assert (await daemon.synced(sync)).flows == 3
            github.refusals = [500] * 9
            again = await daemon.started(server.url, github_app=given)
            status = await daemon.synced(again)
    finally:
        await server.stop()
    assert len(github.minted) == 1
    assert status.state == "degraded"
    assert "answered 500" in status.error
    assert status.flows == 3
    assert "ghs_" not in f"{logs} {daemon.events} {status}"
    token = daemon.state / "git-token"
    assert (token.read_text(), token.stat().st_mode & 0o777) == ("ghs_canary0", 0o600)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"url": "ssh://git@github.com/ops/flows.git"}, "not reached so"),
        ({"url": URL, "token_file": "/x"}, "token_file names one"),
    ],
    ids=["ssh", "a token, too"],
)
def test_settings_that_do_not_go_together_are_refused(app, settings, said):
    with pytest.raises(errors.ConfigurationInvalid, match=said):
        Source(github_app=app, **settings)


@pytest.mark.parametrize(
    ("url", "kind", "api", "path"),
    [
        ("https://github.com/ops/flows.git", "github", "https://api.github.com", "ops/flows"),
        ("git@github.com:ops/flows.git", "github", "https://api.github.com", "ops/flows"),
        ("ssh://git@ghe.example:2222/ops/flows", "github", "https://ghe.example/api/v3", "ops/flows"),
        ("https://gitlab.example/a/b/flows.git", "gitlab", "https://gitlab.example/api/v4", "a/b/flows"),
        ("https://gitea.example:3000/ops/flows.git", "gitea", "https://gitea.example:3000/api/v1", "ops/flows"),
    ],
)
def test_where_the_forge_is_is_read_from_the_address(url, kind, api, path):
    assert forge.repository(url, kind) == forge.Repository(path, api)


def test_an_address_that_does_not_say_is_refused_and_what_is_given_counts():
    with pytest.raises(errors.ConfigurationInvalid, match="does not say where its forge is"):
        forge.repository("file:///srv/flows.git", "gitea")
    assert forge.repository("file:///srv/flows.git", "gitea", "https://x/api/v1/", "a/b").api == "https://x/api/v1"
    for address in ("http://forge.example", "ftp://x", "https://u:p@x", "https://x?y=z"):
        with pytest.raises(ValueError, match="api"):
            forge.check_address(address, "api")
