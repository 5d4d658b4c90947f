"""Settings: where they come from, what they may be, and what is said when they can't."""

import pytest
from pydantic import ValidationError

from proxy.settings import Settings, SettingsError, environment, load_settings


def problems(**environ):
    with pytest.raises(SettingsError) as refused:
        load_settings(environ)
    assert str(refused.value) == "\n".join(refused.value.problems)
    return refused.value.problems


def test_the_documented_defaults():
    settings = load_settings({})
    assert {
        "INSTANCE_CONFIG_FILE": str(settings.instance_config_file),
        "INSTANCE_STATE_FILE": str(settings.instance_state_file),
        "HOST": settings.host,
        "PORT": settings.port,
        "PROXY_API_KEYS": settings.proxy_api_keys,
        "ALLOW_ANONYMOUS": settings.allow_anonymous,
        "ROUTING_STRATEGY": settings.routing_strategy,
        "MAX_QUEUE_WAIT_SECONDS": settings.max_queue_wait_seconds,
        "LOG_LEVEL": settings.log_level,
        "LOG_DIR": settings.log_dir,
        "LOG_FORMAT": settings.log_format,
        "MAX_REQUEST_BYTES": settings.max_request_bytes,
    } == {
        "INSTANCE_CONFIG_FILE": "instance_configs.json",
        "INSTANCE_STATE_FILE": "instance_states.json",
        "HOST": "127.0.0.1",
        "PORT": 3010,
        "PROXY_API_KEYS": (),
        "ALLOW_ANONYMOUS": False,
        "ROUTING_STRATEGY": "priority",
        "MAX_QUEUE_WAIT_SECONDS": 10.0,
        "LOG_LEVEL": "INFO",
        "LOG_DIR": None,
        "LOG_FORMAT": "text",
        "MAX_REQUEST_BYTES": 33_554_432,
    }


def test_every_setting_can_be_left_at_its_default_and_none_can_be_changed_later():
    settings = load_settings({})
    for field in Settings.model_fields:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(settings, field, 1)


def test_the_environment_wins_over_the_file_and_empty_is_unset(tmp_path):
    env_file = tmp_path / ".env"
    env_file.write_text(
        "# comment\nPORT=1111\nHOST=\nLOG_LEVEL='debug'\nexport LOG_FORMAT=json\n"
        "MAX_QUEUE_WAIT_SECONDS=3\nSOMETHING_ELSE=1\nADMIN_API_KEY=a${PORT}b\n"
    )
    environ = {"PORT": "2222", "MAX_QUEUE_WAIT_SECONDS": "", "UNKNOWN": "x", "LOG_DIR": ""}

    settings = load_settings(environ, env_file)

    assert settings.port == 2222
    assert settings.host == "127.0.0.1"
    assert (settings.log_level, settings.log_format, settings.log_dir) == ("DEBUG", "json", None)
    assert settings.max_queue_wait_seconds == 3.0
    assert settings.admin_api_key.get_secret_value() == "a${PORT}b"
    assert environment(environ, env_file)["SOMETHING_ELSE"] == "1"


def test_a_missing_file_adds_nothing(tmp_path):
    assert environment({"PORT": "1"}, tmp_path / "missing") == {"PORT": "1"}


