"""``annex://`` for fsspec: contents of keys, and files of datasets, read in place (extra ``fsspec``).

::

    import fsspec

    fs = fsspec.filesystem("annex", remote="ssh://vault/srv/annex/lab.git")
    fs.cat_file("SHA256E-s41943040--3a9c….nii.gz", start=0, end=348)
    fsspec.open("annex://sub-01/anat.nii.gz@v1.0", dataset="/data/study")
"""

from glimmer_store.fs.filesystem import AnnexFileSystem

__all__ = ["AnnexFileSystem"]
