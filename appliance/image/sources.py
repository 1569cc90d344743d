"""Package sources: the host's own apt configuration, turned to the release that images are of.

No mirror is written down in the project. Debian's archive is recognised by its release names and
its keys; other vendors' repositories are left out. Printed as deb822, which mmdebstrap reads.

    python -m appliance.image.sources --suite trixie
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import shlex
import sys
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from appliance.errors import ApplianceError

SUITE: Final = "trixie"
"""The release that images are made of."""
KEYRING: Final = "/usr/share/keyrings/debian-archive-keyring.gpg"
"""Package debian-archive-keyring; the same place on the host, in the tools and in the image."""

# Debian's releases that a build host may run, and their rolling names.
_RELEASES: Final = frozenset("bookworm trixie forky sid stable oldstable testing unstable".split())
_POCKETS: Final = frozenset({"", "updates", "security"})
"""What we take; backports and proposed updates are never meant for an image."""
_HINT: Final = "name the sources to use with --sources FILE (deb822, as in sources.list.d)"


@dataclass(frozen=True, slots=True)
class Source:
    """One stanza of a `.sources` file, or one line of a `.list` file."""

    uris: tuple[str, ...]
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str = ""
    """A path, fingerprints, or an embedded key; empty: the keys that apt trusts anyway."""
    others: Mapping[str, str] = field(default_factory=dict)
    """Further fields, as they were written."""

    def __str__(self) -> str:
        rows = {
            "Types": "deb",
            "URIs": " ".join(self.uris),
            "Suites": " ".join(self.suites),
            "Components": " ".join(self.components),
            **self.others,
            "Signed-By": self.signed_by or KEYRING,
        }
        return "".join(f"{name}: {value}\n" for name, value in rows.items())


def image_sources(
    *, suite: str = SUITE, components: Sequence[str] = ("main",), file: Path | None = None
) -> str:
    """Deb822 text for `suite`: of `file` as it stands, else from the host's configuration.

    Raises ApplianceError: nothing usable was found, a file cannot be read, or a URI holds a
    password, which would end up in the image.
    """
    if file is not None:
        sources = list(read(file))
        if not sources:
            raise ApplianceError(f"{file}: holds no package source", hint=_HINT)
    else:
        sources = turned(host_sources(), suite)
        if not sources:
            message = "this machine's apt configuration names no archive of Debian"
            raise ApplianceError(message, hint=_HINT)
    for source in sources:
        _refuse_passwords(source)
    wanted = tuple(components)
    return "\n".join(
        str(source if file else dataclasses.replace(source, components=wanted))
        for source in sources
    )


def host_sources(root: Path = Path("/")) -> list[Source]:
    """All enabled binary sources of the system below `root`."""
    etc = root / "etc/apt"
    files = [etc / "sources.list"] if (etc / "sources.list").is_file() else []
    parts = etc / "sources.list.d"
    if parts.is_dir():
        files += sorted(path for path in parts.iterdir() if path.suffix in (".list", ".sources"))
    return [source for path in files for source in read(path)]


def turned(sources: Iterable[Source], suite: str) -> list[Source]:
    """Those of Debian's own archive, with the release replaced by `suite`; each only once."""
    found: dict[tuple[tuple[str, ...], str], Source] = {}
    for source in sources:
        if "main" not in source.components or not _signed_by_debian(source.signed_by):
            continue
        pockets = [pocket for name in source.suites for pocket in _pocket(name)]
        wanted = tuple(dict.fromkeys(f"{suite}-{one}".rstrip("-") for one in pockets))
        if not wanted:
            continue
        key = (source.uris, source.signed_by)
        before = found[key].suites if key in found else ()
        suites = tuple(dict.fromkeys((*before, *wanted)))
        found[key] = dataclasses.replace(source, suites=suites, others=_kept(source.others))
    return list(found.values())


