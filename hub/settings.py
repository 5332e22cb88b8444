"""The one settings object of hub and keeper, read from the environment.

What is missing or wrong is told in one sentence that names the variable: see `load()`.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from redis.asyncio.connection import parse_url
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

MIB = 1024 * 1024


class SettingsError(Exception):
    """The environment does not describe a hub that can run; the message says what to change."""


class Settings(BaseSettings):
    """How this process runs. Sizes are in bytes, times in seconds."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    redis_url: str = Field("redis://127.0.0.1:6379/0", validation_alias="HEADWAY_REDIS_URL")
    broker_url: str = Field("", validation_alias="CELERY_BROKER_URL")
    database_url: str = Field("postgresql://127.0.0.1:5432/headway", validation_alias="DATABASE_URL")
    storage: Path = Field(Path(".state/storage"), validation_alias="HEADWAY_STORAGE")
    auth: Literal["on", "off"] = Field("on", validation_alias="HEADWAY_AUTH")
    secret: str = Field("", validation_alias="HEADWAY_SECRET")
    origins: Annotated[tuple[str, ...], NoDecode] = Field((), validation_alias="HEADWAY_ORIGINS")
    max_upload: int = Field(8 * 1024 * MIB, gt=0, validation_alias="HEADWAY_MAX_UPLOAD")
    max_body: int = Field(MIB, gt=0, validation_alias="HEADWAY_MAX_BODY")
    max_sockets: int = Field(20_000, gt=0, validation_alias="HEADWAY_MAX_SOCKETS")

    @field_validator("origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        """A comma-separated list; an origin is compared as the browser sends it, without a closing slash."""
        if isinstance(value, str):
            return tuple(part.strip().rstrip("/") for part in value.split(",") if part.strip())
        return value

    @field_validator("redis_url", "broker_url")
    @classmethod
    def _redis(cls, value: str) -> str:
        if value and not value.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("must begin with redis:// or rediss://")
        if value:
            parse_url(value)
        return value

    @field_validator("database_url")
    @classmethod
    def _postgres(cls, value: str) -> str:
        if not value.startswith(("postgresql://", "postgres://")):
            raise ValueError("must begin with postgresql://")
        url = value.replace("postgres://", "postgresql://", 1)
        try:
            make_url(url)
        except (ArgumentError, ValueError):  # SQLAlchemy's own words repeat the password
            raise ValueError("is not postgresql://user:password@host:port/database") from None
        return url

    @property
    def broker(self) -> str:
        """The broker's URL: the progress store's server, unless it is another one."""
        return self.broker_url or self.redis_url

    def database(self, driver: Literal["asyncpg", "psycopg"]) -> str:
        """The database's URL as SQLAlchemy wants it for a driver."""
        return self.database_url.replace("postgresql://", f"postgresql+{driver}://", 1)

    def allow_host(self, host: str) -> None:
        """Refuse an address that others can reach while nobody has to show a token (DESIGN.md, HTTP)."""
        if self.secret:
            raise SettingsError("HEADWAY_SECRET is set, but this version has no tokens yet: unset it")
        if self.auth == "off" or is_loopback(host):
            return
        raise SettingsError(
            f"without tokens the hub serves loopback addresses only, not {host}: "
            "use --host 127.0.0.1, or set HEADWAY_AUTH=off to say openly that everybody may watch and submit"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def load() -> Settings:
    """Settings from the environment; `SettingsError` names the first variable that is wrong, and how."""
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        message = first["msg"].removeprefix("Value error, ")
        raise SettingsError(f"{'.'.join(map(str, first['loc']))}: {message}") from None
