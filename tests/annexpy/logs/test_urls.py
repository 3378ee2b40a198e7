from __future__ import annotations

import pytest

from annexpy.keys.key import Key
from annexpy.logs.urls import Downloader, RecordedUrl, equivalent_keys, urls


@pytest.mark.parametrize(
    ("info", "url", "downloader"),
    [
        (b"http://a/b c", "http://a/b c", Downloader.WEB),
        (b"yt:http://v/", "http://v/", Downloader.VIDEO),
        (b"quvi:http://v/", "http://v/", Downloader.QUVI),
        (b":magnet:?x", "magnet:?x", Downloader.REMOTE),
        (b"\xff", "\udcff", Downloader.WEB),
    ],
)
def test_who_can_get_a_url_stands_before_it(info: bytes, url: str, downloader: Downloader) -> None:
    recorded = RecordedUrl.parse(info)

    assert recorded == RecordedUrl(url, downloader)
    assert bytes(recorded) == info


def test_urls_that_are_present() -> None:
    assert urls(b"150s 1 http://a/b c\n150s 0 http://old/\n150s 1 yt:http://v/\n") == [
        RecordedUrl("http://a/b c"),
        RecordedUrl("http://v/", Downloader.VIDEO),
    ]


def test_equivalent_keys() -> None:
    assert equivalent_keys(b"1s 1 MD5-s1--a\n1s 1 nokey\n1s 0 MD5-s2--b\n") == [Key.parse(b"MD5-s1--a")]