def read(path: Path) -> Iterator[Source]:
    """The enabled binary sources of one file, in either of apt's formats."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "is not text"
        raise ApplianceError(f"{path}: {str(why).lower()}") from error
    deb822 = path.suffix == ".sources" or re.search(
        r"^types\s*:", text, re.MULTILINE | re.IGNORECASE
    )
    yield from _stanzas(path, text) if deb822 else _lines(path, text)


def _stanzas(path: Path, text: str) -> Iterator[Source]:
    plain = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for stanza in re.split(r"\n[ \t]*\n", plain):
        fields: dict[str, str] = {}
        name = ""
        for line in stanza.splitlines():
            if line[:1] in (" ", "\t") and name:
                fields[name] += "\n" + line
            elif ":" in line:
                name, value = line.split(":", 1)
                name = name.strip().lower()
                fields[name] = value.strip()
        enabled = fields.pop("enabled", "yes").lower() not in ("no", "false", "0", "off")
        types = fields.pop("types", "").split()
        if not enabled or "deb" not in types:
            continue
        uris, suites = fields.pop("uris", "").split(), fields.pop("suites", "").split()
        if not uris or not suites:
            raise ApplianceError(f"{path}: a source lacks URIs or Suites")
        yield Source(
            tuple(uris),
            tuple(suites),
            tuple(fields.pop("components", "").split()),
            fields.pop("signed-by", "").strip(),
            {name.title(): value for name, value in fields.items()},
        )


def _lines(path: Path, text: str) -> Iterator[Source]:
    pattern = re.compile(r"deb\s+(?:\[(?P<options>[^]]*)\]\s+)?(?P<rest>.*)")
    for number, line in enumerate(text.splitlines(), 1):
        match = pattern.fullmatch(line.split("#", 1)[0].strip())
        if match is None:
            continue
        uri, *rest = match["rest"].split()
        if not rest:
            raise ApplianceError(f"{path}:{number}: a source lacks its suite")
        options = dict(
            option.split("=", 1) for option in shlex.split(match["options"] or "") if "=" in option
        )
        signed_by = options.pop("signed-by", "").replace(",", " ")
        others = {name.title(): value for name, value in options.items()}
        yield Source((uri,), (rest[0],), tuple(rest[1:]), signed_by, others)


def _pocket(suite: str) -> Iterator[str]:
    """Of `bookworm-security`: `security`; nothing for what is not Debian's or not wanted."""
    release, _, pocket = suite.strip("/").replace("/", "-").partition("-")
    if release in _RELEASES and pocket in _POCKETS:
        yield pocket


def _signed_by_debian(signed_by: str) -> bool:
    """Other vendors name their key; Debian's keys are trusted without being named, too."""
    return not signed_by or "debian-archive" in signed_by


def _kept(others: Mapping[str, str]) -> dict[str, str]:
    """What still holds for another release and architecture: how to fetch, not what."""
    return {name: value for name, value in others.items() if name == "Check-Valid-Until"}


def _refuse_passwords(source: Source) -> None:
    for uri in source.uris:
        parts = urllib.parse.urlsplit(uri)
        if parts.password is not None or parts.username is not None:
            raise ApplianceError(
                f"the package source at {parts.hostname} holds a user name or password, "
                "which the image would carry",
                hint=_HINT,
            )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m appliance.image.sources", description=__doc__)
    parser.add_argument("--suite", default=SUITE, help=f"Debian's release (default {SUITE})")
    parser.add_argument(
        "--components", default="main", metavar="A,B", help="archive areas (default main)"
    )
    parser.add_argument("--from", dest="file", type=Path, metavar="FILE", help="use these instead")
    args = parser.parse_args(argv)
    try:
        text = image_sources(
            suite=args.suite, components=args.components.split(","), file=args.file
        )
    except ApplianceError as error:
        hint = f"\nhint: {error.hint}" if error.hint else ""
        sys.stderr.write(f"{error.message}{hint}\n")
        return 1
    sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
