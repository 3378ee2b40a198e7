"""Every parser of annexpy and glimmer_store that reads what others wrote."""

from __future__ import annotations

import os
import tempfile
from functools import cache, partial
from pathlib import Path
from random import Random

import click

from annexpy.cli.serve_config import read_config
from annexpy.errors import AnnexError, InvalidInput, LocalProtocolError, ProtocolError, RepositoryError
from annexpy.keys.backend import digest_of, extension, verifier
from annexpy.keys.key import Key
from annexpy.keys.layout import file_key, key_file, object_paths
from annexpy.keys.storable import check_storable
from annexpy.logs.compact import COMPACT, malformed_lines
from annexpy.logs.line import union_merge
from annexpy.logs.location import LocationLog
from annexpy.logs.metadata import current_metadata
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
from annexpy.p2p.states import Role
from annexpy.policy.expression import parse as parse_expression
from annexpy.policy.facts import KeyFacts, Repositories
from annexpy.policy.globs import compile_glob
from annexpy.policy.matchexpression import match_expression
from annexpy.policy.numcopies import read_number
from annexpy.remote.address import resolve
from annexpy.remote.http_line import seconds_of
from annexpy.remote.http_url import parse_annex_url, parse_http_url
from annexpy.repo.attributes import key_of_link, key_of_pointer, parse_attributes
from annexpy.repo.gitconfig import parse_config, setting_name, with_value, without
from annexpy.repo.gitindex import GitIndex
from annexpy.repo.trees import commit_parents, parse_tree
from annexpy.server.authorized import AuthorizedKeys
from annexpy.transport.http import BodyReader, RequestReader, ResponseReader
from annexpy.uuids import UUID, parse_uuid
from glimmer_store.config import CONFIG_NAME, Config
from glimmer_store.record import StorageRecord
from glimmer_store.sidecar import Sidecar
from tests.fuzz import seeds, sessions
from tests.fuzz.campaign import Target

__all__ = ["targets"]

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
    key_of_link(data)
    key_of_pointer(data)
    read_number(data)
    parse_size(text_of(data))
    unescape_associated_file(data)
    parse_uuid(data)


def compacted(log: Log, data: bytes, _random: Random) -> None:
    once = COMPACT[log](data)
    assert COMPACT[log](once) == once, f"not the same when done again: {once!r}"
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


