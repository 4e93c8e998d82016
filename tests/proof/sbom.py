"""The software bill of materials of what is installed with the service: `python -m tests.proof.sbom` prints it.

CycloneDX as JSON, made of the lock (versions, hashes) and of what is installed (licences). A package has the hashes of
all its distributions, one of which is installed. The image's base and the Lambda Web Adapter are not in it.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, XsUri
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.requirements import Requirement

from quartsse import __version__

ROOT = Path(__file__).parents[2]
BASE = ROOT / "requirements" / "base.txt"
VENDORED = ROOT / "quartsse" / "web" / "static" / "vendor"


def pinned(lock: Path) -> Iterator[tuple[Requirement, list[str]]]:
    """Each requirement of a lock, and its hashes (`sha256:…`)."""
    for entry in re.split(r"\n(?=[A-Za-z0-9])", lock.read_text()):
        if entry.strip() and not entry.startswith("#"):
            requirement, *hashes = re.split(r"\s*\\?\s+--hash=", entry.strip())
            yield Requirement(requirement), hashes


def licences(name: str) -> list[str]:
    """What an installed package says of its licence: an expression, or else names; a licence's text is left out."""
    fields = metadata.metadata(name)
    if expression := fields.get("License-Expression"):
        return [expression]
    classifiers = [one.rpartition(" :: ")[2] for one in fields.get_all("Classifier", []) if one.startswith("License")]
    return [one for one in (*classifiers, fields.get("License")) if one and "\n" not in one]


def bill() -> Bom:
    """The service, the packages of its lock, and the scripts of its page. Raises PackageNotFoundError without them."""
    service = Component(name="quartsse", version=__version__, type=ComponentType.APPLICATION, bom_ref="quartsse")
    service.licenses.add(LicenseFactory().make_from_string("MIT"))
    bom = Bom(components=[*_packages(), *_scripts()])
    bom.metadata.component = service
    bom.register_dependency(service, bom.components)
    return bom


def _packages() -> Iterator[Component]:
    for requirement, hashes in pinned(BASE):
        version = str(requirement.specifier).removeprefix("==")
        yield _component(requirement.name, version, "pypi", licences(requirement.name), hashes)


def _scripts() -> Iterator[Component]:
    for script in VENDORED.glob("*/*.js"):
        head = re.search(r"/([\w-]+) \(v([\d.]+)\)", script.read_text()[:200])
        assert head is not None, f"{script} does not say what it is"
        digest = "sha256:" + hashlib.sha256(script.read_bytes()).hexdigest()
        licence = (script.parent / "LICENSE").read_text().partition("\n")[0]
        yield _component(head[1], head[2], "npm", [licence], [digest])


def _component(name: str, version: str, kind: str, named: Sequence[str], digests: Sequence[str]) -> Component:
    package = PackageURL(kind, name=name, version=version)
    component = Component(name=name, version=version, purl=package, bom_ref=str(package))
    hashes = [HashType(alg=HashAlgorithm.SHA_256, content=digest.removeprefix("sha256:")) for digest in digests]
    component.external_references.add(
        ExternalReference(type=ExternalReferenceType.DISTRIBUTION, url=XsUri(str(package)), hashes=hashes)
    )
    component.licenses.update(map(LicenseFactory().make_from_string, named))
    return component


if __name__ == "__main__":
    print(JsonV1Dot6(bill()).output_as_string(indent=2))
