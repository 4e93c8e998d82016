"""Settings: every name and default of the contract, and one clear line for what is wrong."""

import traceback
from pathlib import Path

import pytest

from quartsse.errors import SettingsError
from quartsse.settings import Settings, documented, names_of, settings_from

TABLE = {"SENTIMENTS_TABLE": "news"}

DEFAULTS = {
    "SSE_INDEX": "by_sentiment", "USERS_TABLE": None, "SSE_USERS_KEYS": ("PK", "SK"), "ENVIRONMENT": "dev",
    "HOST": "127.0.0.1", "PORT": 8080, "LOG_LEVEL": "INFO", "SSE_SOURCE": "query", "SSE_STREAM_ARN": None,
    "SSE_POLL_INTERVAL": 2, "SSE_READ_BUDGET": 100, "SSE_WINDOW_HOURS": 24, "SSE_IDLE_GRACE": 30,
    "SSE_CONFIG_INTERVAL": 5, "SSE_HEARTBEAT_INTERVAL": 30, "SSE_KEEPALIVE_INTERVAL": 15, "SSE_METRICS_INTERVAL": 60,
    "SSE_RETRY_MS": 3000, "SSE_LOG_EVENTS": 10_000, "SSE_RESUME_MARGIN": 5, "SSE_BACKLOG_BYTES": 262_144,
    "SSE_MAX_STREAM_AGE": 0, "SSE_DEADLINE_MARGIN": 5, "SSE_DRAIN_SECONDS": 10, "SSE_HANDOVER": True,
    "SSE_COMPRESSION": "on", "SSE_MAX_CONNECTIONS": 100, "SSE_MAX_CONNECTIONS_PER_USER": 20,
    "SSE_MAX_CONNECTIONS_PER_ADDRESS": 0, "SSE_TRUSTED_HOPS": 0, "SSE_ALLOWED_HOSTS": (), "SSE_CORS_ORIGINS": (),
    "SSE_AUTH": None, "SSE_TICKET_SECRET": None, "SSE_METRICS": "prometheus", "SSE_TRACING": "off",
    "SSE_DASHBOARD": False,
}  # fmt: skip


def value_of(settings: Settings, variable: str) -> object:
    return next(getattr(settings, field) for field in Settings.model_fields if variable in names_of(field))


@pytest.mark.parametrize("variable", DEFAULTS)
def test_every_setting_of_the_contract_has_its_default(variable: str) -> None:
    assert value_of(settings_from(TABLE), variable) == DEFAULTS[variable]


def test_the_table_has_two_names_and_the_users_table_as_well() -> None:
    assert settings_from({"DYNAMODB_TABLE": "old"}).sentiments_table == "old"
    assert settings_from(TABLE | {"DATABASE_TABLE": "users"}).users_table == "users"


def test_lambda_has_defaults_of_its_own_and_its_own_port() -> None:
    settings = settings_from(TABLE | {"AWS_LAMBDA_FUNCTION_NAME": "f", "AWS_LWA_PORT": "9000", "PORT": "8080"})
    assert (settings.port, settings.idle_grace, settings.max_stream_age) == (9000, 0, 840)
    assert (settings.metrics, settings.tracing, settings.on_lambda) == ("emf", "xray", True)
    assert settings_from(TABLE | {"AWS_LWA_PORT": "9000"}).port == 8080, "it counts on Lambda only"


def test_on_ecs_metrics_are_written_for_cloudwatch() -> None:
    settings = settings_from(TABLE | {"ECS_CONTAINER_METADATA_URI_V4": "http://169.254.170.2/v4"})
    assert (settings.metrics, settings.tracing, settings.idle_grace, settings.on_lambda) == ("emf", "off", 30, False)


