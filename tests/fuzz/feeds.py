"""One function for each parser: parses one input, and looks whether what came out makes sense."""

from __future__ import annotations

import os
import tempfile
from functools import cache
from pathlib import Path
from random import Random

from annexpy.cli.serve_config import read_config
from annexpy.keys.backend import digest_of, extension, verifier
from annexpy.keys.key import Key
from annexpy.keys.layout import file_key, key_file, object_paths
from annexpy.keys.pointer import key_of_pointer
from annexpy.keys.storable import check_storable
from annexpy.logs.compact import COMPACT, malformed_lines
from annexpy.logs.line import union_merge
from annexpy.logs.location import LocationLog
from annexpy.logs.metadata import current_metadata, parse_metadata
from annexpy.logs.paths import Log, branch_path, identify
from annexpy.logs.repos import clusters
from annexpy.logs.sizes import parse_size
from annexpy.logs.transitions import parse_transitions
from annexpy.logs.urls import equivalent_keys, urls
from annexpy.p2p.associated import unescape_associated_file
from annexpy.p2p.http import format_request, parse_request, parse_route
from annexpy.p2p.http_answers import KeepLockedBody, parse_answer
from annexpy.p2p.lines import parse
from annexpy.p2p.messages import Error, Unknown
from annexpy.policy.expression import parse as parse_expression
from annexpy.policy.facts import KeyFacts, Repositories
from annexpy.policy.globs import compile_glob
from annexpy.policy.matchexpression import match_expression
from annexpy.policy.numcopies import read_number
from annexpy.remote.address import resolve
from annexpy.remote.http_line import seconds_of
from annexpy.remote.http_url import parse_annex_url, parse_http_url
from annexpy.repo.attributes import parse_attributes
from annexpy.repo.gitconfig import parse_config, setting_name, with_value, without
from annexpy.repo.gitindex import GitIndex
from annexpy.repo.memory_files import MemoryFiles
from annexpy.repo.trees import commit_parents, parse_tree
from annexpy.server.authorized import AuthorizedKeys
from annexpy.transport.http_body import BodyReader
from annexpy.transport.http_head import RequestReader, ResponseReader
from annexpy.uuids import UUID, parse_uuid
from glimmer_store.config import CONFIG_NAME, Config
from glimmer_store.record import StorageRecord
from glimmer_store.sidecar import Sidecar
from tests.fuzz import packs, seeds, sessions

A, B = UUID(seeds.A.decode()), UUID(seeds.B.decode())


