"""What comes along: locks with hashes, no known holes, licences that may be passed on; and no secret in the tree."""

import re
import subprocess
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))

FLOORS = {
    "cryptography": "44.0.1",  # CVE-2024-12797: an unauthenticated peer taken for the right one
    "flask": "3.1.1",  # CVE-2025-47278: the oldest signing key used for the newest
    "h11": "0.16.0",  # CVE-2025-43859: request smuggling by lenient chunk endings
    "h2": "4.3.0",  # CVE-2025-57804: request splitting by header injection
    "jinja2": "3.1.6",  # CVE-2025-27516: out of the sandbox by `|attr`
    "pyjwt": "2.10.1",  # CVE-2024-53861: an issuer that is only part of the right one
    "urllib3": "2.6.0",  # CVE-2025-66418 and 66471: answers that unpack without end
    "werkzeug": "3.0.6",  # CVE-2024-49767: forms that take all memory
}

FREE = re.compile(
    r"MIT(-0)?|BSD(-[23]-Clause)?|Apache(-2\.0|[ ]2\.0| Software)?( License)?( 2\.0)?|PSF-2\.0|The MIT License.*|ISC"
    r"|(MIT|BSD|Apache) License( 2\.0)?|Apache Software License|Python Software Foundation License",
    re.DOTALL,
)
"""Licences that ask for no more than to be named."""

SECRETS = {
    "a key of AWS": r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[A-Za-z0-9+/]{40}",
    "a token of a forge": r"\b(?:gh[pousr]_[A-Za-z0-9]{36}|glpat-[A-Za-z0-9_-]{20}|github_pat_[A-Za-z0-9_]{22})",
    "a token of a registry": r"\b(?:npm_[A-Za-z0-9]{36}|pypi-[A-Za-z0-9_-]{50})",
    "a token of a chat or an interface": r"\b(?:xox[abprs]-[A-Za-z0-9-]{20}|sk-[A-Za-z0-9]{32}|AIza[A-Za-z0-9_-]{35})",
    "a signed token": r"\beyJ[A-Za-z0-9_-]{20,}\.eyJ[A-Za-z0-9_-]{20,}\.[A-Za-z0-9_-]{20,}",
    "a user and password in an address": r"\b[a-z]+://[^\s/:@\"'{}<>$]{3,}:[^\s/@\"'{}<>$]{6,}@[a-z0-9.-]+\.(?:com|net|org|io|dev)\b",
}
PUBLIC = {
    "AKIAIOSFODNN7EXAMPLE",  # from AWS's own documentation
    "http://ann:secret@example.org",  # a user of the client's tests
}


def pinned(lock: Path) -> Iterator[tuple[Requirement, list[str]]]:
    """Each requirement of a lock, and its hashes."""
    for entry in re.split(r"\n(?=[A-Za-z0-9])", lock.read_text()):
        if entry.strip() and not entry.startswith("#"):
            requirement, *hashes = re.split(r"\s*\\?\s+--hash=", entry.strip())
            yield Requirement(requirement), hashes


def versions(lock: Path) -> dict[str, Version]:
    """What a lock pins."""
    return {requirement.name: Version(str(requirement.specifier)[2:]) for requirement, _ in pinned(lock)}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_every_package_is_pinned_with_the_hashes_of_what_may_be_installed(lock: Path) -> None:
    entries = list(pinned(lock))
    assert len(entries) > 10
    for requirement, hashes in entries:
        assert re.fullmatch(r"==[^,*]+", str(requirement.specifier)), requirement
        assert hashes, requirement
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", one) for one in hashes), requirement


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_no_version_has_a_hole_that_is_known_here(lock: Path) -> None:
    locked = versions(lock)
    for name, floor in FLOORS.items():
        assert locked.get(name, Version(floor)) >= Version(floor), name


def test_what_is_installed_with_the_service_may_be_passed_on() -> None:
    for name in versions(ROOT / "requirements" / "base.txt"):
        try:
            licences = _licences(name)
        except metadata.PackageNotFoundError:
            continue  # for another platform
        assert any(all(map(FREE.fullmatch, re.split(" OR | AND ", one))) for one in licences), (name, licences)


def _licences(name: str) -> list[str]:
    fields = metadata.metadata(name)
    classifiers = [one.rpartition(" :: ")[2] for one in fields.get_all("Classifier", []) if one.startswith("License")]
    return [one for one in (fields.get("License-Expression"), fields.get("License"), *classifiers) if one]


@pytest.mark.parametrize(
    "licence", ["GPL-3.0-only", "AGPL-3.0-or-later", "UNKNOWN", "Proprietary", "SSPL-1.0", "MIT License, mostly"]
)
def test_any_other_licence_is_noticed(licence: str) -> None:
    assert not FREE.fullmatch(licence)


def findings(text: str) -> list[str]:
    """What kinds of secrets are in a text."""
    return [
        kind for kind, pattern in SECRETS.items() if any(found[0] not in PUBLIC for found in re.finditer(pattern, text))
    ]


def test_no_file_that_is_kept_holds_a_secret() -> None:
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    paths = [ROOT / name for name in names.split("\0") if name]
    assert len(paths) > 100
    texts = {path: path.read_text(errors="replace") for path in paths if path.is_file()}
    found = {str(path.relative_to(ROOT)): kinds for path, text in texts.items() if (kinds := findings(text))}
    assert not found


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("a key of AWS", "aws_access_key_id = AKI" + "A1234567890ABCDEF"),
        ("a private key", "-----BEGIN RSA PRIVATE" + " KEY-----\n" + "a" * 64),
        ("a token of a forge", "gh" + "p_" + "a1" * 18),
        ("a token of a registry", "np" + "m_" + "a1" * 18),
        ("a token of a chat or an interface", "xo" + "xb-" + "1" * 24),
        ("a signed token", "ey" + "J" + "a" * 20 + ".ey" + "J" + "a" * 20 + "." + "a" * 20),
        ("a user and password in an address", "https://someone:hunter2hunter2" + "@db.example.com/"),
    ],
)
def test_a_secret_would_be_found(kind: str, text: str) -> None:
    assert findings(f"x = '{text}'") == [kind]
