import pytest

from headrace.engine import errors
from headrace.engine.state.secrets import resolve


def test_each_kind_of_reference_is_looked_up_where_it_says(tmp_path):
    (tmp_path / "token").write_text("from a file\n")
    environ = {"TOKEN": "from the environment", "CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert resolve("secret.env(TOKEN)", environ) == "from the environment"
    assert resolve("secret.credential(token)", environ) == "from a file"
    assert resolve(f"secret.file({tmp_path}/token)", environ) == "from a file"


@pytest.mark.parametrize(
    ("reference", "error"),
    [
        ("hunter2", errors.InvalidRequest),
        ("secret.env()", errors.InvalidRequest),
        ("secret.env(NOT_THERE)", errors.NotFound),
        ("secret.credential(../passwd)", errors.InvalidRequest),
        ("secret.file(/not/there)", errors.NotFound),
    ],
)
def test_what_cannot_be_looked_up_is_said_without_showing_it(tmp_path, reference, error):
    with pytest.raises(error) as caught:
        resolve(reference, {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert "hunter2" not in caught.value.message


def test_a_service_without_credentials_says_so():
    with pytest.raises(errors.NotFound, match="no credentials directory"):
        resolve("secret.credential(x)", {})
