"""One node's part of a put that waits for nobody: a small content, and a repository on this machine that does not sync.

No task is switched to, and no deadline runs: what is done for such a node is over before anybody could look.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from annexpy.errors import AnnexError
from annexpy.remote.base import Upload
from annexpy.remote.health import Node
from annexpy.remote.kinds import bare_local
from annexpy.remote.put_lane import Course, End, Lane

__all__ = ["QuickLane", "lane_of"]


class QuickLane(Lane):
    """A lane that whoever holds the put drives itself: ``begin``, and ``end`` when the source has ended.

    Its node's ``put()`` is entered and left by the holder's task, so it needs none of its own.
    """

    __slots__ = ("_began", "_context", "_upload")

    def __init__(self, course: Course, node: Node) -> None:
        super().__init__(course, node)
        self._began = 0.0
        self._context: AbstractAsyncContextManager[Upload] | None = None
        self._upload: Upload | None = None

    async def begin(self) -> bool:
        """Ask the node what it wants; False where it is left to an ordinary lane, which may have to ask twice."""
        course, node = self._course, self.node
        try:
            self._began = node.glance()
            context = node.remote.put(course.key, associated_file=course.associated_file)
            upload = await context.__aenter__()
        except AnnexError as error:
            self._leave(self._began, error)
            return True
        if upload.already is None and upload.offset > (course.key.size or 0):
            await context.__aexit__(None, None, None)
            return False
        node.heard(self._began)
        if upload.already is None:
            self._context, self._upload = context, upload
            self._takes_part(upload.offset)
            return True
        await context.__aexit__(None, None, None)
        self.already = upload.already
        self._settled()
        return True

    async def end(self) -> None:
        """The source has ended: give the node what there is, and leave it. Raises nothing about the node."""
        context, self._context = self._context, None
        if context is None or self._upload is None:
            return
        try:
            try:
                await self._give(self._upload)
            except BaseException as error:
                await context.__aexit__(type(error), error, error.__traceback__)
                raise
            await context.__aexit__(None, None, None)
        except AnnexError as error:
            self._leave(self._began, error)

    async def _give(self, upload: Upload) -> None:
        course = self._course
        if course.end is End.PRESENT:
            self._store(await upload.data_present())
            return
        if course.length is None:
            return
        skip, length = self._share()
        await upload.start(length)
        while self.queue:
            piece = self.queue.popleft()
            if skip < len(piece):
                await upload.write(piece[skip:] if skip else piece)
                skip = 0
            else:
                skip -= len(piece)
        if course.end is not End.LEFT:
            self._store(await upload.finish(course.end is End.VALID))


def lane_of(course: Course, node: Node) -> Lane:
    """The lane that suits *node*, which is well as far as is known when it is a quick one."""
    local = bare_local(node.remote) if node.error is None else None
    quick = local is not None and local.store.settings.at_once(course.key.size)
    return QuickLane(course, node) if quick else Lane(course, node)