EXPRESSIONS = [case["expr"].encode() for case in seeds.vectors("preferred_content")["cases"]]
EXPRESSION_WORDS = [
    *(b"and", b"or", b"not", b"(", b")", b"include=*.nii", b"exclude=a/*", b"copies=archive:2", b"copies=trusted+:1"),
    *(b"lackingcopies=1", b"approxlackingcopies=1", b"smallerthan=10mb", b"largerthan=1.5 gb", b"metadata=a=b*"),
    *(b"metadata=year>=2020", b"inbackend=SHA256E", b"inallgroup=client", b"onlyingroup=x", b"present", b"standard"),
    *(
        b"groupwanted",
        b"balanced=archive:2",
        b"fullysizebalanced=archive",
        b"unused",
        b"anything",
        b"nothing",
        b"url=*",
    ),
]
CONFIG = b"""# serve
directories = ["/srv/a", "~/b"]
may = "append-only"
uuids = ["%s"]
[http]
listen = ["127.0.0.1:0"]
wideopen = false
url = "https://x.org/git-annex/"
[ssh]
listen = ["[::1]:0"]
authorized-keys = "keys"
[unix]
listen = ["n=/run/x"]
[[user]]
name = "u"
token = "0123456789abcdef0123456789abcdef"
may = ["read", "lock"]
repositories = ["%s"]
""" % (seeds.A, seeds.B)
STORE = b"""graph = "rokb"
backend = "SHA256E"
[classes.irreplaceable]
numcopies = 3
[[durable]]
name = "a"
uuid = "%s"
url = "ssh://x/y"
[[durable]]
name = "b"
uuid = "%s"
url = "/z"
""" % (seeds.A, seeds.B)
TOML_WORDS = [
    b"[[user]]\n",
    b"[http]\n",
    b'"""',
    b"'''",
    b"1979-05-27T07:32:00Z",
    b"inf",
    b"[[[[[[",
    b"a.b.c = 1\n",
    b"{",
    b"\\u0000",
]
NODE = b"""---
id: out-1
type: output
key: "%s"
stored-at:
- remote: a
  uuid: %s
copies: 1
numcopies-required: 3
verified: true
storage-class: generated
tags: [x, y, {z: 1}]
---

# Body
text
""" % (seeds.KEY, seeds.A)
YAML_WORDS = [
    b"&a",
    b"*a",
    b"!!python/object:x.y",
    b"- ",
    b"? ",
    b": ",
    b"|\n",
    b">-\n",
    b"---\n",
    b"...\n",
    b"<<: ",
    b"%YAML 1.2\n",
]
GIT_CONFIG = (
    b"""[core]
\tbare = true ; x
[remote "a \\"b\\" c"]
\turl = ssh://x/y
\tfetch = +refs/heads/*:refs/remotes/a/*
[annex]
\tuuid = "%s" # y
\tflag
\tlong = a \\
  b
[include]
\tpath = x
"""
    % seeds.A
)
ATTRIBUTES = b'* annex.backend=SHA256E\n*.txt annex.numcopies=2 -diff !text\n"a b" merge=x\n[attr]binary -diff\n'
SSH_KEY = b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ8t3rT3y1Wb4n6m2p8aKc0QZB0s2d3Z8Xb0l5m1yW1M you@there"
AUTHORIZED = [
    SSH_KEY,
    b'restrict,from="192.0.2.0/24,!10.*",command="GIT_ANNEX_SHELL_READONLY=1 annexpy-shell -c \\"$X\\"" ' + SSH_KEY,
]
ADDRESSES = [
    *(b"ssh://u@h:22/~/x", b"h:path", b"u@[::1]:x", b"annex+http://h:9417/git-annex/", b"https://u:p@h/x.git?a=b#c"),
    *(
        b"unix:/run/x",
        b"exec:ssh h 'a b'",
        b"p2p-annex::tor:abc.onion:1",
        b"file:///a%20b",
        b"../x",
        b"s3::x",
        b"git://h/x",
    ),
]
ANSWERS = [
    *(b'{"present":true}', b'{"offset":5}', b'{"alreadyhave":true,"plusuuids":["%s"]}' % seeds.A),
    *(b'{"stored":true,"plusuuids":[]}', b'{"removed":false}', b'{"timestamp":123}', b'{"locked":true,"lockid":"x"}'),
]
RESPONSES = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-git-annex-data-length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n5;a=b\r\nhello\r\n0\r\nT: x\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\n\r\nno",
    b"HTTP/1.0 206 Partial\r\nContent-Range: bytes 0-4/5\r\nRetry-After: 5\r\n\r\n",
]
HTTP_WORDS = [
    b"\r\n",
    b"\r\n\r\n",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"chunked",
    b"HTTP/1.1",
    b"%",
    b"%00",
]
INDEX = [
    b"DIRC\0\0\0\2\0\0\0\1" + bytes(24) + b"\0\0\x81\xa4" + bytes(32) + b"\0\5a/b.c" + bytes(3) + bytes(20),
    b"DIRC\0\0\0\4\0\0\0\2" + (bytes(24) + b"\0\0\x81\xa4" + bytes(32) + b"\0\1\0a\0") * 2 + bytes(20),
]
OBJECTS = [
    b"100644 a\0" + bytes(20) + b"40000 b\0" + bytes(range(20)),
    b"tree " + b"0" * 40 + b"\nparent " + b"1" * 40 + b"\n",
]


