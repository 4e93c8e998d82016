"""What comes along: locks with hashes, no known holes, licences that may be passed on; and no secret in the tree."""

import json
import re
import subprocess
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.requirements import Requirement
from packaging.version import Version

from tests.proof.sbom import BASE, ROOT, bill, licences, pinned

LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
OURS = [lock for lock in LOCKS if lock.stem != "checkov"]
"""The other is of a tool that never runs beside the service."""

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


@pytest.mark.parametrize("lock", OURS, ids=lambda lock: lock.stem)
def test_the_lock_keeps_to_the_floors_below_which_holes_are_known(lock: Path) -> None:
    locked = versions(lock)
    floors = [
        Requirement(one) for one in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    ]
    assert {"cryptography", "h11", "h2", "pyjwt", "urllib3", "werkzeug"} <= {floor.name for floor in floors}
    for floor in floors:
        assert floor.specifier.contains(locked[floor.name]), floor


def test_what_is_installed_with_the_service_may_be_passed_on() -> None:
    for name in versions(BASE):
        try:
            found = licences(name)
        except metadata.PackageNotFoundError:
            continue  # for another platform
        assert any(all(map(FREE.fullmatch, re.split(" OR | AND ", one))) for one in found), (name, found)


@pytest.mark.parametrize(
    "licence", ["GPL-3.0-only", "AGPL-3.0-or-later", "UNKNOWN", "Proprietary", "SSPL-1.0", "MIT License, mostly"]
)
def test_any_other_licence_is_noticed(licence: str) -> None:
    assert not FREE.fullmatch(licence)


def test_the_bill_of_materials_has_every_locked_package_with_version_hashes_and_licence() -> None:
    text = JsonV1Dot6(bill()).output_as_string()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    made = {one["name"]: one for one in json.loads(text)["components"]}
    for requirement, hashes in pinned(BASE):
        one = made.pop(requirement.name)
        assert one["version"] == str(requirement.specifier)[2:] == metadata.version(requirement.name)
        assert [f"sha256:{digest['content']}" for digest in one["externalReferences"][0]["hashes"]] == sorted(hashes)
        assert one["licenses"]
    assert {"uPlot"} == set(made), "what comes along without a lock"
    assert made["uPlot"]["version"]
    assert made["uPlot"]["licenses"] == [{"license": {"name": "The MIT License (MIT)"}}]


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
