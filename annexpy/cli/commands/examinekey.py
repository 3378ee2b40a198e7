"""``annexpy examinekey``: what the text of a key says, without any repository."""

from __future__ import annotations

import click

from annexpy.cli.keys import key_lines, wants_stdin
from annexpy.cli.options import Options, as_command
from annexpy.cli.show import Report, human_size, write_json, write_line
from annexpy.errors import InvalidKey
from annexpy.keys.key import Key
from annexpy.keys.layout import hash_dir_lower, hash_dir_mixed, object_paths
from annexpy.keys.pointer import pointer

__all__ = ["command"]


@as_command("examinekey")
@click.argument("keys", metavar="[KEY]...", nargs=-1)
@click.option("--batch", is_flag=True, help="Read keys from standard input, one a line.")
@click.option("--bare", is_flag=True, help="Paths as in a bare repository.")
def command(options: Options, keys: tuple[str, ...], batch: bool, bare: bool) -> int:
    """Print what each KEY says: backend, size, hash directories, path of its object.

    Nothing is looked up; a key is examined whether or not anybody has it.
    """
    report = Report(options, "examinekey")
    for line in key_lines(keys, batch):
        try:
            key = Key.parse(line)
        except InvalidKey as error:
            if not wants_stdin(keys, batch):
                raise
            report.failed(error, input=[line])
            continue
        fields = _fields(key, bare)
        if options.json:
            # git-annex prints the fields alone here, without the frame of a result
            write_json({"error-messages": []} | fields)
        else:
            write_line(str(key))
    return report.exit_code


def _fields(key: Key, bare: bool) -> dict[str, object]:
    lower, mixed = object_paths(key)
    return {
        "backend": key.backend.decode("utf-8", "surrogateescape"),
        "bytesize": "unknown" if key.size is None else str(key.size),
        "hashdirlower": hash_dir_lower(key).decode(),
        "hashdirmixed": hash_dir_mixed(key).decode(),
        "humansize": human_size(key.size),
        "key": str(key),
        "keyname": key.name.decode("utf-8", "surrogateescape"),
        "mtime": "unknown" if key.mtime is None else str(key.mtime),
        "objectpath": (b"./annex/objects/" + lower if bare else b".git/annex/objects/" + mixed).decode(
            "utf-8", "surrogateescape"
        ),
        "objectpointer": pointer(key).decode("utf-8", "surrogateescape"),
    }
