"""The storage fields of a Glimmer node as data: what they are, what they may hold, what Glimmer itself asks."""

from glimmer_store.schema.fields import FIELDS, Field, Problem, problems
from glimmer_store.schema.glimmer import GLIMMER, Glimmer
from glimmer_store.schema.published import frontmatter_patch, json_schema

__all__ = ["FIELDS", "GLIMMER", "Field", "Glimmer", "Problem", "frontmatter_patch", "json_schema", "problems"]