def test_a_file_that_is_not_text_is_refused(tmp_path):
    env_file = tmp_path / "odd.env"
    env_file.write_bytes(b"PORT=\xff\n")
    with pytest.raises(SettingsError, match=r"odd\.env is not UTF-8 text"):
        load_settings({}, env_file)


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("PORT", "abc", "PORT must be a valid integer, not 'abc'; unset, it is 3010"),
        ("PORT", "65536", "PORT must be less than or equal to 65535, not '65536'"),
        ("PORT", "9" * 5000, "PORT must be valid, not '999"),
        ("ALLOW_ANONYMOUS", "maybe", "ALLOW_ANONYMOUS must be a valid boolean, not 'maybe'"),
        ("ROUTING_STRATEGY", "best", "ROUTING_STRATEGY must be 'priority', 'failover', 'weighted'"),
        ("MAX_QUEUE_WAIT_SECONDS", "-1", "must be greater than or equal to 0"),
        ("MAX_QUEUE_WAIT_SECONDS", "nan", "must be a finite number"),
        ("MAX_REQUEST_BYTES", "32MB", "MAX_REQUEST_BYTES must be a valid integer"),
        ("MAX_CONNECTIONS", "0", "MAX_CONNECTIONS must be greater than or equal to 1"),
        ("LOG_LEVEL", "loud", "'DEBUG', 'INFO', 'WARNING', 'ERROR' or 'CRITICAL'"),
        ("LOG_FORMAT", "xml", "LOG_FORMAT must be 'text' or 'json', not 'xml'"),
        ("PROXY_API_KEYS", " , ", "PROXY_API_KEYS names no key"),
        ("INSTANCE_STATE_FILE", "./x/../instance_configs.json", "they must be two files"),
    ],
)
def test_a_problem_names_the_variable_the_value_and_the_remedy(variable, value, sentence):
    (problem,) = problems(**{variable: value})
    assert sentence in problem
    assert len(problem) < 250


def test_all_problems_are_told_at_once():
    told = problems(PORT="x", LOG_FORMAT="y", MAX_HEADER_BYTES="z")
    assert [problem.split()[0] for problem in told] == ["PORT", "MAX_HEADER_BYTES", "LOG_FORMAT"]


# -- keys --------------------------------------------------------------------------------------


def test_an_admin_key_that_nobody_set_is_made_anew_each_time():
    first, second = load_settings({}), load_settings({})
    assert first.admin_key_generated
    assert first.admin_api_key != second.admin_api_key
    assert len(first.admin_api_key.get_secret_value()) >= 32
    given = load_settings({"ADMIN_API_KEY": "youradminapikey"})
    assert not given.admin_key_generated
    assert given.admin_api_key.get_secret_value() == "youradminapikey"


def test_client_keys_are_separated_by_commas():
    settings = load_settings({"PROXY_API_KEYS": " one,two ,,one,"})
    assert [key.get_secret_value() for key in settings.proxy_api_keys] == ["one", "two"]


@pytest.mark.parametrize("variable", ["ADMIN_API_KEY", "PROXY_API_KEYS"])
@pytest.mark.parametrize("key", ["sécret-key", "secret key-\x7f", "secret key"])
def test_a_key_that_fits_no_header_is_refused_without_being_repeated(variable, key):
    (problem,) = problems(**{variable: key})
    assert problem.startswith(variable)
    assert "cret" not in problem


def test_keys_do_not_appear_when_settings_are_printed():
    settings = load_settings({"ADMIN_API_KEY": "secret-admin", "PROXY_API_KEYS": "secret-client"})
    assert "secret-" not in repr(settings) + str(settings) + str(settings.model_dump())


# -- who can reach it --------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_a_loopback_address_needs_no_keys(host):
    assert load_settings({"HOST": host}).host == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "proxy.example", "localhost.x"])
def test_an_address_that_others_reach_needs_keys_or_a_decision(host):
    (problem,) = problems(HOST=host)
    assert f"HOST is {host!r}" in problem
    assert "set PROXY_API_KEYS, or HOST=127.0.0.1, or ALLOW_ANONYMOUS=1" in problem

    assert load_settings({"HOST": host, "PROXY_API_KEYS": "k"}).host == host
    assert load_settings({"HOST": host, "ALLOW_ANONYMOUS": "1"}).allow_anonymous
    problems(HOST=host, ALLOW_ANONYMOUS="0")


def test_the_key_of_the_metrics_is_a_secret_and_has_to_fit_a_header():
    key = load_settings({"METRICS_API_KEY": "scrape-key"}).metrics_api_key
    assert key.get_secret_value() == "scrape-key"
    assert "scrape-key" not in repr(key)
    assert load_settings({}).metrics_api_key is None
    with pytest.raises(SettingsError) as caught:
        load_settings({"METRICS_API_KEY": "two words"})
    assert "METRICS_API_KEY" in str(caught.value)
    assert "two words" not in str(caught.value)