def targets() -> list[Target]:
    """All of them: of connections and files, of the branch, of single values."""
    keys, bad, uuids = seeds.keys(), (InvalidInput,), [seeds.A, seeds.B, seeds.CLUSTER]
    wire = [
        b"\r",
        b" 5",
        b"DATA 5\nhello",
        b"VALID\n",
        b"INVALID\n",
        b"ERROR x\n",
        b"SUCCESS\n",
        b"FAILURE\n",
        b"PUT-FROM 0\n",
    ]
    every = [
        Target("keys", key, keys, [b"-s5", b"-m1", b"-S1", b"-C1", b"SHA256E", b"WORM", b"URL", b"XFOO"], bad),
        Target("P2P lines", line, seeds.lines(), [seeds.KEY, seeds.A, *wire], (LocalProtocolError,)),
        Target("P2P session, server", sessions.server, seeds.conversations(Role.CLIENT), [*seeds.lines(), *wire], ()),
        Target("P2P session, client", sessions.client, seeds.conversations(Role.SERVER), [*seeds.lines(), *wire], ()),
        Target("HTTP requests", http_request, seeds.HTTP_TARGETS, [*uuids, seeds.KEY, b"offset=", *HTTP_WORDS], bad),
        Target(
            "HTTP answers",
            http_answer,
            ANSWERS,
            [b"null", b"true", b"[", b'"\\ud800"', b"[[[[" * 2000],
            (ProtocolError,),
        ),
        Target(
            "HTTP body of keeplocked", http_keeplocked, [b'{"unlock":false}\n{"unlock":true}\n'], [b'{"unlock":'], bad
        ),
        Target(
            "HTTP chunks",
            http_chunks,
            [b"5\r\nhello\r\n0\r\n\r\n", b"5;a=b\r\nhello\r\n0\r\nT: x\r\n\r\n"],
            HTTP_WORDS,
            (ProtocolError,),
        ),
        Target("addresses", address, ADDRESSES, [b"://", b"::", b"ssh://", b"%41", *uuids], bad),
        Target("HTTP URLs", http_url, [*ADDRESSES, b"annex+https://[::1]:80/x/"], [b"://", b"@", b"%41", b"[::"], bad),
        Target("preferred content", expression, EXPRESSIONS, EXPRESSION_WORDS, bad),
        Target("git config", git_config, [GIT_CONFIG], [b"[a]", b'[a "b"]', b"\\\n", b"= ", b"annex", b"uuid"], bad),
        Target(
            "transcripts", sessions.observer, seeds.transcript_lines(), [b'"dir"', b'"C>S"', b'"b64"', b'"len"'], bad
        ),
        Target("HTTP heads of responses", http_response_head, RESPONSES, HTTP_WORDS, (ProtocolError,)),
        Target("HTTP heads of requests", http_request_head, seeds.HTTP_HEADS, HTTP_WORDS, (ProtocolError,)),
        Target("store config", store_config, [STORE], TOML_WORDS, (AnnexError,)),
        Target("front matter", front_matter, [NODE, NODE.replace(b"\n", b"\r\n")], YAML_WORDS, (AnnexError,)),
        Target("serve config", serve_config, [CONFIG], TOML_WORDS, (click.ClickException,)),
        Target("merge of logs", merged, list(seeds.LOGS.values()), uuids, ()),
    ]
    words = [*uuids, b"timestamp=", b"1s ", b"5.5s", b" 1 ", b" X ", b"<<<<<<<", b"!YQ==", b"&32;"]
    every += [
        Target(f"log {'*' * log.per_key}{log.value.decode()}", partial(compacted, log), seeds.logs(log), words, ())
        for log in Log
    ]
    every += [
        Target("names", other_names, [*keys, *uuids, b"0e1/097/%s.log" % seeds.KEY, b"1.5 GB", b"../../x"], uuids, bad),
        Target(
            "HTTP Retry-After",
            retry_after,
            [b"5", b"Wed, 21 Oct 2015 07:28:00 GMT", b"Sat, 01-Jan-00 1:2 +2400"],
            [b"-0000"],
            (),
        ),
        Target(
            "globs",
            glob,
            [b"*.nii", b"a*a*a*a*a*b", b"[!a-z]?[[:alpha:]]", b"**/x"],
            [b"*a", b"[", b"]", b"[:", b"?*"],
            bad,
        ),
        Target("git config names", git_config_name, [b"annex.uuid", b"remote.a.b.url"], [b"."], bad),
        Target(
            "git attributes", git_attributes, [ATTRIBUTES], [b"\\", b"[attr]", b"-", b"!", b"annex.numcopies=1"], bad
        ),
        Target("git index", git_index, INDEX, [bytes(4), b"\xff\xff", b"link"], (RepositoryError,)),
        Target("git trees and commits", git_objects, OBJECTS, [b"40000 ", b"100644 ", bytes(20)], (RepositoryError,)),
        Target("malformed lines of logs", malformed, list(seeds.LOGS.values()), uuids, ()),
        Target(
            "authorized keys", authorized_keys, AUTHORIZED, [b'from="', b"restrict", b'command="', b",", SSH_KEY], ()
        ),
        Target("changed front matter", changed_front_matter, [NODE], YAML_WORDS, (AnnexError,)),
    ]
    return every
