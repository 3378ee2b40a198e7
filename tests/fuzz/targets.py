"""Every parser of annexpy and glimmer_store that reads what others wrote."""

from __future__ import annotations

from functools import partial

import click

from annexpy.errors import AnnexError, InvalidInput, LocalProtocolError, ProtocolError, RepositoryError
from annexpy.logs.paths import Log
from annexpy.p2p.states import Role
from tests.fuzz import feeds, packs, seeds, sessions
from tests.fuzz.campaign import Target

__all__ = ["targets"]

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

SIZE = packs.number(len(seeds.LOGS[Log.LOCATION]))
PACKED = [
    *(packs.blob(b"hello"), packs.delta(1, SIZE + b"\3\3abc"), b"blob 5\0hello", b"tree 0\0"),
    *(SIZE + packs.number(8) + b"\x90\5\3abc", packs.head(packs.OFFSET_DELTA, 9) + b"\5" + bytes(9)),
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
        Target("keys", feeds.key, keys, [b"-s5", b"-m1", b"-S1", b"-C1", b"SHA256E", b"WORM", b"URL", b"XFOO"], bad),
        Target("P2P lines", feeds.line, seeds.lines(), [seeds.KEY, seeds.A, *wire], (LocalProtocolError,)),
        Target("P2P session, server", sessions.server, seeds.conversations(Role.CLIENT), [*seeds.lines(), *wire], ()),
        Target("P2P session, client", sessions.client, seeds.conversations(Role.SERVER), [*seeds.lines(), *wire], ()),
        Target(
            "HTTP requests", feeds.http_request, seeds.HTTP_TARGETS, [*uuids, seeds.KEY, b"offset=", *HTTP_WORDS], bad
        ),
        Target(
            "HTTP answers",
            feeds.http_answer,
            ANSWERS,
            [b"null", b"true", b"[", b'"\\ud800"', b"[[[[" * 2000],
            (ProtocolError,),
        ),
        Target(
            "HTTP body of keeplocked",
            feeds.http_keeplocked,
            [b'{"unlock":false}\n{"unlock":true}\n'],
            [b'{"unlock":'],
            bad,
        ),
        Target(
            "HTTP chunks",
            feeds.http_chunks,
            [b"5\r\nhello\r\n0\r\n\r\n", b"5;a=b\r\nhello\r\n0\r\nT: x\r\n\r\n"],
            HTTP_WORDS,
            (ProtocolError,),
        ),
        Target("addresses", feeds.address, ADDRESSES, [b"://", b"::", b"ssh://", b"%41", *uuids], bad),
        Target(
            "HTTP URLs", feeds.http_url, [*ADDRESSES, b"annex+https://[::1]:80/x/"], [b"://", b"@", b"%41", b"[::"], bad
        ),
        Target("preferred content", feeds.expression, EXPRESSIONS, EXPRESSION_WORDS, bad),
        Target(
            "git config", feeds.git_config, [GIT_CONFIG], [b"[a]", b'[a "b"]', b"\\\n", b"= ", b"annex", b"uuid"], bad
        ),
        Target(
            "transcripts", sessions.observer, seeds.transcript_lines(), [b'"dir"', b'"C>S"', b'"b64"', b'"len"'], bad
        ),
        Target("HTTP heads of responses", feeds.http_response_head, RESPONSES, HTTP_WORDS, (ProtocolError,)),
        Target("HTTP heads of requests", feeds.http_request_head, seeds.HTTP_HEADS, HTTP_WORDS, (ProtocolError,)),
        Target("store config", feeds.store_config, [STORE], TOML_WORDS, (AnnexError,)),
        Target("front matter", feeds.front_matter, [NODE, NODE.replace(b"\n", b"\r\n")], YAML_WORDS, (AnnexError,)),
        Target("serve config", feeds.serve_config, [CONFIG], TOML_WORDS, (click.ClickException,)),
        Target("merge of logs", feeds.merged, list(seeds.LOGS.values()), uuids, ()),
    ]
    words = [*uuids, b"timestamp=", b"1s ", b"5.5s", b" 1 ", b" X ", b"<<<<<<<", b"!YQ==", b"&32;"]
    every += [
        Target(
            f"log {'*' * log.per_key}{log.value.decode()}", partial(feeds.compacted, log), seeds.logs(log), words, ()
        )
        for log in Log
    ]
    every += [
        Target(
            "names",
            feeds.other_names,
            [*keys, *uuids, b"0e1/097/%s.log" % seeds.KEY, b"1.5 GB", b"../../x"],
            uuids,
            bad,
        ),
        Target(
            "HTTP Retry-After",
            feeds.retry_after,
            [b"5", b"Wed, 21 Oct 2015 07:28:00 GMT", b"Sat, 01-Jan-00 1:2 +2400"],
            [b"-0000"],
            (),
        ),
        Target(
            "globs",
            feeds.glob,
            [b"*.nii", b"a*a*a*a*a*b", b"[!a-z]?[[:alpha:]]", b"**/x"],
            [b"*a", b"[", b"]", b"[:", b"?*"],
            bad,
        ),
        Target("git config names", feeds.git_config_name, [b"annex.uuid", b"remote.a.b.url"], [b"."], bad),
        Target(
            "git attributes",
            feeds.git_attributes,
            [ATTRIBUTES],
            [b"\\", b"[attr]", b"-", b"!", b"annex.numcopies=1"],
            bad,
        ),
        Target("git index", feeds.git_index, INDEX, [bytes(4), b"\xff\xff", b"link"], (RepositoryError,)),
        Target(
            "git trees and commits", feeds.git_objects, OBJECTS, [b"40000 ", b"100644 ", bytes(20)], (RepositoryError,)
        ),
        Target("git packs", feeds.git_packs, PACKED, [bytes(4), b"\xff" * 9, b"blob 5\0", b"\x80"], (RepositoryError,)),
        Target("malformed lines of logs", feeds.malformed, list(seeds.LOGS.values()), uuids, ()),
        Target(
            "authorized keys",
            feeds.authorized_keys,
            AUTHORIZED,
            [b'from="', b"restrict", b'command="', b",", SSH_KEY],
            (),
        ),
        Target("changed front matter", feeds.changed_front_matter, [NODE], YAML_WORDS, (AnnexError,)),
    ]
    return every
