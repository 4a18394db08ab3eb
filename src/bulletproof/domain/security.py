"""Settings that nobody should run a public app with: a secret that is known, a mode that is for development."""

from __future__ import annotations

from collections.abc import Mapping

SECRETS = ("SECRET_KEY", "FLASK_SECRET_KEY", "DJANGO_SECRET_KEY", "APP_SECRET_KEY", "JWT_SECRET_KEY", "SESSION_SECRET")
SHORTEST_SECRET = 16
"""Letters. Flask and Django sign with what is given, however short; 16 random ones are 95 bits."""
_WELL_KNOWN = (
    *("dev", "secret", "changeme", "change-me", "change_me", "default", "test", "your-secret", "your_secret"),
    *("django-insecure", "insecure", "supersecret", "super-secret", "s3cr3t", "password", "example", "replace"),
    *("mysecret", "my-secret", "my_secret", "development", "not-so-secret", "notsecret", "please"),
)
"""What templates and tutorials have there; a secret that begins so was never one."""
_ON = frozenset({"1", "true", "yes", "on", "t", "y"})
_FLASK = "FLASK_DEBUG"
_DEBUGS = ("DEBUG", "DJANGO_DEBUG", "APP_DEBUG")


def weak_secret(name: str, value: str) -> str:
    """What is wrong with a secret, in words; empty when nothing can be said against it."""
    if len(value) < SHORTEST_SECRET:
        return f"{name} has only {len(value)} letters"
    if value.lower().startswith(_WELL_KNOWN):
        return f"{name} is a placeholder that everybody knows"
    if len(set(value)) < SHORTEST_SECRET // 4:
        return f"{name} is the same few letters again and again"
    return ""


def weak_secrets(settings: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Each weak secret by its name, with what is wrong."""
    found = ((name, weak_secret(name, settings[name])) for name in SECRETS if name in settings)
    return tuple((name, words) for name, words in found if words)


def debug_settings(settings: Mapping[str, str]) -> tuple[str, ...]:
    """The names of settings that put a framework into its debug mode."""
    names = (name for name in (_FLASK, *_DEBUGS) if settings.get(name, "").strip().lower() in _ON)
    is_development = settings.get("FLASK_ENV", "").strip().lower() == "development"
    return (*names, *(("FLASK_ENV",) if is_development else ()))


def is_flasks(name: str) -> bool:
    """Whether what a setting means without a value is known: Flask has no debug mode then, others may have."""
    return name in {_FLASK, "FLASK_ENV"}