def test_what_is_set_on_purpose_wins_over_the_defaults_of_the_place() -> None:
    chosen = {"SSE_IDLE_GRACE": "7", "SSE_MAX_STREAM_AGE": "60", "SSE_TRACING": "off", "SSE_METRICS": "prometheus"}
    settings = settings_from(TABLE | {"AWS_LAMBDA_FUNCTION_NAME": "f"} | chosen)
    assert (settings.idle_grace, settings.max_stream_age, settings.tracing) == (7, 60, "off")
    assert settings.metrics == "prometheus"


def test_lists_are_separated_by_commas() -> None:
    settings = settings_from(
        TABLE | {"SSE_CORS_ORIGINS": " https://a.example ,https://b.example,", "SSE_USERS_KEYS": "a,b"}
    )
    assert settings.cors_origins == ("https://a.example", "https://b.example")
    assert settings.users_keys == ("a", "b")


def test_streams_are_read_twice_a_second() -> None:
    assert settings_from(TABLE | {"SSE_SOURCE": "streams"}).poll_interval == 0.5
    assert settings_from(TABLE | {"SSE_SOURCE": "streams", "SSE_POLL_INTERVAL": "1"}).poll_interval == 1


def test_an_empty_variable_is_one_that_is_not_set() -> None:
    assert settings_from(TABLE | {"SSE_AUTH": "", "USERS_TABLE": ""}).users_table is None


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({}, "SENTIMENTS_TABLE is required"),
        (TABLE | {"SSE_POLL_INTERVAL": "soon"}, "SSE_POLL_INTERVAL is 'soon': "),
        (TABLE | {"SSE_POLL_INTERVAL": "0"}, "SSE_POLL_INTERVAL is '0': input should be greater than or equal to 0.05"),
        (TABLE | {"SSE_HEARTBEAT_INTERVAL": "nan"}, "SSE_HEARTBEAT_INTERVAL is 'nan': "),
        (TABLE | {"PORT": "65536"}, "PORT is '65536': "),
        (TABLE | {"SSE_AUTH": "none"}, "SSE_AUTH is 'none': input should be 'header' or 'jwt'"),
        (TABLE | {"SSE_USERS_KEYS": "PK"}, "SSE_USERS_KEYS is 'PK': two names, separated by a comma"),
        (TABLE | {"SSE_MAX_CONNECTIONS": "999999"}, "SSE_MAX_CONNECTIONS is 999999, but this process may open "),
        (TABLE | {"HOST": "0.0.0.0", "USERS_TABLE": "users"}, "SSE_AUTH must be set on purpose"),
        (TABLE | {"AWS_LAMBDA_FUNCTION_NAME": "f", "USERS_TABLE": "users"}, "SSE_AUTH must be set on purpose"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_it(wrong: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsError) as error:
        settings_from(wrong)
    assert str(error.value).startswith(said)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("wrong", [{"SSE_TICKET_SECRET": "hush"}, {"SSE_JWT_KEY": "hush", "PORT": "no"}])
def test_a_secret_is_shown_by_no_error_nor_by_its_cause(wrong: dict[str, str]) -> None:
    with pytest.raises(SettingsError) as error:
        settings_from(TABLE | wrong)
    assert "hush" not in "".join(traceback.format_exception(error.value))


def test_a_secret_that_is_too_short_is_told_how_long_it_must_be() -> None:
    with pytest.raises(SettingsError) as error:
        settings_from(TABLE | {"SSE_TICKET_SECRET": "hush"})
    assert str(error.value) == "SSE_TICKET_SECRET is …: at least 32 bytes"


def test_a_secret_is_not_shown_by_the_settings_either() -> None:
    assert "hush" not in repr(settings_from(TABLE | {"SSE_TICKET_SECRET": "hush" * 8, "SSE_JWT_KEY": "hush" * 8}))


def test_the_page_of_the_docs_is_made_from_the_settings() -> None:
    page = Path(__file__).parent.parent / "docs" / "settings.md"
    assert page.read_text() == documented(), "make it again: python -m quartsse settings > docs/settings.md"


def test_every_setting_says_what_it_means() -> None:
    assert [name for name, field in Settings.model_fields.items() if not (field.description or field.exclude)] == []