def text_of(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def key(data: bytes, _random: Random) -> None:
    found = Key.parse(data)
    assert Key.parse(found.raw) == found
    assert file_key(key_file(found)) == found
    object_paths(found)
    check_storable(found)
    verifier(found)
    digest_of(found)


def other_names(data: bytes, _random: Random) -> None:
    """Names of files and of logs, and all that is one word."""
    identify(data)
    branch_path(data)
    extension(data)
    key_of_pointer(data)
    read_number(data)
    parse_size(text_of(data))
    unescape_associated_file(data)
    parse_uuid(data)


def read_otherwise(log: Log, data: bytes) -> bool:
    """Whether git-annex, too, reads a line of *data* as another one when it has written it.

    Sizes of chunks that do not fit 64 bits become negative, which is no number; and fields of metadata that begin
    with a sign may stand for a value once they are sorted. No program writes either.
    """
    match log:
        case Log.CHUNK:
            return b":-" in COMPACT[log](data)
        case Log.METADATA | Log.REMOTE_METADATA:
            return any(name[:1] in ("+", "-") for line in parse_metadata(data) for name in line.names.values())
        case _:
            return False


def compacted(log: Log, data: bytes, _random: Random) -> None:
    once = COMPACT[log](data)
    twice = COMPACT[log](once)
    assert once == twice or read_otherwise(log, data), f"not the same when done again: {once!r}"
    assert COMPACT[log](twice) == twice, f"not the same when done a third time: {twice!r}"
    match log:
        case Log.LOCATION:
            LocationLog.parse(data)
        case Log.METADATA:
            current_metadata(data)
        case Log.TRANSITIONS:
            parse_transitions(data)
        case Log.CLUSTER:
            clusters(data)
        case Log.URL:
            urls(data)
        case Log.EQUIVALENT_KEY:
            equivalent_keys(data)


def merged(data: bytes, random: Random) -> None:
    at = int(random.random() * (len(data) + 1))
    both = union_merge(data[:at], data[at:])
    assert union_merge(both, data[:at]) == both


def malformed(data: bytes, random: Random) -> None:
    malformed_lines(random.choice(list(Log)), data)


def line(data: bytes, _random: Random) -> None:
    message = parse(data)
    if not isinstance(message, Unknown) and b"\n" not in data and b"\r" not in data:
        again = parse(message.line())
        assert again == message or (isinstance(again, Error) and isinstance(message, Error))  # which is made printable


def http_request(data: bytes, random: Random) -> None:
    route = parse_route(b"GET" if random.random() < 0.2 else b"POST", data)
    request = parse_request(route, random.choice((None, b"5", b"-1")))
    target = format_request(request)
    assert format_request(parse_request(parse_route(b"GET" if b"/key/" in target else b"POST", target), b"5")) == target


@cache
def requests() -> list:
    routes = [parse_route(b"GET" if b"/key/" in target else b"POST", target) for target in seeds.HTTP_TARGETS]
    return [parse_request(route, b"5") for route in routes]


def http_answer(data: bytes, random: Random) -> None:
    parse_answer(random.choice(requests()), data)


def http_keeplocked(data: bytes, random: Random) -> None:
    body = KeepLockedBody()
    for part in sessions.pieces(data, random):
        if body.unlocks(part):
            break


def body_of(reader: BodyReader, rest: bytes, random: Random) -> None:
    left = rest
    for part in sessions.pieces(rest, random):
        _, left = reader.take(part)
        if reader.done:
            break
    else:
        reader.end()
    assert len(left) <= len(rest)


def http_request_head(data: bytes, random: Random) -> None:
    found = RequestReader().read(data)
    if found is not None:
        body_of(BodyReader(found[0].length), found[1], random)


def http_response_head(data: bytes, random: Random) -> None:
    found = ResponseReader().read(data, random.choice((b"GET", b"HEAD", b"POST")))
    if found is not None:
        body_of(BodyReader(found[0].length, to_the_end=found[0].to_the_end), found[1], random)


def http_chunks(data: bytes, random: Random) -> None:
    body_of(BodyReader(None), data, random)


def retry_after(data: bytes, _random: Random) -> None:
    seconds = seconds_of(data, 1_700_000_000.0)
    assert seconds is None or seconds >= 0


def address(data: bytes, _random: Random) -> None:
    resolve(text_of(data))


def http_url(data: bytes, _random: Random) -> None:
    url = text_of(data)
    place = parse_annex_url(url) if url.startswith("annex") else parse_http_url(url)
    assert isinstance(place.base, bytes)
    assert str(place)


REPOSITORIES = Repositories(
    groups={A: frozenset({"archive"}), B: frozenset({"backup", "client"})}, sizes={A: 5, B: 7}, maxsizes={A: 10, B: 10}
)
FACTS = KeyFacts(Key.parse(seeds.KEY), b"sub-01/anat/aaaaaaaaaaaaaaaaaaaaaaaaaa.nii.gz", frozenset({B}))


def expression(data: bytes, _random: Random) -> None:
    match_expression(parse_expression(text_of(data)), FACTS, REPOSITORIES, A)


def glob(data: bytes, random: Random) -> None:
    found = compile_glob(text_of(data), ignore_case=random.random() < 0.5)
    found.matches("sub-01/anat/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab.nii.gz")
    found.matches(text_of(data))


def git_config(data: bytes, _random: Random) -> None:
    list(parse_config(data))
    changed = with_value(data, "annex.uuid", "x y;z", replace=True)
    assert any(getattr(entry, "value", None) == "x y;z" for entry in parse_config(changed))
    list(parse_config(without(changed, "annex.uuid")))


def git_config_name(data: bytes, _random: Random) -> None:
    name = setting_name(text_of(data))
    assert setting_name(name) == name


def git_attributes(data: bytes, _random: Random) -> None:
    parse_attributes(data)


def git_index(data: bytes, _random: Random) -> None:
    index = GitIndex(data)
    list(index.entries())
    list(index.blobs())


def git_objects(data: bytes, random: Random) -> None:
    (parse_tree if random.random() < 0.5 else commit_parents)(data)


def git_packs(data: bytes, random: Random) -> None:
    """A pack from a byte on, the instructions of a delta, or an object that is a file."""
    match int(random.random() * 3):
        case 0:
            objects = packs.packed(MemoryFiles(), [data, packs.blob(seeds.LOGS[Log.LOCATION])])
        case 1:
            objects = packs.packed(MemoryFiles(), [packs.delta(1, data), packs.blob(seeds.LOGS[Log.LOCATION])])
        case _:
            objects = packs.loose(MemoryFiles(), data)
    found = objects.get(packs.name(0))
    assert found is not None
    assert len(found[1]) < 100 * (len(data) + 1000)


def authorized_keys(data: bytes, _random: Random) -> None:
    keys = AuthorizedKeys(text_of(data))
    keys.find(b"", "192.0.2.1")
    for blob in list(keys._keys):
        keys.find(blob, "2001:db8::1")


@cache
def folder() -> Path:
    """Of a file that is read by its path; gone with the process."""
    made = tempfile.TemporaryDirectory(prefix="annexpy-fuzz-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
    FOLDERS.append(made)
    return Path(made.name)


FOLDERS: list[tempfile.TemporaryDirectory[str]] = []


def serve_config(data: bytes, _random: Random) -> None:
    path = folder() / "serve.toml"
    path.write_bytes(data)
    read_config(str(path))


def store_config(data: bytes, _random: Random) -> None:
    (folder() / CONFIG_NAME).write_bytes(data)
    Config.load(folder())


def front_matter(data: bytes, _random: Random) -> None:
    node = Sidecar.parse(data)
    StorageRecord.from_fields(node.fields)


def changed_front_matter(data: bytes, _random: Random) -> None:
    node = Sidecar.parse(data)
    assert node.with_fields({"verified": True, "copies": 3}).fields["copies"] == 3
