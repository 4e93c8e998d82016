"""Settings: read from the environment once, validated, and handed on. Nothing else reads the environment."""

import os
import resource
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)

from quartsse.errors import SettingsError

SPARE_FILES = 64
"""Open files that are not streams: the listening socket, DynamoDB's connections, logs."""

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def _split(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _two(value: tuple[str, ...]) -> tuple[str, ...]:
    if len(value) != 2:
        raise ValueError("two names, separated by a comma")
    return value


def _at_least_32_bytes(value: SecretStr) -> SecretStr:
    if len(value.get_secret_value().encode()) < 32:
        raise ValueError("at least 32 bytes")
    return value


Names = Annotated[tuple[str, ...], BeforeValidator(_split)]
Keys = Annotated[tuple[str, ...], BeforeValidator(_split), AfterValidator(_two)]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
SecondsOrNone = Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)]


class Settings(BaseModel):
    """Every setting, by the environment variable that it is read from. Limits are per process."""

    # pydantic's own text shows what was put in, and would show secrets in a traceback.
    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    sentiments_table: str = Field(
        validation_alias=AliasChoices("SENTIMENTS_TABLE", "DYNAMODB_TABLE"), description="the sentiment table's name"
    )
    index: str = Field("by_sentiment", validation_alias="SSE_INDEX", description="its index by sentiment and timestamp")
    users_table: str | None = Field(
        None,
        validation_alias=AliasChoices("USERS_TABLE", "DATABASE_TABLE"),
        description="the users table's name; without it there are no configuration streams",
    )
    users_keys: Keys = Field(("PK", "SK"), validation_alias="SSE_USERS_KEYS", description="its hash and range key")
    environment: str = Field("dev", validation_alias="ENVIRONMENT", description="a dimension of the metrics")
    region: str | None = Field(
        None,
        validation_alias=AliasChoices("AWS_REGION", "AWS_DEFAULT_REGION"),
        description="the tables' region (boto3 itself reads only the second name)",
    )
    host: str = Field("127.0.0.1", validation_alias="HOST", description="the address to listen on")
    port: int = Field(
        8080, ge=0, le=65_535, validation_alias="PORT", description="the port; `AWS_LWA_PORT` wins on Lambda"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", validation_alias="LOG_LEVEL", description="what is logged at the least"
    )

    source: Literal["query", "streams"] = Field(
        "query", validation_alias="SSE_SOURCE", description="how the table is read"
    )
    stream_arn: str | None = Field(
        None, validation_alias="SSE_STREAM_ARN", description="the table's stream; looked up when not given"
    )
    poll_interval: float = Field(
        2.0,
        ge=0.05,
        le=3600,
        validation_alias="SSE_POLL_INTERVAL",
        description="seconds between reads; 0.5 with streams",
    )
    read_budget: float = Field(
        100.0, ge=3, le=1e6, validation_alias="SSE_READ_BUDGET", description="read units per poll"
    )
    window_hours: float = Field(24.0, gt=0, le=168, validation_alias="SSE_WINDOW_HOURS", description="hours that count")
    idle_grace: SecondsOrNone = Field(
        30.0,
        validation_alias="SSE_IDLE_GRACE",
        description="seconds that reading goes on without a reader; 0 on Lambda",
    )
    config_interval: Seconds = Field(
        5.0, validation_alias="SSE_CONFIG_INTERVAL", description="seconds between looks at the open configurations"
    )

    heartbeat_interval: Seconds = Field(30.0, validation_alias="SSE_HEARTBEAT_INTERVAL", description="seconds")
    keepalive_interval: Seconds = Field(
        15.0, validation_alias="SSE_KEEPALIVE_INTERVAL", description="seconds without a byte before a comment line"
    )
    metrics_interval: Seconds = Field(
        60.0, validation_alias="SSE_METRICS_INTERVAL", description="seconds after which unchanged totals are repeated"
    )
    retry_ms: int = Field(3000, ge=0, le=3_600_000, validation_alias="SSE_RETRY_MS", description="what browsers wait")
    log_events: int = Field(
        10_000, ge=0, le=1_000_000, validation_alias="SSE_LOG_EVENTS", description="kept for resume"
    )
    resume_margin: SecondsOrNone = Field(
        5.0, validation_alias="SSE_RESUME_MARGIN", description="seconds that a resume from another instance overlaps"
    )
    backlog_bytes: int = Field(
        262_144, ge=1024, le=1 << 30, validation_alias="SSE_BACKLOG_BYTES", description="unsent bytes of one reader"
    )
    max_stream_age: SecondsOrNone = Field(
        0.0, validation_alias="SSE_MAX_STREAM_AGE", description="seconds; 0 is no limit; 840 on Lambda"
    )
    deadline_margin: SecondsOrNone = Field(
        5.0, validation_alias="SSE_DEADLINE_MARGIN", description="seconds before Lambda's deadline that a stream ends"
    )
    drain_seconds: SecondsOrNone = Field(
        10.0, validation_alias="SSE_DRAIN_SECONDS", description="seconds that reconnects are spread over at the end"
    )
    handover: bool = Field(True, validation_alias="SSE_HANDOVER", description="the fast way out")
    compression: Literal["on", "off"] = Field(
        "on", validation_alias="SSE_COMPRESSION", description="gzip for clients that accept it"
    )

    max_connections: int = Field(100, ge=1, le=1_000_000, validation_alias="SSE_MAX_CONNECTIONS", description="streams")
    max_connections_per_user: int = Field(
        20, ge=0, validation_alias="SSE_MAX_CONNECTIONS_PER_USER", description="0 is off"
    )
    max_connections_per_address: int = Field(
        0, ge=0, validation_alias="SSE_MAX_CONNECTIONS_PER_ADDRESS", description="0 is off"
    )
    trusted_hops: int = Field(
        0,
        ge=0,
        le=10,
        validation_alias="SSE_TRUSTED_HOPS",
        description="proxies in front whose `X-Forwarded-For` counts",
    )
    allowed_hosts: Names = Field(
        (), validation_alias="SSE_ALLOWED_HOSTS", description="names; on loopback its own, elsewhere any"
    )
    cors_origins: Names = Field((), validation_alias="SSE_CORS_ORIGINS", description="exact origins, comma-separated")

    auth: Literal["header", "jwt"] | None = Field(
        None, validation_alias="SSE_AUTH", description="who says who the user is; `header` on loopback"
    )
    jwt_jwks_url: str | None = Field(
        None, validation_alias="SSE_JWT_JWKS_URL", description="where the key set is; or else a key"
    )
    jwt_key: SecretStr | None = Field(
        None, validation_alias="SSE_JWT_KEY", description="a shared secret, or a public key as PEM"
    )
    jwt_issuer: str | None = Field(
        None, validation_alias="SSE_JWT_ISSUER", description="the `iss` that tokens must have"
    )
    jwt_audience: str | None = Field(
        None, validation_alias="SSE_JWT_AUDIENCE", description="the `aud` that tokens must have"
    )
    jwt_algorithms: Names = Field((), validation_alias="SSE_JWT_ALGORITHMS", description="comma-separated")
    ticket_secret: Annotated[SecretStr, AfterValidator(_at_least_32_bytes)] | None = Field(
        None, validation_alias="SSE_TICKET_SECRET", description="at least 32 bytes; without it there are no tickets"
    )

    metrics: Literal["emf", "prometheus", "off"] = Field(
        "prometheus", validation_alias="SSE_METRICS", description="`emf` on AWS, else `prometheus`"
    )
    tracing: Literal["xray", "off"] = Field(
        "off",
        validation_alias="SSE_TRACING",
        description="`xray` on Lambda, else off; `AWS_XRAY_SDK_ENABLED=false` ends it anywhere",
    )
    dashboard: bool = Field(False, validation_alias="SSE_DASHBOARD", description="the page at `/`")
    dashboard_users: Names = Field(
        (),
        validation_alias="SSE_DASHBOARD_USERS",
        description="`user/configuration` pairs that the page offers to view as; for demos",
    )

    on_lambda: bool = Field(False, validation_alias="AWS_LAMBDA_FUNCTION_NAME", exclude=True)

    @property
    def on_loopback(self) -> bool:
        """Whether nobody but this machine can connect."""
        return self.host in LOOPBACK and not self.on_lambda

    @model_validator(mode="before")
    @classmethod
    def _fit_the_place(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Defaults that depend on where it runs or on another setting."""
        lambda_name = values.get("AWS_LAMBDA_FUNCTION_NAME")
        on_aws = lambda_name or values.get("ECS_CONTAINER_METADATA_URI_V4")
        defaults: dict[str, Any] = {"AWS_LAMBDA_FUNCTION_NAME": bool(lambda_name)}
        if lambda_name:
            defaults |= {"SSE_IDLE_GRACE": 0, "SSE_MAX_STREAM_AGE": 840, "SSE_TRACING": "xray"}
        if on_aws:
            defaults["SSE_METRICS"] = "emf"
        if values.get("SSE_SOURCE") == "streams":
            defaults["SSE_POLL_INTERVAL"] = 0.5
        kept = {name: value for name, value in values.items() if name != "AWS_LAMBDA_FUNCTION_NAME"}
        return {**defaults, **kept}

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        """What is wrong only beside something else."""
        if self.auth is None and self.users_table and not self.on_loopback:
            raise ValueError(
                "SSE_AUTH must be set on purpose where others can connect and USERS_TABLE is set: "
                "`jwt`, or `header` if a trusted layer in front sets X-User-ID"
            )
        return self


def settings_from(environment: Mapping[str, str] | None = None) -> Settings:
    """The settings of an environment (the process's own by default). Raises SettingsError with one line."""
    found = dict(os.environ if environment is None else environment)
    if "AWS_LAMBDA_FUNCTION_NAME" in found and "AWS_LWA_PORT" in found:
        found["PORT"] = found["AWS_LWA_PORT"]
    if found.get("AWS_XRAY_SDK_ENABLED", "").lower() == "false":
        found["SSE_TRACING"] = "off"
    wanted = {name: value for name, value in found.items() if value != "" and name in VARIABLES}
    try:
        settings = Settings.model_validate(wanted)
    except ValidationError as error:
        raise SettingsError(_first_line(error, found)) from error
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if settings.max_connections + SPARE_FILES > files:
        raise SettingsError(
            f"SSE_MAX_CONNECTIONS is {settings.max_connections}, but this process may open {files} files: "
            f"at most {files - SPARE_FILES}, or raise the limit (ulimit -n)"
        )
    return settings


def names_of(field: str) -> list[str]:
    """The environment variables that a setting is read from, the first one first."""
    alias = Settings.model_fields[field].validation_alias
    return [str(choice) for choice in alias.choices] if isinstance(alias, AliasChoices) else [str(alias)]


VARIABLES = {name for field in Settings.model_fields for name in names_of(field)} | {"ECS_CONTAINER_METADATA_URI_V4"}


def _first_line(error: ValidationError, found: Mapping[str, str]) -> str:
    """The first thing that is wrong: the variable, what it was, what it may be. Secrets are not shown."""
    first = error.errors()[0]
    name = str(first["loc"][0]) if first["loc"] else ""
    said = first["msg"].removeprefix("Value error, ")
    if not name:
        return said
    if first["type"] == "missing":
        return f"{name} is required: the name of the table"
    value = "…" if name in {"SSE_TICKET_SECRET", "SSE_JWT_KEY"} else repr(found.get(name, ""))
    return f"{name} is {value}: {said[0].lower()}{said[1:]}"


Origin = Literal["environment", "default", "place"]


@dataclass(frozen=True, slots=True)
class InForce:
    """A setting as it is in force. `origin`: the environment, its default, or the place (Lambda, ECS, SSE_SOURCE)."""

    variable: str
    value: str
    origin: Origin


def in_force(settings: Settings, environment: Mapping[str, str] | None = None) -> list[InForce]:
    """Every setting with where it came from; of a secret, only that it is set."""
    found = os.environ if environment is None else environment
    told = []
    for name, field in Settings.model_fields.items():
        if field.exclude:
            continue
        value = getattr(settings, name)
        given = next((variable for variable in names_of(name) if found.get(variable)), None)
        by_itself: Origin = "default" if value == field.get_default() else "place"
        shown = "set, not shown" if isinstance(value, SecretStr) else _default_of(value).strip("`")
        told.append(InForce(given or names_of(name)[0], shown, "environment" if given else by_itself))
    return told


def unread(environment: Mapping[str, str] | None = None) -> dict[str, str | None]:
    """Variables that look like settings and are none, each with the one that was perhaps meant."""
    found = os.environ if environment is None else environment
    strangers = sorted(name for name in found if name.startswith("SSE_") and name not in VARIABLES)
    return {name: next(iter(get_close_matches(name, VARIABLES, 1)), None) for name in strangers}


def documented() -> str:
    """`docs/settings.md`: every setting, its default and what it means."""
    rows = []
    for name, field in Settings.model_fields.items():
        if field.exclude:
            continue
        variable, *others = names_of(name)
        also = "".join(f" (or `{other}`)" for other in others)
        rows.append(f"| `{variable}`{also} | {_default_of(field.get_default())} | {field.description or ''} |")
    return _PAGE.format(rows="\n".join(rows))


def _default_of(value: object) -> str:
    if repr(value) == "PydanticUndefined":
        return "required"
    if value is None or value == ():
        return "none"
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, tuple):
        return f"`{','.join(value)}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


_PAGE = """# Settings

Read from the environment, once, at the start. A wrong value stops the start with one line that names the variable, what
it was and what it may be, and exit status 2. Limits are per process. Region, endpoint and credentials are AWS's own
variables (`AWS_ENDPOINT_URL_DYNAMODB`, `AWS_PROFILE`, …).

| variable | default | meaning |
| --- | --- | --- |
{rows}

On Lambda (`AWS_LAMBDA_FUNCTION_NAME` is set) the port is `AWS_LWA_PORT`; where they are not set, `SSE_IDLE_GRACE` is 0,
`SSE_MAX_STREAM_AGE` 840 and `SSE_TRACING` `xray`. On Lambda and ECS `SSE_METRICS` is `emf`. With `SSE_SOURCE=streams`
`SSE_POLL_INTERVAL` is 0.5.

This page is made by `python -m quartsse settings` and held equal by a test.
"""
